#!/usr/bin/env bash
# Upgrade a running deploy/compose.yaml to the image that .env names, or that was just built, without a request unanswered
# by the workers: new ones are started and healthy before the old ones stop.
#
#   deploy/upgrade.sh [--workers-only] [COMPOSE OPTIONS]
#
# Run it in the folder of the checkout after `docker compose build` or with a new SHOPLENS_IMAGE in .env. COMPOSE OPTIONS
# are those that you start with, such as --project-name or --env-file. DOCKER and COMPOSE name other programs. It needs
# memory for twice the workers for about a minute. docs/how-to/upgrade.md says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

DOCKER=${DOCKER:-docker}
COMPOSE=${COMPOSE:-$DOCKER compose}
HEALTHY_WITHIN_S=${HEALTHY_WITHIN_S:-180}
STOP_WITHIN_S=${STOP_WITHIN_S:-30} # more than shutdown_s, in which a worker finishes what it took
workers_only=false
if [ "${1:-}" = --workers-only ]; then
    workers_only=true
    shift
fi
options=("$@")

docker() { command $DOCKER "$@"; }
compose() { $COMPOSE "${options[@]}" "$@"; }
fail() {
    echo "The upgrade stopped: $*" >&2
    exit 1
}

# Until every one of these containers is healthy.
wait_healthy() {
    local id status give_up_at=$((SECONDS + HEALTHY_WITHIN_S))
    for id in "$@"; do
        while true; do
            status=$(docker inspect --format '{{.State.Health.Status}}' "$id" 2>/dev/null || echo gone)
            case $status in
                healthy) break ;;
                unhealthy | gone) fail "a new worker is $status (docker logs $id). The old ones still run." ;;
            esac
            [ "$SECONDS" -lt "$give_up_at" ] ||
                fail "a new worker was not healthy within $HEALTHY_WITHIN_S s (docker logs $id). The old ones still run."
            sleep 1
        done
    done
}

mapfile -t old < <(compose ps --quiet --status running worker)
[ "${#old[@]}" -gt 0 ] || fail "no worker runs. Start the services with \`docker compose up --detach --wait\` instead."

echo "Tables and models."
compose run --rm --no-deps -T migrate
compose run --rm --no-deps -T models

echo "Starting ${#old[@]} new workers beside the old ones."
compose up --detach --no-deps --no-recreate --scale "worker=$((2 * ${#old[@]}))" worker
mapfile -t new < <(compose ps --quiet --status running worker | grep -vxF "$(printf '%s\n' "${old[@]}")" || true)
[ "${#new[@]}" -eq "${#old[@]}" ] || fail "${#new[@]} of ${#old[@]} new workers run. The old ones still run."
wait_healthy "${new[@]}"

# One at a time: the others take the queue meanwhile, and each finishes what it took.
for id in "${old[@]}"; do
    docker stop --time "$STOP_WITHIN_S" "$id" >/dev/null
    docker rm "$id" >/dev/null
    echo "An old worker has finished."
done

if ! $workers_only; then
    echo "The web server: it finishes what it accepted, and the new one answers some seconds later."
    compose up --detach --wait --no-deps --no-recreate --scale "worker=${#new[@]}" worker
    compose up --detach --wait --no-deps web
fi
echo "Upgraded: ${#new[@]} workers."

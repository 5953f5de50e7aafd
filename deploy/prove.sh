#!/usr/bin/env bash
# Prove the images and deploy/compose.yaml on this machine: build, run tests in the build, start, scale, send photos
# while a worker is killed, Redis restarted and the workers upgraded, run a batch, restart, see that nothing is lost,
# restore a backup, clean up.
# It needs docker, Compose and curl, and uses a project, a port and passwords of its own, so it harms nothing.
#
#   deploy/prove.sh [--local] [--tests "PYTEST ARGUMENTS" | --no-tests] [--keep]
#
# --local is for machines that reach packages but no registry of images: it makes the base image with mmdebstrap (root)
# and stand-ins for the other projects' images. BASE_TAR names a base that is made already. DOCKER and COMPOSE name
# other programs; PROVE_PORT another port. Builds use the network of this machine (BUILD_NETWORK=default changes that).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DOCKER=${DOCKER:-docker}
COMPOSE=${COMPOSE:-$DOCKER compose}
BUILD_NETWORK=${BUILD_NETWORK:-host}
PORT=${PROVE_PORT:-18080}
PROJECT=shoplens-prove
URL=http://127.0.0.1:$PORT
BASE=${BASE:-python:3.11-slim-bookworm}
DRAWN=40
SIMULATE=/srv/shoplens/examples/simulate_returns.py
DROP_FOLDER=/var/lib/shoplens/drop
local_images=false
keep=false
lose=
tests="tests/unit/images tests/unit/predictions"
work=$(mktemp -d)
started=$SECONDS

say() { printf '%4d s  %s\n' "$((SECONDS - started))" "$*"; }
fail() {
    say "FAILED: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --local) local_images=true ;;
        --keep) keep=true ;;
        --no-tests) tests= ;;
        --lose)
            lose=$2
            shift
            ;;
        --tests)
            tests=$2
            shift
            ;;
        *) fail "$1 is not an option; see the head of this file" ;;
    esac
    shift
done

of_project=(--project-name "$PROJECT" --env-file "$work/env" --file "$PWD/deploy/compose.yaml")
if $local_images; then of_project+=(--file "$PWD/deploy/compose.local.yaml"); fi

docker() { command $DOCKER "$@"; }

compose() { $COMPOSE "${of_project[@]}" "$@"; }

clean() {
    local status=$?
    trap - EXIT
    if [ -s "$work/env" ]; then
        if [ "$status" -ne 0 ]; then
            compose ps --all || true
            compose logs --no-color --tail 40 || true
        fi
        if $keep; then
            say "kept: $COMPOSE --project-name $PROJECT --env-file $work/env --file deploy/compose.yaml …"
            exit "$status"
        fi
        compose --profile '*' down --volumes --remove-orphans --timeout 20 >/dev/null 2>&1 || status=1
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean EXIT

secret() { od -An -N 16 -t x1 /dev/urandom | tr -d ' \n'; }

write_env() {
    {
        for name in POSTGRES_PASSWORD REDIS_PASSWORD S3_ACCESS_KEY S3_SECRET_KEY; do echo "$name=$(secret)"; done
        echo "SHOPLENS_IMAGE=$PROJECT:latest"
        echo "PUBLISH=127.0.0.1:$PORT"
        echo "PROMETHEUS_PUBLISH=127.0.0.1:$((PORT + 1))"
        echo "WORKER_CPUS=${PROVE_WORKER_CPUS:-1}"
        echo "BASE=$BASE"
    } >"$work/env"
    chmod 600 "$work/env"
}

# A Debian with Python, this machine's certificates and pip's settings: what the official image would be elsewhere.
make_base() {
    local tar=${BASE_TAR:-$work/base.tar} settings=()
    python3 -c 'import configparser, sys; all = configparser.RawConfigParser(); all.read(sys.argv[2:])
if all.sections(): all.write(open(sys.argv[1], "w"))' \
        "$work/pip.conf" /etc/pip.conf "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "${PIP_CONFIG_FILE:-}"
    if [ ! -f "$tar" ]; then
        # shellcheck disable=SC2016  # mmdebstrap's shell expands it
        settings+=(--customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python3"')
        # shellcheck disable=SC2016
        settings+=(--customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"; ln -s /usr/bin/pip3 "$1/usr/local/bin/pip"')
        settings+=(--customize-hook="copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs")
        if [ -s "$work/pip.conf" ]; then settings+=(--customize-hook="copy-in $work/pip.conf /etc"); fi
        mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
            "${settings[@]}" bookworm "$tar"
    fi
    docker import --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' --change 'CMD ["python3"]' "$tar" "$BASE" \
        >/dev/null
}

build() { # TARGET TAG, then more arguments
    local target=$1 tag=$2 log
    log="$work/build-$target.log"
    shift 2
    DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-1} docker build --network "$BUILD_NETWORK" --build-arg "BASE=$BASE" \
        --target "$target" --tag "$tag" "$@" . >"$log" 2>&1 || {
        tail -60 "$log" >&2
        fail "the build of $target"
    }
}

build_image() { build runtime "$PROJECT:latest" --file deploy/docker/Dockerfile --build-arg "REVISION=$1"; }

size() { docker image inspect --format '{{.Size}}' "$1" | awk '{ printf "%d MB", $1 / 1e6 }'; }

build_all() {
    if $local_images; then
        if ! docker image inspect "$BASE" >/dev/null 2>&1; then
            make_base
            say "made the base image $BASE ($(size "$BASE"))"
        fi
        for name in redis postgres s3 prometheus; do
            build "$name" "shoplens-standin-$name" --file deploy/docker/standins.Dockerfile
        done
        say "built the stand-ins"
    fi
    build_image "$(git rev-parse HEAD 2>/dev/null || echo unknown)"
    say "built the image ($(size "$PROJECT:latest"))"
    if [ -n "$tests" ]; then
        build test "$PROJECT:test" --file deploy/docker/Dockerfile --build-arg "TESTS=$tests"
        say "tests ran in the build: $(grep -oE '[0-9]+ passed[^=]*' "$work/build-test.log" | tail -1)"
    fi
}

up() { compose up --detach --wait --wait-timeout 300 --no-build "$@" >"$work/up.log" 2>&1 || {
    cat "$work/up.log" >&2
    fail "up $*"
}; }

get() { curl --silent --show-error --fail --max-time 20 "$URL$1"; }

# Photos: drawn ones, made by the image itself.
draw_photos() {
    # shellcheck disable=SC2016  # the shell in the container expands it
    compose run --rm --no-deps --entrypoint sh -T web -ec \
        'into=$(mktemp -d); python '"$SIMULATE"' --count '"$DRAWN"' --seed 3 --into "$into" >&2; cd "$into"; tar -cf - ./*.jpg' \
        >"$work/drawn.tar" 2>"$work/drawn.log" || {
        cat "$work/drawn.log" >&2
        fail "drawing photos"
    }
    mkdir "$work/photos"
    tar -C "$work/photos" -xf "$work/drawn.tar"
}

# Sends one photo, and again after 429 and 503, as a good client does. Logs the status, the tries and the record's id.
send() {
    local answer status tries
    for tries in $(seq 1 60); do
        answer=$(curl --silent --write-out ' %{http_code}' --max-time 30 \
            --form "file=@$1" "$URL/predict?channel=$2" || true)
        status=${answer##* }
        case $status in
            200) break ;;
            429 | 502 | 503 | 504) sleep 0.5 ;;
            *) break ;;
        esac
    done
    echo "$status $tries $(sed -n 's/^{"id":"\([0-9a-z]*\)".*/\1/p' <<<"$answer")" >>"$3"
}

# Rounds of all photos until the file STOP is there, so that there is sending whatever else happens.
send_until() { # STOP CHANNEL LOG
    while [ ! -e "$1" ]; do
        send_all "$2" "$3"
        echo round >>"$3.rounds"
    done
}

send_all() { # CHANNEL LOG: every photo, four at a time
    local photo
    for photo in "$work"/photos/*.jpg; do
        send "$photo" "$1" "$2" &
        while [ "$(jobs -rp | wc -l)" -ge 4 ]; do wait -n || true; done
    done
    wait
}

answered() { # LOG ROUNDS WHAT: every photo has got its answer
    local good all
    all=$(($2 * $(find "$work/photos" -name '*.jpg' | wc -l)))
    good=$(grep -c '^200 ' "$1" || true)
    [ "$good" -eq "$all" ] || fail "$3: $good of $all photos were answered: $(cut -d ' ' -f 1,2 "$1" | sort | uniq -c | tr '\n' ';')"
    say "$3: $good of $all photos answered, after $(awk '{ n += $2 - 1 } END { print n + 0 }' "$1") refusals that were tried again"
}

# Every record that was answered is among the exported ones, and its photo can be fetched.
all_kept() { # EXPORT WHEN
    local missing id wanted
    cut -d ' ' -f 3 "$work/first" "$work/trouble" "$work/upgrade" | sort >"$work/answered"
    missing=$(cut -d , -f 1 "$1" | sort | comm -13 - "$work/answered" | wc -l)
    [ "$missing" -eq 0 ] || fail "$2: $missing answered records are missing"
    wanted=$(sort --unique "$work/answered")
    for id in $wanted; do
        get "/predictions/$id/image?size=thumbnail" >/dev/null 2>&1 || fail "$2: the photo of the record $id is missing"
    done
    say "$2: all $(wc -l <"$work/answered") answered records and their photos are there"
}

take_away() {
    local id key
    id=$(sed -n '5s/.* //p' "$work/first")
    key=$(grep "^$id," "$work/records-before.csv" | cut -d , -f 12)
    # shellcheck disable=SC2016  # the shell in the container expands it
    case $lose in
        row) compose exec -T postgres sh -c 'PGPASSWORD=$POSTGRES_PASSWORD psql --host 127.0.0.1 --username shoplens shoplens' <<<"DELETE FROM predictions WHERE id = '$id';" ;;
        photo) compose exec -T s3 sh -c "echo 'fs.rm /buckets/shoplens/photos/$key' | weed shell -master=127.0.0.1:9333" ;;
        service) compose rm --stop --force prometheus ;;
        *) fail "--lose takes row, photo or service" ;;
    esac >"$work/lose.log" 2>&1 || fail "taking a $lose away: $(tail -3 "$work/lose.log")"
    say "took away a $lose"
}

# Workers of another image take over while photos are sent: each is answered at its first try.
upgrade_workers() {
    local sending old refused
    build_image upgraded
    old=$(compose ps --quiet worker | sort)
    send_until "$work/upgraded" look "$work/upgrade" &
    sending=$!
    sleep 2
    DOCKER=$DOCKER COMPOSE=$COMPOSE deploy/upgrade.sh --workers-only "${of_project[@]}" >"$work/upgrade.log" 2>&1 || {
        cat "$work/upgrade.log" >&2
        fail "deploy/upgrade.sh"
    }
    sleep 2
    touch "$work/upgraded"
    wait "$sending"
    answered "$work/upgrade" "$(wc -l <"$work/upgrade.rounds")" "all workers replaced meanwhile"
    refused=$(awk '$2 > 1' "$work/upgrade" | wc -l)
    [ "$refused" -eq 0 ] || fail "$refused photos were refused during the upgrade"
    [ "$(running)" -eq 5 ] || fail "there are $(running) workers after the upgrade, not 5"
    [ -z "$(compose ps --quiet worker | sort | comm -12 - <(echo "$old"))" ] || fail "old workers run after the upgrade"
    say "upgraded five workers; no request was refused"
}

running() { compose ps --quiet --status running worker | wc -l; }

main() {
    write_env
    build_all

    up --scale worker=3
    [ "$(running)" -eq 3 ] || fail "there are $(running) workers, not 3"
    say "up with three workers, all healthy"
    draw_photos
    send_all look "$work/first"
    answered "$work/first" 1 "three workers"

    up --scale worker=5
    [ "$(running)" -eq 5 ] || fail "there are $(running) workers, not 5"
    say "up with five workers"
    send_until "$work/enough" look "$work/trouble" &
    local sending=$!
    sleep 2
    docker kill "$(compose ps --quiet worker | head -1)" >/dev/null
    say "killed a worker"
    sleep 5
    compose restart --timeout 5 redis >/dev/null 2>&1
    say "restarted Redis"
    sleep 3
    touch "$work/enough"
    wait "$sending"
    answered "$work/trouble" "$(wc -l <"$work/trouble.rounds")" "a worker killed and Redis restarted meanwhile"
    up --scale worker=5
    say "five workers again"
    upgrade_workers

    compose exec -T web python "$SIMULATE" --messy --seed 7 --into "$DROP_FOLDER" >/dev/null 2>&1
    compose exec -T web shoplens batch ingest 2>/dev/null
    compose exec -T web shoplens batch run --engine local 2>/dev/null
    compose exec -T web python "$SIMULATE" --count 20 --seed 8 --into "$DROP_FOLDER" >/dev/null 2>&1
    compose exec -T web shoplens batch ingest 2>/dev/null
    compose exec -T web shoplens batch run 2>/dev/null
    compose exec -T web shoplens batch export --all --output - --format csv 2>/dev/null >"$work/before.csv"
    get /predictions.csv >"$work/records-before.csv"
    say "a run in the container, another on the workers: $(($(wc -l <"$work/before.csv") - 1)) items in the table, $(($(wc -l <"$work/records-before.csv") - 1)) records"

    if [ -n "$lose" ]; then take_away; fi
    compose restart --timeout 30 >/dev/null 2>&1
    if [ "$lose" = service ]; then up --scale worker=5 web worker; else up --scale worker=5; fi
    compose exec -T web shoplens batch export --all --output - --format csv 2>/dev/null >"$work/after.csv"
    get /predictions.csv >"$work/records-after.csv"
    cmp "$work/before.csv" "$work/after.csv" || fail "the table of returns differs after the restart"
    cmp "$work/records-before.csv" "$work/records-after.csv" || fail "the records differ after the restart"
    say "restarted everything: records and table are the same"
    all_kept "$work/records-after.csv" "after the restart"

    watched
    rebuild_from_backup
    compose --profile '*' down --volumes --remove-orphans --timeout 30 >/dev/null 2>&1
    [ -z "$(docker ps --all --quiet --filter "label=com.docker.compose.project=$PROJECT")" ] || fail "containers are left"
    [ -z "$(docker volume ls --quiet --filter "label=com.docker.compose.project=$PROJECT")" ] || fail "volumes are left"
    say "down, nothing is left"
    say "PROVED"
}

# Photos, rows, photos into a folder; every volume destroyed; all of it back: docs/how-to/back-up-and-restore.md.
rebuild_from_backup() {
    # shellcheck disable=SC2016  # the shell in the container expands it
    local tool='PGPASSWORD=$POSTGRES_PASSWORD "$0" --username shoplens --dbname shoplens "$@"'
    mkdir -m 777 "$work/backup"
    backup() { compose run --rm --no-deps -T --volume "$work/backup:/backup" web "$1" /backup >>"$work/backup.log" 2>&1; }
    backup backup
    compose exec -T postgres sh -c "$tool" pg_dump --format=custom >"$work/rows.dump"
    backup backup
    compose --profile '*' down --volumes --timeout 30 >/dev/null 2>&1
    up postgres s3
    backup restore || fail "restore: $(tail -3 "$work/backup.log")"
    compose exec -T postgres sh -c "$tool" pg_restore --no-owner --exit-on-error <"$work/rows.dump"
    up --scale worker=1
    compose exec -T web shoplens batch export --all --output - --format csv 2>/dev/null >"$work/restored.csv"
    get /predictions.csv >"$work/records-restored.csv"
    cmp "$work/before.csv" "$work/restored.csv" || fail "the table of returns differs after the restore"
    cmp "$work/records-before.csv" "$work/records-restored.csv" || fail "the records differ after the restore"
    say "destroyed every volume and restored the backup: records and table are the same"
    all_kept "$work/records-restored.csv" "after the restore"
}

# Prometheus reaches the web server, all five workers and itself.
watched() {
    local up tries
    for tries in $(seq 1 30); do
        up=$({ curl --silent --max-time 5 "http://127.0.0.1:$((PORT + 1))/api/v1/targets?state=active" || true; } |
            { grep -o '"health":"up"' || true; } | wc -l)
        if [ "$up" -eq 7 ]; then
            say "Prometheus scrapes the web server and five workers"
            return
        fi
        sleep 2
    done
    fail "Prometheus reaches $up targets after $tries tries, not 7"
}

main

"""deploy/compose.yaml: its settings exist, its secrets come from outside, and every service is confined and watched."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import socket
import subprocess
import time
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import psutil
import pytest

from servers.process import free_port, start, wait_until_ready
from servers.seaweed import weed_program
from shoplens.settings import Settings, read_settings
from tests.deploy.files import DEPLOY, command_of, commands, load, unknown_settings
from tests.deploy.test_dockerfile import SHOPLENS

TEXT = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = load(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(
    name for name, each in SERVICES.items() if each.get("build", {}).get("dockerfile") == "deploy/docker/Dockerfile"
)
COMPOSE_PROGRAM = shutil.which("docker-compose")
ONE_SHOT = {"migrate", "models", "demo"}
LASTING = sorted(set(SERVICES) - ONE_SHOT)
SECRETS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def filled(text: str, **given: str) -> str:
    """With the defaults in place of variables, `given` before them, and `x` where there is neither."""
    return VARIABLE.sub(lambda found: given.get(found[1], found[3] if found[2] == "-" else "x"), text)


def environment(service: str) -> dict[str, str]:
    """What the containers of a service see, with the defaults."""
    return {name: filled(value) for name, value in SERVICES[service].get("environment", {}).items()}


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read the settings as a service would."""

    def read(service: str) -> Settings:
        for name, value in environment(service).items():
            monkeypatch.setenv(name, value)
        return read_settings()

    return read


@pytest.mark.parametrize("service", OURS)
def test_every_setting_is_known_and_can_be_read(service: str, settings_of: Any) -> None:
    """What a variable says is a setting of ours, and all of them together are usable."""
    assert [] == unknown_settings(environment(service))
    assert settings_of(service)


@pytest.mark.skipif(COMPOSE_PROGRAM is None, reason="needs docker-compose")
@pytest.mark.parametrize("profile", ["demo", "alertmanager", "grafana", "tracing", "airflow", "mlflow"])
def test_compose_reads_the_file_with_each_profile(profile: str, tmp_path: Path) -> None:
    """With nothing but the secrets."""
    (tmp_path / "env").write_text("".join(f"{name}=x\n" for name in sorted(SECRETS)))
    files = ["--file", str(DEPLOY / "compose.yaml"), "--env-file", str(tmp_path / "env")]
    done = subprocess.run(
        [COMPOSE_PROGRAM or "", *files, "--profile", profile, "config", "-q"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_airflow_has_the_dags_and_knows_what_our_programs_know(settings_of: Any) -> None:
    """Each setting in its environment is one; the DAGs' own variables are those that they read."""
    own = {name for name in environment("airflow") if name.startswith("SHOPLENS_AIRFLOW_")}
    assert own == set(re.findall(r"SHOPLENS_AIRFLOW_\w+", (DEPLOY / "airflow/dags/shoplens_dags.py").read_text()))
    assert [] == unknown_settings(dict.fromkeys(environment("airflow").keys() - own, ""))
    assert settings_of("airflow").mlflow_url is None
    image = (DEPLOY / "docker" / "airflow.Dockerfile").read_text(encoding="utf-8")
    mounted = {mount.rpartition(":")[2] for mount in SERVICES["airflow"]["volumes"]}
    assert mounted <= set(re.findall(r"/var/lib/\w+(?:/\w+)?", image))
    assert "COPY deploy/airflow/dags/ dags/" in image


@pytest.mark.parametrize("service", ["web", "demo", "airflow"])
def test_runs_ask_the_model_workers(service: str, settings_of: Any) -> None:
    """Those that a page starts would take the cores of the web server else."""
    settings = settings_of(service)
    assert ("workers", True) == (settings.batch.engine, settings.redis_url is not None)


def test_the_web_server_answers_to_names_and_not_to_everybody(settings_of: Any) -> None:
    """It listens beyond its container and has no accounts: the Host header and the published address guard it."""
    settings = settings_of("web")
    assert "*" not in settings.allowed_hosts
    assert {"127.0.0.1", "localhost", "web"} <= set(settings.allowed_hosts)
    public = json.loads(filled(SERVICES["web"]["environment"]["SHOPLENS_ALLOWED_HOSTS"], PUBLIC_HOST="shop.example"))
    assert "shop.example" in public


def test_prometheus_reads_the_metrics_without_a_key(settings_of: Any) -> None:
    """From its own network, in which nobody else's requests come in."""
    (pool,) = COMPOSE["networks"]["metrics"]["ipam"]["config"]
    opened = settings_of("web").metrics_open_to
    assert (filled(pool["subnet"]),) == tuple(opened)
    assert ip_network(opened[0]).is_private


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_what_is_published_is_published_on_loopback(service: str) -> None:
    """Unless its owner says otherwise."""
    for port in SERVICES[service].get("ports", []):
        assert filled(port).startswith("127.0.0.1:")


@pytest.mark.parametrize("service", OURS)
def test_every_command_exists(service: str) -> None:
    """Also those in the script of the demo."""
    command = SERVICES[service]["command"]
    lines = re.findall(r"^shoplens (.+)$", command[0], re.MULTILINE) if service == "demo" else [" ".join(command)]
    assert lines
    assert set() == {command_of(line.split()) for line in lines} - commands()


def test_secrets_come_from_outside() -> None:
    """None has a default, each says in a sentence where it is set, and nothing else looks like a secret."""
    required = {name: sentence for name, kind, sentence in VARIABLE.findall(TEXT) if kind == "?"}
    assert required.keys() == SECRETS
    assert {f"set {name} in deploy/.env, as .env.example says" for name in SECRETS} == set(required.values())
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD$|SECRET_ACCESS_KEY$|ACCESS_KEY_ID$|AUTH$", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
            assert not re.search(r"://[^/]*:[^$@/]+@", value), name


def test_the_example_names_every_variable() -> None:
    """Secrets empty, the rest as a comment with its default, and none that Compose does not know."""
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    assert {f"{name}=" for name in SECRETS} == {line for line in lines if line and not line.startswith("#")}
    offered = {match[1]: match[2] for line in lines if (match := re.fullmatch(r"#(\w+)=(.*)", line))}
    defaults = {name: value for name, kind, value in VARIABLE.findall(TEXT) if kind == "-"}
    assert set() == offered.keys() - defaults.keys()
    assert [] == [name for name in defaults.keys() - offered.keys() if not re.search(r"_IMAGE$|_USER(_ID)?$", name)]
    assert {name: defaults[name] for name in offered if name != "PUBLIC_HOST"} == {
        name: value for name, value in offered.items() if name != "PUBLIC_HOST"
    }


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_is_confined(service: str) -> None:
    """It cannot write but where it must, has no rights of root, and bounds on cores, memory, processes and log."""
    each = SERVICES[service]
    assert each["read_only"] is True
    assert ["ALL"] == each["cap_drop"]
    assert ["no-new-privileges:true"] == each["security_opt"]
    assert {"cpus", "memory", "pids"} == set(each["deploy"]["resources"]["limits"])
    assert {"max-size", "max-file"} == set(each["logging"]["options"])
    assert "privileged" not in each
    assert service in OURS or not filled(each["user"]).startswith("0")


@pytest.mark.parametrize("service", LASTING)
def test_a_lasting_service_is_watched_and_started_again(service: str) -> None:
    """It has a health check of its own, comes back, and has more time to stop than the program takes."""
    each = SERVICES[service]
    assert each["healthcheck"]["test"]
    assert "unless-stopped" == each["restart"]
    shutdown_s = Settings.model_fields["shutdown_s"].default
    assert shutdown_s < int(each["stop_grace_period"].removesuffix("s"))


@pytest.mark.parametrize("service", sorted(ONE_SHOT))
def test_a_one_shot_runs_once(service: str) -> None:
    """It is not started again, and the image's health check is not asked."""
    assert "no" == SERVICES[service]["restart"]
    assert {"disable": True} == SERVICES[service]["healthcheck"]


def test_health_is_asked_where_the_program_listens() -> None:
    """The port of the server, and for a worker the one that its setting names."""
    web, worker = (" ".join(SERVICES[name]["healthcheck"]["test"]) for name in ("web", "worker"))
    assert ":8000/health/" in web
    assert f":{environment('worker')['SHOPLENS_WORKER_PORT']}/health/live" in worker
    assert filled(SERVICES["web"]["ports"][0]).endswith(":8000")


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_dependencies_of_services_can_be_met(service: str) -> None:
    """One-shots are waited for until they are through, the others until they are healthy."""
    for other, how in SERVICES[service].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert {"condition": expected} == how


def test_volumes_and_networks_are_declared_and_used() -> None:
    """None is missing, none is left over."""
    mounts = [filled(mount) for each in SERVICES.values() for mount in each.get("volumes", [])]
    named = {mount.partition(":")[0] for mount in mounts if not mount.startswith(".")}
    assert set(COMPOSE["volumes"]) == named
    assert set(COMPOSE["networks"]) == {network for each in SERVICES.values() for network in each.get("networks", [])}
    folders = [mount.partition(":")[0] for mount in mounts if mount.startswith(".")]
    assert [] == [folder for folder in folders if not (DEPLOY / folder).exists()]


def test_only_what_is_published_can_reach_out() -> None:
    """All other networks are internal."""
    assert {"outside"} == {name for name, each in COMPOSE["networks"].items() if each.get("internal") is not True}
    outside = {name for name, each in SERVICES.items() if "outside" in each.get("networks", [])}
    assert {name for name, each in SERVICES.items() if "ports" in each} == outside


def test_a_service_shares_a_network_with_what_it_needs_only() -> None:
    """A worker that was taken over reaches neither the database nor Prometheus' neighbours."""
    neighbours = {
        network: {name for name, each in SERVICES.items() if network in each.get("networks", [])}
        for network in COMPOSE["networks"]
    }
    assert {"web", "migrate", "demo", "airflow", "postgres"} == neighbours["database"]
    assert {"web", "worker", "demo", "airflow", "redis"} == neighbours["queue"]
    assert {"web", "worker", "demo", "airflow", "s3"} == neighbours["store"]
    assert {"web", "worker", "airflow", "mlflow"} == neighbours["tracking"]
    assert {"web", "worker", "prometheus", "alertmanager", "grafana"} == neighbours["metrics"]
    assert {"web", "worker", "airflow", "jaeger"} == neighbours["traces"]


def test_only_s3_itself_listens_beyond_its_container(tmp_path: Path) -> None:
    """The parts behind it ask for no secret. Its own port for gRPC is the only other one."""
    ports = {name: free_port(also_beyond=10_000) for name in ("master", "volume", "filer", "s3")}
    command = SERVICES["s3"]["command"].replace("-dir=/data", f"-dir={tmp_path}").split()
    keys = {"AWS_ACCESS_KEY_ID": "shop", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    given = [f"-{name}.port={port}" for name, port in ports.items()]
    process = start([weed_program(), *command, *given], folder=tmp_path, environment=keys)
    try:
        wait_until_ready(process, tmp_path, partial(_connect, ports["s3"]))
        give_up_at = time.monotonic() + 60
        while len(found := _listening(process.pid)) < 2 * len(ports) and time.monotonic() < give_up_at:
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert len(found) >= 2 * len(ports)
    reachable = {each.laddr.port for each in found if not ip_address(each.laddr.ip).is_loopback}
    assert {ports["s3"], ports["s3"] + 10_000} == reachable


def _listening(pid: int) -> list[Any]:
    return [each for each in psutil.Process(pid).net_connections("tcp") if each.status == "LISTEN"]


def _connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_the_folders_of_the_volumes_belong_to_the_user_of_the_image() -> None:
    """An empty volume takes its owner from the image."""
    made = set(re.findall(r"/var/lib/shoplens/\w+", SHOPLENS.read_text(encoding="utf-8")))
    mounted = {mount.rpartition(":")[2] for service in OURS for mount in SERVICES[service]["volumes"]}
    assert mounted <= made


def test_workers_do_not_know_the_database() -> None:
    """Nor do one-shots what they do not need."""
    assert "SHOPLENS_DATABASE_URL" not in environment("worker")
    assert not {"AWS_SECRET_ACCESS_KEY", "SHOPLENS_REDIS_URL"} & environment("migrate").keys()


def test_the_stand_ins_exchange_images_and_nothing_else() -> None:
    """What is proved with them is the same Compose file."""
    for name, each in load(DEPLOY / "compose.local.yaml")["services"].items():
        assert name in LASTING
        assert {"image": f"shoplens-standin-{name}", "pull_policy": "never"} == each

"""deploy/kubernetes: every manifest fits Kubernetes' schema, what it names is there, and every pod is confined."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from shoplens.settings import Settings
from tests.deploy.files import DEPLOY, REFERENCE, command_of, commands, load, load_all, metrics, unknown_settings
from tests.deploy.test_dockerfile import SHOPLENS

FOLDER = DEPLOY / "kubernetes"
BASE, EXAMPLE = FOLDER / "base", FOLDER / "overlays" / "example"
SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parent / "kubernetes-1.34.json").read_text(encoding="utf-8"))
KUSTOMIZE_FIELDS = {"apiVersion", "kind", "namespace", "labels", "resources", "images", "patches", "secretGenerator"}
Document = dict[str, Any]


def kustomization(folder: Path) -> Document:
    """What a folder is made of."""
    found: Document = load(folder / "kustomization.yaml")
    return found


def documents(folder: Path) -> Iterator[Document]:
    """The resources of a folder and of those below it, as `kustomize build` finds them, before patches."""
    for name in kustomization(folder)["resources"]:
        if (folder / name).is_dir():
            yield from documents(folder / name)
        else:
            yield from load_all(folder / name)


ALL = list(documents(EXAMPLE))
PATCHES = [load(EXAMPLE / patch["path"]) for patch in kustomization(EXAMPLE)["patches"]]


def title(document: Document) -> str:
    """Kind and name."""
    return f"{document['kind']}/{document['metadata']['name']}"


def named(kind: str) -> dict[str, Document]:
    """The resources of a kind by name."""
    return {each["metadata"]["name"]: each for each in ALL if each["kind"] == kind}


def template_of(document: Document) -> Document | None:
    """The template of the pods that it makes."""
    spec = document.get("spec", {})
    found: Document | None = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return found


TEMPLATES = [(title(each), template) for each in ALL if (template := template_of(each))]
CONTAINERS = [
    (f"{owner}:{container['name']}", container, template["spec"])
    for owner, template in TEMPLATES
    for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]
]
MAIN = [(name, container) for name, container, _ in CONTAINERS if name.endswith(":shoplens")]
ids = pytest.mark.parametrize


def secret_keys() -> dict[str, set[str]]:
    """The secrets that the example makes, with their keys."""
    return {
        secret["name"]: {line.partition("=")[0] for name in secret["envs"] for line in example_lines(name)}
        for secret in kustomization(EXAMPLE)["secretGenerator"]
    }


def example_lines(name: str) -> list[str]:
    """The lines of the example for a file that nobody commits."""
    return (EXAMPLE / f"{name}.example").read_text(encoding="utf-8").splitlines()


@ids("document", ALL, ids=title)
def test_a_manifest_fits_the_schema(document: Document) -> None:
    """That of Kubernetes 1.34, strictly: a field that it does not know is a fault."""
    schema = {"$ref": f"#/definitions/{SCHEMAS['kinds'][document['apiVersion'] + ' ' + document['kind']]}"}
    validator = Draft202012Validator({**schema, "definitions": SCHEMAS["definitions"]})
    assert [] == [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(document)]


def test_the_schema_finds_a_fault() -> None:
    """A field that does not exist, however deep."""
    broken = json.loads(json.dumps(named("Deployment")["shoplens-web"]))
    broken["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(AssertionError, match="readOnly"):
        test_a_manifest_fits_the_schema(broken)


@ids("folder", [BASE, EXAMPLE], ids=lambda folder: folder.name)
def test_a_kustomization_has_all_its_files(folder: Path) -> None:
    """And no file lies about that it does not use."""
    said = kustomization(folder)
    assert set(said) <= KUSTOMIZE_FIELDS
    paths = [*said["resources"], *(patch["path"] for patch in said.get("patches", []))]
    paths += [f"{name}.example" for secret in said.get("secretGenerator", []) for name in secret["envs"]]
    assert [] == [path for path in paths if not (folder / path).exists()]
    used = {path for path in paths if (folder / path).is_file()} | {"kustomization.yaml"}
    assert used == {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".env"}


def test_a_patch_changes_what_is_there() -> None:
    """Kind, name and container exist in the base."""
    known = {title(each) for each in ALL}
    assert set() == {title(patch) for patch in PATCHES} - known
    assert len(ALL) == len(known)


def test_files_with_secrets_stay_out_of_git() -> None:
    """And those that are in it hold examples."""
    assert ["*.env"] == (FOLDER / ".gitignore").read_text(encoding="utf-8").split()
    values = [
        line.partition("=")[2] for name in ("database", "queue", "store") for line in example_lines(f"{name}.env")
    ]
    assert [] == [value for value in values if not re.search(r"PASSWORD|KEY|SECRET", value)]
    assert {} == named("Secret")


@ids(("name", "container", "pod"), CONTAINERS, ids=[name for name, _, _ in CONTAINERS])
def test_a_container_is_confined(name: str, container: Document, pod: Document) -> None:
    """As the level `restricted` asks and further: not root, nothing to write but what is mounted, bounded memory."""
    context = container["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"UID={pod['securityContext']['runAsUser']}" in SHOPLENS.read_text(encoding="utf-8")
    assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] in named("ServiceAccount")
    assert {"cpu", "memory"} == set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]


@ids(("name", "container", "pod"), CONTAINERS, ids=[name for name, _, _ in CONTAINERS])
def test_what_a_container_mounts_is_a_volume_of_its_pod(name: str, container: Document, pod: Document) -> None:
    """Once each, and no volume is left over; every one is bounded."""
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set() == mounted - volumes.keys()
    assert all(volume["emptyDir"]["sizeLimit"] for volume in volumes.values())


@ids(("name", "container"), MAIN, ids=[name for name, _ in MAIN])
def test_a_container_gets_settings_that_exist_from_what_exists(name: str, container: Document) -> None:
    """From the ConfigMap, from the secrets that the example makes, and by itself."""
    maps, secrets = named("ConfigMap"), secret_keys()
    variables = {each["name"]: each.get("value") for each in container.get("env", [])}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            variables |= maps[source["configMapRef"]["name"]]["data"]
        else:
            variables |= dict.fromkeys(secrets[source["secretRef"]["name"]])
    assert [] == unknown_settings(variables)
    for patch in PATCHES:
        assert [] == unknown_settings(patch.get("data", {}))


def test_each_pod_gets_the_secrets_that_it_needs() -> None:
    """A worker does not know the database, the migration knows nothing else."""
    given = {
        name.partition("/")[2].partition(":")[0]: {
            source["secretRef"]["name"].removeprefix("shoplens-") for source in each["envFrom"] if "secretRef" in source
        }
        for name, each in MAIN
    }
    assert {
        "shoplens-web": {"database", "queue", "store"},
        "shoplens-worker": {"queue", "store"},
        "shoplens-migrate": {"database"},
        "shoplens-ingest": {"database", "store"},
        "shoplens-batch": {"database", "queue", "store"},
    } == given


def test_runs_that_a_page_starts_ask_the_model_workers() -> None:
    """The nightly one has a pod with cores of its own."""
    assert "workers" == named("ConfigMap")["shoplens-settings"]["data"]["SHOPLENS_BATCH__ENGINE"]
    nightly = next(container for name, container in MAIN if "shoplens-batch" in name)
    assert ["batch", "run", "--engine", "local"] == nightly["args"][:4]


def environments() -> Iterator[list[Document]]:
    """The variables of every container, also those of patches."""
    for _, container in MAIN:
        yield container.get("env", [])
    for patch in PATCHES:
        for container in (template_of(patch) or {"spec": {"containers": []}})["spec"]["containers"]:
            yield container.get("env", [])


def test_a_variable_names_those_above_it() -> None:
    """Kubernetes leaves `$(NAME)` as it is where NAME comes later, and a patch puts its variables first."""
    for variables in environments():
        known: set[str] = set()
        for each in variables:
            assert set(re.findall(r"\$\((\w+)\)", each.get("value", ""))) <= known
            known.add(each["name"])


@ids(("name", "container"), MAIN, ids=[name for name, _ in MAIN])
def test_every_command_exists(name: str, container: Document) -> None:
    """The arguments of a container are a command of the program."""
    assert command_of(container["args"]) in commands()


def routes() -> set[str]:
    """The paths that web server and workers answer for probes."""
    paths = set(json.loads((REFERENCE / "openapi.json").read_text(encoding="utf-8"))["paths"])
    return {path for path in paths if path.startswith("/health/")}


@ids("name", ["shoplens-web", "shoplens-worker"])
def test_a_server_is_probed(name: str) -> None:
    """While it starts, for traffic, and for life, at a port that it opens and a path that it answers."""
    (container,) = named("Deployment")[name]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {probe["path"] for probe in probes.values()} <= routes()
    assert "/health/ready" == probes["readiness"]["path"]
    assert "/health/live" == probes["liveness"]["path"]
    assert all(probe["port"] in ports for probe in probes.values())
    variables = {each["name"]: each.get("value") for each in container["env"]}
    listens = variables.get("SHOPLENS_WORKER_PORT", str(Settings.model_fields["port"].default))
    assert {listens} == {str(port) for port in ports.values()}
    annotations = named("Deployment")[name]["spec"]["template"]["metadata"]["annotations"]
    assert listens == annotations["prometheus.io/port"]


@ids("name", ["shoplens-web", "shoplens-worker"])
def test_a_server_has_time_to_finish(name: str) -> None:
    """Longer than the program takes, and a new one is there before an old one goes."""
    spec = named("Deployment")[name]["spec"]
    pod = spec["template"]["spec"]
    wait = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1]
    assert int(wait) + Settings.model_fields["shutdown_s"].default < pod["terminationGracePeriodSeconds"]
    assert {"maxUnavailable": 0, "maxSurge": 1} == spec["strategy"]["rollingUpdate"]


def test_labels_select_what_they_mean() -> None:
    """Deployments, services, budgets and policies each select the pods of one template, none selects nothing."""
    labels = [template["metadata"]["labels"] for _, template in TEMPLATES]
    selectors = [each["spec"]["selector"]["matchLabels"] for each in named("Deployment").values()]
    selectors += [each["spec"]["selector"] for each in named("Service").values()]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in named("PodDisruptionBudget").values()]
    assert 5 == len(selectors)
    for selector in selectors:
        assert 1 == len([each for each in labels if selector.items() <= each.items()])
    for policy in named("NetworkPolicy").values():
        wanted = policy["spec"]["podSelector"].get("matchLabels", {})
        assert [each for each in labels if wanted.items() <= each.items()]


def test_network_policies_name_ports_that_exist() -> None:
    """By their names in the pods that they let in, and everything else is shut."""
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} == named("NetworkPolicy")["shoplens-deny"]["spec"]
    for name in ("shoplens-web", "shoplens-worker"):
        (rule,) = named("NetworkPolicy")[name]["spec"]["ingress"]
        (container,) = named("Deployment")[name]["spec"]["template"]["spec"]["containers"]
        assert {port["port"] for port in rule["ports"]} == {port["name"] for port in container["ports"]}
    assert all(template["metadata"]["labels"]["shoplens/reaches"] == "stores" for _, template in TEMPLATES)


def test_the_service_and_the_ingress_lead_to_the_web_servers() -> None:
    """By names of ports that are there."""
    service = named("Service")["shoplens-web"]["spec"]
    (container,) = named("Deployment")["shoplens-web"]["spec"]["template"]["spec"]["containers"]
    assert {service["ports"][0]["targetPort"]} == {port["name"] for port in container["ports"]}
    ((path,),) = [rule["http"]["paths"] for rule in named("Ingress")["shoplens"]["spec"]["rules"]]
    assert {"name": "shoplens-web", "port": {"name": service["ports"][0]["name"]}} == path["backend"]["service"]


def test_workers_follow_the_queue() -> None:
    """The autoscaler names their deployment and an existing metric; the deployment sets no number of replicas."""
    spec = named("HorizontalPodAutoscaler")["shoplens-worker"]["spec"]
    target = named(spec["scaleTargetRef"]["kind"])[spec["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"]
    assert {spec["metrics"][0]["external"]["metric"]["name"]} <= metrics()
    assert spec["minReplicas"] > named("PodDisruptionBudget")["shoplens-worker"]["spec"]["minAvailable"]


@ids(("name", "hours"), [("shoplens-ingest", [8, 20]), ("shoplens-batch", [2])])
def test_a_schedule_fires_when_it_should(name: str, hours: list[int]) -> None:
    """In a named time zone, never beside itself, and with an end."""
    spec = named("CronJob")[name]["spec"]
    assert spec["timeZone"] == ZoneInfo(spec["timeZone"]).key
    assert "Forbid" == spec["concurrencyPolicy"]
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    firing = croniter(spec["schedule"], 0)
    assert hours == sorted(each.hour for each in (firing.get_next(ret_type=datetime) for _ in hours))

"""The schedules (Jenkins, cron, systemd) fire when they should, and what they run works."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import pytest
from croniter import croniter

from tests.conftest import colourful, jpeg_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
HOME = "/srv/shoplens"
PIPELINES = sorted((DEPLOY / "jenkins").iterdir())
UNITS = sorted((DEPLOY / "systemd").iterdir())
CRON = (DEPLOY / "cron" / "shoplens.cron").read_text()
SUNDAY = datetime(2026, 11, 22, tzinfo=UTC)
PHOTOS = 4


@pytest.fixture
def home(tmp_path: Path, models_dir: Path) -> Path:
    """An installation as the schedules expect it: a checkout with its environment, settings and a drop folder."""
    root = tmp_path / "shop lens"
    drop = root / "data" / "drop" / "returns"
    drop.mkdir(parents=True)
    for number, photo in enumerate(photos()):
        (drop / f"order{number}_item{number}.jpg").write_bytes(photo)
    (root / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (root / "shoplens.toml").write_text(
        f'data_dir = "{root / "data"}"\nmodels_dir = "{models_dir}"\n\n[channels.returns.batch]\nquiet_s = 0\n'
    )
    return root


def photos() -> list[bytes]:
    """Real ones where they are at hand, else drawn ones."""
    shared = Path(os.environ.get("SHOPLENS_SHARED_DATA", ROOT.parent / "shared" / "data")) / "imagenet-samples"
    real = sorted(shared.glob("*.JPEG"))[:PHOTOS]
    return [path.read_bytes() for path in real] or [jpeg_of(colourful(number)) for number in range(PHOTOS)]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Where Jenkins works; its jobs may have spaces in their names."""
    folder = tmp_path / "work space"
    folder.mkdir()
    return folder


def read(name: str) -> str:
    """A pipeline's text."""
    return (DEPLOY / "jenkins" / f"{name}.Jenkinsfile").read_text()


def shell_steps(pipeline: str) -> list[str]:
    """The scripts of its `sh` steps, in order."""
    return [textwrap.dedent(script) for script in re.findall(r"\bsh '''\n(.*?)'''", pipeline, re.DOTALL)]


def parameters(pipeline: str) -> dict[str, tuple[str, str]]:
    """Its parameters with their default values and descriptions."""
    found = re.findall(r"name: '(\w+)',\s*defaultValue: '([^']*)',\s*description: '([^']*)'", pipeline)
    return {name: (default, description) for name, default, description in found}


def environment(**given: str) -> dict[str, str]:
    """Nothing of ours but what is given."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}, **given}


def shell(script: str, *, cwd: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run it as Jenkins and cron do: by the POSIX shell, ending at the first fault."""
    return subprocess.run(
        ["sh", "-xec", script],
        cwd=cwd,
        env=environment(**given),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def run_pipeline(name: str, home: Path, workspace: Path, **given: str) -> list[int]:
    """The status of every `sh` step, with the default values of the parameters that are not given."""
    pipeline = read(name)
    defaults = {parameter: default for parameter, (default, _) in parameters(pipeline).items()}
    values = {**defaults, "SHOPLENS_HOME": str(home), **given}
    return [shell(step, cwd=workspace, WORKSPACE=str(workspace), **values).returncode for step in shell_steps(pipeline)]


def triggers(home: Path) -> list[dict[str, object]]:
    """The ends of what was started."""
    log = home / "data" / "logs" / "trigger.log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in lines if line["event"] == "trigger.ended"]


# Jenkins


@pytest.mark.skipif(shutil.which("npm-groovy-lint") is None, reason="npm-groovy-lint is not installed")
def test_the_pipelines_have_no_syntax_error() -> None:
    """Braces and quotes match."""
    command = ["npm-groovy-lint", "--noserver", "--failon", "error", "--files", "**/*.Jenkinsfile"]
    done = subprocess.run(command, cwd=DEPLOY / "jenkins", capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_a_pipeline_is_bounded(path: Path) -> None:
    """Old builds are removed, a build ends and does not overlap with the next, and lines have times."""
    text = path.read_text()
    options = ["buildDiscarder(", "disableConcurrentBuilds()", "timeout(", "timestamps()"]
    assert options == [option for option in options if option in text]


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_every_parameter_is_described_and_passed_to_the_shell(path: Path) -> None:
    """Also in the first build, where only `environment` makes it a variable."""
    text = path.read_text()
    scripts = "\n".join(shell_steps(text))
    assert text.count("string(") == len(parameters(text))
    for name, (_, description) in parameters(text).items():
        assert description.endswith(".")
        assert name not in scripts or f'{name} = "${{params.{name}}}"' in text


def firings(name: str, *, days: int, job: str = "") -> list[datetime]:
    """When Jenkins starts a pipeline by itself, in the zone that its cron names; H is any hash of the job's name."""
    (spec,) = re.findall(r"cron\('([^']*)'\)", read(name))
    zone, expression = spec.split("\\n")
    assert zone.startswith("TZ=")
    start = SUNDAY.astimezone(ZoneInfo(zone.removeprefix("TZ=")))
    times = croniter(expression, start, hash_id=job).all_next(datetime)
    return list(_until(times, start + timedelta(days=days)))


def _until(times: Iterator[datetime], end: datetime) -> Iterator[datetime]:
    for each in times:
        if each > end:
            return
        yield each


def test_a_run_starts_at_two_every_day() -> None:
    """In the shop's own time."""
    times = firings("batch", days=30)
    assert 30 == len(times)
    assert {(2, 0)} == {(each.hour, each.minute) for each in times}


@pytest.mark.parametrize("job", ["shoplens-ingest", "other", "third"])
def test_photos_are_imported_about_eight_twice_a_day(job: str) -> None:
    """Whatever minute Jenkins draws for the job, within a quarter of an hour."""
    times = firings("ingest", days=30, job=job)
    assert 60 == len(times)
    assert {8, 20} == {each.hour for each in times}
    assert max(each.minute for each in times) < 15


def test_the_tests_start_by_hand_only() -> None:
    """No trigger."""
    assert "triggers {" not in read("tests")


def test_the_pipelines_import_and_classify_photos(home: Path, workspace: Path) -> None:
    """Every step of both is run in order; what is to be archived is there, and says what was done.

    Quarantine above the limit fails its step, which `catchError` turns into unstable; up to the limit it does not.
    """
    (home / "data" / "drop" / "returns" / "order9_item9.jpg").write_bytes(
        b"\xff\xd8\xff\xe0 no more of a photo than this"
    )
    assert [0] == run_pipeline("ingest", home, workspace)
    assert [0, 0, 1] == run_pipeline("batch", home, workspace)
    counted = shell_steps(read("batch"))[-1]
    given = {"SHOPLENS_HOME": str(home), "WORKSPACE": str(workspace), "QUARANTINE_LIMIT": "1"}
    assert 0 == shell(counted, cwd=workspace, **given).returncode
    catch = r"catchError\(buildResult: 'UNSTABLE', stageResult: 'UNSTABLE'[^{]*\{\s*sh '"
    assert re.search(catch, read("batch"))
    for name in ("ingest", "batch"):
        (archived,) = re.findall(r"archiveArtifacts artifacts: '([^']*)'", read(name))
        assert [] == [file for file in archived.split(", ") if not (workspace / file).stat().st_size]
    run = json.loads((workspace / "run.json").read_text())["run"]
    assert ("finished", PHOTOS + 1, "schedule") == (run["state"], run["planned"], run["requested_by"])
    assert run["id"] in (workspace / "report.html").read_text()
    assert [("ingest", "schedule", 0), ("run", "schedule", 0)] == [
        (each["job"], each["by"], each["exit_status"]) for each in triggers(home)
    ]
    assert [] == list((home / "data" / "drop" / "returns").iterdir())


def test_another_source_can_be_named(home: Path, workspace: Path) -> None:
    """By the parameter; the one in the settings is left alone."""
    elsewhere = home / "else where"
    elsewhere.mkdir()
    (elsewhere / "a_b.jpg").write_bytes(jpeg_of(colourful(9)))
    assert [0] == run_pipeline("ingest", home, workspace, SOURCE=str(elsewhere))
    assert [] == list(elsewhere.iterdir())
    assert PHOTOS == len(list((home / "data" / "drop" / "returns").iterdir()))


def test_a_failing_ingest_fails_the_build(home: Path, workspace: Path) -> None:
    """A source that is not there is no success."""
    (status,) = run_pipeline("ingest", home, workspace, SOURCE=str(home / "missing"))
    assert 0 != status
    assert [("ingest", "failed")] == [(each["job"], each["outcome"]) for each in triggers(home)]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_pipeline_of_tests_runs_tests(workspace: Path) -> None:
    """Those that are asked for, in the checkout that is named, with a file of results."""
    (step,) = shell_steps(read("tests"))
    given = {
        "SHOPLENS_HOME": str(ROOT),
        "WORKSPACE": str(workspace),
        "ARGS": "-q -n 0 tests/unit/predictions/test_policy.py",
        "MAKEFLAGS": "-o .venv/test.stamp",  # what is installed here is not to be changed by a test
    }
    done = shell(step, cwd=workspace, **given)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert 'failures="0"' in (workspace / "tests.xml").read_text()


# The shell in all of them


def all_shell() -> dict[str, str]:
    """Every piece of shell, by where it stands."""
    pieces = {
        f"{path.stem} {number}": step for path in PIPELINES for number, step in enumerate(shell_steps(path.read_text()))
    }
    return pieces | {f"cron {number}": command for number, (_, _, command) in enumerate(cron_lines())}


def cron_lines() -> list[tuple[str, str, str]]:
    """Time, account and command of each line of /etc/cron.d."""
    found = re.findall(r"^((?:[\d*,/-]+\s+){5})(\w+)\s+(.+)$", CRON, re.MULTILINE)
    return [(time.strip(), account, command) for time, account, command in found]


def cron_variables() -> Mapping[str, str]:
    """What the lines before them set."""
    return dict(re.findall(r"^(\w+)=(.*)$", CRON, re.MULTILINE))


SHELL = all_shell()


@pytest.mark.parametrize("where", SHELL)
def test_shellcheck_finds_nothing_and_the_step_is_short(where: str, tmp_path: Path) -> None:
    """For any POSIX shell."""
    shellcheck = Path(sys.executable).parent / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("shellcheck comes with the extra `dev`")
    script = tmp_path / "step.sh"
    script.write_text("#!/bin/sh -e\n" + SHELL[where])
    done = subprocess.run([shellcheck, "--shell=sh", script], capture_output=True, text=True, check=False)
    assert "" == done.stdout
    assert len(SHELL[where].strip().splitlines()) <= 5


# cron


def test_cron_starts_imports_and_runs_when_it_should() -> None:
    """Every line of the file is understood, so none is silently left out."""
    entries = [line for line in CRON.splitlines() if line and line[0] in "0123456789*"]
    assert len(entries) == len(cron_lines()) == 2
    start = SUNDAY.replace(tzinfo=None)
    by_job = {"ingest" if "ingest" in command else "run": time for time, _, command in cron_lines()}
    hours = {
        job: [
            (each.hour, each.minute) for each in _until(croniter(time, start).all_next(datetime), start + timedelta(1))
        ]
        for job, time in by_job.items()
    }
    assert [(2, 0)] == hours["run"]
    assert [8, 20] == [hour for hour, _ in hours["ingest"]]


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock of util-linux")
def test_the_commands_of_cron_work_and_do_not_overlap(home: Path, tmp_path: Path) -> None:
    """In order; and not while somebody holds the lock."""
    assert {"SHOPLENS_HOME": HOME, "SHELL": "/bin/sh"}.items() <= cron_variables().items()
    given = {**cron_variables(), "SHOPLENS_HOME": str(home), "LOCKS": str(tmp_path)}
    for _, _, command in cron_lines():
        done = shell(command, cwd=tmp_path, **given)
        assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert ["ingest", "run"] == [each["job"] for each in triggers(home)]
    assert PHOTOS == sum(triggers(home)[-1]["counts"].values())  # type: ignore[attr-defined]
    for name, (_, _, command) in zip(("ingest", "batch"), cron_lines(), strict=True):
        held = f"flock -n '{tmp_path}/shoplens-{name}.lock' sh -c '! ( {command} )'"
        assert 0 == shell(held, cwd=tmp_path, **given).returncode
    assert 2 == len(triggers(home))


# systemd

SECTIONS = {
    "Unit": {"Description", "Documentation", "Wants", "After"},
    "Install": {"WantedBy"},
    "Timer": {"OnCalendar", "RandomizedDelaySec", "FixedRandomDelay", "Persistent", "AccuracySec"},
    "Service": {
        "CapabilityBoundingSet", "ExecReload", "ExecStart", "Group", "IOSchedulingClass", "LimitNOFILE",
        "LockPersonality", "Nice", "NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectClock",
        "ProtectControlGroups", "ProtectHome",
        "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc",
        "ProtectSystem", "ReadWritePaths", "RemoveIPC", "RestrictAddressFamilies", "RestrictNamespaces", "Restart",
        "RestartSec", "RestrictRealtime", "RestrictSUIDSGID", "StateDirectory", "SystemCallArchitectures",
        "SystemCallErrorNumber", "SystemCallFilter", "TimeoutStartSec", "TimeoutStopSec", "Type", "UMask", "User",
        "WorkingDirectory",
    },
}  # fmt: skip


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """The sections of a unit file; a key may stand more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_has_known_sections_and_keys(path: Path) -> None:
    """systemd ignores what it does not know."""
    sections = unit(path)
    own = "Timer" if path.suffix == ".timer" else "Service"
    assert {"Unit", own} <= sections.keys() <= {"Unit", own, "Install"}
    assert [] == [key for name, keys in sections.items() for key in keys if key not in SECTIONS[name]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_a_unit(path: Path, tmp_path: Path) -> None:
    """With an installation where the files expect it."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    for each in UNITS:
        (tmp_path / each.name).write_text(each.read_text().replace(HOME, str(tmp_path)))
    command = ["systemd-analyze", "verify", "--man=no", f"./{path.name}"]
    given = environment(SYSTEMD_UNIT_PATH=f"{tmp_path}:")
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stdout + done.stderr)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("file", [path for path in UNITS if path.suffix == ".service"], ids=lambda path: path.name)
def test_systemd_calls_the_exposure_of_a_service_low(file: Path) -> None:
    """Below 3 of 10."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize(("job", "times"), [("ingest", ["08:00", "20:00"]), ("batch", ["02:00"])])
def test_a_timer_fires_when_it_should(job: str, times: list[str]) -> None:
    """Every day, and later when the machine was off at the time."""
    timer = unit(DEPLOY / "systemd" / f"shoplens-{job}.timer")
    assert [f"*-*-* {time}" for time in times] == timer["Timer"]["OnCalendar"]
    assert ["true"] == timer["Timer"]["Persistent"]
    assert ["timers.target"] == timer["Install"]["WantedBy"]


def test_the_services_work(home: Path) -> None:
    """Their commands, in their folder; a oneshot is never started beside itself."""
    for job in ("ingest", "batch"):
        service = unit(DEPLOY / "systemd" / f"shoplens-{job}.service")["Service"]
        assert (["oneshot"], [HOME]) == (service["Type"], service["WorkingDirectory"])
        (command,) = service["ExecStart"]
        words = [word.replace(HOME, str(home)) for word in command.split()]
        done = subprocess.run(words, cwd=home, env=environment(), capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
    assert [("ingest", 0), ("run", 0)] == [(each["job"], each["exit_status"]) for each in triggers(home)]


def test_the_service_of_the_server_serves_and_stops_in_time(home: Path) -> None:
    """Its command in its folder, ended as systemd ends it."""
    service = unit(DEPLOY / "systemd" / "shoplens.service")["Service"]
    (command,), (stop_s,) = service["ExecStart"], service["TimeoutStopSec"]
    words = [word.replace(HOME, str(home)) for word in command.split()]
    with subprocess.Popen(
        [*words, "--port", "0"], cwd=home, env=environment(), stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        said = next(line for line in server.stderr if "ready at" in line)
        url = re.search(r"http://\S+", said)
        assert url is not None
        assert 200 == httpx.get(f"{url[0]}/health/ready").status_code
        server.terminate()
        server.stderr.read()
        assert server.wait(float(stop_s.removesuffix("s"))) in {0, -signal.SIGTERM}  # both are a clean end to systemd

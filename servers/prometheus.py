"""A real Prometheus and a real Alertmanager, with short intervals: started in a folder, ended with the block.

Both are programs of Debian's packages `prometheus` and `prometheus-alertmanager`; `is_missing` says what lacks.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from servers.process import ServerFailed, free_port, start, stop, wait_until_ready, with_attempts

PROMETHEUS: Final = ("prometheus",)
ALERTMANAGER: Final = ("prometheus-alertmanager", "alertmanager")
"""What Debian calls it, and what the project does."""
_LONGEST_S: Final = 60.0


class NotInTime(Exception):
    """What was waited for did not happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPrometheus:
    """A Prometheus process of our own."""

    url: str
    process: subprocess.Popen[bytes]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query, each with `metric` and `value`. Raises HTTPError for a query it refuses."""
        return list(_json(f"{self.url}/api/v1/query?{urlencode({'query': expression})}")["data"]["result"])

    def alerts(self) -> list[dict[str, Any]]:
        """What is pending or firing."""
        return list(_json(f"{self.url}/api/v1/alerts")["data"]["alerts"])

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, with `health` and `lastError`."""
        return list(_json(f"{self.url}/api/v1/targets")["data"]["activeTargets"])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAlertmanager:
    """An Alertmanager process of our own."""

    address: str
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Its address with http://."""
        return f"http://{self.address}"

    def alerts(self) -> list[dict[str, Any]]:
        """What fires."""
        return list(_json(f"{self.url}/api/v2/alerts"))


def is_missing(*programs: Sequence[str]) -> str | None:
    """How to install what lacks of these programs; None where all are there."""
    lacking = [names[0] for names in programs if _program(names) is None]
    return f"not here: apt-get install {' '.join(lacking)}" if lacking else None


@contextmanager
def running_prometheus(
    folder: Path,
    targets: Mapping[str, str],
    *,
    rules: Path | None = None,
    alertmanager: str | None = None,
    external_labels: Mapping[str, str] | None = None,
    interval_s: float = 0.2,
) -> Iterator[RunningPrometheus]:
    """A Prometheus that scrapes `targets`, job names with `host:port`, and keeps what it found in `folder`.

    `rules` is a file of rules, `alertmanager` the `host:port` that alerts go to. Raises ServerFailed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    every = f"{round(interval_s * 1000)}ms"
    config: dict[str, Any] = {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every,
            "evaluation_interval": every,
            "external_labels": dict(external_labels or {}),
        },
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in targets.items()
        ],
    }
    if rules is not None:
        config["rule_files"] = [str(rules.absolute())]
    if alertmanager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML

    def attempt() -> RunningPrometheus:
        port = free_port()
        command: list[str | Path] = [
            _found(PROMETHEUS), f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
        ]  # fmt: skip
        process = start(command, folder=folder)
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, folder, lambda: _ask(f"{url}/-/ready"))
        return RunningPrometheus(url=url, process=process)

    server = with_attempts(attempt)
    try:
        yield server
    finally:
        stop(server.process)


@contextmanager
def running_alertmanager(folder: Path, config: Mapping[str, Any]) -> Iterator[RunningAlertmanager]:
    """An Alertmanager with this configuration, alone. Raises ServerFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "alertmanager.yml"
    file.write_text(json.dumps(config), encoding="utf-8")

    def attempt() -> RunningAlertmanager:
        address = f"127.0.0.1:{free_port()}"
        command: list[str | Path] = [
            _found(ALERTMANAGER), f"--config.file={file}", f"--storage.path={folder / 'data'}",
            f"--web.listen-address={address}", "--cluster.listen-address=", "--log.level=warn",
        ]  # fmt: skip
        process = start(command, folder=folder)
        wait_until_ready(process, folder, lambda: _ask(f"http://{address}/-/ready"))
        return RunningAlertmanager(address=address, process=process)

    server = with_attempts(attempt)
    try:
        yield server
    finally:
        stop(server.process)


def wait_until(holds: Callable[[], bool], what: str, *, longest_s: float = _LONGEST_S) -> None:
    """Return once it holds. Raises NotInTime, which names `what` did not happen."""
    give_up_at = time.monotonic() + longest_s
    while not holds():
        if time.monotonic() > give_up_at:
            raise NotInTime(f"{what}: not within {longest_s:g} s")
        time.sleep(0.05)


def _found(names: Sequence[str]) -> Path:
    path = _program(names)
    if path is None:
        raise ServerFailed(f"The program {names[0]} is {is_missing(names)}.")
    return path


def _program(names: Sequence[str]) -> Path | None:
    found = next((path for name in names if (path := shutil.which(name))), None)
    return None if found is None else Path(found)


def _json(url: str) -> Any:
    with urlopen(url, timeout=20) as answer:
        return json.load(answer)


def _ask(url: str) -> None:
    """Raises for any other status than 200, and closes the connection, since nothing else does."""
    try:
        urlopen(url, timeout=20).close()
    except HTTPError as error:
        error.close()
        raise

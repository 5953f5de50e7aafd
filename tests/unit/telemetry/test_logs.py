"""Logs: one line per event, ours and the libraries' alike, with nothing that should not be there."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from shoplens.telemetry.logs import configure_logs
configure_logs(log_format={log_format!r}, level={level!r})
log = structlog.get_logger("ours")
structlog.contextvars.bind_contextvars(request_id="r1")
log.debug("quiet")
log.info("photo.classified", label="dog", ms=1.5)
logging.getLogger("theirs").warning("disk is %s", "full")
def fail(secret):
    raise ValueError("broken")
try:
    fail("hunter" + str(1 + 1))  # so that the source line, which may be shown, does not hold the value
except ValueError:
    log.exception("request.crashed")
"""


def lines_of(log_format: str, level: str = "info") -> list[str]:
    """What a process of its own writes to standard error."""
    program = PROGRAM.format(log_format=log_format, level=level)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stdout
    return done.stderr.splitlines()


def test_each_line_is_json_with_the_request_id() -> None:
    """Ours and a library's."""
    ours, theirs, crash = (json.loads(line) for line in lines_of("auto"))
    assert ("photo.classified", "dog", "r1", "info") == tuple(
        ours[k] for k in ("event", "label", "request_id", "level")
    )
    assert ("disk is full", "r1", "theirs") == tuple(theirs[k] for k in ("event", "request_id", "logger"))
    assert "ValueError" == crash["exception"][0]["exc_type"]


def test_no_line_holds_the_value_of_a_local_variable() -> None:
    """It may be a photo, or a secret."""
    for log_format in ("json", "console"):
        assert "hunter2" not in "\n".join(lines_of(log_format))


def test_the_level_is_obeyed() -> None:
    """Debug shows all, error hides the rest."""
    assert any("quiet" in line for line in lines_of("json", "debug"))
    assert 1 == len(lines_of("json", "error"))


def test_people_get_text() -> None:
    """With the fields beside the event."""
    text = "\n".join(lines_of("console"))
    assert "photo.classified" in text
    assert "label=dog" in text
    assert "disk is full" in text

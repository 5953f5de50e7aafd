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


def test_text_goes_where_standard_error_is_now() -> None:
    """A progress bar takes its place while it is shown, and puts the lines above itself."""
    program = (
        PROGRAM.partition("log = ")[0]
        + "import sys, io\nsys.stderr = io.StringIO()\n"
        + "structlog.get_logger().info('ours')\nlogging.getLogger('theirs').warning('said')\n"
        + "print(sys.stderr.getvalue())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program.format(log_format="console", level="info")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == done.stderr
    assert ["ours", "said"] == [word for word in ("ours", "said") if word in done.stdout]


FILE_PROGRAM = """
import io, logging, sys, structlog
from shoplens.telemetry.logs import configure_logs, tell_always
lines = []
configure_logs(log_format={log_format!r}, level="info", file=lines.append, quiet_terminal={quiet})
tell_always(command="night", run="r7")
log = structlog.get_logger("ours")
log.info("photo.classified", label="dog")
log.info("photo.moved", run="r8")
log.warning("photo.gone")
logging.getLogger("theirs").warning("disk is full")
print(b"\\n".join(line.strip() for line in lines).decode())
"""


def kept_and_shown(log_format: str, *, quiet: bool = False) -> tuple[list[dict[str, object]], list[str]]:
    """What a process handed to its file, and what it wrote to standard error."""
    program = FILE_PROGRAM.format(log_format=log_format, quiet=quiet)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.splitlines()


def test_a_file_has_whole_lines_of_json_whatever_is_shown() -> None:
    """Ours and the libraries', with the fields of the process; an event's own fields win."""
    for log_format in ("json", "console"):
        kept, shown = kept_and_shown(log_format)
        assert ["photo.classified", "photo.moved", "photo.gone", "disk is full"] == [line["event"] for line in kept]
        assert ["r7", "r8", "r7", "r7"] == [line["run"] for line in kept]
        assert {"night"} == {line["command"] for line in kept}
        assert 4 == len(shown)
    assert kept == [
        {**json.loads(line), "timestamp": now["timestamp"]}
        for line, now in zip(kept_and_shown("json")[1], kept, strict=True)
    ]


def test_a_quiet_terminal_shows_warnings_only() -> None:
    """The file has the rest; lines for programs are never left out."""
    kept, shown = kept_and_shown("console", quiet=True)
    assert (4, 2) == (len(kept), len(shown))
    assert 4 == len(kept_and_shown("json", quiet=True)[1])

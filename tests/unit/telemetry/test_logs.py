"""Logs are one line per event, on standard error and in files that processes share, without secrets."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shoplens.telemetry.logs import FileQueue, LogFolder

IMPORTS = """
import logging, sys
from pathlib import Path
import structlog
from shoplens.telemetry.logs import LogFolder, bind_process_fields, logging_to
"""

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


def events_in(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The events of this process, as our loggers hand them to `logging`."""
    return [record.msg for record in caplog.records if isinstance(record.msg, dict)]


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


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_line_holds_the_password_of_a_source(log_format: str, tmp_path: Path) -> None:
    """Neither on standard error nor in the files; also not in a traceback."""
    program = IMPORTS + (
        "from shoplens.telemetry.trigger_log import record_trigger\n"
        f"folder = LogFolder(path=Path({str(tmp_path)!r}), file_bytes=10**6, kept=1)\n"
        f"with logging_to(folder, log_format={log_format!r}, level='info'):\n"
        "    url = 's3://key:hunter' + '2@bucket/drop'\n"
        "    structlog.get_logger('ours').info('import.began', source=url)\n"
        "    try:\n        raise ValueError('cannot read ' + url)\n"
        "    except ValueError:\n        structlog.get_logger('ours').exception('import.failed')\n"
        "    with record_trigger(folder, job='batch_ingest', by='test', arguments={'source': url}):\n"
        "        pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    said = [done.stderr, *(path.read_text() for path in tmp_path.glob("*.log"))]
    assert 3 == len(said)
    assert all("key:***@bucket/drop" in each and "hunter2" not in each for each in said)


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
folder = LogFolder(path=Path(sys.argv[1]), file_bytes=1_000_000, kept=1)
with logging_to(folder, log_format={log_format!r}, level="info", quiet_terminal={quiet}):
    bind_process_fields(command="run", run="r7")
    log = structlog.get_logger("ours")
    log.info("photo.classified", label="dog")
    log.info("photo.moved", run="r8")
    log.warning("photo.gone")
    logging.getLogger("theirs").warning("disk is full")
"""


def kept_and_shown(folder: Path, log_format: str, *, quiet: bool = False) -> tuple[list[dict[str, object]], list[str]]:
    """The lines of `app.log` and of standard error of a process."""
    program = FILE_PROGRAM.format(log_format=log_format, quiet=quiet)
    command = [sys.executable, "-c", IMPORTS + program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return lines_in(folder), done.stderr.splitlines()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_file_has_json_lines_in_every_log_format(log_format: str, tmp_path: Path) -> None:
    """Our events and those of libraries, with the fields of the process; an event's own fields take precedence."""
    kept, shown = kept_and_shown(tmp_path, log_format)
    assert ["photo.classified", "photo.moved", "photo.gone", "disk is full"] == [line["event"] for line in kept]
    assert ["r7", "r8", "r7", "r7"] == [line["run"] for line in kept]
    assert {"run"} == {line["command"] for line in kept}
    assert 4 == len(shown)


def test_the_file_and_standard_error_have_the_same_json_lines(tmp_path: Path) -> None:
    """With the same timestamps."""
    kept, shown = kept_and_shown(tmp_path, "json")
    assert kept == [json.loads(line) for line in shown]


def test_a_quiet_terminal_shows_warnings_only(tmp_path: Path) -> None:
    """The file has every line; JSON on standard error is never filtered."""
    kept, shown = kept_and_shown(tmp_path / "a", "console", quiet=True)
    assert (4, 2) == (len(kept), len(shown))
    assert 4 == len(kept_and_shown(tmp_path / "b", "json", quiet=True)[1])


WRITER = """
folder, name, count, file_bytes, kept = sys.argv[1:]
logs = LogFolder(path=Path(folder), file_bytes=int(file_bytes), kept=int(kept))
with logging_to(logs, log_format="json", level="info"):
    log = structlog.get_logger()
    for number in range(int(count)):
        log.info("line", by=name, number=number, text="x" * 100)
"""


def writer(folder: Path, name: str, count: int, *, file_bytes: int, kept: int) -> subprocess.Popen[bytes]:
    """A process that logs `count` lines."""
    numbers = (str(count), str(file_bytes), str(kept))
    command = [sys.executable, "-c", IMPORTS + WRITER, str(folder), name, *numbers]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def lines_in(folder: Path) -> list[dict[str, object]]:
    """Every line of `app.log` and its older files; each must be whole."""
    return [json.loads(line) for path in folder.glob("app.log*") for line in path.read_text().splitlines()]


def test_several_processes_share_the_files(tmp_path: Path) -> None:
    """Each line of each process is there once and whole, also while the files rotate."""
    writers = [writer(tmp_path, name, 500, file_bytes=40_000, kept=90) for name in "abc"]
    assert [0, 0, 0] == [each.wait(120) for each in writers]
    assert len(list(tmp_path.glob("app.log.*"))) > 3
    found = [(line["by"], line["number"]) for line in lines_in(tmp_path)]
    assert sorted((name, number) for name in "abc" for number in range(500)) == sorted(found)


def test_old_files_are_removed(tmp_path: Path) -> None:
    """The current file and `kept` older ones remain."""
    assert 0 == writer(tmp_path, "a", 1_000, file_bytes=20_000, kept=2).wait(120)
    assert {"app.log", "app.log.1", "app.log.2"} == {path.name for path in tmp_path.glob("app.log*")}
    assert 999 == max(int(str(line["number"])) for line in lines_in(tmp_path))


def full(folder: Path) -> None:
    """A file on a device without space."""
    folder.mkdir()
    (folder / "app.log").symlink_to("/dev/full")


def absent(folder: Path) -> None:
    """No folder, and none can be created."""
    folder.write_text("a file")


def record(number: int) -> logging.LogRecord:
    """A line with a number."""
    return logging.makeLogRecord({"msg": f'{{"number": {number}}}'})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
@pytest.mark.parametrize("break_folder", [full, absent])
def test_a_file_that_cannot_be_written_is_one_warning(
    break_folder: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For any number of lines."""
    break_folder(tmp_path / "logs")
    file = LogFolder(path=tmp_path / "logs", file_bytes=1_000_000, kept=1).open("app.log")
    with caplog.at_level(logging.INFO):
        for number in range(100):
            file.handle(record(number))
        file.close()
    [said] = events_in(caplog)
    assert ("log_file.unwritable", "warning") == (said["event"], said["level"])
    assert said["reason"]


def test_writing_resumes_with_a_count_of_lost_lines(tmp_path: Path) -> None:
    """As soon as the file can be written again."""
    folder = tmp_path / "logs"
    folder.write_text("in the way")
    file = LogFolder(path=folder, file_bytes=1_000_000, kept=1).open("app.log")
    file.handle(record(1))
    folder.unlink()
    file.handle(record(2))
    file.close()
    lost, second = lines_in(folder)
    assert ("log_file.lines_lost", 1) == (lost["event"], lost["count"])
    assert {"number": 2} == second


def test_an_incomplete_last_line_is_ended(tmp_path: Path) -> None:
    """A process was killed while it wrote; the next line starts on its own."""
    (tmp_path / "app.log").write_text('{"number": 1}\n{"numb')
    file = LogFolder(path=tmp_path, file_bytes=1_000_000, kept=1).open("app.log")
    file.handle(record(2))
    file.close()
    assert ['{"number": 1}', '{"numb', '{"number": 2}'] == (tmp_path / "app.log").read_text().splitlines()


def test_a_full_queue_loses_lines_and_does_not_block(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing takes lines from the queue, as when the disk hangs: one warning, and the caller continues."""
    handler = FileQueue(LogFolder(path=tmp_path, file_bytes=1_000_000, kept=1).open("app.log"), limit=5)
    with caplog.at_level(logging.INFO):
        for number in range(9):
            handler.handle(record(number))
    assert ["log_file.unwritable"] == [event["event"] for event in events_in(caplog)]
    handler.start()
    handler.close()
    lost, *written = (tmp_path / "app.log").read_text().splitlines()
    assert 4 == json.loads(lost)["count"]
    assert 5 == len(written)


def test_a_process_ends_although_its_log_cannot_be_written_now(tmp_path: Path) -> None:
    """Opening a pipe without a reader blocks, as a disk that hangs does."""
    os.mkfifo(tmp_path / "app.log")
    program = """
import logging, pathlib, sys
from shoplens.telemetry.logs import FileQueue, LogFolder
folder = LogFolder(path=pathlib.Path(sys.argv[1]), file_bytes=1_000_000, kept=1)
handler = FileQueue(folder.open("app.log"), close_s=0.2)
handler.start()
handler.handle(logging.makeLogRecord({"msg": "a line"}))
handler.close()
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=True)


@pytest.mark.parametrize("handlers", ["", "import logging; logging.basicConfig()"], ids=["none", "standard error"])
def test_a_program_that_configures_nothing_has_no_lines_on_standard_output(handlers: str) -> None:
    """As a library, our events are silent, or go where the program's own handlers send them."""
    program = f"{handlers}\nfrom shoplens.telemetry.logs import get_logger\nget_logger('shoplens.x').warning('said')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ("", bool(handlers)) == (done.stdout, "said" in done.stderr)


def test_our_loggers_take_the_level_and_the_format_of_the_process() -> None:
    """Like those of structlog."""
    program = """
from shoplens.telemetry.logs import configure_logs, get_logger
log = get_logger("shoplens.x")
log.warning("too early")
configure_logs(log_format="json", level="warning")
log.info("quiet")
try:
    raise ValueError("broken")
except ValueError:
    log.exception("crashed", photo="a")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    [line] = map(json.loads, done.stderr.splitlines())
    assert ("", "crashed", "error", "a") == (done.stdout, line["event"], line["level"], line["photo"])
    assert "ValueError" == line["exception"][0]["exc_type"]

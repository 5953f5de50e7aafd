"""Log files: no line is lost or torn however many write, they rotate, and no fault of theirs reaches who logs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shoplens.telemetry.log_files import LogFile, LogFolder, open_rotating

WRITER = """
import json, sys
from pathlib import Path
from shoplens.telemetry.log_files import log_folder
folder, name, count, file_bytes, kept = sys.argv[1:]
with log_folder(Path(folder), file_bytes=int(file_bytes), kept=int(kept)) as files:
    log = files.file("app.log", gather_s=0.001)
    for number in range(int(count)):
        log.put(json.dumps({"by": name, "number": number, "text": "x" * 100}).encode())
"""


def writer(folder: Path, name: str, count: int, *, file_bytes: int, kept: int) -> subprocess.Popen[bytes]:
    """A process of its own that writes `count` lines."""
    numbers = (str(count), str(file_bytes), str(kept))
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name, *numbers])


def lines_in(folder: Path) -> list[dict[str, object]]:
    """Every line of every file, each of which must be whole."""
    return [json.loads(line) for path in folder.glob("app.log*") for line in path.read_text().splitlines()]


def test_several_processes_share_the_files(tmp_path: Path) -> None:
    """While the files rotate: every line of each is there once, and whole."""
    writers = [writer(tmp_path, name, 1_500, file_bytes=40_000, kept=90) for name in "abc"]
    assert [0, 0, 0] == [each.wait(120) for each in writers]
    found = [(line["by"], line["number"]) for line in lines_in(tmp_path)]
    assert len(list(tmp_path.glob("app.log.*"))) > 3
    assert sorted((name, number) for name in "abc" for number in range(1_500)) == sorted(found)


def test_old_files_are_removed(tmp_path: Path) -> None:
    """What the logs take is bounded: the present file, and as many older ones as are to be kept."""
    assert 0 == writer(tmp_path, "a", 3_000, file_bytes=20_000, kept=2).wait(120)
    assert {"app.log", "app.log.1", "app.log.2"} == {path.name for path in tmp_path.glob("app.log*")}
    assert 2_999 == max(int(str(line["number"])) for line in lines_in(tmp_path))


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """Also what was put at the last moment; after that nothing is taken any more."""
    folder = LogFolder(tmp_path / "logs", file_bytes=1_000_000, kept=1)
    log = folder.file("app.log", gather_s=60)
    for number in range(1_000):
        log.put(b'{"number": %d}\n' % number)
    folder.close()
    log.put(b'{"number": -1}')
    assert list(range(1_000)) == [line["number"] for line in lines_in(tmp_path / "logs")]


def test_flushing_waits_until_it_is_written(tmp_path: Path) -> None:
    """So that what follows is known to come later."""
    log = log_file(tmp_path / "app.log")
    log.put(b'{"number": 1}')
    log.flush(60)
    assert [{"number": 1}] == lines_in(tmp_path)
    log.close()


def full(folder: Path) -> None:
    """A file on a device without room."""
    folder.mkdir()
    (folder / "app.log").symlink_to("/dev/full")


def absent(folder: Path) -> None:
    """No folder, and none can be made."""
    folder.write_text("a file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
@pytest.mark.parametrize("break_folder", [full, absent])
def test_a_folder_that_cannot_be_written_is_one_warning(break_folder: Callable[[Path], None], tmp_path: Path) -> None:
    """However many lines and files it concerns; whoever logs notices nothing."""
    break_folder(tmp_path / "logs")
    folder = LogFolder(tmp_path / "logs", file_bytes=1_000_000, kept=1)
    with capture_logs() as events:
        for name in ("app.log", "app.log"):
            log = folder.file(name, gather_s=0)
            for _ in range(100):
                log.put(b"{}")
        folder.close()
    assert ["log_file.unwritable"] == [event["event"] for event in events]
    assert "warning" == events[0]["log_level"]
    assert events[0]["reason"]


def test_writing_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    """With a line that says how many were lost."""
    folder = tmp_path / "logs"
    folder.write_text("in the way")
    troubles: list[str | None] = []
    told = threading.Event()

    def note(reason: str | None) -> None:
        troubles.append(reason)
        told.set()

    log = log_file(folder / "app.log", on_trouble=note)
    log.put(b'{"number": 1}')
    assert told.wait(30)
    folder.unlink()
    log.put(b'{"number": 2}')
    log.close()
    lost, second = lines_in(folder)
    assert ("log_file.lines_lost", 1) == (lost["event"], lost["count"])
    assert {"number": 2} == second
    assert None is troubles[-1]


def test_half_a_line_spoils_no_other(tmp_path: Path) -> None:
    """A process was stopped while it wrote."""
    (tmp_path / "app.log").write_text('{"number": 1}\n{"numb')
    log = log_file(tmp_path / "app.log")
    log.put(b'{"number": 2}')
    log.close()
    assert ['{"number": 1}', '{"numb', '{"number": 2}'] == (tmp_path / "app.log").read_text().splitlines()


def test_a_file_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """Lines wait up to a bound, then they are dropped and counted."""
    fifo = tmp_path / "app.log"
    os.mkfifo(fifo)
    opening, may_go_on = threading.Event(), threading.Event()
    troubles: list[str | None] = []

    def hang() -> None:
        opening.set()
        may_go_on.wait(60)
        fifo.unlink()

    log = log_file(tmp_path / "app.log", on_trouble=troubles.append, before_open=hang, waiting_lines=5)
    log.put(b'{"number": 0}')
    assert opening.wait(30)
    for number in range(1, 9):
        log.put(b'{"number": %d}' % number)
    may_go_on.set()
    log.close()
    assert "lines come faster than they can be written" == troubles[0]
    numbers = [line["number"] for line in lines_in(tmp_path) if "number" in line]
    assert [0, 1, 2, 3, 4, 5] == numbers
    assert [3] == [line["count"] for line in lines_in(tmp_path) if "count" in line]


def log_file(
    path: Path,
    *,
    on_trouble: Callable[[str | None], None] = lambda _: None,
    before_open: Callable[[], None] = lambda: None,
    waiting_lines: int = 100,
) -> LogFile:
    """A file as a folder opens it, with what a test wants to see or to hold."""

    def open_file() -> logging.Handler:
        before_open()
        return open_rotating(path, file_bytes=1_000_000, kept=1)

    return LogFile(open_file, on_trouble=on_trouble, gather_s=0, waiting_lines=waiting_lines)

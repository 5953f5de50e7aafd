"""What survives: a killed process, a neighbour that writes too, a full disk."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from shoplens.db import Database, open_database
from shoplens.db.sqlite import driver as sqlite3
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.repository import PredictionRepository
from tests.conftest import ONLY_SQLITE

ROOT = Path(__file__).parents[3]
CHILD = "tests.integration.db.writing_child"


def start(database_url: str, *, threads: int = 4, at_once: int = 3) -> subprocess.Popen[str]:
    """A process that writes until it is killed; it has committed something when this returns."""
    command = [sys.executable, "-m", CHILD, database_url, str(threads), str(at_once)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def kill(child: subprocess.Popen[str]) -> set[str]:
    """SIGKILL; the ids that the process said were written. A line that was cut off was not said."""
    child.kill()
    said = child.communicate()[0]
    return {line for line in said[: said.rfind("\n") + 1].splitlines() if line}


def first_id(child: subprocess.Popen[str]) -> str:
    """Wait until it writes."""
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    assert line, "the child died"
    return line


def stored(database_url: str) -> set[str]:
    """The ids in the database, read by a newly opened one."""
    database = open_database(database_url)
    with database.reading() as tx:
        ids = {record.id for record in PredictionRepository(tx).page(RecordFilter(), limit=1_000_000)}
    database.close()
    return ids


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_was_answered_is_lost_by_kill_9(database_url: str, seed: int) -> None:
    """At a random moment under full load; the file is sound afterwards."""
    child = start(database_url)
    answered = {first_id(child)}
    time.sleep(random.Random(seed).uniform(0.02, 0.35))
    answered |= kill(child)
    assert_kept(answered, database_url)


@pytest.mark.parametrize("batches", range(4))
def test_nothing_is_lost_when_the_kill_follows_the_answer_at_once(database_url: str, batches: int) -> None:
    """Large groups take long to commit, so an answer before the commit would be caught in the act."""
    child = start(database_url, threads=1, at_once=250)
    answered = {first_id(child) for _ in range(1 + 250 * batches)}
    answered |= kill(child)
    assert_kept(answered, database_url)


def assert_kept(answered: set[str], database_url: str) -> None:
    """Every id is in the database, and the file is sound."""
    assert set() == answered - stored(database_url)
    if not database_url.startswith("sqlite"):
        return
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


def test_two_processes_write_at_once(database_url: str) -> None:
    """Both go on although the other writes, and no row is lost."""
    children = [start(database_url, threads=2, at_once=5) for _ in range(2)]
    answered = {first_id(child) for _ in range(12) for child in children}
    alive = [child.poll() for child in children]
    for child in children:
        answered |= kill(child)
    assert [None, None] == alive
    assert set() == answered - stored(database_url)


@ONLY_SQLITE
def test_a_full_disk_fails_the_write_and_keeps_what_was_committed(database_file: Path, database: Database) -> None:
    """A limit on the size of files stands for the disk; the sentence says what to do."""
    program = (
        "import resource, signal, sys\n"
        "from shoplens.db import GroupWriter, open_database\n"
        "from shoplens.predictions.repository import add_records\n"
        "from tests.samples import make_record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "database = open_database(f'sqlite:///{sys.argv[1]}')\n"
        "writer = GroupWriter(database, add_records)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
        "committed, failures = 0, set()\n"
        "for number in range(1000):\n"
        "    error = writer.submit(make_record(number)).exception()\n"
        "    committed += error is None\n"
        "    if error is not None: failures.add(str(error)); break\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "committed += writer.submit(make_record(2000)).exception() is None\n"
        "print(committed, *failures)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(database_file)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    committed, sentence = done.stdout.split(" ", 1)
    assert "disk" in sentence, sentence
    with database.reading() as tx:
        assert int(committed) == len(PredictionRepository(tx).page(RecordFilter(), limit=10_000))
    assert int(committed) > 1

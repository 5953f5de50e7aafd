"""A process that writes predictions until it is killed: run by the tests beside this file.

Prints each id after its future was resolved. Arguments: the database's URL, the number of threads, how many records
each thread submits at once.
"""

from __future__ import annotations

import itertools
import sys
import threading
from concurrent.futures import wait

from shoplens.db import GroupWriter, open_database
from shoplens.predictions.entities import PredictionRecord
from shoplens.predictions.repository import add_records
from tests.samples import make_record

_printing = threading.Lock()


def main() -> None:
    """Never returns."""
    url, threads, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    writer = GroupWriter(open_database(url), add_records)
    workers = [threading.Thread(target=_write, args=(writer, at_once)) for _ in range(threads)]
    for worker in workers:
        worker.start()


def _write(writer: GroupWriter[PredictionRecord], at_once: int) -> None:
    for first in itertools.count(0, at_once):
        records = [make_record(number) for number in range(first, first + at_once)]
        futures = [writer.submit(record) for record in records]
        wait(futures)
        if any(future.exception() for future in futures):
            raise RuntimeError(str(futures[0].exception()))
        with _printing:
            sys.stdout.write("".join(f"{record.id}\n" for record in records))
            sys.stdout.flush()


if __name__ == "__main__":
    main()

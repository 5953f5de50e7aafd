"""Bring photos in as a user without rights, and print what each visit said: folders in, JSON lines out.

Run with the database, the folder for blobs, and the sources. Everything is imported before rights are given up, since
the interpreter itself may lie where others may not look.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from shoplens.batch.ingest import IngestPhotos
from shoplens.batch.local_source import LocalSource
from shoplens.batch.references import compile_pattern
from shoplens.batch.visit import VisitRules
from shoplens.db import open_database
from shoplens.errors import ShoplensError
from shoplens.storage import open_store

NOBODY = 65_534


def main(database_file: str, blobs: str, *sources: str) -> None:
    """Visit each source."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    database = open_database(f"sqlite:///{database_file}")
    ingest = IngestPhotos(
        database,
        open_store(blobs),
        clock=lambda: datetime.now(UTC),
        source="",
        open_source=lambda url: LocalSource(Path(url), quiet_s=0, now=time.time),
        rules=VisitRules(
            channel="returns", name_pattern=compile_pattern("x"), batch=8, threads=2, max_image_bytes=1_000
        ),
    )
    for source in sources:
        try:
            said = ingest(source).as_json()
        except ShoplensError as error:
            said = {"code": error.code, "text": str(error)}
        sys.stderr.write(json.dumps(said) + "\n")
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

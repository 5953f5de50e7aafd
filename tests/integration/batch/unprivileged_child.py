"""Import photos as a user without rights, and print each summary as a JSON line.

Arguments: the database, the folder of the store, and the sources. All modules are imported before the rights are
dropped, because the interpreter may be in a folder that others cannot read.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from shoplens.batch.doctor import is_importable
from shoplens.batch.importer import Importer, ImportRules
from shoplens.batch.sidecars import compile_pattern
from shoplens.batch.sources import LocalSource
from shoplens.db import open_database
from shoplens.errors import ShoplensError
from shoplens.storage import open_store

NOBODY = 65_534


def main(database_file: str, blobs: str, *sources: str) -> None:
    """Import from each source."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    database = open_database(f"sqlite:///{database_file}")
    importer = Importer(
        database,
        open_store(blobs),
        clock=lambda: datetime.now(UTC),
        source="",
        open_source=lambda url: LocalSource(Path(url), quiet_s=0, now=time.time),
        rules=ImportRules(
            channel="returns", name_pattern=compile_pattern("x"), commit_items=8, threads=2, max_image_bytes=1_000
        ),
    )
    for source in sources:
        try:
            stuck = [each.name for each in Path(source).rglob("*") if not is_importable(each)]
            result = importer.run(source).as_json() | {"stuck": sorted(stuck)}
        except ShoplensError as error:
            result = {"code": error.code, "text": str(error)}
        sys.stderr.write(json.dumps(result) + "\n")
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

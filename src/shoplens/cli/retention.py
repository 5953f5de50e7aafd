"""`shoplens retention`: say what is due by the settings of all channels, and delete it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

import orjson
import typer

from shoplens.cli.command import settings_for
from shoplens.cli.output import Cell, Value, remark, show_table
from shoplens.platform.retention import all_due, open_all_retention
from shoplens.predictions.removal import Removed
from shoplens.predictions.retention import Due

_HEADS: Final = ("CHANNEL", "WHAT", "DAYS", "DUE", "WAITING", "NEXT")
_NOTHING: Final = (
    "No channel has a limit, so everything is kept. Set keep_photos_days or keep_records_days of a channel."
)


def apply_retention(*, dry_run: bool, as_json: bool, data_dir: Path | None) -> None:
    """Print what is due by each setting that has a limit, and delete it unless `dry_run`.

    Raises DatabaseUnavailable and StorageUnavailable.
    """
    with open_all_retention(settings_for(data_dir)) as (records, moderation):
        due = [each for each in all_due(records, moderation) if each.days is not None]
        if not as_json:
            show_table(_HEADS, [_row(each) for each in due], nothing=_NOTHING)
        deleted = None
        if not dry_run:
            removed = sum(records.run().values(), Removed())
            photos = moderation.run()
            deleted = removed + Removed(photos=photos.photos, files=photos.files)
    if as_json:
        typer.echo(orjson.dumps({"due": due, "deleted": None if deleted is None else asdict(deleted)}))
    elif deleted is not None and due:
        remark(f"Deleted {deleted.records:,} records and {deleted.photos:,} photos ({deleted.files:,} files).")


def _row(due: Due) -> tuple[Value | Cell, ...]:
    count = Cell(shown=f"{due.due:,}+", plain=due.due, right=True) if due.more else due.due
    return due.channel, due.what, due.days, count, due.waiting, due.next_at

"""Compare the rows of the database with the files of the store: photos that are gone, and files that no row names.

What is looked at is bounded in number and in time, newest rows first; the result says how much that was. Nothing is
changed. Photos that arrive or are moved meanwhile are not counted as faults.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Final

from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.labels.repository import LabelSetRepository
from shoplens.moderation.files import original_key
from shoplens.moderation.repository import PhotoRepository
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import Store
from shoplens.storage.store import CHECK_KEY

LOOKED_AT: Final = 200_000
"""Rows and files at most, about 60 MB of memory."""
_DEADLINE_S: Final = 20.0
_MOST_EXAMPLES: Final = 3
_MOST_CHECKED_AGAIN: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAudit:
    """`files_without_row` is None where not all rows or files were looked at: then nothing can be said of them."""

    rows: int
    files: int
    is_complete: bool
    rows_without_file: tuple[str, ...]
    files_without_row: tuple[str, ...] | None


def audit_store(database: Database, store: Store, *, limit: int = LOOKED_AT) -> StoreAudit:
    """Compare them, within about half a minute. Raises DatabaseUnavailable and StorageUnavailable."""
    give_up_at = time.monotonic() + _DEADLINE_S
    listed = set(_until(give_up_at, islice(store.list(""), limit + 1)))
    all_files = len(listed) <= limit and time.monotonic() < give_up_at
    named, hashes = _rows(database, limit)
    all_rows = len(named) < limit
    if all_files:
        suspects = [key for key in named if key not in listed]
    else:
        suspects = [key for key in _until(time.monotonic() + _DEADLINE_S, iter(named)) if not store.exists(key)]
    moving = _moving(database)
    missing = [key for key in suspects[:_MOST_CHECKED_AGAIN] if key not in moving and not store.exists(key)]
    missing += suspects[_MOST_CHECKED_AGAIN:]
    unnamed = None
    if all_files and all_rows:
        named_now, hashes_now = _rows(database, limit)  # what came while the files were listed
        known = named.keys() | named_now.keys() | moving
        hashes |= hashes_now
        unnamed = tuple(sorted(key for key in listed if key not in known and not _is_derived(key, hashes)))
    return StoreAudit(
        rows=len(named),
        files=min(len(listed), limit),
        is_complete=all_files and all_rows,
        rows_without_file=tuple(missing),
        files_without_row=unnamed,
    )


def in_words(audit: StoreAudit) -> tuple[str, bool]:
    """What was found and what to do about it, and whether anything was."""
    looked = f"{audit.rows:,} rows and {audit.files:,} files were compared"
    if not audit.is_complete:
        looked = f"the newest {looked}; there are more"
    sentences = []
    if audit.rows_without_file:
        sentences.append(
            f"{_count(audit.rows_without_file, 'photo')} of rows {_is(audit.rows_without_file)} not in the store"
            f"{_examples(audit.rows_without_file)}; copy them from the folder photos of a backup."
        )
    if audit.files_without_row:
        sentences.append(
            f"{_count(audit.files_without_row, 'file')} of the store {_is(audit.files_without_row)} named by no row"
            f"{_examples(audit.files_without_row)}; they may be deleted if the database is the right one."
        )
    if not sentences:
        return f"{looked}: every row has its photo" + (", every file its row" if audit.is_complete else ""), False
    return f"{' '.join(sentences)} ({looked}.)", True


def _rows(database: Database, limit: int) -> tuple[dict[str, None], set[str]]:
    """The keys that the newest rows name; the hashes of their photos, and the folders of those of moderation."""
    with database.reading() as tx:
        photos = ItemRepository(tx).photo_keys(limit) + PredictionRepository(tx).photo_keys(limit)
        moderated = PhotoRepository(tx).stored_images(limit)
        reports = RunRepository(tx).report_keys(limit)
        label_sets = [each.key for each in LabelSetRepository(tx).all()]
    originals = (original_key(image.folder, image.format) for image in moderated)
    keys = chain((key for key, _ in photos), originals, reports, label_sets)
    derived_from = {sha256 for _, sha256 in photos} | {image.folder for image in moderated}
    return dict.fromkeys(islice(keys, limit)), derived_from


def _moving(database: Database) -> set[str]:
    with database.reading() as tx:
        return ItemRepository(tx).keys_in_motion() | PredictionRepository(tx).keys_in_deletion()


def _is_derived(key: str, known: set[str]) -> bool:
    """Whether it was made from a photo that a row names, or belongs to the store itself."""
    path = PurePosixPath(key)
    return key == CHECK_KEY or path.name.partition(".")[0] in known or str(path.parent) in known


def _until(give_up_at: float, keys: Iterator[str]) -> Iterator[str]:
    """These, as many as come before that time."""
    for key in keys:
        yield key
        if time.monotonic() > give_up_at:
            return


def _count(keys: tuple[str, ...], noun: str) -> str:
    return f"{len(keys):,} {noun}{'' if len(keys) == 1 else 's'}"


def _is(keys: tuple[str, ...]) -> str:
    return "is" if len(keys) == 1 else "are"


def _examples(keys: tuple[str, ...]) -> str:
    more = ", …" if len(keys) > _MOST_EXAMPLES else ""
    return f" ({', '.join(keys[:_MOST_EXAMPLES])}{more})"

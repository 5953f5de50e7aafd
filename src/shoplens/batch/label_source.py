"""What people said of items of runs that have no prediction, such as photos that were quarantined, as labels.

What they said of an item with a prediction is stored as feedback on that prediction too, and comes from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from shoplens.batch.entities import BatchItem
from shoplens.batch.review_repository import ReviewRepository
from shoplens.db import Database
from shoplens.labels.entities import Label

SOURCE: Final = "batch"
_PAGE: Final = 1_000


def answered_items(database: Database) -> Callable[[str], Iterator[Label]]:
    """The labels of a channel, in the order of the items' ids, a page in memory at a time."""

    def labels(channel: str) -> Iterator[Label]:
        last = ""
        while True:
            with database.reading() as tx:
                page = ReviewRepository(tx).labelled(channel, after=last, limit=_PAGE)
            if not page:
                return
            yield from map(_label, page)
            last = page[-1].id

    return labels


def _label(item: BatchItem) -> Label:
    assert item.label is not None
    return Label(
        sample_id=item.id,
        source=SOURCE,
        channel=item.channel,
        label=item.label,
        given_at=item.corrected_at or item.received_at,
        given_by=item.answered_by,
        model="",
        image_sha256=item.sha256,
        image_key=item.key,
    )

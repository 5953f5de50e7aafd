"""What people decided on shoppers' photos, as labels for the training of the moderation model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from shoplens.db import Database
from shoplens.labels.entities import Label
from shoplens.moderation.consequences.repository import DecidedRepository
from shoplens.moderation.entities import ModerationPhoto, PhotoState
from shoplens.moderation.files import original_key
from shoplens.moderation.reasons import Reason

SOURCE: Final = "moderation"
_PAGE: Final = 1_000


class DecisionLabels:
    """The labels of a channel, a page in memory at a time; call it with the name of the channel.

    The decision that stands counts: a later one replaces an earlier one, and what was undone is left out. A refusal
    gives the label of its reason, none where the reason teaches nothing; `accepted` is that of published photos.
    """

    def __init__(
        self,
        database: Database,
        *,
        reasons: Callable[[str], Sequence[Reason]],
        accepted: Callable[[str], str | None],
    ) -> None:
        self._database = database
        self._reasons = reasons
        self._accepted = accepted

    def __call__(self, channel: str) -> Iterator[Label]:
        """In the order of the photos' ids."""
        labels = {reason.code: reason.label for reason in self._reasons(channel)}
        accepted = self._accepted(channel)
        last = ""
        while True:
            with self._database.reading() as tx:
                page = DecidedRepository(tx).by_people(channel, after=last, limit=_PAGE)
            if not page:
                return
            for photo in page:
                label = accepted if photo.state is PhotoState.PUBLISHED else labels.get(photo.reason or "")
                if label is not None:
                    yield _label(photo, label)
            last = page[-1].id


def _label(photo: ModerationPhoto, label: str) -> Label:
    key = None if photo.image_key is None else original_key(photo.image_key, photo.image.format)
    return Label(
        sample_id=photo.id,
        source=SOURCE,
        channel=photo.channel,
        label=label,
        given_at=photo.decided_at,
        given_by=photo.decided_by,
        model=photo.signals[0].version if photo.signals else "",
        image_sha256=photo.image.sha256,
        image_key=key,
        image_phash=photo.image.phash or None,
    )

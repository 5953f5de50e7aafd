"""Shoppers' photos for tests of moderation, without files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import insert

from shoplens.accounts.entities import SYSTEM, Permission, Principal, PrincipalKind
from shoplens.db import Database
from shoplens.db.tables import make_id, to_row
from shoplens.images.fingerprint import LENGTH
from shoplens.images.picture import ImageFacts
from shoplens.moderation.decisions import add_decided
from shoplens.moderation.entities import POLICY, ModerationPhoto, PhotoState, QueueReason, References, Signal
from shoplens.webhooks.entities import Endpoint
from shoplens.webhooks.tables import webhook_endpoints

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ANNA = Principal(
    kind=PrincipalKind.PERSON, id="01kqanna0000000000000000aa", name="anna", permissions=frozenset(Permission)
)
BEN = Principal(
    kind=PrincipalKind.PERSON, id="01kqben00000000000000000bb", name="ben", permissions=frozenset(Permission)
)


def moment(seconds: float) -> datetime:
    """So many seconds after the start of a test's time."""
    return START + timedelta(seconds=seconds)


def photo_id(number: int) -> str:
    """The id of the photo with this number; ids sort by it."""
    return make_id(int(moment(number).timestamp() * 1000), bytes(10))


def photo_of(number: int, *, state: PhotoState = PhotoState.HELD, **more: Any) -> ModerationPhoto:
    """A photo that came `number` seconds after the start, and was decided at once. A held one is in the queue."""
    fields: dict[str, Any] = {
        "id": photo_id(number),
        "created_at": moment(number),
        "channel": "reviews",
        "intake_id": photo_id(number),
        "position": 0,
        "ref": References(customer="c-1", product="p-1"),
        "state": state,
        "image": ImageFacts(
            format="jpeg",
            width=640,
            height=480,
            byte_count=1234,
            sha256=f"{number:064x}",
            phash=f"{number:016x}",
        ),
        "image_key": f"moderation/ab/{photo_id(number)}",
        "signals": (Signal(name="nsfw", score=0.3, version="opennsfw@1"),),
        "policy_version": "abcdef012345",
        "decided_by": POLICY,
        "decided_at": moment(number),
        "rule": "nsfw 0.30 is at least 0.2",
        "queue": QueueReason.HELD if state is PhotoState.HELD else None,
        "fingerprint": np.random.default_rng(number).integers(-90, 90, LENGTH, np.int8).tobytes(),
    }
    return ModerationPhoto(**(fields | more))


def stored(database: Database, *photos: ModerationPhoto) -> None:
    """Store these photos, each with the decision that it carries."""
    with database.transaction() as tx:
        add_decided(tx, photos, by=SYSTEM)


def listened(database: Database, name: str, events: str = "*", disabled_at: datetime | None = None) -> None:
    """Store an endpoint for these events."""
    endpoint = Endpoint(
        id=name,
        created_at=moment(0),
        url="https://shop.example/hook",
        secret="whsec_x",
        events=events,
        disabled_at=disabled_at,
    )
    with database.transaction() as tx:
        tx.execute(insert(webhook_endpoints), to_row(endpoint))

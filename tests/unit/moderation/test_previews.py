"""Signed addresses of photos: what opens, for how long, and with whose key."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import delete, select

from shoplens.db import Database, open_database
from shoplens.moderation.entities import ModerationPhoto, PhotoState
from shoplens.moderation.previews import PreviewLinks
from shoplens.moderation.tables import moderation_keys
from tests.unit.moderation.photos import moment, photo_id, photo_of

HELD = photo_of(0)


def links(database: Database, *, minutes: int = 60, at: float = 1) -> PreviewLinks:
    """Those of a server that has just started, at so many seconds of the test's time."""
    return PreviewLinks(database, minutes=minutes, clock=lambda: moment(at))


def signed(database: Database, photo: ModerationPhoto = HELD) -> str:
    """The value of `preview` in the address of a photo."""
    server = links(database)
    server.prepare()
    address = server.address(photo)
    assert address is not None
    assert address.startswith(f"/media/{photo.id}?w=320&preview=")
    return address.partition("preview=")[2]


def test_servers_that_start_at_once_agree_on_one_key(database: Database, database_url: str) -> None:
    """What one signs opens at the others, also after a restart."""
    others = [open_database(database_url) for _ in range(4)]
    servers = [links(each) for each in others]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(PreviewLinks.prepare, servers))
    assert {signed(database)} == {(each.address(HELD) or "").partition("preview=")[2] for each in servers}
    assert all(each.opens(HELD.id, signed(database)) for each in servers)
    with database.reading() as tx:
        assert [32] == [len(secret) for secret in tx.scalars(select(moderation_keys.c.secret))]
    for each in others:
        each.close()


@pytest.mark.parametrize(
    "forge",
    [
        lambda text: "",
        lambda text: text.partition(".")[0],
        lambda text: text.partition(".")[0] + ".",
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text + "=",
        lambda text: f"{int(text.partition('.')[0]) + 60}.{text.partition('.')[2]}",
        lambda text: "9" * 400 + "." + text.partition(".")[2],
        lambda text: "\u0661" + text,
        lambda text: "0" + text,
        lambda text: text + "\x00\U0001f4f7",
    ],
)
def test_what_was_not_signed_here_opens_nothing(database: Database, forge: Callable[[str], str]) -> None:
    """Another time, a part of the signature, signs of other alphabets: none is an error either."""
    real = signed(database)
    assert links(database).opens(HELD.id, real)
    assert not links(database).opens(HELD.id, forge(real))


def test_an_address_opens_one_photo(database: Database) -> None:
    """And with the key of another installation none."""
    real = signed(database)
    assert not links(database).opens(photo_id(1), real)
    with database.transaction() as tx:
        tx.execute(delete(moderation_keys))
    assert not links(database).opens(HELD.id, real)
    assert real != signed(database)
    assert not links(database).opens(HELD.id, real)


@pytest.mark.parametrize(("seconds", "opens"), [(0, True), (3_599, True), (3_600, False), (90_000, False)])
def test_an_address_ends(database: Database, seconds: float, opens: bool) -> None:
    """An hour after the upload; a repeated request does not make it longer, and gets none after its time."""
    real = signed(database)
    later = links(database, at=seconds)
    assert opens == later.opens(HELD.id, real)
    address = later.address(HELD)
    assert (f"/media/{HELD.id}?w=320&preview={real}" if opens else None) == address


@pytest.mark.parametrize(
    ("state", "has_one"), [(PhotoState.HELD, True), (PhotoState.PUBLISHED, True), (PhotoState.REFUSED, False)]
)
def test_a_refused_photo_has_no_address(database: Database, state: PhotoState, has_one: bool) -> None:
    """The shopper reads its statement instead."""
    signed(database)
    assert has_one == (links(database).address(replace(HELD, state=state)) is not None)


def test_previews_can_be_switched_off(database: Database) -> None:
    """Also those that were signed before; no key is made."""
    off = links(database, minutes=0)
    off.prepare()
    with database.reading() as tx:
        assert [] == tx.execute(select(moderation_keys)).all()
    real = signed(database)
    assert (None, False) == (off.address(HELD), off.opens(HELD.id, real))


def test_before_the_first_upload_nothing_opens(database: Database) -> None:
    """Asking makes no key."""
    assert not links(database).opens(HELD.id, "9999999999.x")
    with database.reading() as tx:
        assert [] == tx.execute(select(moderation_keys)).all()

"""What `shoplens doctor` says of people and keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shoplens.accounts.doctor import in_words
from shoplens.accounts.entities import ApiKey, Person, Role
from shoplens.advice import Caution

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
ANNA = Person(id="0" * 26, created_at=NOW, name="anna", role=Role.ADMIN, totp_confirmed_at=NOW)
BEN = replace(ANNA, id="1" * 26, name="ben", totp_confirmed_at=None)
CARA = replace(BEN, id="2" * 26, name="cara", role=Role.CLERK)
KEY = ApiKey(
    id="3" * 26,
    created_at=NOW,
    name="review form",
    prefix="slk_5kYw",
    key_hash="not to be shown",
    scopes="predict",
    created_by="anna",
)


def test_people_and_keys_are_counted() -> None:
    """With the admins who have no second factor; disabled people and revoked keys do not count."""
    out = replace(CARA, id="4" * 26, disabled_at=NOW)
    words = in_words([ANNA, BEN, CARA, out], [KEY, replace(KEY, revoked_at=NOW)], now=NOW, allow_public=False)
    assert words == ("a sign-in or a key is needed; 2 admins, 1 without a second factor; 3 people and 1 key in all")


@pytest.mark.parametrize(
    ("days", "words"),
    [(13, "the key slk_5kYw… of review form ends on 2026-12-05"), (-2, "ended on 2026-11-20"), (15, None), (-15, None)],
)
def test_a_key_that_ends_soon_is_a_caution(days: int, words: str | None) -> None:
    """So that somebody makes another one in time; its hash is not shown."""
    key = replace(KEY, expires_at=NOW + timedelta(days=days))
    found = in_words([ANNA], [key], now=NOW, allow_public=False)
    assert isinstance(found, Caution) is (words is not None)
    text = found.text if isinstance(found, Caution) else found
    assert (words or "") in text
    assert KEY.key_hash not in text


def test_a_system_that_nobody_can_administer_is_a_caution() -> None:
    """The command brings an admin back."""
    found = in_words([replace(ANNA, disabled_at=NOW)], [], now=NOW, allow_public=False)
    assert isinstance(found, Caution)
    assert "no active admin" in found.text


@pytest.mark.parametrize("allow_public", [False, True])
def test_without_people_no_sign_in_is_needed(allow_public: bool) -> None:
    """Which needs attention where others can reach the server."""
    found = in_words([], [], now=NOW, allow_public=allow_public)
    assert isinstance(found, Caution) is allow_public
    assert "no sign-in is needed" in (found.text if isinstance(found, Caution) else found)

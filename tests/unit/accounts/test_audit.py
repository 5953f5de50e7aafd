"""The audit log: rows in a chain, in the transaction of what they tell of, on both databases."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from shoplens.accounts.audit import AuditFilter, AuditLog, Origin, audit_csv, audit_json_lines, origin
from shoplens.accounts.audit_check import Head, verify
from shoplens.accounts.entities import SYSTEM
from shoplens.accounts.tables import audit_log
from shoplens.db import Database
from shoplens.errors import RequestInvalid

START = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture
def audit(database: Database) -> AuditLog:
    """A log whose clock goes one minute forward at each entry."""
    minutes = iter(range(1_000_000))
    return AuditLog(database, clock=lambda: START + timedelta(minutes=next(minutes)))


def filled(audit: AuditLog, count: int = 6) -> None:
    """Entries 1 to `count`."""
    for number in range(1, count + 1):
        audit.note(SYSTEM, "key.created", target=f"key {number}", details={"number": number, "ratio": number / 3})


def faults(audit: AuditLog, *known: Head) -> tuple[str, ...]:
    """What verification says."""
    return verify(audit.all(), known=known).faults


def test_an_untouched_log_is_whole_and_its_end_is_known(audit: AuditLog) -> None:
    """Also with entries of more than one page."""
    filled(audit, 600)
    found = verify(audit.all())
    assert () == found.faults
    assert audit.page(AuditFilter(), limit=1)[0].hash == found.head.hash
    assert 600 == found.head.seq


def test_an_empty_log_is_whole(audit: AuditLog) -> None:
    """Before the first entry."""
    assert () == faults(audit)


def _change(tx: Any) -> None:
    tx.execute(update(audit_log).where(audit_log.c.seq == 3).values(actor_name="somebody else"))


def _change_details(tx: Any) -> None:
    tx.execute(update(audit_log).where(audit_log.c.seq == 3).values(details={"number": 4}))


def _remove(tx: Any) -> None:
    tx.execute(delete(audit_log).where(audit_log.c.seq == 3))


def _insert(tx: Any) -> None:
    row = dict(tx.execute(select(audit_log).where(audit_log.c.seq == 6)).one()._mapping)
    tx.execute(insert(audit_log).values(**{**row, "seq": 7, "target": "inserted", "hash": "f" * 64}))


def _swap(tx: Any) -> None:
    for old, new in ((3, 1000), (4, 3), (1000, 4)):
        tx.execute(update(audit_log).where(audit_log.c.seq == old).values(seq=new))


@pytest.mark.parametrize(
    ("tamper", "sentence"),
    [
        (_change, "Entry 3 was changed"),
        (_change_details, "Entry 3 was changed"),
        (_remove, "Before entry 4, entry 3 is missing."),
        (_insert, "Entry 7 does not follow entry 6"),
        (_swap, "Entry 3 does not follow entry 2"),
    ],
    ids=["changed", "details", "removed", "inserted", "moved"],
)
def test_verification_names_the_entry_that_was_tampered_with(
    audit: AuditLog, database: Database, tamper: Callable[[Any], None], sentence: str
) -> None:
    """Write access to the table is not enough to change it unnoticed."""
    filled(audit)
    with database.transaction() as tx:
        tamper(tx)
    assert sentence in " ".join(faults(audit))


def test_entries_removed_from_the_end_show_beside_an_end_that_was_noted(audit: AuditLog, database: Database) -> None:
    """The chain alone cannot show it."""
    filled(audit)
    noted = verify(audit.all()).head
    with database.transaction() as tx:
        tx.execute(delete(audit_log).where(audit_log.c.seq > 4))
    assert () == faults(audit)
    assert ("The log ends at entry 4, but it had an entry 6: entries were removed from the end.",) == faults(
        audit, noted
    )


def test_a_log_that_was_written_again_shows_beside_an_end_that_was_noted(audit: AuditLog, database: Database) -> None:
    """With a chain of hashes that fit each other."""
    filled(audit)
    noted = Head.read(str(verify(audit.all()).head))
    with database.transaction() as tx:
        tx.execute(delete(audit_log))
    filled(audit)
    assert () == faults(audit)
    assert "Entry 6 is not the one that was noted earlier" in faults(audit, noted)[0]


def test_an_end_that_is_none_is_refused() -> None:
    """Instead of a log that seems to be whole."""
    with pytest.raises(RequestInvalid):
        Head.read("12:abc")


def test_an_entry_is_there_if_and_only_if_the_change_is(audit: AuditLog, database: Database) -> None:
    """One transaction."""

    def fail() -> None:
        with database.transaction() as tx:
            audit.record(tx, SYSTEM, "person.disabled", target="anna")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.transaction() as tx:
        audit.record(tx, SYSTEM, "person.disabled", target="berta")
    assert ["berta"] == [entry.target for entry in audit.all()]
    assert () == faults(audit)


def test_many_who_append_at_once_make_one_chain(audit: AuditLog) -> None:
    """Numbers without gaps, in the order of the chain."""

    def append() -> None:
        for _ in range(10):
            audit.note(SYSTEM, "feedback.deleted")

    threads = [threading.Thread(target=append) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(range(1, 61)) == [entry.seq for entry in audit.all()]
    assert () == faults(audit)


def test_an_entry_says_from_where_it_came(audit: AuditLog) -> None:
    """Address and request id of the request that is being served."""
    token = origin.set(Origin(address="203.0.113.7", request_id="r-1"))
    try:
        audit.note(SYSTEM, "export")
    finally:
        origin.reset(token)
    [entry] = audit.all()
    assert ("203.0.113.7", "r-1") == (entry.address, entry.request_id)


def test_filters_and_pages_combine(audit: AuditLog) -> None:
    """By who, what, on what, and when; newest first."""
    filled(audit)
    audit.note(SYSTEM, "key.revoked", target="key 2")
    assert ["key.revoked", "key.created"] == [e.action for e in audit.page(AuditFilter(target="key 2"), limit=9)]
    assert [6, 5] == [e.seq for e in audit.page(AuditFilter(action="key.created"), limit=2)]
    assert [4, 3] == [e.seq for e in audit.page(AuditFilter(action="key.created"), limit=2, before=5)]
    within = AuditFilter(since=START + timedelta(minutes=2), until=START + timedelta(minutes=4))
    assert [4, 3] == [e.seq for e in audit.page(within, limit=9)]
    assert [] == audit.page(AuditFilter(actor="nobody"), limit=9)
    assert ["key.created", "key.revoked"] == audit.actions()


def test_exports_hold_every_entry_and_no_formula(audit: AuditLog) -> None:
    """CSV for spreadsheets, JSON Lines for programs."""
    audit.note(SYSTEM, "key.created", target="=1+1", details={"name": "shop", "until": START})
    [row] = csv.DictReader(io.StringIO("".join(audit_csv(audit.all()))))
    assert "'=1+1" == row["target"]
    [line] = b"".join(audit_json_lines(audit.all())).splitlines()
    exported = json.loads(line)
    assert {"name": "shop", "until": START.isoformat()} == exported["details"] == json.loads(row["details"])
    assert exported["hash"] == row["hash"] == next(iter(audit.all())).hash

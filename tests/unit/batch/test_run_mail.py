"""The mail after a run: its figures, once, whatever happens to the process that ends the run."""

from __future__ import annotations

import email
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from shoplens.batch.entities import RunState
from shoplens.batch.run_mail import LARGEST_REPORT, Posted, RunMail, RunMailing
from shoplens.db import Database
from shoplens.errors import Misconfigured
from shoplens.mail.tables import mail_messages
from tests.unit.batch.batch_house import House, open_house

pytestmark = pytest.mark.anyio


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """A database and a store without items."""
    return open_house(database, tmp_path)


def mail_of(
    house: House, *recipients: str, public_url: str | None = "https://photos.shop.example", language_tag: str = "en"
) -> RunMail:
    """What prepares the mail of a run to these people."""
    mailing = RunMailing(
        sender="shoplens@shop.example", recipients=recipients or ("depot@shop.example",), title="Returns",
        public_url=public_url, clock=house.clock, language_tag=language_tag,
    )  # fmt: skip
    return RunMail(house.database, house.store, mailing)


def mails(house: House) -> list[tuple[str, Any]]:
    """Whom the outbox has mails for, and what those say."""
    with house.database.reading() as tx:
        rows = tx.execute(select(mail_messages).order_by(mail_messages.c.id)).all()
    return [(row.recipient, email.message_from_bytes(row.content, policy=default)) for row in rows]


async def test_a_finished_run_has_one_mail_per_recipient_with_its_figures(house: House) -> None:
    """Counts, categories, links, and the report as a file."""
    house.bring("dress 1", "dress 2", "corrupt 3")

    def report(run_id: str) -> str:
        house.store.put(f"returns/reports/{run_id}.html", b"<main>report</main>")
        return f"returns/reports/{run_id}.html"

    run = await house.runner(report=report, mail=mail_of(house, "a@shop.example", "b@shop.example")).run(
        requested_by="test"
    )
    assert RunState.FINISHED is run.state
    (first, sent), (second, _) = mails(house)
    assert ["a@shop.example", "b@shop.example"] == [first, second]
    text = sent.get_body(("plain",)).get_content()
    assert sent["subject"].startswith("Returns: 3 photos")
    assert f"https://photos.shop.example/console/batch/{run.channel}/{run.id}" in text
    assert "Received" in text
    assert ["<main>report</main>"] == [each.get_content() for each in sent.iter_attachments()]


async def test_a_run_whose_process_dies_before_its_end_has_one_mail_all_the_same(house: House) -> None:
    """It is written in the transaction that ends the run: before it there is none, and after it no second one."""

    def die(run_id: str, report_key: str | None) -> Posted:
        prepared = mail_of(house)(run_id, report_key)

        def write_and_die(tx: Connection) -> None:
            prepared(tx)
            raise Misconfigured("This process ends here.")

        return write_and_die

    house.bring("dress 1")
    with pytest.raises(Misconfigured):
        await house.runner(mail=die).run(requested_by="test")
    assert [] == mails(house)
    run = await house.runner(mail=mail_of(house)).run(requested_by="test")
    with house.database.transaction() as tx:
        mail_of(house)(run.id, None)(tx)
    assert 1 == len(mails(house))


async def test_a_mail_that_cannot_be_made_does_not_keep_the_run_from_its_end(house: House) -> None:
    """The results are there."""

    def broken(run_id: str, report_key: str | None) -> Posted:
        raise ValueError("no mail")

    house.bring("dress 1")
    run = await house.runner(mail=broken).run(requested_by="test")
    assert RunState.FINISHED is run.state
    assert [] == mails(house)


async def test_a_large_report_is_not_attached_and_nothing_leads_nowhere(house: House) -> None:
    """Without a public address there are no links."""
    house.bring("dress 1")
    house.store.put("returns/reports/large.html", b"x" * (LARGEST_REPORT + 1))
    await house.runner(report=lambda _: "returns/reports/large.html", mail=mail_of(house, public_url=None)).run(
        requested_by="test"
    )
    ((_, sent),) = mails(house)
    assert [] == list(sent.iter_attachments())
    assert "http" not in sent.get_body(("plain",)).get_content()


async def test_a_mail_is_in_the_language_of_the_installation(house: House) -> None:
    """Words, numbers and the foot; the report goes with it as it is."""
    house.bring("dress 1", "corrupt 2")
    await house.runner(mail=mail_of(house, language_tag="de")).run(requested_by="test")
    ((_, sent),) = mails(house)
    text = sent.get_body(("plain",)).get_content()
    assert sent["subject"].startswith("Retouren: 2 Fotos")
    assert "Retouren: der Lauf ist fertig" in text
    assert "Gesendet von Shoplens" in text
    assert '<html lang="de">' in sent.get_body(("html",)).get_content()

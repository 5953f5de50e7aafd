"""An alert on its whole way: something is wrong, its event and mail arrive at real receivers, and later its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from standardwebhooks import Webhook

from servers.process import free_port
from servers.receivers import Inbox, running_event_receiver
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db.tables import new_id
from shoplens.platform.server import Platform
from tests.samples import make_item, make_run

pytestmark = pytest.mark.anyio
WITHIN_S = 30


def wait_for(holds: Callable[[], object]) -> None:
    """Until it holds."""
    give_up_at = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.02)


async def test_an_alert_and_its_end_reach_a_signed_receiver_and_an_inbox(
    make_platform: Callable[..., Platform],
) -> None:
    """With the watcher and the senders of a server: photos wait, the planned run does not begin, and then one does."""
    inbox = Inbox()
    mail = Controller(inbox, hostname="127.0.0.1", port=free_port())
    mail.start()
    with running_event_receiver() as receiver:
        platform = make_platform(
            public_url="https://photos.shop.example",
            webhook_networks=("127.0.0.0/8",),
            alerts={"every_s": 1, "resolve_after_s": 0},
            channels={"returns": {"batch": {"schedule": "* * * * *"}}},
            mail={
                "host": "127.0.0.1", "port": mail.port, "security": "none", "sender": "shoplens@shop.example",
                "alerts": ["ops@shop.example"],
            },
        )  # fmt: skip
        endpoint = platform.webhooks.add(f"{receiver.url}/hooks", events=["alert.firing", "alert.resolved"])
        now = datetime.now(UTC)
        with platform.database.transaction() as tx:
            ItemRepository(tx).add_many([make_item(1, received_at=now - timedelta(hours=3))])
        for each in (platform.alerts.watcher, platform.sender, platform.mails.sender):
            each.start()

        def events() -> list[Any]:
            verify = Webhook(endpoint.secret).verify  # raises if the signature is not that of the body
            return [verify(body, headers) for headers, body in list(receiver.events)]

        try:
            wait_for(lambda: len(events()) == 1 and len(inbox.taken) == 1)
            with platform.database.transaction() as tx:
                RunRepository(tx).add(make_run(0, id=new_id(now), created_at=now))
            wait_for(lambda: len(events()) == 2 and len(inbox.taken) == 2)
        finally:
            mail.stop()
    began, ended = events()
    assert ("alert.firing", "alert.resolved") == (began["type"], ended["type"])
    assert began["data"]["id"] == ended["data"]["id"]
    assert ("ShoplensRunMissed", "returns") == (began["data"]["alert"], began["data"]["subject"])
    assert "https://photos.shop.example/console/batch/returns" == began["data"]["look_at"]
    assert [["ops@shop.example"]] * 2 == [to for _, to, _ in inbox.taken]
    assert [
        "Shoplens: warning: A planned run did not begin (returns)",
        "Shoplens: Resolved: A planned run did not begin (returns)",
    ] == [sent["subject"] for _, _, sent in inbox.taken]

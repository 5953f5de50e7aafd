"""What retention leaves: pages that say so, a table of what is due, a metric, and the command that does it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from shoplens.batch.entities import ItemState, RunState
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.cli.app import app
from shoplens.platform.server import Platform
from shoplens.predictions.image_store import copy_keys
from shoplens.predictions.policy import Outcome
from shoplens.predictions.repository import PredictionRepository
from shoplens.settings import Settings
from shoplens.storage import open_store
from tests.conftest import client_of, colourful, jpeg_of
from tests.samples import make_item, make_record, make_run, moment

CHANNELS = {"look": {"keep_photos_days": 30}, "returns": {"batch": {"keep_photos_days": 60}}}
REMOVED = "Photo removed by retention"


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Of the same server, for a store and a command."""
    return make_settings(channels=CHANNELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A server with its rows: `record` is an old one of look, `item` the only one of `run`."""

    platform: Platform
    record: str
    item: str
    run: str


@pytest.fixture
async def shop(make_platform: Callable[..., Platform], settings: Settings) -> Shop:
    """A server whose records of look and whose only run are months old: two photos are due, one waits for a person."""
    platform = make_platform(channels=CHANNELS)
    store = open_store(settings.effective_storage_url)
    records = [
        make_record(1),
        make_record(2, outcome=Outcome.REVIEW),
        make_record(3, channel="returns", image_key="returns/processed/hat/3.jpg"),
    ]
    run = make_run(state=RunState.FINISHED, finished_at=moment(60), planned=1)
    item = make_item(
        3, state=ItemState.DONE, run_id=run.id, prediction_id=records[2].id, key=records[2].image_key,
        sha256=records[2].image.sha256, label="hat", predicted="hat", score=0.9, finished_at=moment(50),
    )  # fmt: skip
    with platform.database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
        RunRepository(tx).add(run)
        ItemRepository(tx).add_many([item])
    for record in records:
        for key in copy_keys(record):
            store.put(key, jpeg_of(colourful(1)))
    return Shop(platform=platform, record=records[0].id, item=item.id, run=run.id)


async def text_of(client: httpx.AsyncClient, address: str, **more: str) -> str:
    """A page."""
    answer = await client.get(address, headers=more)
    assert answer.status_code == 200, answer.text
    return answer.text


def plain(html: str) -> str:
    """Cells without attributes."""
    return re.sub(r"<td [^>]*>", "<td>", html)


async def test_pages_say_what_is_due_and_then_that_photos_are_gone(shop: Shop) -> None:
    """With no picture that the browser could not load."""
    photo, item_photo = f"/predictions/{shop.record}/image", f"/batch/items/{shop.item}/photo"
    async with client_of(shop.platform) as client:
        due = plain((await text_of(client, "/console/settings")).partition('id="due"')[2].partition("</table>")[0])
        assert "Photos of single classifications</td><td>30 days</td><td>1</td><td>1</td>" in due
        assert "Photos of finished runs</td><td>60 days</td><td>1</td><td>0</td>" in due
        german = plain(await text_of(client, "/console/settings", **{"accept-language": "de"}))
        assert "Fotos abgeschlossener Läufe</td><td>60 Tage</td>" in german

        assert shop.platform.retention.run_if_due()

        for address, picture in (
            (f"/console/records/{shop.record}", photo),
            ("/console/records", photo),
            (f"/console/batch/returns/items/{shop.item}", item_photo),
            (f"/console/batch/returns/{shop.run}?state=all", item_photo),
        ):
            shown = await text_of(client, address)
            assert (True, False) == (REMOVED in shown, picture in shown), address
            gone = await client.get(picture)
            assert (404, "image_not_kept") == (gone.status_code, gone.json()["code"])
            assert "deleted by retention on" in gone.json()["detail"]
        assert "nothing" == (await client.get(f"/predictions/{shop.record}")).json()["image"]["kept"]
        metrics = await text_of(client, "/metrics")
    for channel in ("look", "returns"):
        assert f'shoplens_retention_deleted_total{{channel="{channel}",kind="photos"}} 1.0' in metrics


async def test_the_command_says_what_is_due_and_deletes_it_unless_it_is_a_dry_run(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a table, as rows for programs, and as JSON."""
    monkeypatch.setenv("SHOPLENS_CHANNELS__LOOK__KEEP_PHOTOS_DAYS", "30")
    data_dir = str(settings.data_dir)

    def said(*options: str) -> str:
        result = CliRunner().invoke(app, ["retention", *options, "--data-dir", data_dir])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert ["look\tphotos\t30\t1\t1\t"] == [line for line in said("--dry-run").splitlines() if "look" in line]
    (due,) = [each for each in orjson.loads(said("--dry-run", "--json"))["due"] if each["channel"] == "look"]
    assert ("photos", 30, 1, 1, None, False) == tuple(
        due[name] for name in ("what", "days", "due", "waiting", "next_at", "more")
    )
    async with client_of(shop.platform) as client:
        assert due in (await client.get("/retention")).json()
    assert {"records": 0, "photos": 1, "files": 3} == orjson.loads(said("--json"))["deleted"]
    assert "look\tphotos\t30\t0\t1\t" in said("--dry-run")

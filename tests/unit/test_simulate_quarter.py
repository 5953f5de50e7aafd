"""The example that simulates a quarter of a shop: rows as the server writes them, with the events that it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from examples.simulate_quarter import main
from shoplens.batch.entities import ItemState
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.catalogue.imports.repository import ImportRepository
from shoplens.catalogue.repository import ProductFilter, ProductRepository
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.db import Database, open_database
from shoplens.moderation.entities import DecisionKind, PhotoState
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.repository import DecisionRepository, PhotoFilter, PhotoRepository
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import HOUR_S, Job
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import open_store

FAR_S = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A data directory with its database, and what the command printed."""

    root: Path
    database: Database
    said: str


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    """Three weeks with the power cut, whose hours are a gap."""
    root = tmp_path_factory.mktemp("simulated")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.setenv("SHOPLENS_DATA_DIR", str(root))
        assert 0 == main(["--days", "21", "--until", "2026-11-20T16:20Z"])
    database = open_database(f"sqlite:///{root}/shoplens.db")
    yield Simulated(root=root, database=database, said=said.getvalue())
    database.close()


def test_records_runs_days_and_series_tell_the_same(simulated: Simulated) -> None:
    """The runs have an item for each of their records, and some files that could not be read."""
    with simulated.database.reading() as tx:
        days = DayRepository(tx).between(0, FAR_S)
        hours = SeriesRepository(tx).states(step_s=HOUR_S, bucket_s=HOUR_S, since_s=0, until_s=FAR_S)
        runs = RunRepository(tx).page("returns", limit=100)
        newest = PredictionRepository(tx).page(RecordFilter(channel="returns"), limit=1)[0]
        items = ItemRepository(tx).count_own_states(runs[0].id)
    of_records = [each for each in days if each.job is Job.PREDICTIONS]
    right, wrong = (sum(getattr(each, side) for each in of_records) for side in ("confirmed", "corrected"))
    assert "None of it happened." in simulated.said
    assert f"Wrote {sum(each.predictions for each in of_records):,} simulated records" in simulated.said
    assert f"{len(runs):,} runs" in simulated.said
    assert 21 * 24 - 7 == len(hours)
    assert ("1.1.0", None) == (newest.model.version, newest.image_key)
    assert 0.5 < right / (right + wrong) < 0.95
    assert runs[0].planned == sum(items.values())
    assert items[ItemState.DONE] > items[ItemState.NEEDS_REVIEW] > 0


def test_shoppers_photos_are_decided_by_the_policy_and_by_people(simulated: Simulated) -> None:
    """With appeals and second opinions; what is not deleted has its file."""
    with simulated.database.reading() as tx:
        days = [each for each in DayRepository(tx).between(0, FAR_S) if each.job is Job.MODERATION]
        photos = PhotoRepository(tx)
        states = {state: photos.count_in_state("reviews", state) for state in PhotoState}
        kept = photos.page(PhotoFilter(channel="reviews"), limit=20)
        by_people = {
            each.kind for photo in photos.page(PhotoFilter(channel="reviews", state=PhotoState.REFUSED), limit=200)
            for each in DecisionRepository(tx).of(photo.id)
        }  # fmt: skip
    assert f"{sum(states.values()):,} photos of shoppers" in simulated.said
    assert sum(states.values()) == sum(each.predictions for each in days)
    assert states[PhotoState.PUBLISHED] > states[PhotoState.REFUSED] > 10
    assert {DecisionKind.POLICY, DecisionKind.PERSON, DecisionKind.APPEAL} <= by_people
    files = PhotoFiles(open_store((simulated.root / "blobs").as_uri(), setting="storage_url"))
    assert kept[0].image.byte_count == len(files.original(kept[0]))


def test_products_are_imported_suggested_and_decided(simulated: Simulated) -> None:
    """Every run ended with a suggestion or a failure for each product; some are corrected, some wait."""
    with simulated.database.reading() as tx:
        states = dict(ProductRepository(tx).tally(ProductFilter(channel="catalogue")))
        waiting = ProductRepository(tx).count(ProductFilter(channel="catalogue", needs_review=True))
        runs = CatalogueRunRepository(tx).newest("catalogue", limit=10)
        imports = ImportRepository(tx).newest("catalogue", limit=10)
    assert f"{sum(states.values()):,} products" in simulated.said
    assert {"suggested", "accepted", "corrected"} == set(states) - {"new"}
    assert states.get("new", 0) <= sum(each.failed for each in runs)
    assert waiting > 0
    assert len(imports) == len(runs) >= 3
    assert [each.planned for each in runs] == [each.suggested + each.failed for each in runs]
    assert all(each.finished_at for each in runs)


def test_a_database_with_records_is_left_alone(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated records cannot be told from real ones later."""
    monkeypatch.setenv("SHOPLENS_DATA_DIR", str(simulated.root))
    assert 1 == main(["--days", "1"])
    assert "has records already" in capsys.readouterr().err

"""From a folder of photos to an installed bundle: whole, repeatable, resumable, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoplens.bundles.bundle import open_bundle
from shoplens.bundles.store import pack_bundle, resolve_bundle, unpack_bundle
from shoplens.errors import Conflict, DatasetInvalid, Misconfigured, RequestInvalid, ShoplensError, TrainingDiverged
from shoplens.serving.classifier import Classifier
from shoplens.serving.photo_classifier import PhotoClassifier
from shoplens.training.card import Wording
from shoplens.training.check import DataReport
from shoplens.training.plan import Plan, Sources
from shoplens.training.ticks import Tick
from shoplens.training.train import Trained, train
from tests.conftest import jpeg_of
from tests.unit.training.conftest import COLOURS, FittedColours, fit_colours, tinted, write_photos

WORDING = Wording(title="Colours", licence="CC0", data_name="Made by a test.", date="2026-01-31")


class Notes:
    """A watch that writes everything down, and interrupts when the epoch `stop_at` is over."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stages: list[str] = []
        self.epochs: list[int] = []
        self.reports: list[DataReport] = []
        self._stop_at = stop_at

    def stage(self, sentence: str) -> None:
        self.stages.append(sentence)

    def progress(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def tick(self, tick: Tick) -> None:
        self.epochs.append(tick.epoch)
        if tick.epoch == self._stop_at:
            raise KeyboardInterrupt

    def report(self, report: DataReport) -> None:
        self.reports.append(report)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A training of the colours."""
    return Plan(
        name="colours", version="1.0.0", recipe="head", wording=WORDING, into=tmp_path / "models",
        work_dir=tmp_path / "work", threads=2,
    )  # fmt: skip


def run(source: Path | Sources, plan: Plan, notes: Notes | None = None, fit: Any = fit_colours) -> Trained:
    """Train by a clock that always ticks alike."""
    steps = count()
    sources = source if isinstance(source, Sources) else Sources(source=source)
    return train(sources, plan, watch=notes or Notes(), clock=lambda: float(next(steps)), fit=fit)


def test_photos_become_a_bundle_that_answers(photos: Path, plan: Plan) -> None:
    """Installed, verified, and right about a photo that it has never seen."""
    trained = run(photos, plan)
    bundle = resolve_bundle("colours", plan.into)
    assert (trained.bundle.digest, plan.target) == (bundle.digest, bundle.root)
    assert ["blue", "green", "red"] == [label.name for label in bundle.labels]
    photo = jpeg_of(tinted(77_777, COLOURS["green"], 0.7))
    assert "green" == PhotoClassifier(Classifier(bundle)).classify(photo).top.label


def test_the_bundle_says_how_it_was_made_and_measured(photos: Path, plan: Plan) -> None:
    """Data, split, calibration, parity and speed; the card quotes what the evaluation has at length."""
    trained = run(photos, plan)
    evaluation = trained.bundle.evaluation
    assert evaluation == trained.evaluation
    assert evaluation is not None
    assert ["validation"] == [part.name for part in evaluation.parts]
    assert [(25, 5, 0)] * 3 == [(each.train, each.validation, each.test) for each in evaluation.data.counts]
    assert (0.15, 0, 12) == (evaluation.data.fraction, evaluation.data.seed, evaluation.training.parameters)
    assert trained.report.sha256 == evaluation.data.sha256
    assert (15, 15.0, 15) == (evaluation.parity.samples, evaluation.speed.images_per_s, evaluation.headline.samples)
    assert trained.bundle.model_path.stat().st_size == evaluation.model_bytes
    card = trained.bundle.card
    told = {metric.name: metric.value for metric in card.metrics if metric.name != "accuracy, percent"}
    assert pytest.approx(evaluation.headline.macro_f1 * 100, abs=0.01) == told["macro-F1, percent"]
    assert ("Colours", "CC0", "2026-01-31") == (card.title, card.licence, card.date)
    assert evaluation.data.sha256 in card.data
    assert any("no separate test part" in limit for limit in card.limits)


def test_a_given_test_part_has_the_last_word(photos: Path, plan: Plan, tmp_path: Path) -> None:
    """It is measured first, the temperature never saw it, and a photo that is in it leaves training."""
    test = write_photos(tmp_path / "test", each=4, first=500)
    (test / "red" / "twin.jpg").write_bytes((photos / "red" / "003.jpg").read_bytes())
    trained = run(Sources(source=photos, test=test), plan)
    evaluation = trained.evaluation
    assert [("test", 13), ("validation", 15)] == [(part.name, part.samples) for part in evaluation.parts]
    assert {"in_test": 1} == evaluation.data.dropped
    assert ["red/003.jpg"] == [pair.name for pair in trained.report.dropped_because("in_test")]
    assert evaluation.data.test_sha256 is not None
    limits = trained.bundle.card.limits
    assert not any("no separate test part" in limit for limit in limits)


def test_a_given_validation_part_is_taken_whole(photos: Path, plan: Plan, tmp_path: Path) -> None:
    """Then nothing is held out, and no share is told."""
    held = write_photos(tmp_path / "held", each=6, first=500)
    evaluation = run(Sources(source=photos, validation=held), plan).evaluation
    assert [(30, 6, 0)] * 3 == [(each.train, each.validation, each.test) for each in evaluation.data.counts]
    assert (None, "validation") == (evaluation.data.fraction, evaluation.calibration.fitted_on)


def test_the_same_seed_gives_the_same_bundle(photos: Path, plan: Plan, tmp_path: Path) -> None:
    """Byte for byte, wherever it is written; another seed holds others out and gives another one."""
    first = run(photos, plan)
    again = run(photos, replace(plan, into=tmp_path / "b", work_dir=tmp_path / "wb"))
    other = run(photos, replace(plan, into=tmp_path / "c", work_dir=tmp_path / "wc", seed=1))
    assert first.bundle.digest == again.bundle.digest
    assert first.bundle.digest != other.bundle.digest


def test_the_speed_is_the_only_thing_that_a_real_clock_changes(photos: Path, plan: Plan, tmp_path: Path) -> None:
    """The graph has the same bytes."""
    first = run(photos, plan)
    again = train(
        Sources(source=photos), replace(plan, into=tmp_path / "b"), watch=Notes(), clock=iter([1.0, 1.5]).__next__,
        fit=fit_colours,
    )  # fmt: skip
    assert first.bundle.model_path.read_bytes() == again.bundle.model_path.read_bytes()
    assert replace(first.evaluation, speed=again.evaluation.speed) == again.evaluation


def test_an_interrupted_training_goes_on_and_ends_the_same(photos: Path, plan: Plan, tmp_path: Path) -> None:
    """Two of four epochs, then the other two; nothing is left behind but the bundle."""
    whole = run(photos, replace(plan, into=tmp_path / "whole", work_dir=tmp_path / "other"))
    first, second = Notes(stop_at=2), Notes()
    with pytest.raises(KeyboardInterrupt):
        run(photos, plan, first)
    assert (False, True) == (plan.target.exists(), (plan.work_dir / "train.json").exists())
    resumed = run(photos, plan, second)
    assert ([1, 2], [3, 4]) == (first.epochs, second.epochs)
    assert whole.bundle.digest == resumed.bundle.digest
    assert not plan.work_dir.exists()


def test_fresh_starts_anew(photos: Path, plan: Plan) -> None:
    """What was kept is forgotten."""
    with pytest.raises(KeyboardInterrupt):
        run(photos, plan, Notes(stop_at=2))
    notes = Notes()
    run(photos, replace(plan, fresh=True), notes)
    assert [1, 2, 3, 4] == notes.epochs


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda plan, _: replace(plan, seed=1), "seed, training data"),
        (lambda plan, _: replace(plan, epochs=9), "epochs"),
        (lambda plan, photos: (photos / "red" / "000.jpg").unlink() or plan, "training data"),
    ],
)
def test_another_training_does_not_go_on_from_this_one(
    photos: Path, plan: Plan, change: Callable[[Plan, Path], Plan], what: str
) -> None:
    """Other data, another seed or other epochs would give a model that nobody asked for."""
    with pytest.raises(KeyboardInterrupt):
        run(photos, plan, Notes(stop_at=1))
    with pytest.raises(Conflict, match=f"differs in: {what}"):
        run(photos, change(plan, photos))


def test_other_files_in_the_working_folder_stay(photos: Path, plan: Plan) -> None:
    """It may be anybody's folder."""
    plan.work_dir.mkdir()
    (plan.work_dir / "mine.txt").write_text("mine")
    run(photos, plan)
    assert ["mine.txt"] == [path.name for path in plan.work_dir.iterdir()]


def test_a_working_folder_that_cannot_be_written_is_told(photos: Path, plan: Plan) -> None:
    """Here a file lies where it should be."""
    plan.work_dir.write_text("in the way")
    with pytest.raises(Misconfigured, match="cannot be used"):
        run(photos, plan)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "../evil"}, RequestInvalid),
        ({"name": "Colours"}, RequestInvalid),
        ({"version": "1/2"}, RequestInvalid),
        ({"fraction": 0.0}, RequestInvalid),
        ({"fraction": 0.9}, RequestInvalid),
        ({"epochs": 0}, RequestInvalid),
        ({"recipe": "magic"}, DatasetInvalid),
        ({"wording": replace(WORDING, licence="")}, RequestInvalid),
        ({"wording": replace(WORDING, title="x" * 5000)}, RequestInvalid),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_any_work(
    photos: Path, plan: Plan, changes: dict[str, Any], error: type[ShoplensError]
) -> None:
    """An hour later would be too late."""
    notes = Notes()
    with pytest.raises(error):
        train(Sources(source=photos), replace(plan, **changes), watch=notes)
    assert [] == notes.epochs


def test_a_bundle_that_is_there_already_is_not_trained_again(photos: Path, plan: Plan) -> None:
    """What is installed never changes."""
    run(photos, plan)
    notes = Notes()
    with pytest.raises(Conflict, match=r"colours@1\.0\.0 is there already"):
        run(photos, plan, notes)
    assert [] == notes.stages


def test_the_report_comes_before_the_refusal(photos: Path, plan: Plan) -> None:
    """So that one sees why."""
    for photo in (photos / "red").glob("*.jpg"):
        photo.write_bytes(b"%PDF")
    notes = Notes()
    with pytest.raises(DatasetInvalid, match="fewer than 2 usable photos: 'red'"):
        run(photos, plan, notes)
    assert 30 == len(notes.reports[0].unreadable)


class Crooked(FittedColours):
    """Exports something else than it has learned, or learns nothing that is a number."""

    def export(self, *, temperature: float) -> bytes:
        return FittedColours(weight=self.weight, bias=self.bias + np.eye(3, dtype=np.float32)[0]).export(
            temperature=temperature
        )


def fit_crooked(*arguments: Any, **options: Any) -> Crooked:
    """As `fit_colours`, but crooked."""
    fitted = fit_colours(*arguments, **options)
    return Crooked(weight=fitted.weight, bias=fitted.bias)


def fit_nothing(*arguments: Any, **options: Any) -> FittedColours:
    """Weights that are no numbers."""
    return FittedColours(weight=np.full((3, 3), np.nan, np.float32), bias=np.zeros(3, np.float32))


@pytest.mark.parametrize(("fit", "reason"), [(fit_crooked, "computes other values"), (fit_nothing, "not finite")])
def test_a_model_that_fails_its_proof_is_never_installed(photos: Path, plan: Plan, fit: Any, reason: str) -> None:
    """No bundle appears, not even a part of one."""
    with pytest.raises(TrainingDiverged, match=reason):
        run(photos, plan, fit=fit)
    assert not plan.into.exists()


def test_small_pictures_of_an_archive_are_trained_and_tested(plan: Plan, tmp_path: Path) -> None:
    """The archive's own test part is the test; names come from the archive."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pictures = random.integers(0, 120, (60, 20, 20, 3), np.uint8)
    pictures[np.arange(60), :, :, labels] += 100
    np.savez(
        tmp_path / "small.npz", x_train=pictures[:48], y_train=labels[:48], x_test=pictures[48:], y_test=labels[48:],
        labels=np.array(["red", "green", "blue"]),
    )  # fmt: skip
    trained = run(tmp_path / "small.npz", plan)
    assert ["red", "green", "blue"] == [label.name for label in trained.bundle.labels]
    assert [("test", 12, 1.0)] == [(p.name, p.samples, p.accuracy) for p in trained.evaluation.parts[:1]]
    assert None is trained.evaluation.data.test_sha256


def test_labels_of_any_script_survive_the_way(photos: Path, plan: Plan, tmp_path: Path) -> None:
    """Quotes, brackets, emoji: into the bundle, packed, and out again."""
    for name, label in (("red", 'T-Shirt "rot" [neu]'), ("green", "👕 grün"), ("blue", "<b>& 'blau'")):
        (photos / name).rename(photos / label)
    trained = run(photos, plan)
    packed = pack_bundle(trained.bundle.root, tmp_path / "colours.shoplens")
    opened = unpack_bundle(packed, tmp_path / "elsewhere")
    assert ["<b>& 'blau'", 'T-Shirt "rot" [neu]', "👕 grün"] == [label.name for label in opened.labels]
    assert trained.evaluation == opened.evaluation


def test_the_evaluation_is_one_of_the_files_that_checksums_guard(photos: Path, plan: Plan) -> None:
    """Six files instead of five."""
    root = run(photos, plan).bundle.root
    assert "evaluation.json" in json.loads((root / "checksums.json").read_bytes())
    assert 6 == len(list(root.iterdir()))
    assert open_bundle(root).evaluation is not None

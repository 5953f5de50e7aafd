"""From a folder of photos to an installed bundle: complete, repeatable, resumable, or not at all."""

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
from shoplens.errors import Conflict, Misconfigured, RequestInvalid, ShoplensError
from shoplens.serving.classifier import Classifier
from shoplens.serving.photos import PhotoClassifier, best_labels
from shoplens.training.card import CardTexts
from shoplens.training.check import DataReport
from shoplens.training.errors import DatasetInvalid, TrainingDiverged
from shoplens.training.progress import TrainProgress
from shoplens.training.train import Sources, TrainConfig, TrainResult, train
from tests.conftest import jpeg_of
from tests.unit.training.colours import COLOURS, ColourModel, fit_colours, tinted, write_photos

TEXTS = CardTexts(title="Colours", licence="CC0", data_name="Made by a test.", date="2026-01-31")


class Recorder:
    """A callback that records every event, and interrupts after the epoch `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stages: list[str] = []
        self.epochs: list[int] = []
        self.reports: list[DataReport] = []
        self._stop_at = stop_at

    def on_stage(self, name: str) -> None:
        self.stages.append(name)

    def on_samples(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def on_progress(self, progress: TrainProgress) -> None:
        self.epochs.append(progress.epoch)
        if progress.epoch == self._stop_at:
            raise KeyboardInterrupt

    def on_report(self, report: DataReport) -> None:
        self.reports.append(report)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """The training of the colour model."""
    return TrainConfig(
        name="colours", version="1.0.0", recipe="head", texts=TEXTS, into=tmp_path / "models",
        work_dir=tmp_path / "work", threads=2,
    )  # fmt: skip


def run(
    source: Path | Sources, config: TrainConfig, recorder: Recorder | None = None, fit: Any = fit_colours
) -> TrainResult:
    """Train with a clock that advances by one second per call."""
    steps = count()
    sources = source if isinstance(source, Sources) else Sources(source=source)
    return train(sources, config, callback=recorder or Recorder(), clock=lambda: float(next(steps)), fit=fit)


def test_photos_become_a_bundle_that_classifies(photos: Path, config: TrainConfig) -> None:
    """It is installed, and its prediction for a new photo is correct."""
    trained = run(photos, config)
    bundle = resolve_bundle("colours", config.into)
    assert (trained.bundle.digest, config.target) == (bundle.digest, bundle.root)
    assert ["blue", "green", "red"] == [label.name for label in bundle.labels]
    photo = jpeg_of(tinted(77_777, COLOURS["green"], 0.7))
    assert "green" == PhotoClassifier(Classifier(bundle), finish=best_labels).classify(photo).top.label


def test_the_bundle_documents_how_it_was_trained_and_measured(photos: Path, config: TrainConfig) -> None:
    """Data, split, calibration, parity and speed; the card quotes figures of the evaluation."""
    trained = run(photos, config)
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
    quoted = {metric.name: metric.value for metric in card.metrics if metric.name != "accuracy, percent"}
    assert pytest.approx(evaluation.headline.macro_f1 * 100, abs=0.01) == quoted["macro-F1, percent"]
    assert ("Colours", "CC0", "2026-01-31") == (card.title, card.licence, card.date)
    assert evaluation.data.sha256 in card.data
    assert any("no separate test part" in limit for limit in card.limits)


def test_a_given_test_part_is_measured_first(photos: Path, config: TrainConfig, tmp_path: Path) -> None:
    """The temperature is not fitted on it, and its photos leave training."""
    test = write_photos(tmp_path / "test", each=4, first=500)
    (test / "red" / "twin.jpg").write_bytes((photos / "red" / "003.jpg").read_bytes())
    trained = run(Sources(source=photos, test=test), config)
    evaluation = trained.evaluation
    assert [("test", 13), ("validation", 15)] == [(part.name, part.samples) for part in evaluation.parts]
    assert {"in_test": 1} == evaluation.data.dropped
    assert ["red/003.jpg"] == [pair.name for reason, pair in trained.report.dropped if reason == "in_test"]
    assert evaluation.data.test_sha256 is not None
    limits = trained.bundle.card.limits
    assert not any("no separate test part" in limit for limit in limits)


def test_a_given_validation_part_is_used_whole(photos: Path, config: TrainConfig, tmp_path: Path) -> None:
    """Nothing is held out, so the evaluation has no share."""
    held = write_photos(tmp_path / "held", each=6, first=500)
    evaluation = run(Sources(source=photos, validation=held), config).evaluation
    assert [(30, 6, 0)] * 3 == [(each.train, each.validation, each.test) for each in evaluation.data.counts]
    assert (None, "validation") == (evaluation.data.fraction, evaluation.calibration.fitted_on)


def test_the_same_seed_gives_the_same_bundle(photos: Path, config: TrainConfig, tmp_path: Path) -> None:
    """Byte for byte, in any folder; another seed holds out other photos and gives another bundle."""
    first = run(photos, config)
    again = run(photos, replace(config, into=tmp_path / "b", work_dir=tmp_path / "wb"))
    other = run(photos, replace(config, into=tmp_path / "c", work_dir=tmp_path / "wc", seed=1))
    assert first.bundle.digest == again.bundle.digest
    assert first.bundle.digest != other.bundle.digest


def test_only_the_measured_speed_depends_on_the_clock(photos: Path, config: TrainConfig, tmp_path: Path) -> None:
    """The graph is identical."""
    first = run(photos, config)
    again = train(
        Sources(source=photos), replace(config, into=tmp_path / "b"), callback=Recorder(),
        clock=iter([1.0, 1.5]).__next__, fit=fit_colours,
    )  # fmt: skip
    assert first.bundle.model_path.read_bytes() == again.bundle.model_path.read_bytes()
    assert replace(first.evaluation, speed=again.evaluation.speed) == again.evaluation


def test_an_interrupted_training_resumes_with_the_same_result(
    photos: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """Two of four epochs, then the other two; the working folder is removed at the end."""
    whole = run(photos, replace(config, into=tmp_path / "whole", work_dir=tmp_path / "other"))
    first, second = Recorder(stop_at=2), Recorder()
    with pytest.raises(KeyboardInterrupt):
        run(photos, config, first)
    assert (False, True) == (config.target.exists(), (config.work_dir / "train.json").exists())
    resumed = run(photos, config, second)
    assert ([1, 2], [3, 4]) == (first.epochs, second.epochs)
    assert whole.bundle.digest == resumed.bundle.digest
    assert not config.work_dir.exists()


def test_fresh_starts_over(photos: Path, config: TrainConfig) -> None:
    """The checkpoints are deleted."""
    with pytest.raises(KeyboardInterrupt):
        run(photos, config, Recorder(stop_at=2))
    recorder = Recorder()
    run(photos, replace(config, fresh=True), recorder)
    assert [1, 2, 3, 4] == recorder.epochs


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda config, _: replace(config, seed=1), "seed, training data"),
        (lambda config, _: replace(config, epochs=9), "epochs"),
        (lambda config, photos: (photos / "red" / "000.jpg").unlink() or config, "training data"),
    ],
)
def test_another_training_does_not_resume_this_one(
    photos: Path, config: TrainConfig, change: Callable[[TrainConfig, Path], TrainConfig], what: str
) -> None:
    """Other data, another seed or another number of epochs is refused."""
    with pytest.raises(KeyboardInterrupt):
        run(photos, config, Recorder(stop_at=1))
    with pytest.raises(Conflict, match=f"differs in: {what}"):
        run(photos, change(config, photos))


def test_other_files_in_the_working_folder_stay(photos: Path, config: TrainConfig) -> None:
    """Only the files of the training are removed."""
    config.work_dir.mkdir()
    (config.work_dir / "mine.txt").write_text("mine")
    run(photos, config)
    assert ["mine.txt"] == [path.name for path in config.work_dir.iterdir()]


def test_a_working_folder_that_cannot_be_written_is_refused(photos: Path, config: TrainConfig) -> None:
    """Here a file has its name."""
    config.work_dir.write_text("in the way")
    with pytest.raises(Misconfigured, match="cannot be used"):
        run(photos, config)


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
        ({"texts": replace(TEXTS, licence="")}, RequestInvalid),
        ({"texts": replace(TEXTS, title="x" * 5000)}, RequestInvalid),
    ],
)
def test_an_invalid_config_is_refused_before_any_work(
    photos: Path, config: TrainConfig, changes: dict[str, Any], error: type[ShoplensError]
) -> None:
    """No photo is read."""
    recorder = Recorder()
    with pytest.raises(error):
        train(Sources(source=photos), replace(config, **changes), callback=recorder)
    assert [] == recorder.stages


def test_an_existing_bundle_is_not_trained_again(photos: Path, config: TrainConfig) -> None:
    """An installed version never changes."""
    run(photos, config)
    recorder = Recorder()
    with pytest.raises(Conflict, match=r"colours@1\.0\.0 already exists"):
        run(photos, config, recorder)
    assert [] == recorder.stages


def test_the_report_comes_before_the_refusal(photos: Path, config: TrainConfig) -> None:
    """It shows the reason."""
    for photo in (photos / "red").glob("*.jpg"):
        photo.write_bytes(b"%PDF")
    recorder = Recorder()
    with pytest.raises(DatasetInvalid, match="fewer than 2 usable photos: 'red'"):
        run(photos, config, recorder)
    assert 30 == len(recorder.reports[0].unreadable)


class WrongExport(ColourModel):
    """Exports another offset than it has learned."""

    def export(self, *, temperature: float) -> bytes:
        return ColourModel(weight=self.weight, bias=self.bias + np.eye(3, dtype=np.float32)[0]).export(
            temperature=temperature
        )


def fit_wrong_export(*arguments: Any, **options: Any) -> WrongExport:
    """As `fit_colours`, with a wrong export."""
    fitted = fit_colours(*arguments, **options)
    return WrongExport(weight=fitted.weight, bias=fitted.bias)


def fit_not_finite(*arguments: Any, **options: Any) -> ColourModel:
    """A model whose weights are not numbers."""
    return ColourModel(weight=np.full((3, 3), np.nan, np.float32), bias=np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("fit", "reason"), [(fit_wrong_export, "computes other values"), (fit_not_finite, "not finite")]
)
def test_a_model_that_fails_the_parity_check_is_not_installed(
    photos: Path, config: TrainConfig, fit: Any, reason: str
) -> None:
    """The models directory stays empty."""
    with pytest.raises(TrainingDiverged, match=reason):
        run(photos, config, fit=fit)
    assert not config.into.exists()


def test_an_archive_is_trained_and_tested(config: TrainConfig, tmp_path: Path) -> None:
    """The archive's own test part is the test; names come from the archive."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pictures = random.integers(0, 120, (60, 20, 20, 3), np.uint8)
    pictures[np.arange(60), :, :, labels] += 100
    np.savez(
        tmp_path / "small.npz", x_train=pictures[:48], y_train=labels[:48], x_test=pictures[48:], y_test=labels[48:],
        labels=np.array(["red", "green", "blue"]),
    )  # fmt: skip
    trained = run(tmp_path / "small.npz", config)
    assert ["red", "green", "blue"] == [label.name for label in trained.bundle.labels]
    assert [("test", 12, 1.0)] == [(p.name, p.samples, p.accuracy) for p in trained.evaluation.parts[:1]]
    assert None is trained.evaluation.data.test_sha256


def test_labels_can_have_any_characters(photos: Path, config: TrainConfig, tmp_path: Path) -> None:
    """Quotes, brackets, emoji: into the bundle, packed, and out again."""
    for name, label in (("red", 'T-Shirt "rot" [neu]'), ("green", "👕 grün"), ("blue", "<b>& 'blau'")):
        (photos / name).rename(photos / label)
    trained = run(photos, config)
    packed = pack_bundle(trained.bundle.root, tmp_path / "colours.shoplens")
    opened = unpack_bundle(packed, tmp_path / "elsewhere")
    assert ["<b>& 'blau'", 'T-Shirt "rot" [neu]', "👕 grün"] == [label.name for label in opened.labels]
    assert trained.evaluation == opened.evaluation


def test_the_evaluation_is_covered_by_the_checksums(photos: Path, config: TrainConfig) -> None:
    """It is one of six files of the bundle."""
    root = run(photos, config).bundle.root
    assert "evaluation.json" in json.loads((root / "checksums.json").read_bytes())
    assert 6 == len(list(root.iterdir()))
    assert open_bundle(root).evaluation is not None

"""The use case `shoplens train`: read, check, split, train, calibrate, export, prove, measure, write the bundle.

Nothing appears in the models directory before everything is proved and measured. The working folder of a training has
`train.json`, which says what is trained there, and `checkpoints/`, which the recipe writes after every epoch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import (
    NAME_PATTERN,
    Calibration,
    DataFacts,
    Evaluation,
    PartResult,
    Speed,
    TrainingFacts,
    read_card,
    to_json,
)
from shoplens.errors import BundleInvalid, Conflict, Misconfigured, RequestInvalid
from shoplens.images.picture import Limits
from shoplens.training.calibrate import cross_fitted_error
from shoplens.training.card import CardTexts, Hashes, card_of, data_facts
from shoplens.training.check import DataReport, refuse_unlearnable, report_on
from shoplens.training.errors import DatasetInvalid
from shoplens.training.evaluate import measure, predict
from shoplens.training.export import ExportedModel, check_parity, export_model, measured_parts
from shoplens.training.progress import Callback
from shoplens.training.recipes import RECIPES, RecipeOptions, TrainedModel, fit_recipe, required_packages
from shoplens.training.samples import Dataset, lines_digest, read_dataset
from shoplens.training.split import Split, split_dataset

_MIN_HELD_OUT: Final = 0.01
_MAX_HELD_OUT: Final = 0.5
_FACTS: Final = "train.json"
_CHECKPOINTS: Final = "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The labelled photos. Without `validation` a share is held out; `labels` names the classes of an archive."""

    source: Path
    validation: Path | None = None
    test: Path | None = None
    labels: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to train. `fraction` is held out for validation; the bundle is written to `<into>/<name>/<version>`,
    checkpoints to `work_dir`; `fresh` deletes earlier ones. `threads` read, check and measure.
    """

    name: str
    version: str
    recipe: str
    texts: CardTexts
    into: Path
    work_dir: Path
    fraction: float = 0.15
    seed: int = 0
    epochs: int | None = None
    fresh: bool = False
    threads: int = 1
    limits: Limits = field(default_factory=Limits)

    @property
    def target(self) -> Path:
        """The folder of the bundle."""
        return self.into / self.name / self.version

    def check(self) -> None:
        """Raises RequestInvalid or DatasetInvalid for an invalid value, Conflict if the bundle already exists."""
        for what, text in (("name", self.name), ("version", self.version)):
            if not re.fullmatch(NAME_PATTERN, text):
                raise RequestInvalid(
                    f"{text!r} is not a valid {what}. Use lower-case letters, digits, '.', '_' and '-' only."
                )
        if self.recipe not in RECIPES:
            raise DatasetInvalid(f"There is no recipe {self.recipe!r}. Choose one of {', '.join(RECIPES)}.")
        if not _MIN_HELD_OUT <= self.fraction <= _MAX_HELD_OUT:
            raise RequestInvalid(f"The held-out share must be between {_MIN_HELD_OUT} and {_MAX_HELD_OUT}.")
        if self.epochs is not None and self.epochs < 1:
            raise RequestInvalid("The number of epochs must be at least 1.")
        if self.target.exists():
            raise Conflict(f"{self.name}@{self.version} already exists. Choose another version.")
        try:
            read_card(to_json(self.texts.draft()))
        except BundleInvalid as error:
            raise RequestInvalid(f"Title, licence or name of the data is not valid: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The bundle, written and opened, and what was found in the data."""

    bundle: Bundle
    evaluation: Evaluation
    report: DataReport


def train(
    sources: Sources,
    config: TrainConfig,
    *,
    callback: Callback,
    clock: Callable[[], float] = time.perf_counter,
    fit: Callable[..., TrainedModel] = fit_recipe,
) -> TrainResult:
    """Train a bundle. The same data, config and versions give the same bundle, except for the speed, which `clock`
    measures.

    Raises RequestInvalid for an invalid config, Conflict if the bundle or another unfinished training exists,
    DatasetInvalid for the data, ExtraMissing, TrainingDiverged. After an error or an interruption the same call resumes
    after the last finished epoch.
    """
    config.check()
    callback.on_stage("Reading and checking the photos")
    split, report, hashes = _read(sources, config, callback)
    callback.on_report(report)
    refuse_unlearnable(report)
    training_data = [(f"{split.classes[sample.label]}\t{sample.name}", sample.sha256) for sample in split.train]
    facts = {
        "recipe": config.recipe,
        "seed": config.seed,
        "epochs": config.epochs,
        "classes": list(split.classes),
        "training data": lines_digest(training_data),
    }
    checkpoints = _open_work_dir(config.work_dir, facts, fresh=config.fresh)
    callback.on_stage("Training")
    options = RecipeOptions(seed=config.seed, epochs=config.epochs, work_dir=checkpoints)
    model = fit(config.recipe, split.train, len(split.classes), options=options, on_progress=callback.on_progress)
    exported = export_model(model, split, callback.on_stage)
    data = data_facts(report, split, hashes, name=config.texts.data_name, fraction=config.fraction, seed=config.seed)
    with tempfile.TemporaryDirectory(dir=config.work_dir, prefix="measured-") as folder:
        draft = exported.write(
            Path(folder) / "bundle", name=config.name, version=config.version, card=config.texts.draft()
        )
        evaluation = _evaluate(draft, exported, split, data, config, callback=callback, clock=clock)
    callback.on_stage("Writing the bundle")
    card = card_of(evaluation, config.texts)
    bundle = exported.write(config.target, name=config.name, version=config.version, card=card, evaluation=evaluation)
    _clear_work_dir(config.work_dir)
    return TrainResult(bundle=bundle, evaluation=evaluation, report=report)


def _read(sources: Sources, config: TrainConfig, callback: Callback) -> tuple[Split, DataReport, Hashes]:
    def read(path: Path, **more: Any) -> Dataset:
        return read_dataset(path, threads=config.threads, limits=config.limits, on_progress=callback.on_samples, **more)

    source = read(sources.source, labels=sources.labels)
    validation = read(sources.validation, classes=source.classes) if sources.validation else None
    test = read(sources.test, classes=source.classes) if sources.test else None
    tested = source.test if test is None else test.test or test.samples
    if validation is not None and validation.test:
        validation = replace(validation, samples=validation.test)
    split = split_dataset(source, validation=validation, test=tested, fraction=config.fraction, seed=config.seed)
    report = report_on(source, [dataset for dataset in (validation, test) if dataset is not None], split)
    hashes = Hashes(
        train=source.sha256,
        validation=validation.sha256 if validation else None,
        test=test.sha256 if test else None,
    )
    return split, report, hashes


def _evaluate(
    draft: Bundle,
    exported: ExportedModel,
    split: Split,
    data: DataFacts,
    config: TrainConfig,
    *,
    callback: Callback,
    clock: Callable[[], float],
) -> Evaluation:
    """Prove that the bundle computes what was trained, and measure it as it will be served."""
    callback.on_stage("Comparing the exported model with the trained one")
    parity = check_parity(
        draft,
        split.validation,
        exported.logits["validation"],
        image=exported.image,
        temperature=exported.temperature,
        limits=config.limits,
    )
    parts: list[PartResult] = []
    speeds: list[Speed] = []
    for name, samples in measured_parts(split):
        callback.on_stage(f"Measuring the exported model on the {name} part")
        predictions = predict(
            draft,
            samples,
            threads=config.threads,
            limits=config.limits,
            clock=clock,
            on_progress=callback.on_samples,
        )
        speeds.append(predictions.speed())
        parts.append(measure(name, predictions.scores, samples, logits=exported.logits[name], classes=split.classes))
    labels = np.array([sample.label for sample in split.validation], np.int64)
    cross_fitted = cross_fitted_error(exported.logits["validation"], labels, seed=config.seed)
    return Evaluation(
        schema_version=1,
        data=data,
        training=TrainingFacts(
            recipe=config.recipe,
            seed=config.seed,
            epochs=config.epochs,
            parameters=exported.parameters,
            versions={
                name: version(name) for name in ("shoplens", "numpy", "onnxruntime", *required_packages(config.recipe))
            },
        ),
        calibration=Calibration(
            method="temperature scaling",
            temperature=round(exported.temperature, 6),
            fitted_on="validation",
            samples=len(labels),
            ece_cross_fitted=round(cross_fitted.ece, 6),
        ),
        parts=tuple(parts),
        parity=parity,
        model_bytes=len(exported.onnx),
        speed=speeds[0],
    )


def _open_work_dir(work_dir: Path, facts: Mapping[str, Any], *, fresh: bool) -> Path:
    """The folder for checkpoints: empty, or of an earlier training with the same `facts` (JSON values).

    Raises Conflict if the earlier training was another one, Misconfigured if the folder cannot be written.
    """
    file, checkpoints = work_dir / _FACTS, work_dir / _CHECKPOINTS
    try:
        if fresh:
            _clear_work_dir(work_dir)
        checkpoints.mkdir(parents=True, exist_ok=True)
        try:
            earlier = json.loads(file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            earlier = None
        if isinstance(earlier, dict):
            changed = sorted(key for key in {*earlier, *facts} if earlier.get(key) != facts.get(key))
            if changed:
                raise Conflict(
                    f"{work_dir} contains an unfinished training that differs in: {', '.join(changed)}. Resume it with "
                    "the same data and options, choose another --work-dir, or start over with --fresh."
                )
        else:
            draft = file.with_name(f"{file.name}.{os.getpid()}.part")
            draft.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", "utf-8")
            draft.replace(file)
    except OSError as error:
        raise Misconfigured(f"The working folder {work_dir} cannot be used: {error.strerror}.") from error
    return checkpoints


def _clear_work_dir(work_dir: Path) -> None:
    """Remove the checkpoints of a training; other files in the folder stay."""
    shutil.rmtree(work_dir / _CHECKPOINTS, ignore_errors=True)
    (work_dir / _FACTS).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not empty, or does not exist
        work_dir.rmdir()

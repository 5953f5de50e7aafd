"""From labelled photos to an installed bundle, in order: read, check, divide, fit, calibrate, prove, measure, write.

Nothing appears in the models directory before everything has been proved and measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.evaluation import Calibration, Evaluation, PartResult, Speed, TrainingFacts
from shoplens.training import resume
from shoplens.training.calibrate import cross_fitted_error
from shoplens.training.card import Hashes, card_of, data_facts
from shoplens.training.check import DataReport, refuse_unlearnable, report_on
from shoplens.training.evaluate import ask, measure
from shoplens.training.exported import Exported, labels_of, measured_parts
from shoplens.training.parity import check_parity
from shoplens.training.parts import Parts, divide
from shoplens.training.plan import Plan, Sources, draft_card, refuse_plan
from shoplens.training.recipes import Fitted, RecipeOptions, fit_recipe
from shoplens.training.samples import Dataset, lines_digest, read_dataset
from shoplens.training.ticks import Tick


class Watch(Protocol):
    """Who is told how far it is."""

    def stage(self, sentence: str) -> None:
        """A new step has begun."""
        ...

    def progress(self, done: int, total: int) -> None:
        """So many photos of this step."""
        ...

    def tick(self, tick: Tick) -> None:
        """So far in fitting."""
        ...

    def report(self, report: DataReport) -> None:
        """What the data is like; told before anything is refused for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The bundle, written and opened, and what was found in the data."""

    bundle: Bundle
    evaluation: Evaluation
    report: DataReport


Fit = Callable[..., Fitted]


def train(
    sources: Sources,
    plan: Plan,
    *,
    watch: Watch,
    clock: Callable[[], float] = time.perf_counter,
    fit: Fit = fit_recipe,
) -> Trained:
    """Everything. The same data, plan and versions give the same bundle, except for the speed that `clock` measures.

    Raises RequestInvalid for a plan that cannot be, Conflict where the bundle or another unfinished training is there
    already, DatasetInvalid for the data, ExtraMissing, TrainingDiverged. After any error or interruption the same call
    goes on after the last finished epoch.
    """
    refuse_plan(plan)
    data = _read(sources, plan, watch)
    watch.report(data.report)
    refuse_unlearnable(data.report)
    checkpoints = resume.begin(plan.work_dir, _facts(data.parts, plan), fresh=plan.fresh)
    watch.stage("Training")
    options = RecipeOptions(seed=plan.seed, epochs=plan.epochs, work_dir=checkpoints)
    parts = data.parts
    fitted = fit(plan.recipe, parts.train, len(parts.classes), options=options, on_tick=watch.tick)
    result = Exported.of(fitted, parts, plan, watch.stage)
    with tempfile.TemporaryDirectory(dir=plan.work_dir, prefix="measured-") as folder:
        draft = result.write(Path(folder) / "bundle", card=draft_card(plan.wording), evaluation=None)
        evaluation = _measured(draft, result, data, watch, clock)
    watch.stage("Writing the bundle")
    card = card_of(evaluation, plan.wording)
    bundle = result.write(plan.target, card=card, evaluation=evaluation)
    resume.forget(plan.work_dir)
    return Trained(bundle=bundle, evaluation=evaluation, report=data.report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """What was read, and what became of it."""

    parts: Parts
    report: DataReport
    hashes: Hashes


def _read(sources: Sources, plan: Plan, watch: Watch) -> _Data:
    watch.stage("Reading and checking the photos")

    def read(path: Path, **more: Any) -> Dataset:
        return read_dataset(path, threads=plan.threads, limits=plan.limits, on_progress=watch.progress, **more)

    source = read(sources.source, labels=sources.labels)
    validation = read(sources.validation, classes=source.classes) if sources.validation else None
    test = read(sources.test, classes=source.classes) if sources.test else None
    tested = source.test if test is None else test.test or test.samples
    if validation is not None and validation.test:
        validation = replace(validation, samples=validation.test)
    parts = divide(source, validation=validation, test=tested, fraction=plan.fraction, seed=plan.seed)
    given = [dataset for dataset in (validation, test) if dataset is not None]
    hashes = Hashes(
        train=source.sha256,
        validation=validation.sha256 if validation else None,
        test=test.sha256 if test else None,
    )
    return _Data(parts=parts, report=report_on(source, given, parts), hashes=hashes)


def _facts(parts: Parts, plan: Plan) -> dict[str, Any]:
    """All that decides what is learned: a checkpoint of anything else must not be gone on from."""
    lines = [(f"{parts.classes[sample.label]}\t{sample.name}", sample.sha256) for sample in parts.train]
    return {
        "recipe": plan.recipe,
        "seed": plan.seed,
        "epochs": plan.epochs,
        "classes": list(parts.classes),
        "training data": lines_digest(lines),
    }


def _measured(draft: Bundle, result: Exported, data: _Data, watch: Watch, clock: Callable[[], float]) -> Evaluation:
    """Every figure, of the bundle as it will be served."""
    plan, parts = result.plan, result.parts
    watch.stage("Comparing the exported model with the trained one")
    parity = check_parity(
        draft,
        parts.validation,
        result.logits["validation"],
        image=result.image,
        temperature=result.temperature,
        limits=plan.limits,
    )
    results: list[PartResult] = []
    speeds: list[Speed] = []
    for name, samples in measured_parts(parts):
        watch.stage(f"Measuring the exported model on the {name} part")
        answers = ask(draft, samples, threads=plan.threads, limits=plan.limits, clock=clock, on_progress=watch.progress)
        speeds.append(answers.speed())
        results.append(measure(name, answers.scores, samples, logits=result.logits[name], classes=parts.classes))
    return Evaluation(
        schema_version=1,
        data=data_facts(
            data.report, parts, data.hashes,
            name=plan.wording.data_name, fraction=plan.fraction, seed=plan.seed,
        ),
        training=_training_facts(result),
        calibration=_calibration(result),
        parts=tuple(results),
        parity=parity,
        model_bytes=len(result.model),
        speed=speeds[0],
    )  # fmt: skip


def _calibration(result: Exported) -> Calibration:
    logits, labels = result.logits["validation"], labels_of(result.parts.validation)
    crossed = cross_fitted_error(logits, labels, seed=result.plan.seed)
    return Calibration(
        method="temperature scaling",
        temperature=round(result.temperature, 6),
        fitted_on="validation",
        samples=len(labels),
        ece_cross_fitted=round(crossed.ece, 6),
    )


def _training_facts(result: Exported) -> TrainingFacts:
    plan = result.plan
    packages = ["shoplens", "numpy", "onnxruntime"] + ([] if plan.recipe == "head" else ["torch"])
    return TrainingFacts(
        recipe=plan.recipe,
        seed=plan.seed,
        epochs=plan.epochs,
        parameters=result.parameters,
        versions={name: found for name in packages if (found := _version(name))},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

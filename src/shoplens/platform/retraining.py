"""Build retraining from the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.advice import no_channel
from shoplens.batch.process import RunLauncher, RunProcess
from shoplens.batch.sources import is_local, local_folder
from shoplens.bundles.bundle import Bundle
from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.label_source import SOURCE as PRODUCTS
from shoplens.catalogue.tree.categories import SEPARATOR
from shoplens.db import Database
from shoplens.errors import Misconfigured, ModelNotFound
from shoplens.labels.repository import FEEDBACK
from shoplens.platform.catalogue import live_trees, stored_trees
from shoplens.platform.consequences import build_labels
from shoplens.platform.parts import build_database, build_limits, find_bundle, open_registry, thread_count, utc_now
from shoplens.platform.registry import build_registry
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.feedback import NewFeedback
from shoplens.predictions.records import RecordService
from shoplens.registry.registry import Registry
from shoplens.retraining.entities import RetrainingRules, RetrainingRun, ShadowRules, Suspect
from shoplens.retraining.errors import LabelNotChangeable
from shoplens.retraining.gate import GateRules
from shoplens.retraining.label_errors import LabelErrorFinder
from shoplens.retraining.pipeline import Pipeline, PipelineParts, Watcher
from shoplens.retraining.product_trainer import ProductTrainer
from shoplens.retraining.promotion import Promotion
from shoplens.retraining.repository import RetrainingRepository
from shoplens.retraining.service import RetrainingService
from shoplens.retraining.shadow_job import ShadowJob
from shoplens.retraining.shadow_time import ShadowTimes
from shoplens.retraining.starting import NewRetrainings, RetrainingStarter
from shoplens.retraining.suspects import SuspectService
from shoplens.retraining.tracking import MlflowTracker
from shoplens.retraining.trainers import PhotoTrainer, Trainer
from shoplens.settings import Settings
from shoplens.storage import Store, open_store
from shoplens.training.recipes import require_extras

_RUN_COMMAND = (sys.executable, "-m", "shoplens", "retrain", "run", "--run")
"""The command of a retraining that was requested; its id is appended."""


def retraining_rules(
    settings: Settings,
    channel: str,
    *,
    recipe: str | None = None,
    base: Path | None = None,
    test: Path | None = None,
    run: RetrainingRun | None = None,
) -> RetrainingRules:
    """Those of a channel, with a recipe and base data that were given for one run, or that an earlier `run` had.

    Raises ChannelNotFound, and Misconfigured for a channel whose model is pinned or a folder.
    """
    if channel not in settings.channels:
        raise no_channel(channel, settings.channels)
    wanted = settings.channels[channel]
    if "@" in wanted.model or "/" in wanted.model:
        raise Misconfigured(
            f"channels.{channel}.model is {wanted.model}: it names one version. Name the model without a version, so "
            "that a new version can take its place."
        )
    own = wanted.retraining
    shown = [each for each in settings.channels.values() if each.model == wanted.model and each.shadow_share > 0]
    if own.promote == "after_shadow" and not shown:
        raise Misconfigured(
            f"channels.{channel}.retraining.promote is after_shadow, but no challenger is shown any request: set "
            f"channels.{channel}.shadow_share, for example to 0.1."
        )
    rules = RetrainingRules(
        channel=channel,
        model=wanted.model,
        recipe=recipe or own.recipe or ("fusion" if wanted.catalogue is not None else "head"),
        base=_place(base, own.base),
        test=_place(test, own.test),
        promote=own.promote,
        shadow=ShadowRules(
            hours=own.shadow_hours,
            least_answers=own.shadow_answers,
            most_failures=own.shadow_failures,
            least_agreement=own.shadow_agreement,
            confidence=own.confidence,
        ),
        test_share=own.test_share,
        new_class_samples=own.new_class_samples,
        gate=GateRules(
            margin=own.margin,
            confidence=own.confidence,
            worst_class_loss=own.worst_class_loss,
            class_samples=own.class_samples,
            most_calibration_error=own.most_calibration_error,
            calibration_loss=own.calibration_loss,
            slower=own.slower,
            larger=own.larger,
            least_samples=own.least_test_samples,
        ),
        sign_with=own.sign_with,
    )
    if run is None:
        return rules
    return replace(rules, model=run.model, recipe=run.recipe, base=run.base, test=run.test, promote=run.promote)


def _place(given: Path | None, own: str | None) -> str | None:
    """An absolute path, so that a run can be continued from another folder."""
    place = str(given) if given is not None else own
    return None if place is None else str(local_folder(place).absolute() if is_local(place) else place)


@contextmanager
def open_pipeline(settings: Settings, rules: RetrainingRules) -> Iterator[Pipeline]:
    """For a command. Raises Misconfigured, DatabaseUnavailable and StorageUnavailable."""
    with closing(build_database(settings, durable=True)) as database:
        store = open_store(settings.effective_storage_url, setting="storage_url")
        registry = open_registry(settings)
        labels = build_labels(settings, database, store)
        trainer = build_trainer(settings, database, store, rules)
        yield Pipeline(
            PipelineParts(
                database=database,
                store=store,
                labels=labels,
                registry=registry,
                promotion=build_promotion(settings, database, store, registry),
                find=lambda name: _found(name, settings),
                trainer=trainer,
                watchers=_watchers(settings, database, trainer),
                folder=settings.data_dir.absolute() / "retraining",
                clock=utc_now,
                takeover_s=settings.batch.takeover_s,
            ),
            rules,
        )


def _watchers(settings: Settings, database: Database, trainer: Trainer) -> list[Watcher]:
    watchers: list[Watcher] = [LabelErrorFinder(database, trainer, clock=utc_now)]
    if settings.mlflow_url is not None:
        watchers.append(MlflowTracker(settings.mlflow_url))
    return watchers


def build_trainer(settings: Settings, database: Database, store: Store, rules: RetrainingRules) -> Trainer:
    """For the recipe of these rules."""
    threads, limits = thread_count(settings, "cpu"), build_limits(settings)
    if rules.recipe != "fusion":
        return PhotoTrainer(store, threads=threads, limits=limits)

    return ProductTrainer(
        database, store, trees=stored_trees(settings, database)(rules.channel), threads=threads, limits=limits
    )


def build_promotion(settings: Settings, database: Database, store: Store, registry: Registry) -> Promotion:
    """What publishes and promotes, with the audit log."""
    publishing = build_registry(settings, database, AuditLog(database, clock=utc_now))
    shadows = ShadowTimes(database, store, labels=build_labels(settings, database, store).said)
    return Promotion(database, registry, publishing, shadows, clock=utc_now)


def build_retraining(settings: Settings, database: Database, store: Store) -> RetrainingService:
    """The use cases of people. Raises Misconfigured and StorageUnavailable."""
    registry = open_registry(settings)
    return RetrainingService(database, store, build_promotion(settings, database, store, registry), clock=utc_now)


def build_starter(settings: Settings, database: Database) -> RetrainingStarter:
    """What begins retrainings from a server. Raises Misconfigured and StorageUnavailable."""
    process = RunProcess(
        environment=settings.environment(), logs=settings.effective_log_dir / "retraining", command=_RUN_COMMAND
    )
    return RetrainingStarter(
        NewRetrainings(
            database=database,
            registry=open_registry(settings),
            find=lambda name: _found(name, settings),
            clock=utc_now,
        ),
        RunLauncher(database, process, runs=RetrainingRepository),
        rules_of=partial(retraining_rules, settings),
        require=require_extras,
    )


def build_shadow_job(settings: Settings, database: Database, store: Store) -> ShadowJob:
    """What ends shadow times in a server. Raises Misconfigured and StorageUnavailable."""
    promotion = build_promotion(settings, database, store, open_registry(settings))
    return ShadowJob(database, promotion, rules_of=partial(retraining_rules, settings), clock=utc_now)


def build_suspects(
    settings: Settings, database: Database, audit: AuditLog, records: RecordService, decisions: DecisionService
) -> SuspectService:
    """Labels that were given as feedback are changed as feedback, those of products as a decision."""

    def give(suspect: Suspect, by: Principal) -> None:
        new = NewFeedback(
            prediction_id=suspect.sample_id,
            verdict=FeedbackValue.WRONG,
            label=suspect.suggested,
            comment=f"Looked at again by {by.name}.",
        )
        records.give_feedback(new)

    tree_of = live_trees(settings, database)

    def decide(suspect: Suspect, by: Principal) -> None:
        tree = tree_of(suspect.channel)
        found = tree.at(tuple(suspect.suggested.split(SEPARATOR))) if tree else None
        if found is None:
            raise LabelNotChangeable(f"The tree has no category {suspect.suggested} any more.")
        decisions.decide(suspect.channel, suspect.sample_id, by=by, category=found)

    return SuspectService(database, audit, relabel={FEEDBACK: give, PRODUCTS: decide}, clock=utc_now)


@contextmanager
def open_retraining(settings: Settings) -> Iterator[RetrainingService]:
    """For a command. Raises Misconfigured, DatabaseUnavailable and StorageUnavailable."""
    with closing(build_database(settings)) as database:
        yield build_retraining(settings, database, open_store(settings.effective_storage_url, setting="storage_url"))


def _found(name: str, settings: Settings) -> Bundle | None:
    try:
        return find_bundle(name, settings)
    except ModelNotFound:
        return None

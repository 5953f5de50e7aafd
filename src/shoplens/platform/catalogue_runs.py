"""Build runs over the catalogue from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from shoplens.accounts.audit import AuditLog
from shoplens.batch.executors import RetryPolicy, only_version
from shoplens.batch.process import WatchTime
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.store import pack_bundle
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.catalogue.runs.run_mail import CatalogueRunMail
from shoplens.catalogue.runs.runner import CatalogueRunner, RunEngine, RunParts
from shoplens.catalogue.service import chosen_channel, paths_in
from shoplens.db import Database
from shoplens.platform.batch import (
    ExecutorName,
    chosen_engine,
    local_engine,
    open_node_engine,
    photos_in_work,
    workers_engine,
)
from shoplens.platform.catalogue import (
    CatalogueParts,
    StoredParts,
    build_catalogue,
    build_stored,
    catalogue_channels,
    encoder_digest,
)
from shoplens.platform.configuration import build_thresholds
from shoplens.platform.mail import run_mailing
from shoplens.platform.parts import (
    Progress,
    build_channels,
    build_database,
    build_limits,
    build_sandbox,
    find_bundle,
    utc_now,
)
from shoplens.predictions.entities import Channel
from shoplens.serving.cores import usable_cores
from shoplens.serving.engine import Engine
from shoplens.settings import Settings
from shoplens.storage import open_store


@contextmanager
def build_catalogue_runner(
    settings: Settings,
    channel: str | None,
    *,
    engine: ExecutorName | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> Iterator[CatalogueRunner]:
    """A runner for one run over the products of a channel. Waits for a database or store as long as the run would.

    `engine` says where the model is, `address` where the Ray cluster is; None: where the settings say.

    Raises NoCatalogue, Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    channels = build_channels(settings)
    name = chosen_channel(catalogue_channels(settings, channels), channel).name
    chosen, address = chosen_engine(settings, engine, address, channel=name)
    retry = RetryPolicy(settings.batch.retry_s)
    with closing(retry(lambda: build_database(settings))) as database:
        parts = retry(partial(_stored_parts, settings, database))
        bundle = find_bundle(channels[name].model, settings)

        def open_engine(model: str | None) -> RunEngine:
            return _open_engine(settings, name, model, parts, engine=chosen, address=address, progress=progress)

        stored = build_stored(settings, channels, parts, labels=lambda _: tuple(label.name for label in bundle.labels))
        mailing = run_mailing(settings, channels[name])
        yield CatalogueRunner(
            name,
            RunParts(
                database=database,
                products=stored.products,
                open_engine=open_engine,
                retry=retry,
                clock=utc_now,
                takeover_s=settings.batch.takeover_s,
                timeout_s=settings.batch.stall_after_s,
                watch=WatchTime(),
                mail=None if mailing is None else CatalogueRunMail(database, mailing, partial(stored.paths, name)),
            ),
        )


def channel_of_run(settings: Settings, run_id: str) -> str:
    """The channel of a run over the catalogue. Raises RunNotFound, Misconfigured and DatabaseUnavailable."""
    with closing(build_database(settings)) as database, database.reading() as tx:
        return CatalogueRunRepository(tx).get(run_id).channel


@contextmanager
def open_suggest(settings: Settings, channel: str | None) -> Iterator[tuple[RunEngine, Callable[[str], str]]]:
    """What suggests categories in a channel, with its model in this process, and the paths of categories.

    Raises NoCatalogue, Misconfigured, ModelNotFound, BundleError, DatabaseUnavailable and StorageUnavailable.
    """
    channels = catalogue_channels(settings, build_channels(settings))
    chosen = chosen_channel(channels, channel)
    with closing(build_database(settings)) as database:
        parts = _stored_parts(settings, database)
        opened = _open_engine(settings, chosen.name, None, parts, engine="local", address=None, progress=None)
        yield opened, paths_in(opened.suggest.tree(opened.tree), chosen.language)


def _stored_parts(settings: Settings, database: Database) -> StoredParts:
    return StoredParts(
        database=database,
        store=open_store(settings.effective_storage_url, setting="storage_url"),
        limits=build_limits(settings),
        sandbox=build_sandbox(settings),
        audit=AuditLog(database, clock=utc_now),
    )


def _open_engine(
    settings: Settings,
    name: str,
    model: str | None,
    parts: StoredParts,
    *,
    engine: ExecutorName,
    address: str | None,
    progress: Progress | None,
) -> RunEngine:
    """Models in this process are of one version throughout: that with which the run began, else the one that is live.

    Raises ModelNotFound, BundleError, NoWorker and QueueUnavailable.
    """
    channel = build_channels(settings)[name]
    opened: Engine
    if engine == "workers":
        opened, at_once = workers_engine(settings, channel), settings.queue_limit // 2
        bundle = find_bundle(channel.model, settings)
    else:
        bundle = find_bundle(model or channel.model, settings)
        if model is None and not _is_path(channel.model):
            model = str(bundle.ref)
        channel = replace(channel, model=model or channel.model)
        if engine == "ray":
            opened, at_once = _ray_engine(settings, channel, bundle, address)
        else:
            opened, at_once = local_engine(settings, channel, progress), photos_in_work(settings)
    pinned = settings.model_copy(
        update={"channels": {name: settings.channels[name].model_copy(update={"model": channel.model})}}
    )
    policy = build_thresholds(settings, {name: channel}, parts.database).current(name)
    catalogue = build_catalogue(
        pinned,
        {name: channel},
        CatalogueParts(
            engine=opened,
            policy_of=lambda _: policy,
            database=parts.database,
            store=parts.store,
            limits=parts.limits,
            sandbox=parts.sandbox,
            audit=parts.audit,
        ),
    )
    return RunEngine(
        engine=opened,
        suggest=catalogue.suggest[name],
        model=str(only_version(served.ref for served in opened.served())),
        encoder=encoder_digest(bundle),
        tree=catalogue.trees[name].live().version,
        at_once=max(1, at_once),
    )


def _ray_engine(settings: Settings, channel: Channel, bundle: Bundle, address: str | None) -> tuple[Engine, int]:
    """Models in actors on a Ray cluster, and how many products are asked at once. Blocks.

    Raises ExtraMissing, Misconfigured and ClusterUnavailable.
    """
    from shoplens.batch.ray import Cluster
    from shoplens.batch.ray_engine import RayEngine

    gpu = settings.provider == "cuda"
    on_node = settings.model_copy(update={"threads": 1, "provider": "cuda" if gpu else "cpu"})
    with TemporaryDirectory(prefix="shoplens-bundle-") as folder:
        packed = pack_bundle(bundle.root, Path(folder) / "bundle").read_bytes()
    cluster = Cluster(address=address, local_cpus=settings.threads or usable_cores(), gpu=gpu)
    engine = RayEngine(bundle, packed, partial(open_node_engine, on_node, channel), cluster, model=channel.model)
    return engine, engine.capacity


def _is_path(model: str) -> bool:
    return "/" in model

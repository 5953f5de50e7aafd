"""Build imports, runs and their results from the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal
from zoneinfo import ZoneInfo

import shoplens
from shoplens.accounts.entities import Permission
from shoplens.batch.browse import BrowseService
from shoplens.batch.executors import EngineExecutor, Executor, ResultBuilder, RetryPolicy, WorkLimits
from shoplens.batch.export import ExportItems
from shoplens.batch.files import MovedPhotos
from shoplens.batch.importer import Importer, ImportRules, ImportRunner
from shoplens.batch.looks import LookService
from shoplens.batch.manifest import ManifestSource
from shoplens.batch.process import RunLauncher, RunProcess, StartRun, cancel_run
from shoplens.batch.report import WriteReport
from shoplens.batch.review import ReviewService
from shoplens.batch.run_mail import RunMail
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.runner import BatchRunner, RunnerParts, RunRules
from shoplens.batch.schedule import Planner, Schedule, local_zone
from shoplens.batch.service import Batch, BatchChannel, Results
from shoplens.batch.sidecars import compile_pattern
from shoplens.batch.sources import LocalSource, ObjectSource, Source, is_local, local_folder
from shoplens.batch.status import ReadStatus, RunStatus
from shoplens.batch.web_photos import WebPhotos
from shoplens.bundles.store import pack_bundle, unpack_bundle
from shoplens.db import Database
from shoplens.errors import BundleError, Misconfigured, ModelNotFound, SourceUnavailable, StorageUnavailable
from shoplens.platform.configuration import build_thresholds
from shoplens.platform.mail import run_mailing
from shoplens.platform.moderation import Backlog, build_backlog
from shoplens.platform.parts import (
    Progress,
    build_channels,
    build_database,
    build_engine,
    build_finder,
    build_limits,
    build_sandbox,
    find_bundle,
    thread_count,
    utc_now,
)
from shoplens.predictions.entities import Channel
from shoplens.predictions.image_store import ImageStore
from shoplens.serving.classifier import choose_provider
from shoplens.serving.cores import usable_cores
from shoplens.serving.engine import Engine
from shoplens.settings import Settings
from shoplens.storage import Store, open_prefix, open_store, shared_url
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.trigger_log import last_triggers, record_trigger

ExecutorName = Literal["local", "workers", "ray"]

_log: Final = get_logger(__name__)
_IMPORT_THREADS: Final = 8
"""They mostly wait for the disk or the network. Each may hold a photo in memory."""
_PHOTOS_PER_THREAD: Final = 6
_PHOTOS_BEING_READ: Final = 16


def build_batch(
    settings: Settings,
    *,
    database: Database,
    store: Store,
    images: ImageStore,
    labels: Callable[[str], tuple[str, ...]],
) -> Batch:
    """`images` is over `store`; `labels` gives those of the model that a channel is served by.

    Raises Misconfigured and DatabaseUnavailable.
    """
    durable = build_database(settings, durable=True)
    channels = {name: _batch_channel(settings, name, durable, store, labels(name)) for name in settings.batch_channels}
    results = build_results(
        settings,
        database=database,
        store=store,
        images=images,
        labels={name: each.labels for name, each in channels.items()},
    )
    process = RunProcess(environment=settings.environment(), logs=settings.effective_log_dir)
    launcher = RunLauncher(database, process, runs=RunRepository)
    return Batch(
        channels=channels,
        durable=durable,
        start=StartRun(database, launcher, clock=utc_now),
        cancel=partial(cancel_run, database, clock=utc_now),
        launcher=launcher,
        plan=build_planner(settings, database),
        browse=results.browse,
        review=results.review,
        looks=results.looks,
        export=results.export,
        report=results.report,
        takeover_s=settings.batch.takeover_s,
    )


def _batch_channel(
    settings: Settings, name: str, durable: Database, store: Store, labels: tuple[str, ...]
) -> BatchChannel:
    source = settings.batch_source(name)
    if settings.batch_channels[name].source is None:  # a folder that the user named may be a missing mount
        Path(source).mkdir(parents=True, exist_ok=True)
    importer = build_importer(settings, name, database=durable, store=store)
    arguments = {"channel": name, "source": source, "keep_source": False}
    record = partial(record_trigger, settings.log_folder, job="ingest", by="http", arguments=arguments)
    imports = ImportRunner(importer, clock=utc_now, record=record)
    moderated = name in _moderated_channels(settings)
    return BatchChannel(
        name=name,
        source=source,
        labels=labels,
        photos_need=Permission.MODERATION_REVIEW if moderated else Permission.BATCH_READ,
        importer=importer,
        imports=imports,
    )


def _moderated_channels(settings: Settings) -> set[str]:
    return {name for name, channel in settings.channels.items() if channel.moderation is not None}


def build_results(
    settings: Settings,
    *,
    database: Database,
    store: Store,
    images: ImageStore,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Results:
    """`images` is over `store`; `labels` are those of the model that each channel is served by."""
    return Results(
        browse=BrowseService(database, images, clock=utc_now),
        review=ReviewService(
            database, store, labels=labels or {}, clock=utc_now, moderated=_moderated_channels(settings)
        ),
        looks=LookService(database, clock=utc_now),
        export=ExportItems(database),
        report=WriteReport(
            database,
            store,
            images,
            clock=utc_now,
            public_url=settings.public_url,
            language_tag=settings.language,
            version=shoplens.__version__,
            label_names={name: channel.label_names for name, channel in settings.channels.items()},
        ),
    )


@contextmanager
def open_importer(settings: Settings, channel: str) -> Iterator[Importer]:
    """An importer with a database and a store of its own, for a command.

    Raises Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    database = build_database(settings, durable=True)
    try:
        store = open_store(settings.effective_storage_url, setting="storage_url")
        yield build_importer(settings, channel, database=database, store=store)
    finally:
        database.close()


def build_importer(settings: Settings, channel: str, *, database: Database, store: Store) -> Importer:
    """`database` must be durable, because photos are removed from their source. Raises Misconfigured."""
    wanted = settings.batch_channels[channel]
    return Importer(
        database,
        store,
        clock=utc_now,
        source=settings.batch_source(channel),
        open_source=lambda url: open_source(url, settings, channel),
        rules=ImportRules(
            channel=channel,
            name_pattern=compile_pattern(wanted.name_pattern),
            commit_items=settings.batch.commit_items,
            threads=_IMPORT_THREADS,
            max_image_bytes=settings.max_image_bytes,
        ),
    )


def open_source(url: str, settings: Settings, channel: str) -> Source:
    """A folder or a CSV manifest by path or `file://` URL, or the prefix of a bucket.

    Raises Misconfigured and SourceUnavailable.
    """
    if not is_local(url):
        return ObjectSource(open_prefix(url))
    path, quiet_s = local_folder(url), settings.batch_channels[channel].quiet_s
    is_manifest = path.suffix.lower() == ".csv" and not path.is_dir()
    folder = (path.absolute().parent if is_manifest else path).resolve()
    # If photos were imported from our own folders, the database would be imported and removed.
    data, storage = settings.data_dir.resolve(), settings.effective_storage_url
    blobs = local_folder(storage).resolve() if is_local(storage) else data / "blobs"
    own = [each for each in (data, blobs) if each.is_relative_to(folder)]
    if folder.is_relative_to(blobs) or (own and not is_manifest):
        raise SourceUnavailable(f"{path} holds the data of Shoplens itself. Choose a folder for new photos alone.")
    if not is_manifest:
        return LocalSource(path, quiet_s=quiet_s, now=time.time)
    bucket, wanted = settings.batch_source(channel), settings.batch_channels[channel]
    urls = None
    if wanted.url_prefixes:
        urls = WebPhotos(wanted.url_prefixes, networks=wanted.url_networks, max_bytes=settings.max_image_bytes)
    return ManifestSource(
        path,
        objects=None if is_local(bucket) else open_prefix(bucket),
        urls=urls,
        protected=own,
        quiet_s=quiet_s,
        now=time.time,
    )


def chosen_engine(
    settings: Settings, asked: ExecutorName | None, address: str | None, *, channel: str
) -> tuple[ExecutorName, str | None]:
    """Where the models of a run are, and the address of the Ray cluster: as asked for, else as `batch.engine` says.

    A channel with a moderation side, for which nothing was asked, uses no Ray. Raises Misconfigured.
    """
    engine: ExecutorName = asked or settings.batch.engine
    if asked is None and engine == "ray" and settings.channels[channel].moderation is not None:
        engine = "local" if settings.redis_url is None else "workers"
    if address is not None and engine != "ray":
        raise Misconfigured("--address is the address of a Ray cluster. Use it with --engine ray.")
    if engine == "workers" and settings.redis_url is None:
        named = "--engine workers" if asked else "batch.engine = workers"
        raise Misconfigured(f"{named} sends what is to be classified through Redis: set redis_url.")
    return engine, (address or settings.batch.ray_address) if engine == "ray" else None


@contextmanager
def build_runner(
    settings: Settings,
    channel_name: str,
    *,
    executor: ExecutorName | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> Iterator[BatchRunner]:
    """A runner for one run of a channel. Waits for a database or a store that is away as long as the run itself would.

    `executor` says where models run: in this process, in workers behind Redis, or on the Ray cluster at `address`;
    None: where the settings say. Raises Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    # What does not fit is reported even if nothing waits.
    executor, address = chosen_engine(settings, executor, address, channel=channel_name)
    retry = RetryPolicy(settings.batch.retry_s)
    with closing(retry(lambda: build_database(settings, durable=True))) as database:
        store = retry(lambda: open_store(settings.effective_storage_url, setting="storage_url"))
        channel = build_channels(settings)[channel_name]
        thresholds = build_thresholds(settings, {channel_name: channel}, database)
        channel = replace(channel, policy=retry(lambda: thresholds.current(channel_name)))
        results = ResultBuilder(
            channel,
            store,
            clock=utc_now,
            max_attempts=settings.batch.max_attempts,
            file_by_label=settings.batch_channels[channel_name].file_by_label,
        )

        moderated = _moderated(settings, channel, database)

        def open_executor() -> Executor:
            if executor == "ray" and moderated is not None:
                raise Misconfigured(
                    f"The channel {channel.name} has a moderation side; its runs do not use Ray. Leave out --engine."
                )
            served = channel
            if moderated is None:
                served = replace(channel, model=model_of_run(settings, channel, database))
            if executor == "ray":
                return _ray_executor(settings, served, store, results, retry, address=address)
            photos, engine = (
                (settings.queue_limit // 2, workers_engine(settings, channel))
                if executor == "workers"
                else (photos_in_work(settings), local_engine(settings, served, progress))
            )
            limits = WorkLimits(
                photos=max(1, photos), photo_bytes=settings.max_queued_bytes, timeout_s=settings.batch.stall_after_s
            )
            if moderated is not None:
                return moderated.executor(settings, engine, store, results=results, limits=limits, retry=retry)
            return EngineExecutor(
                engine,
                model=served.model,
                store=store,
                results=results,
                limits=limits,
                image_limits=build_limits(settings),
                retry=retry,
            )

        images = ImageStore(store, limits=build_limits(settings), sandbox=build_sandbox(settings))
        parts = RunnerParts(
            database=database,
            store=store,
            results=results,
            retry=retry,
            open_executor=open_executor,
            report=build_results(settings, database=database, store=store, images=images).report,
            clock=utc_now,
            policy_version=None if moderated is None else moderated.policy_version,
            mail=_build_run_mail(settings, channel, database=database, store=store),
        )
        rules = RunRules(
            commit_items=settings.batch.commit_items,
            takeover_s=settings.batch.takeover_s,
            stall_after_s=settings.batch.stall_after_s,
        )
        yield BatchRunner(parts, rules)


def _build_run_mail(settings: Settings, channel: Channel, *, database: Database, store: Store) -> RunMail | None:
    """None where nobody gets a mail about the runs of this channel."""
    mailing = run_mailing(settings, channel)
    return None if mailing is None else RunMail(database, store, mailing)


def _moderated(settings: Settings, channel: Channel, database: Database) -> Backlog | None:
    """The moderation side of the channel, if it has one. Raises ModelNotFound, BundleError and Misconfigured."""
    wanted = settings.channels[channel.name].moderation
    return None if wanted is None else build_backlog(settings, channel, wanted, database=database)


def model_of_run(settings: Settings, channel: Channel, database: Database) -> str:
    """The version with which the channel's active run began, or for a new run the one that is live, as `name@version`.

    A model that follows no champion stays as it is named. Raises ModelNotFound, BundleError, StorageUnavailable,
    RegistryUnavailable, Misconfigured and DatabaseUnavailable.
    """
    finder = build_finder(settings)
    if not finder.follows(channel.model):
        return channel.model
    with database.reading() as tx:
        run = RunRepository(tx).active(channel.name)
    if run is not None and run.model is not None and run.model.name == channel.model:
        try:
            return str(finder.find(str(run.model)).ref)
        except ModelNotFound as error:
            _log.warning("run.model_gone", run=run.id, model=str(run.model), reason=str(error))
    return str(finder.find(channel.model).ref)


def photos_in_work(settings: Settings) -> int:
    """Enough that no thread waits for a photo to be read."""
    return _PHOTOS_PER_THREAD * thread_count(settings, choose_provider(settings.provider)) + _PHOTOS_BEING_READ


def workers_engine(settings: Settings, channel: Channel) -> Engine:
    """Models in workers behind Redis. Raises NoWorker when none answers for the channel's model now."""
    from shoplens.platform.workers import build_redis_engine, require_worker

    require_worker(settings, channel.model)
    return build_redis_engine(settings, {channel.name: channel}, metrics=Metrics())


def local_engine(settings: Settings, channel: Channel, progress: Progress | None) -> Engine:
    """An engine for one channel, with a queue that the run cannot fill."""
    larger = settings.model_copy(update={"queue_limit": 2 * photos_in_work(settings)})
    return build_engine(
        larger, {channel.name: channel}, metrics=Metrics(), sandbox=build_sandbox(settings), progress=progress
    )


def _ray_executor(
    settings: Settings,
    channel: Channel,
    store: Store,
    results: ResultBuilder,
    retry: RetryPolicy,
    *,
    address: str | None,
) -> Executor:
    """Connect to the cluster at `address`, or start one here. Blocks.

    Raises ExtraMissing, Misconfigured, ClusterUnavailable, StorageUnavailable, ModelNotFound and BundleError.
    """
    from shoplens.batch.ray import Cluster, NodeJob, RayExecutor

    store_url = shared_url(settings.effective_storage_url)
    bundle = find_bundle(channel.model, settings)
    gpu = settings.provider == "cuda"
    on_node = settings.model_copy(update={"threads": 1, "provider": "cuda" if gpu else "cpu"})
    job = NodeJob(
        version=shoplens.__version__,
        store_url=store_url,
        limits=build_limits(settings),
        timeout_s=settings.batch.stall_after_s,
        open_engine=partial(open_node_engine, on_node, channel),
    )
    with TemporaryDirectory(prefix="shoplens-bundle-") as folder:
        packed = pack_bundle(bundle.root, Path(folder) / "bundle").read_bytes()
    return RayExecutor(
        job,
        packed,
        Cluster(address=address, local_cpus=settings.threads or usable_cores(), gpu=gpu),
        model=bundle.ref,
        store=store,
        results=results,
        retry=retry,
    )


def open_node_engine(settings: Settings, channel: Channel, packed: bytes) -> tuple[Engine, str]:
    """The engine of an actor on a Ray node, with the bundle that the driver sent, and its model's name there."""
    with TemporaryDirectory(prefix="shoplens-bundle-") as folder:
        file = Path(folder) / "bundle"
        file.write_bytes(packed)
        model = str(unpack_bundle(file, Path(folder) / "unpacked").root)
        return local_engine(settings, replace(channel, model=model), None), model


@contextmanager
def open_results(settings: Settings, *, labels: bool = False) -> Iterator[Results]:
    """Results over the database and the store of the settings. No model is loaded.

    With `labels` the bundles of the channels say what labels there are; else only those of earlier items are known.
    Raises Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    database = build_database(settings)
    try:
        store = open_store(settings.effective_storage_url, setting="storage_url")
        images = ImageStore(
            store, limits=build_limits(settings), sandbox=build_sandbox(settings), moved_to=MovedPhotos(database)
        )
        known = {name: _bundle_labels(settings, name) for name in settings.batch_channels} if labels else {}
        yield build_results(settings, database=database, store=store, images=images, labels=known)
    finally:
        database.close()


def _bundle_labels(settings: Settings, channel: str) -> tuple[str, ...]:
    """None of a model that cannot be found or opened: the labels of earlier items are still known."""
    try:
        bundle = find_bundle(build_channels(settings)[channel].model, settings)
    except (ModelNotFound, BundleError, StorageUnavailable):
        return ()
    return tuple(label.name for label in bundle.labels)


def build_schedules(settings: Settings) -> dict[str, Schedule]:
    """The schedules of the channels that have one."""
    zone = local_zone() if settings.batch.time_zone is None else ZoneInfo(settings.batch.time_zone)
    return {
        name: Schedule(expression=each.schedule, zone=zone)
        for name, each in settings.batch_channels.items()
        if each.schedule is not None
    }


def build_planner(settings: Settings, database: Database) -> Planner:
    """Says when the next run of a channel is planned, and whether one did not begin."""

    def last_trigger(channel: str) -> datetime | None:
        try:
            found = last_triggers(settings.effective_log_dir).get((channel, "run"))
        except OSError:
            return None
        return None if found is None else found.started_at

    return Planner(database, build_schedules(settings), clock=utc_now, last_trigger=last_trigger)


def build_status(settings: Settings, database: Database) -> ReadStatus:
    """Reads the status of a channel."""
    return ReadStatus(database, clock=utc_now, takeover_s=settings.batch.takeover_s)


def channel_of_run(settings: Settings, run_id: str) -> str:
    """The channel that a run belongs to. Raises RunNotFound and DatabaseUnavailable."""
    with closing(build_database(settings)) as database, database.reading() as tx:
        return RunRepository(tx).get(run_id).channel


def read_statuses(settings: Settings, database: Database) -> Callable[[], dict[str, RunStatus]]:
    """A function that reads the status of every channel with a batch side."""
    show = build_status(settings, database)
    return lambda: {name: show(name) for name in settings.batch_channels}

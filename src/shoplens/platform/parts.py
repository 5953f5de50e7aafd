"""Build the parts that every process has from the settings: bundles, engine, database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from shoplens.accounts.entities import Permission
from shoplens.advice import meant
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.import_process import ImportLimits, check_within
from shoplens.bundles.signing import Trust, build_trust
from shoplens.bundles.store import SharedBundles
from shoplens.db import Database, open_database, upgrade
from shoplens.errors import BundleError, BundleInvalid, Misconfigured
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.predictions.entities import Channel, ChannelPrediction, Keep, channel_of
from shoplens.predictions.policy import LabelRule, Policy, decide
from shoplens.registry.finder import ModelFinder
from shoplens.registry.live import remove_old_versions
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.registry.registry import Registry
from shoplens.serving.batcher import Batching
from shoplens.serving.classifier import Classifier, Provider, choose_provider
from shoplens.serving.cores import usable_cores
from shoplens.serving.engine import Prediction
from shoplens.serving.local import LocalEngine
from shoplens.serving.models import LoadedModel, ModelHandle, ModelPool
from shoplens.serving.photos import Answer, Finish, PhotoClassifier, best_labels
from shoplens.settings import Settings, read_settings
from shoplens.storage import open_store
from shoplens.storage.local import LocalStore
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

# A process that waits for its core or its memory is not to blame; one that hangs is ended.
_WALL_PER_CPU = 20
_log: Final = get_logger(__name__)
_PROBE_LIMITS: Final = ImportLimits(seconds=60, memory_mb=4_000)
Progress = Callable[[str], None]
"""Called with a sentence for each step."""


def find_bundle(name_or_path: str | Path, settings: Settings) -> Bundle:
    """The bundle by name, `name@version` or folder, verified; fetched where `models_dir` lacks it.

    A name means its champion in the registry, where it has one. Raises ModelNotFound, BundleError, StorageUnavailable,
    RegistryUnavailable and Misconfigured.
    """
    return build_finder(settings).find(name_or_path)


def build_finder(settings: Settings) -> ModelFinder:
    """What finds models by name. Raises Misconfigured and StorageUnavailable."""
    return ModelFinder(
        settings.make_models_dir(),
        registry=open_registry(settings),
        shared=open_shared(settings),
        trust=trust_of(settings),
    )


def open_registry(settings: Settings, *, fail_fast: bool = False) -> Registry:
    """The registry on the MLflow server, at `models_url`, or in the data folder, where a publication creates it.

    Raises Misconfigured and StorageUnavailable.
    """
    if settings.mlflow_url is not None:
        from shoplens.registry.mlflow_registry import MlflowRegistry

        return MlflowRegistry(settings.mlflow_url, clock=utc_now)
    if settings.models_url is not None:
        store = open_store(settings.models_url, setting="models_url", fail_fast=fail_fast)
        return ObjectRegistry(store, settings.models_url, clock=utc_now)
    folder = settings.data_dir.absolute() / "registry"
    return ObjectRegistry(LocalStore(folder, create=False), str(folder), clock=utc_now)


def trust_of(settings: Settings) -> Trust:
    """Which signatures of models are trusted, and whether one is required. Raises Misconfigured."""
    return build_trust(settings.trusted_keys, required=settings.require_signed_models)


def open_shared(settings: Settings, *, fail_fast: bool = False) -> SharedBundles | None:
    """None where no such store is set. Raises Misconfigured and StorageUnavailable."""
    if settings.models_url is None:
        return None
    return SharedBundles(
        open_store(settings.models_url, setting="models_url", fail_fast=fail_fast), settings.models_url
    )


def build_channels(settings: Settings) -> dict[str, Channel]:
    """The channels by name. Raises Misconfigured, also for thresholds that contradict each other."""
    if settings.default_channel not in settings.channels:
        known = ", ".join(sorted(settings.channels))
        raise Misconfigured(f"default_channel is {settings.default_channel!r}, but the channels are: {known}.")
    channels = {}
    for name, each in settings.channels.items():
        rules = tuple(
            LabelRule(label=label, review_at=at.review_at, reject_at=at.reject_at) for label, at in each.labels.items()
        )
        channels[name] = Channel(
            name=name,
            model=each.model,
            title=each.title or name,
            question=each.question or name,
            label_names=dict(each.label_names),
            policy=Policy(rules=rules, accept_at=each.accept_at, audit_share=each.audit_share),
            keep=Keep(each.keep),
            photos_need=Permission.RECORDS_READ if each.moderation is None else Permission.MODERATION_REVIEW,
        )
    return channels


def build_limits(settings: Settings) -> Limits:
    """What is refused before decoding."""
    return Limits(
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        max_whole_pixels=settings.max_whole_image_pixels,
    )


def build_sandbox(settings: Settings) -> SandboxedDecoder:
    """The decoder of photos that are not decoded in this process; it starts no process until it is needed."""
    return SandboxedDecoder(
        processes=max(2, settings.threads or usable_cores()),
        memory_bytes=settings.sandbox_memory_mb * 1_000_000,
        cpu_s=settings.sandbox_cpu_s,
        wall_s=_WALL_PER_CPU * settings.sandbox_cpu_s,
    )


def build_engine(
    settings: Settings,
    channels: Mapping[str, Channel],
    *,
    metrics: Metrics,
    sandbox: SandboxedDecoder,
    progress: Progress | None = None,
) -> LocalEngine:
    """The engine in this process, with the model of every channel loaded and warm.

    Raises ModelNotFound, BundleError, StorageUnavailable and Misconfigured.
    """
    loader = ModelLoader(settings, channels, metrics)
    names = models_of(settings, channels)
    if progress:
        progress(f"Loading {', '.join(names)}")
    with ThreadPoolExecutor(len(names), thread_name_prefix="load") as pool:
        loaded = pool.map(loader.find, names)
        live = {name: ModelHandle(model) for name, model in zip(names, loaded, strict=True)}
    engine = LocalEngine(
        # One more where a challenger is shown a share of the requests.
        ModelPool(live, load=loader.find_version, versions=settings.pinned_versions + _has_shadow(settings)),
        limits=build_limits(settings),
        sandbox=sandbox,
        batching=Batching(threads=thread_count(settings, loader.provider), queue_limit=settings.queue_limit),
        metrics=metrics,
    )
    engine.warm()
    for channel in channels.values():
        require_labels(channel, engine.labels(channel.model))
    return engine


def _has_shadow(settings: Settings) -> bool:
    return any(each.shadow_share > 0 for each in settings.channels.values())


def models_of(settings: Settings, channels: Mapping[str, Channel]) -> list[str]:
    """The models of these channels by name, those of their moderation too."""
    names = {channel.model for channel in channels.values()}
    moderated = (settings.channels[name].moderation for name in channels)
    return sorted(names | {each.general_model for each in moderated if each is not None and each.general_model})


def require_labels(channel: Channel, labels: Sequence[str]) -> None:
    """Raises Misconfigured if a threshold is for a label that the model does not have: it would never apply."""
    for rule in channel.policy.rules:
        if rule.label not in labels:
            raise Misconfigured(
                f"channels.{channel.name}.labels.{rule.label}: "
                f"the model {channel.model} has no such label{meant(rule.label, labels)}."
            )


class ModelLoader:
    """Loads models ready to be called: alone on a CPU, in batches on a GPU. Raises Misconfigured."""

    def __init__(self, settings: Settings, channels: Mapping[str, Channel], metrics: Metrics) -> None:
        self.provider: Final = choose_provider(settings.provider)
        self._finder = build_finder(settings)
        self._clean_up = partial(
            remove_old_versions,
            settings.effective_models_dir,
            open_registry(settings),
            most=settings.kept_versions + settings.pinned_versions,
        )
        self._probed: set[str] = set()
        self._channels = channels
        self._metrics = metrics
        batching = Batching(
            threads=1,
            max_batch=settings.max_batch,
            max_wait_s=settings.max_wait_ms / 1e3,
            queue_limit=settings.queue_limit,
        )
        self._batching = batching if self.provider == "cuda" else None

    def load(self, bundle: Bundle) -> LoadedModel:
        """Raises BundleInvalid."""
        classifier = Classifier(bundle, provider=self.provider)
        return LoadedModel(classifier, batching=self._batching, metrics=self._metrics)

    def find(self, name: str) -> LoadedModel:
        """The model by name, `name@version` or folder, warm.

        A champion that cannot answer, or does not fit the channels, is passed over for the one before it. Raises
        ModelNotFound, BundleError, StorageUnavailable, RegistryUnavailable and Misconfigured.
        """
        last = self._finder.remembered(name) if self._finder.follows(name) else None
        bundle = self._finder.find(name)
        if last in (None, bundle.ref.version):
            return self._warm(bundle)
        try:
            require_fit(self._channels, name, bundle)
            return self._warm(bundle)
        except BundleError as error:
            _log.error("model.champion_refused", model=name, champion=bundle.ref.version, served=last,
                       code=error.code, reason=str(error))  # fmt: skip
            self._finder.remember(name, last)
            return self._warm(self._finder.version(name, str(last)))

    def find_version(self, name: str) -> LoadedModel:
        """The model `name@version` that a request asked for, warm, after a process of its own has run its probes.

        Raises BundleInvalid for one that was refused here before, and as `find`.
        """
        bundle = self._finder.find(name)
        self._finder.require_not_refused(bundle)
        if bundle.digest not in self._probed:
            try:
                probe_apart(bundle)
            except BundleError as error:
                self._finder.refuse(bundle, str(error))
                raise
            self._probed.add(bundle.digest)
        live = self._finder.remembered(bundle.ref.name)
        if live is not None:
            self._clean_up(bundle.ref.name, keep={live, bundle.ref.version})
        return self._warm(bundle)

    def _warm(self, bundle: Bundle) -> LoadedModel:
        model = self.load(bundle)
        model.classifier.warm()
        return model


def probe_apart(bundle: Bundle) -> None:
    """Raises BundleError unless it answers the probes, in a process that it may crash."""
    check_within(bundle.root, name=str(bundle.ref), limits=_PROBE_LIMITS)


def require_fit(channels: Mapping[str, Channel], name: str, bundle: Bundle) -> None:
    """Raises BundleInvalid for a version of a model that its channels could not use."""
    labels = [label.name for label in bundle.labels]
    for channel in channels.values():
        if channel.model == name:
            try:
                require_labels(channel, labels)
            except Misconfigured as error:
                raise BundleInvalid(f"it does not fit its channels: {error}") from error


def thread_count(settings: Settings, provider: Provider) -> int:
    """As many threads as usable cores; on a GPU enough of them to fill a batch while others decode."""
    cores = settings.threads or usable_cores()
    return cores if provider == "cpu" else max(cores, settings.max_batch)


def load_bundle(name_or_path: str | Path, *, settings: Settings | None = None) -> PhotoClassifier[Prediction]:
    """A bundle by name, `name@version` or folder, ready to classify photos in plain calls.

    Raises ModelNotFound, BundleError, StorageUnavailable and Misconfigured.
    """
    return _open_photos(name_or_path, settings or read_settings(), best_labels)


def load_channel(name: str | None = None, *, settings: Settings | None = None) -> PhotoClassifier[ChannelPrediction]:
    """The model of a channel, ready to classify photos in plain calls that carry the decision of the channel's policy.

    Without a name it is the default channel. Raises ChannelNotFound, and what `load_bundle` raises.
    """
    settings = settings or read_settings()
    channels = build_channels(settings)
    channel = channel_of(channels, name, default=settings.default_channel)

    def decided(prediction: Prediction, top_k: int) -> ChannelPrediction:
        decision = decide(prediction, channel.policy)
        return ChannelPrediction(
            model=prediction.model, labels=prediction.labels[:top_k], channel=channel.name, decision=decision
        )

    photos = _open_photos(channel.model, settings, decided)
    require_labels(channel, [label.name for label in photos.bundle.labels])
    return photos


def _open_photos(name_or_path: str | Path, settings: Settings, finish: Finish[Answer]) -> PhotoClassifier[Answer]:
    return PhotoClassifier(
        Classifier(find_bundle(name_or_path, settings), provider=choose_provider(settings.provider)),
        finish=finish,
        limits=build_limits(settings),
        sandbox=build_sandbox(settings),
        threads=settings.threads,
    )


def build_database(settings: Settings, *, durable: bool = False, pool: int | None = None) -> Database:
    """The database, migrated on the embedded default. `durable` asks for commits that survive a loss of power.

    `pool` bounds its connections in place of the setting. Raises Misconfigured and DatabaseUnavailable.
    """
    url = settings.effective_database_url
    if settings.database_url is None:
        settings.make_data_dir()
        upgrade(url)
    full = durable or settings.database_durability == "power"
    return open_database(url, synchronous="FULL" if full else "NORMAL", pool=pool or settings.database_pool)


def utc_now() -> datetime:
    """The clock of every part."""
    return datetime.now(UTC)

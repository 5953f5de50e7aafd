"""Build what looks for drift from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shoplens.batch.files import MovedPhotos
from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.db import Database
from shoplens.errors import BundleError, ModelNotFound, ShoplensError
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.monitoring.accuracy.service import AccuracyService
from shoplens.monitoring.drift.gauges import DriftGauges
from shoplens.monitoring.drift.job import DriftJob
from shoplens.monitoring.drift.looking import PhotoLooker
from shoplens.monitoring.drift.sampling import ModerationSamples, PredictionSamples, SampleSource
from shoplens.monitoring.drift.service import DriftService
from shoplens.monitoring.series.entities import Job
from shoplens.platform.configuration import build_thresholds
from shoplens.platform.parts import build_channels, build_database, build_limits, build_sandbox, find_bundle, utc_now
from shoplens.predictions.entities import Channel
from shoplens.predictions.image_store import ImageStore
from shoplens.predictions.policy import Policy
from shoplens.serving.classifier import Classifier
from shoplens.setting_groups import ChannelSettings
from shoplens.settings import Settings
from shoplens.storage import Store, open_store
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftWatch:
    """What a server offers: the days, the accuracy, and the job. `job` is started only if `runs`."""

    drift: DriftService
    accuracy: AccuracyService
    job: DriftJob
    runs: bool

    def start(self) -> None:
        """Let the job run in a thread of this process, unless the setting `monitoring.drift` is off."""
        if self.runs:
            self.job.start()


def build_drift_watch(
    settings: Settings,
    channels: Mapping[str, Channel],
    *,
    database: Database,
    store: Store,
    images: ImageStore,
    metrics: Metrics,
    policy_of: Callable[[str], Policy],
) -> DriftWatch:
    """For a server. `policy_of` gives the thresholds of a channel as they are now."""
    accuracy = build_accuracy(settings, channels, database=database, policy_of=policy_of)
    gauges = DriftGauges(database, accuracy, metrics, clock=utc_now)
    return DriftWatch(
        drift=build_drift(settings, channels, database=database),
        accuracy=accuracy,
        job=build_drift_job(settings, channels, database=database, store=store, images=images, each_minute=gauges),
        runs=settings.monitoring.drift,
    )


def build_accuracy(
    settings: Settings, channels: Mapping[str, Channel], *, database: Database, policy_of: Callable[[str], Policy]
) -> AccuracyService:
    """The accuracy in production of each channel, whichever job decides in it."""
    jobs = {name: job_of(settings.channels[name]) for name in channels}
    return AccuracyService(database, channels=channels, jobs=jobs, policy_of=policy_of, clock=utc_now)


@contextmanager
def open_accuracy(settings: Settings) -> Iterator[AccuracyService]:
    """The same over a database of its own, for a command. Raises as the parts do."""
    channels = build_channels(settings)
    with closing(build_database(settings)) as database:
        policy_of = build_thresholds(settings, channels, database).current
        yield build_accuracy(settings, channels, database=database, policy_of=policy_of)


def job_of(channel: ChannelSettings) -> Job:
    """Whose decisions a channel is for."""
    if channel.moderation is not None:
        return Job.MODERATION
    return Job.PREDICTIONS if channel.catalogue is None else Job.CATALOGUE


def _installed(models_dir: Path, model: str) -> Bundle:
    """A model in this folder, not verified again: only its figures are read. Raises ModelNotFound."""
    name, _, version = model.partition("@")
    try:
        return open_bundle(models_dir / name / version, verify=False)
    except BundleError as error:
        raise ModelNotFound(f"The model {model} is not installed here.") from error


def build_drift_job(
    settings: Settings,
    channels: Mapping[str, Channel],
    *,
    database: Database,
    store: Store,
    images: ImageStore,
    each_minute: Callable[[], None] = lambda: None,
) -> DriftJob:
    """The job over all channels. Photos that are moderated lie apart from the others."""
    predictions, moderated = PredictionSamples(database, images), ModerationSamples(database, store)
    sources: dict[str, SampleSource] = {
        name: predictions if settings.channels[name].moderation is None else moderated for name in channels
    }
    look = partial(_looker, settings, channels, limits=build_limits(settings), sandbox=build_sandbox(settings))
    return DriftJob(database, sources=sources, lookers=look, clock=utc_now, each_minute=each_minute)


@contextmanager
def open_drift(settings: Settings) -> Iterator[DriftService]:
    """What is known of drift, over a database of its own, for a command. Raises as the parts do."""
    with closing(build_database(settings)) as database:
        yield build_drift(settings, build_channels(settings), database=database)


def build_drift(settings: Settings, channels: Mapping[str, Channel], *, database: Database) -> DriftService:
    """The days of each channel."""
    find = partial(_installed, settings.effective_models_dir)
    return DriftService(database, channels=channels, find_bundle=find, clock=utc_now)


@contextmanager
def open_drift_job(settings: Settings) -> Iterator[DriftJob]:
    """The job over a database of its own, for a command. Raises as the parts do."""
    with closing(build_database(settings)) as database:
        store = open_store(settings.effective_storage_url, setting="storage_url")
        images = ImageStore(
            store, limits=build_limits(settings), sandbox=build_sandbox(settings), moved_to=MovedPhotos(database)
        )
        yield build_drift_job(settings, build_channels(settings), database=database, store=store, images=images)


def _looker(
    settings: Settings,
    channels: Mapping[str, Channel],
    channel: str,
    model: str,
    *,
    limits: Limits,
    sandbox: SandboxedDecoder,
) -> PhotoLooker:
    """With exactly this version of the model, which another process may have removed since it answered."""
    classifier = None
    # A channel may name a folder, whose model is not found by its name.
    for name in (model, channels[channel].model) if model else ():
        with suppress(ShoplensError):
            bundle = find_bundle(name, settings)
            if str(bundle.ref) == model:
                classifier = Classifier(bundle)
                break
    if model and classifier is None:
        _log.warning("drift.model_missing", channel=channel, model=model)
    return PhotoLooker(classifier, limits=limits, sandbox=sandbox)

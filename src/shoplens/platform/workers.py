"""Build what stands on either side of the queue: the engine of a web process, and a model worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoplens.errors import ExtraMissing, Misconfigured, NoWorker
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.platform.parts import Progress, build_channels, build_engine, find_bundle, thread_count
from shoplens.predictions.entities import Channel
from shoplens.serving.engine import Engine
from shoplens.serving.local import LocalEngine
from shoplens.serving.session import choose_provider
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from shoplens.serving.redis.engine import Connections, RedisEngine
    from shoplens.serving.redis.fleet import Announcement
    from shoplens.serving.redis.worker import Worker


_ROOM_FOR_CLAIMED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """A worker with what it works with; the engine is closed by whoever runs the worker."""

    worker: Worker
    engine: LocalEngine
    metrics: Metrics


def build_redis_engine(settings: Settings, channels: Mapping[str, Channel], *, metrics: Metrics) -> RedisEngine:
    """The engine whose models are in workers. Raises QueueUnavailable, Misconfigured, ExtraMissing and BundleError."""
    url = require_redis(settings)
    from shoplens.serving.redis.engine import RedisEngine
    from shoplens.serving.redis.queue import Bounds

    models = {channel.model for channel in channels.values()}
    return RedisEngine(
        connections(settings, url),
        labels={name: _labels(name, settings) for name in sorted(models)},
        bounds=Bounds(jobs=settings.queue_limit, image_bytes=settings.max_queued_bytes),
        metrics=metrics,
        seen=look_for_workers(settings),
    )


def build_night_engine(settings: Settings, channel: Channel) -> Engine:
    """The same for the channel of a night, whose photos go behind those that somebody waits for.

    Raises as `build_redis_engine`, and NoWorker when none answers now: the night itself is patient.
    """
    from shoplens.batch.patient_engine import PatientEngine

    require_worker(settings, channel.model)
    engine = build_redis_engine(settings, {channel.name: channel}, metrics=Metrics())
    return PatientEngine(engine, patience_s=settings.batch.retry_s)


def require_worker(settings: Settings, model: str) -> None:
    """Raises NoWorker unless one answers for this model now, QueueUnavailable."""
    if not any(model in worker.models for worker in look_for_workers(settings)):
        raise NoWorker(f"No worker answers for the model {model} now. Start one: `shoplens worker`.")


def build_worker(
    settings: Settings, *, models: tuple[str, ...], sandbox: SandboxedDecoder, progress: Progress | None = None
) -> WorkerParts:
    """A worker for these models, or for those of all channels. Reaches the queue first, since models take longer.

    Raises QueueUnavailable, Misconfigured, ExtraMissing, ModelNotFound and BundleError.
    """
    url = require_redis(settings)
    from shoplens.serving.redis.worker import Worker, WorkerRules

    look_for_workers(settings)
    channels = _chosen(build_channels(settings), models)
    capacity = 2 * thread_count(settings, choose_provider(settings.provider))
    metrics = Metrics()
    roomy = settings.model_copy(update={"queue_limit": max(settings.queue_limit, capacity + _ROOM_FOR_CLAIMED)})
    engine = build_engine(roomy, channels, metrics=metrics, sandbox=sandbox, progress=progress)
    worker = Worker(
        engine,
        connections(settings, url),
        models=engine.served_by_name(),
        rules=WorkerRules(capacity=capacity, drain_s=settings.shutdown_s),
        metrics=metrics,
    )
    return WorkerParts(worker=worker, engine=engine, metrics=metrics)


def require_redis(settings: Settings) -> str:
    """The address of the queue. Raises Misconfigured without one, ExtraMissing where its library is not installed."""
    if settings.redis_url is None:
        raise Misconfigured("redis_url is not set. Workers take their jobs from Redis: redis://:password@host:6379/0.")
    try:
        import redis  # noqa: F401 - asked for early, so that the sentence comes before anything else happens
    except ImportError as error:
        raise ExtraMissing("Redis needs the extra `scale`: pip install 'shoplens[scale]'.") from error
    return settings.redis_url


def look_for_workers(settings: Settings) -> tuple[Announcement, ...]:
    """Who works now, in a plain call. Raises QueueUnavailable within seconds where the queue does not answer."""
    url = require_redis(settings)
    from shoplens.serving.redis import fleet
    from shoplens.serving.redis.link import connect_blocking, place_of, translated

    with translated(place_of(url)), connect_blocking(url) as client:
        keys = fleet.times_and_announcements(settings.redis_prefix)
        found = client.eval(fleet.READ, 2, *keys, str(fleet.ALIVE_MS))
        return fleet.announcements(found)


def connections(settings: Settings, url: str) -> Callable[[], Connections]:
    """Opens the queue and the fleet over one pool; for the event loop that calls it."""
    from shoplens.serving.redis.engine import Connections
    from shoplens.serving.redis.fleet import Fleet
    from shoplens.serving.redis.link import connect, place_of
    from shoplens.serving.redis.queue import JobQueue

    def opened() -> Connections:
        client, place, prefix = connect(url), place_of(url), settings.redis_prefix
        return Connections(
            queue=JobQueue(client, prefix=prefix, place=place), fleet=Fleet(client, prefix=prefix, place=place)
        )

    return opened


def _labels(name: str, settings: Settings) -> tuple[str, ...]:
    return tuple(label.name for label in find_bundle(name, settings).labels)


def _chosen(channels: Mapping[str, Channel], models: tuple[str, ...]) -> dict[str, Channel]:
    """The channels of these models. Raises Misconfigured for a model that no channel uses."""
    used = {channel.model for channel in channels.values()}
    if unused := [name for name in models if name not in used]:
        raise Misconfigured(f"No channel uses the model {unused[0]!r}; the channels use: {', '.join(sorted(used))}.")
    return {name: channel for name, channel in channels.items() if not models or channel.model in models}

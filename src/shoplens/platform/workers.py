"""Build what works over Redis: the engine of a web process or a batch run, and a worker. Needs the extra `scale`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoplens.advice import how_to_install
from shoplens.errors import ExtraMissing, Misconfigured, NoWorker
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.platform.live import follow_here
from shoplens.platform.parts import Progress, build_channels, build_engine, find_bundle, models_of, thread_count
from shoplens.predictions.entities import Channel
from shoplens.registry.live import ModelFollower
from shoplens.serving.classifier import choose_provider
from shoplens.serving.local import LocalEngine
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from shoplens.serving.redis.client import RedisEngine
    from shoplens.serving.redis.messages import Heartbeat
    from shoplens.serving.redis.worker import Worker


_ROOM_FOR_CLAIMED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """A worker and its engine, which the caller closes after the worker has stopped."""

    worker: Worker
    engine: LocalEngine
    follower: ModelFollower
    metrics: Metrics


def build_redis_engine(
    settings: Settings, channels: Mapping[str, Channel], *, metrics: Metrics, restart_s: float = 10.0
) -> RedisEngine:
    """The engine whose models are in workers.

    `restart_s` is how long after the last worker was seen requests are still accepted: it may be restarting. Raises
    QueueUnavailable, Misconfigured, ExtraMissing and BundleError.
    """
    url = require_redis(settings)
    from shoplens.serving.redis.broker import Broker, QueueLimits
    from shoplens.serving.redis.client import RedisEngine

    workers = look_for_workers(settings)
    models = models_of(settings, channels)
    return RedisEngine(
        Broker(url, prefix=settings.redis_prefix),
        bundles={name: find_bundle(name, settings) for name in models},
        limits=QueueLimits(jobs=settings.queue_limit, image_bytes=settings.max_queued_bytes),
        metrics=metrics,
        workers=workers,
        restart_s=restart_s,
    )


def require_worker(settings: Settings, model: str) -> None:
    """Raises NoWorker unless a worker answers for this model now, and QueueUnavailable."""
    if not any(model in worker.models for worker in look_for_workers(settings)):
        raise NoWorker(f"No worker answers for the model {model}. Start one: `shoplens worker`.")


def build_worker(
    settings: Settings, *, models: tuple[str, ...], sandbox: SandboxedDecoder, progress: Progress | None = None
) -> WorkerParts:
    """A worker for these models, or for those of all channels. Connects to Redis first, since loading models is slow.

    Raises QueueUnavailable, Misconfigured, ExtraMissing, ModelNotFound and BundleError.
    """
    url = require_redis(settings)
    from shoplens.serving.redis.broker import Broker
    from shoplens.serving.redis.worker import Worker, WorkerLimits

    look_for_workers(settings)
    channels = build_channels(settings)
    used = {channel.model for channel in channels.values()}
    if unused := [name for name in models if name not in used]:
        raise Misconfigured(f"No channel uses the model {unused[0]!r}; the channels use: {', '.join(sorted(used))}.")
    chosen = {name: channel for name, channel in channels.items() if not models or channel.model in models}
    # It begins as many at once as it has threads and processes of the sandbox.
    capacity = 2 * thread_count(settings, choose_provider(settings.provider)) + sandbox.processes
    metrics = Metrics()
    # Claimed jobs come on top of those that a worker takes by itself, and must not be refused.
    roomy = settings.model_copy(update={"queue_limit": max(settings.queue_limit, capacity + _ROOM_FOR_CLAIMED)})
    engine = build_engine(roomy, chosen, metrics=metrics, sandbox=sandbox, progress=progress)
    worker = Worker(
        engine,
        Broker(url, prefix=settings.redis_prefix),
        # A model that it has only for the moderation of another one answers no jobs of its own.
        models=lambda: {name: each for name, each in engine.served_by_name().items() if not models or name in models},
        limits=WorkerLimits(capacity=capacity, drain_s=settings.shutdown_s),
        metrics=metrics,
    )
    follower = follow_here(settings, chosen, engine, metrics)
    return WorkerParts(worker=worker, engine=engine, follower=follower, metrics=metrics)


def require_redis(settings: Settings) -> str:
    """The address of the queue. Raises Misconfigured without one, ExtraMissing where its library is not installed."""
    if settings.redis_url is None:
        raise Misconfigured("redis_url is not set. Workers take their jobs from Redis: redis://:password@host:6379/0.")
    try:
        import redis  # noqa: F401 - so that this is the first error
    except ImportError as error:
        raise ExtraMissing(f"Redis needs the extra `scale`. {how_to_install('scale')}") from error
    return settings.redis_url


def look_for_workers(settings: Settings) -> tuple[Heartbeat, ...]:
    """The workers that are alive, in a blocking call. Raises QueueUnavailable within seconds if Redis is away."""
    url = require_redis(settings)
    from shoplens.serving.redis.broker import list_workers

    return list_workers(url, prefix=settings.redis_prefix)

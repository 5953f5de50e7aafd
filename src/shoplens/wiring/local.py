"""Build the engine in this process, and what decodes photos for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shoplens.bundles import Bundle
from shoplens.domain.channel import Channel
from shoplens.imaging import IsolatedDecoder, Limits
from shoplens.inference.batcher import Batching
from shoplens.inference.classifier import Classifier
from shoplens.inference.cores import usable_cores
from shoplens.inference.live import LiveModel
from shoplens.inference.local import LocalEngine, PixelWork
from shoplens.inference.session import Provider, choose_provider
from shoplens.inference.slot import Slot
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics
from shoplens.wiring.models import find_bundle

Progress = Callable[[str], None]


def build_limits(settings: Settings) -> Limits:
    """What is refused before decoding."""
    return Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


def build_isolation(settings: Settings) -> IsolatedDecoder:
    """The decoder of formats that are not trusted in this process; it starts no process until it is needed."""
    return IsolatedDecoder(
        memory_bytes=settings.isolated_decoder_megabytes * 1_000_000,
        cpu_seconds=settings.isolated_decoder_seconds,
        wall_seconds=2 * settings.isolated_decoder_seconds,
    )


def build_engine(
    settings: Settings,
    channels: Mapping[str, Channel],
    *,
    metrics: Metrics,
    isolation: IsolatedDecoder,
    progress: Progress | None = None,
) -> LocalEngine:
    """The engine in this process, with the model of every channel loaded and warm."""
    provider = choose_provider(settings.provider)
    slots: dict[str, Slot] = {}
    for name in sorted({channel.model for channel in channels.values()}):
        if progress:
            progress(f"Loading {name}")
        bundle = find_bundle(name, settings)
        slots[name] = Slot(build_live(bundle, settings, provider=provider, metrics=metrics))
    engine = LocalEngine(
        slots,
        pixels=PixelWork(limits=build_limits(settings), isolation=isolation),
        batching=_worker_batching(settings, provider),
        metrics=metrics,
    )
    engine.warm()
    return engine


def build_live(bundle: Bundle, settings: Settings, *, provider: Provider, metrics: Metrics) -> LiveModel:
    """A classifier in service: single calls on a CPU, real batches on a GPU."""
    batching = (
        Batching(
            workers=1,
            max_batch=settings.max_batch,
            max_wait_s=settings.max_wait_ms / 1e3,
            queue_limit=settings.queue_limit,
        )
        if provider == "cuda"
        else None
    )
    return LiveModel(Classifier(bundle, provider=provider), batching=batching, metrics=metrics)


def workers_of(settings: Settings, provider: Provider) -> int:
    """As many workers as cores; on a GPU enough of them to fill a batch while others decode."""
    cores = settings.workers or usable_cores()
    return cores if provider == "cpu" else max(cores, settings.max_batch)


def _worker_batching(settings: Settings, provider: Provider) -> Batching:
    return Batching(workers=workers_of(settings, provider), queue_limit=settings.queue_limit)

"""Build what follows the champions of the registry, for a web server and for a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from shoplens.bundles.bundle import Bundle
from shoplens.errors import BundleInvalid
from shoplens.platform.parts import (
    ModelLoader,
    build_finder,
    models_of,
    open_registry,
    probe_apart,
    require_fit,
    utc_now,
)
from shoplens.predictions.entities import Channel
from shoplens.registry.entities import Aliases
from shoplens.registry.live import LiveEngine, LiveParts, ModelFollower, remove_old_versions
from shoplens.serving.local import LocalEngine
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from shoplens.serving.redis.client import RedisEngine


def follow_here(
    settings: Settings, channels: Mapping[str, Channel], engine: LocalEngine, metrics: Metrics
) -> ModelFollower:
    """For an engine with its models in this process: a new champion is run in a process of its own first."""
    loader = ModelLoader(settings, channels, metrics)

    def swap(name: str, bundle: Bundle) -> None:
        engine.replace(name, loader.load(bundle))

    return _follower(settings, channels, engine, metrics, swap=swap, probe=probe_apart)


def follow_workers(
    settings: Settings, channels: Mapping[str, Channel], engine: RedisEngine, metrics: Metrics
) -> ModelFollower:
    """For a web server whose models are in workers, which follow by themselves: it needs to know the labels."""
    return _follower(settings, channels, engine, metrics, swap=engine.replace, probe=lambda _: None)


def _follower(
    settings: Settings,
    channels: Mapping[str, Channel],
    engine: LiveEngine,
    metrics: Metrics,
    *,
    swap: Callable[[str, Bundle], None],
    probe: Callable[[Bundle], None],
) -> ModelFollower:
    finder = build_finder(settings)
    registry = open_registry(settings)
    models_dir = settings.effective_models_dir

    def clean_up(name: str, aliases: Aliases) -> None:
        keep = {*aliases.by_alias.values(), engine.bundle(name).ref.version}
        remove_old_versions(models_dir, registry, name, keep=keep, most=settings.kept_versions)

    parts = LiveParts(
        registry=registry,
        finder=finder,
        engine=engine,
        swap=swap,
        probe=probe,
        check=partial(_require_same_use, settings, channels, engine),
        clean_up=clean_up,
        clock=utc_now,
        metrics=metrics,
    )
    names = [name for name in models_of(settings, channels) if finder.follows(name)]
    follower = ModelFollower(names, parts, every_s=settings.models_poll_s)
    follower.start()
    return follower


def _require_same_use(
    settings: Settings, channels: Mapping[str, Channel], engine: LiveEngine, name: str, bundle: Bundle
) -> None:
    """Raises BundleInvalid for a version that the channels could not use, or that moderation would need a start for."""
    require_fit(channels, name, bundle)
    moderated = [settings.channels[each.name] for each in channels.values() if settings.channels[each.name].moderation]
    used = {each.model for each in moderated} | {each.moderation.general_model for each in moderated if each.moderation}
    if name in used and {label.name for label in bundle.labels} != {label.name for label in engine.bundle(name).labels}:
        raise BundleInvalid(
            "it has other labels, and the signals of moderation are made of them. Restart the servers and workers."
        )

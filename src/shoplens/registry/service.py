"""The installed models and how they are served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.store import installed_bundles
from shoplens.errors import ModelNotFound
from shoplens.predictions.entities import Channel
from shoplens.registry.live import FollowedModel
from shoplens.registry.shadow_repository import ShadowReport
from shoplens.serving.engine import Engine, ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A bundle and how it is served. `served` is None for a bundle that no channel uses."""

    bundle: Bundle
    served: ServedModel | None
    channels: tuple[str, ...]


class ModelService:
    """Reads the models directory at each call, so that a new bundle is listed at once. Blocks."""

    def __init__(
        self,
        *,
        engine: Engine,
        channels: Mapping[str, Channel],
        models_dir: Path,
        followed: Callable[[], tuple[FollowedModel, ...]] = tuple,
        compared: Callable[[], Sequence[ShadowReport]] = tuple,
    ) -> None:
        self.followed = followed
        self.compared = compared
        self._engine = engine
        self._channels = channels
        self._models_dir = models_dir

    def all(self) -> list[ModelView]:
        """All installed models: those that channels use first, then by name."""
        views = [self._view(bundle) for bundle in installed_bundles(self._models_dir)]
        return sorted(views, key=lambda view: (view.served is None, view.bundle.ref.name, view.bundle.ref.version))

    def get(self, name: str) -> ModelView:
        """The model `name` or `name@version`, one that a channel uses if possible. Raises ModelNotFound."""
        for view in self.all():
            if name in (view.bundle.ref.name, str(view.bundle.ref)):
                return view
        raise ModelNotFound(f"No model {name!r} is installed.")

    def _view(self, bundle: Bundle) -> ModelView:
        served = next((each for each in self._engine.served() if each.ref == bundle.ref), None)
        users = [
            channel.name
            for channel in self._channels.values()
            if served and channel.model in (bundle.ref.name, str(bundle.ref))
        ]
        return ModelView(bundle=bundle, served=served, channels=tuple(sorted(users)))

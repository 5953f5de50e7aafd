"""Build the catalogue from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.photos import ProductPhotos
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.service import Catalogue, CatalogueChannel
from shoplens.catalogue.tree import Tree
from shoplens.db import Database
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.platform.parts import utc_now
from shoplens.predictions.entities import Channel
from shoplens.serving.engine import Engine
from shoplens.settings import Settings
from shoplens.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueParts:
    """What the catalogue is built on."""

    engine: Engine
    database: Database
    store: Store
    limits: Limits
    sandbox: SandboxedDecoder


def build_catalogue(settings: Settings, channels: Mapping[str, Channel], parts: CatalogueParts) -> Catalogue:
    """The catalogue of all channels that have such a side."""
    photos = ProductPhotos(parts.store, limits=parts.limits, sandbox=parts.sandbox)
    return Catalogue(
        channels=catalogue_channels(settings, channels),
        products=ProductService(parts.database, photos, tree_of=_no_tree, clock=utc_now),
        decisions=DecisionService(parts.database, tree_of=_no_tree, clock=utc_now),
    )


def catalogue_channels(settings: Settings, channels: Mapping[str, Channel]) -> dict[str, CatalogueChannel]:
    """The channels with a catalogue side, as their settings describe them."""
    return {
        name: CatalogueChannel(
            name=name,
            title=channels[name].title,
            question=channels[name].question,
            model=channels[name].model,
            accept_at=channels[name].policy.accept_at,
            answer_at=each.catalogue.answer_at,
            suggestions=each.catalogue.suggestions,
            language=each.catalogue.language,
        )
        for name, each in settings.channels.items()
        if each.catalogue is not None
    }


def _no_tree(channel: str) -> Tree:
    return Tree(())

"""Build the catalogue from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from shoplens.accounts.audit import AuditLog
from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import Category
from shoplens.catalogue.photos import ProductPhotos
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.service import Catalogue, CatalogueChannel
from shoplens.catalogue.tree import Tree, split_path
from shoplens.catalogue.trees import TreeService
from shoplens.db import Database
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.platform.parts import utc_now
from shoplens.predictions.entities import Channel
from shoplens.settings import Settings
from shoplens.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueParts:
    """What the catalogue is built on. `labels` gives those of a model."""

    labels: Callable[[str], tuple[str, ...]]
    database: Database
    store: Store
    limits: Limits
    sandbox: SandboxedDecoder
    audit: AuditLog


def build_catalogue(settings: Settings, channels: Mapping[str, Channel], parts: CatalogueParts) -> Catalogue:
    """The catalogue of all channels that have such a side."""
    photos = ProductPhotos(parts.store, limits=parts.limits, sandbox=parts.sandbox)
    catalogued = catalogue_channels(settings, channels)
    trees = {
        name: TreeService(
            name,
            parts.database,
            first=partial(tree_of_labels, parts.labels, each.model),
            audit=parts.audit,
            clock=utc_now,
        )
        for name, each in catalogued.items()
    }

    def tree_of(channel: str) -> Tree:
        return trees[channel].live()

    return Catalogue(
        channels=catalogued,
        trees=trees,
        products=ProductService(parts.database, photos, tree_of=tree_of, clock=utc_now),
        decisions=DecisionService(parts.database, tree_of=tree_of, clock=utc_now),
    )


def tree_of_labels(labels: Callable[[str], tuple[str, ...]], model: str) -> Tree:
    """The tree that the labels of a model make, each of which is a path. Raises TreeInvalid."""
    return Tree(Category(id=label, path=split_path(label) or (label,), names={}) for label in labels(model))


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

"""Build the catalogue from the settings."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from functools import partial

from shoplens.accounts.audit import AuditLog
from shoplens.batch.process import RunLauncher, RunProcess
from shoplens.batch.web_photos import WebPhotos
from shoplens.bundles.builtin import builtin_tree
from shoplens.bundles.bundle import Bundle
from shoplens.catalogue.bulk.service import BulkService
from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import Category
from shoplens.catalogue.export import ExportProducts
from shoplens.catalogue.imports.importer import ProductImporter
from shoplens.catalogue.imports.photo_sources import NamedPhotos
from shoplens.catalogue.imports.service import ImportService
from shoplens.catalogue.numbers.service import NumberService
from shoplens.catalogue.photos import ProductPhotos
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.catalogue.runs.service import RunService
from shoplens.catalogue.service import Catalogue, CatalogueChannel, StoredCatalogue, chosen_channel, paths_in
from shoplens.catalogue.suggest.example_repository import read_examples
from shoplens.catalogue.suggest.heatmap import ProductHeatMaps
from shoplens.catalogue.suggest.keyed_photos import KeyedPhotos
from shoplens.catalogue.suggest.saving import SaveProduct
from shoplens.catalogue.suggest.service import SuggestRules, SuggestService
from shoplens.catalogue.tree.categories import Tree, split_path
from shoplens.catalogue.tree.service import TreeService
from shoplens.catalogue.tree.source import read_tree
from shoplens.db import Database
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.platform.parts import (
    build_channels,
    build_database,
    build_limits,
    build_sandbox,
    find_bundle,
    utc_now,
)
from shoplens.predictions.entities import Channel
from shoplens.predictions.policy import Policy
from shoplens.registry.shadow import Offer, offer_nothing
from shoplens.serving.engine import Engine
from shoplens.settings import Settings
from shoplens.storage import Store, open_store
from shoplens.telemetry.metrics import Metrics

_PIECE = 1 << 20
_MOST_KEYED_BYTES = 40_000_000
"""Of the photos that one request names by keys."""
_RUN_COMMAND = (sys.executable, "-m", "shoplens", "catalogue", "run", "--requested-by", "http", "--run")
"""The command of a run that was requested; the run's id is appended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredParts:
    """What the catalogue is built on, but for models."""

    database: Database
    store: Store
    limits: Limits
    sandbox: SandboxedDecoder
    audit: AuditLog


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueParts(StoredParts):
    """What the catalogue is built on. `policy_of` gives the thresholds of a channel as they are now."""

    engine: Engine
    policy_of: Callable[[str], Policy]
    answered: Offer = offer_nothing
    metrics: Metrics | None = None


def build_catalogue(settings: Settings, channels: Mapping[str, Channel], parts: CatalogueParts) -> Catalogue:
    """The catalogue of all channels that have such a side. Raises Misconfigured."""
    stored = build_stored(settings, channels, parts, labels=parts.engine.labels)
    suggest = {
        name: SuggestService(
            parts.engine,
            stored.trees[name],
            SuggestRules(
                model=each.model,
                answer_at=each.answer_at,
                suggestions=each.suggestions,
                audit_share=each.audit_share,
            ),
            policy=partial(parts.policy_of, name),
            examples=partial(read_examples, parts.database, name),
            answered=parts.answered,
            metrics=parts.metrics,
        )
        for name, each in stored.channels.items()
    }
    keyed_photos = KeyedPhotos(
        partial(open_photos, settings), max_bytes=max(settings.max_image_bytes, _MOST_KEYED_BYTES)
    )
    return Catalogue(
        **{each.name: getattr(stored, each.name) for each in fields(stored)},
        suggest=suggest,
        keyed_photos=keyed_photos,
        save=SaveProduct(
            stored.products,
            suggest_of=suggest.__getitem__,
            keyed_photos=keyed_photos,
            encoder_of=_encoders(settings, stored.channels, parts.engine),
        ),
        heat_maps=ProductHeatMaps(
            stored.products,
            find_bundle=lambda channel: find_bundle(
                _served_version(parts.engine, stored.channels[channel].model), settings
            ),
            trees_of=stored.trees.__getitem__,
            limits=parts.limits,
            sandbox=parts.sandbox,
        ),
    )


def _encoders(settings: Settings, channels: Mapping[str, CatalogueChannel], engine: Engine) -> Callable[[str], str]:
    """The SHA-256 of what makes the embeddings of a channel, read once for each version of its model."""
    known: dict[str, str] = {}

    def encoder_of(channel: str) -> str:
        version = _served_version(engine, channels[channel].model)
        if version not in known:
            known[version] = encoder_digest(find_bundle(version, settings))
        return known[version]

    return encoder_of


def _served_version(engine: Engine, model: str) -> str:
    """The version of a channel's model that answers now, as far as the engine knows."""
    name = model.partition("@")[0]
    served = [str(each.ref) for each in engine.served() if each.ref.name == name]
    return served[0] if served else model


def encoder_digest(bundle: Bundle) -> str:
    """The SHA-256 of the graph that makes a bundle's embeddings."""
    digest = hashlib.sha256()
    with (bundle.encoder_path or bundle.root / "model.onnx").open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def build_stored(
    settings: Settings,
    channels: Mapping[str, Channel],
    parts: StoredParts,
    *,
    labels: Callable[[str], tuple[str, ...]],
) -> StoredCatalogue:
    """What needs no model but its `labels`. Raises Misconfigured."""
    photos = ProductPhotos(parts.store, limits=parts.limits, sandbox=parts.sandbox)
    catalogued = catalogue_channels(settings, channels)
    trees = {
        name: TreeService(
            name,
            parts.database,
            first=partial(first_tree, labels, each.model),
            audit=parts.audit,
            clock=utc_now,
        )
        for name, each in catalogued.items()
    }

    def tree_of(channel: str) -> Tree:
        return trees[channel].live()

    def paths_of(channel: str) -> Callable[[str], str]:
        return paths_in(trees[channel].live(), catalogued[channel].language)

    products = ProductService(parts.database, photos, tree_of=tree_of, clock=utc_now)
    process = RunProcess(
        environment=settings.environment(), logs=settings.effective_log_dir / "catalogue", command=_RUN_COMMAND
    )
    return StoredCatalogue(
        channels=catalogued,
        trees=trees,
        products=products,
        decisions=DecisionService(parts.database, tree_of=tree_of, clock=utc_now),
        bulk=BulkService(parts.database, tree_of=tree_of, clock=utc_now),
        imports=ImportService(
            parts.database,
            ProductImporter(parts.database, products, tree_of=tree_of, clock=utc_now),
            parts.store,
            open_photos=partial(open_photos, settings),
            clock=utc_now,
        ),
        runs=RunService(
            parts.database, RunLauncher(parts.database, process, runs=CatalogueRunRepository), clock=utc_now
        ),
        export=ExportProducts(products, paths_of=paths_of),
        numbers=NumberService(parts.database, clock=utc_now),
    )


@contextmanager
def open_stored(settings: Settings) -> Iterator[StoredCatalogue]:
    """The same with a database and a store of its own, for a command. No model is loaded.

    Raises Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    with closing(build_database(settings)) as database:
        parts = StoredParts(
            database=database,
            store=open_store(settings.effective_storage_url, setting="storage_url"),
            limits=build_limits(settings),
            sandbox=build_sandbox(settings),
            audit=AuditLog(database, clock=utc_now),
        )
        yield build_stored(settings, build_channels(settings), parts, labels=partial(_bundle_labels, settings))


def stored_trees(settings: Settings, database: Database) -> Callable[[str], TreeService | None]:
    """Gives the trees of a channel, None for one without a catalogue side."""
    channels = catalogue_channels(settings, build_channels(settings))
    audit = AuditLog(database, clock=utc_now)

    def trees_of(channel: str) -> TreeService | None:
        if channel not in channels:
            return None
        first = partial(first_tree, partial(_bundle_labels, settings), channels[channel].model)
        return TreeService(channel, database, first=first, audit=audit, clock=utc_now)

    return trees_of


def live_trees(settings: Settings, database: Database) -> Callable[[str], Tree | None]:
    """Gives the live tree of a channel, None for one without a catalogue side; read when it is asked for."""
    trees_of = stored_trees(settings, database)

    def tree_of(channel: str) -> Tree | None:
        trees = trees_of(channel)
        return None if trees is None else trees.live()

    return tree_of


def open_photos(settings: Settings, channel: str, place: str | None = None) -> NamedPhotos:
    """The photos that products of a channel name: at `place`, else where the channel's setting says.

    Raises Misconfigured, and SourceUnavailable for a URL that is none.
    """
    wanted = settings.channels[channel].catalogue
    assert wanted is not None
    web = None
    if wanted.url_prefixes:
        web = WebPhotos(
            wanted.url_prefixes,
            networks=wanted.url_networks,
            max_bytes=settings.max_image_bytes,
            setting="catalogue.url_prefixes",
        )
    return NamedPhotos(place or wanted.photos, web=web, max_bytes=settings.max_image_bytes)


@contextmanager
def open_trees(settings: Settings, channel: str | None) -> Iterator[tuple[TreeService, str]]:
    """The trees of a channel over a database of their own, and the language of its pages. No model is loaded.

    Raises NoCatalogue, Misconfigured, ModelNotFound, BundleError and DatabaseUnavailable.
    """
    channels = catalogue_channels(settings, build_channels(settings))
    chosen = chosen_channel(channels, channel)
    with closing(build_database(settings)) as database:
        trees = TreeService(
            chosen.name,
            database,
            first=partial(first_tree, partial(_bundle_labels, settings), chosen.model),
            audit=AuditLog(database, clock=utc_now),
            clock=utc_now,
        )
        yield trees, chosen.language


def _bundle_labels(settings: Settings, model: str) -> tuple[str, ...]:
    return tuple(label.name for label in find_bundle(model, settings).labels)


def first_tree(labels: Callable[[str], tuple[str, ...]], model: str) -> Tree:
    """The tree before any import: that of the built-in model, else the one that the labels of the model make, each of
    which is a path. Raises TreeInvalid.
    """
    brought = builtin_tree(model.partition("@")[0])
    if brought is not None:
        return read_tree(brought)
    return Tree(Category(id=label, path=split_path(label) or (label,), names={}) for label in labels(model))


def catalogue_channels(settings: Settings, channels: Mapping[str, Channel]) -> dict[str, CatalogueChannel]:
    """The channels with a catalogue side, as their settings describe them."""
    return {
        name: CatalogueChannel(
            name=name,
            title=channels[name].title,
            question=channels[name].question,
            model=channels[name].model,
            answer_at=each.catalogue.answer_at,
            suggestions=each.catalogue.suggestions,
            language=each.catalogue.language,
            audit_share=channels[name].policy.audit_share,
        )
        for name, each in settings.channels.items()
        if each.catalogue is not None
    }

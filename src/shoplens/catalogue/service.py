"""The catalogue as the API, the pages and the commands need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoplens.catalogue.bulk.service import BulkService
from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.errors import NoCatalogue
from shoplens.catalogue.export import ExportProducts
from shoplens.catalogue.imports.service import ImportService
from shoplens.catalogue.numbers.service import NumberService
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.runs.service import RunService
from shoplens.catalogue.suggest.heatmap import ProductHeatMaps
from shoplens.catalogue.suggest.keyed_photos import KeyedPhotos
from shoplens.catalogue.suggest.saving import SaveProduct
from shoplens.catalogue.suggest.service import SuggestService
from shoplens.catalogue.tree.categories import Tree
from shoplens.catalogue.tree.service import TreeService


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueChannel:
    """What is there once per channel with a catalogue side.

    A category is answered from the probability `answer_at` on. Of the suggestions that need no person, a person checks
    `audit_share` at random. `language` is that of the names of categories that pages show.
    """

    name: str
    title: str
    question: str
    model: str
    answer_at: float
    suggestions: int
    language: str
    audit_share: float = 0.0


def chosen_channel(channels: Mapping[str, CatalogueChannel], name: str | None) -> CatalogueChannel:
    """The channel of this name; without a name the only one there is. Raises NoCatalogue."""
    if name is None and len(channels) == 1:
        return next(iter(channels.values()))
    if name is not None and name in channels:
        return channels[name]
    known = ", ".join(sorted(channels)) or "none"
    if name is None:
        raise NoCatalogue(f"Name a channel. Channels with a catalogue side: {known}.")
    raise NoCatalogue(f"The channel {name[:80]!r} has no catalogue side. Channels with one: {known}.")


def paths_in(tree: Tree, language: str) -> Callable[[str], str]:
    """Gives the path of a category in this tree; of one that it lacks, the id."""
    return lambda category: tree.path_text(category, language) if category in tree else category


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCatalogue:
    """The use cases of the catalogue that need no model."""

    channels: Mapping[str, CatalogueChannel]
    trees: Mapping[str, TreeService]
    products: ProductService
    decisions: DecisionService
    bulk: BulkService
    imports: ImportService
    runs: RunService
    export: ExportProducts
    numbers: NumberService

    def channel(self, name: str | None = None) -> CatalogueChannel:
        """The channel of this name; without a name the only one there is. Raises NoCatalogue."""
        return chosen_channel(self.channels, name)

    def paths(self, channel: str) -> Callable[[str], str]:
        """The path of a category in the live tree, in the channel's language; of one that it lacks, the id."""
        return paths_in(self.trees[channel].live(), self.channels[channel].language)

    def close(self) -> None:
        """Let imports and bulk acceptances end after what they are committing; runs continue. Blocks."""
        self.runs.close()
        self.imports.stop()
        self.bulk.close()
        self.imports.close()

    def resume(self) -> None:
        """Go on with imports, bulk acceptances and runs whose process has ended. Raises DatabaseUnavailable."""
        self.runs.resume(self.channels)
        self.imports.resume()
        self.bulk.resume()


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue(StoredCatalogue):
    """The use cases of the catalogue."""

    suggest: Mapping[str, SuggestService]
    keyed_photos: KeyedPhotos
    save: SaveProduct
    heat_maps: ProductHeatMaps

    def close(self) -> None:
        """As of what is stored, and of the threads that read photos by keys. Blocks."""
        self.keyed_photos.close()
        StoredCatalogue.close(self)

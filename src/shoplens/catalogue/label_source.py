"""The decided categories of products, as labels for the training of the model that suggests them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from shoplens.catalogue.entities import Product, ProductPhoto
from shoplens.catalogue.repository import ProductRepository
from shoplens.catalogue.tree.categories import SEPARATOR, Tree
from shoplens.db import Database
from shoplens.labels.entities import Label

SOURCE: Final = "catalogue"
_PAGE: Final = 500


class CategoryLabels:
    """The labels of a channel, a page in memory at a time; call it with the name of the channel.

    What was accepted, corrected or given by the shop itself counts, by its last word; what was undone does not, nor
    what was accepted in bulk: a model that learned that would learn from itself. A label
    is the path of the category in the live tree, with " > " between its names, as the labels of a model; products whose
    category that tree lacks are left out. The photo is the first one. `tree_of` gives the tree of a channel, None for
    one without a catalogue side.
    """

    def __init__(self, database: Database, *, tree_of: Callable[[str], Tree | None]) -> None:
        self._database = database
        self._tree_of = tree_of

    def __call__(self, channel: str) -> Iterator[Label]:
        """In the order of the products' ids."""
        tree = self._tree_of(channel)
        if tree is None:
            return
        last = ""
        while True:
            with self._database.reading() as tx:
                page = ProductRepository(tx).decided(channel, after=last, limit=_PAGE)
                photos = ProductRepository(tx).photos_of(product.id for product in page)
            if not page:
                return
            for product in page:
                if product.category is not None and product.category in tree:
                    path = SEPARATOR.join(tree[product.category].path)
                    yield _label(product, path, next(iter(photos.get(product.id, ())), None))
            last = page[-1].id


def _label(product: Product, path: str, photo: ProductPhoto | None) -> Label:
    return Label(
        sample_id=product.id,
        source=SOURCE,
        channel=product.channel,
        label=path,
        given_at=product.decided_at or product.changed_at,
        given_by=product.decided_by,
        model=product.model or "",
        image_sha256="" if photo is None else photo.image.sha256,
        image_key=None if photo is None else photo.image_key,
        image_phash=None if photo is None else photo.image.phash or None,
        designation=product.designation,
        description=product.description,
    )

"""What the model saw in a product's photo, as a transparent picture to lay over it: computed when a person asks for it.

The graph of a channel's model is opened a second time for this, when it is first needed; photos take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from shoplens.bundles.bundle import Bundle
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.tree.categories import split_path
from shoplens.catalogue.tree.service import TreeService
from shoplens.errors import ImageNotKept, RequestInvalid
from shoplens.images.copies import CopyLimits, CopyQueue
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.serving.activation_map import ActivationMap, overlay

_DECODED_SIDE: Final = 512


class ProductHeatMaps:
    """Heat maps of the photos of products. Methods block, and may be called from many threads.

    `find_bundle` gives the bundle that answers in a channel, `trees_of` the trees of one.
    """

    def __init__(
        self,
        products: ProductService,
        *,
        find_bundle: Callable[[str], Bundle],
        trees_of: Callable[[str], TreeService],
        limits: Limits,
        sandbox: SandboxedDecoder,
    ) -> None:
        self._products = products
        self._find_bundle = find_bundle
        self._trees_of = trees_of
        self._limits = limits
        self._sandbox = sandbox
        self._turns = CopyQueue(CopyLimits(at_once=1, waiting=8))
        self._lock = threading.Lock()
        self._maps: dict[str, tuple[str, ActivationMap]] = {}

    def of(self, channel: str, id_or_reference: str, position: int, category: str) -> bytes:
        """A PNG with the shape of the photo, transparent where nothing speaks for the category and all below it.

        Raises ProductNotFound, ImageNotKept, CategoryNotFound, RequestInvalid for a model without such maps or
        without a label for the category, SampleError, StorageUnavailable, and QueueFull.
        """
        product, photos = self._products.get(channel, id_or_reference)
        if position >= len(photos):
            raise ImageNotKept(f"The product {product.reference} has {len(photos)} photos, counted from 0.")
        (data,) = self._products.read_photos([photos[position]])
        return self.of_photo(channel, data, category)

    def of_photo(self, channel: str, data: bytes, category: str) -> bytes:
        """The same for an encoded photo of no stored product. Raises as `of`, but for what is about products."""
        return self._turns.run(lambda: self._drawn(channel, data, category))

    def _drawn(self, channel: str, data: bytes, category: str) -> bytes:
        maps = self._map(channel)
        trees = self._trees_of(channel)
        below = frozenset(trees.live().below(category))
        paths = {label: split_path(label) for label in maps.labels}
        categories = trees.of_labels(paths.values())
        labels = [label for label, path in paths.items() if categories.get(path) in below]
        if not labels:
            raise RequestInvalid(f"The model has not learned the category {category[:80]!r}, so it has no heat map.")
        picture = decode(data, limits=self._limits, short_side=_DECODED_SIDE, sandbox=self._sandbox)
        return overlay(*maps.of(picture, labels), picture)

    def _map(self, channel: str) -> ActivationMap:
        """That of the version which answers now."""
        bundle = self._find_bundle(channel)
        with self._lock:
            known = self._maps.get(channel)
            if known is None or known[0] != str(bundle.ref):
                known = self._maps[channel] = str(bundle.ref), ActivationMap(bundle)
            return known[1]

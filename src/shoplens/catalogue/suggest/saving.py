"""Save one product and get its suggestion at once: what a shop's system calls for each product that it lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from shoplens.catalogue.entities import Product, ProductPhoto
from shoplens.catalogue.products import (
    MOST_PHOTOS,
    NewProduct,
    ProductService,
    SavedProduct,
    SaveOutcome,
    SuggestedProduct,
)
from shoplens.catalogue.suggest.keyed_photos import KeyedPhotos
from shoplens.catalogue.suggest.service import SuggestRequest, SuggestService
from shoplens.errors import RequestInvalid, SampleError, ShoplensError
from shoplens.telemetry.logs import get_logger

_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAndSuggested:
    """A product as it is stored now. `not_suggested` is a sentence where there is no suggestion."""

    product: Product
    photos: tuple[ProductPhoto, ...]
    outcome: SaveOutcome
    not_suggested: str | None = None


class SaveProduct:
    """Stores a product, then asks the channel's model. `suggest_of` gives what suggests in a channel, `encoder_of` the
    SHA-256 of what makes a channel's embeddings.
    """

    def __init__(
        self,
        products: ProductService,
        *,
        suggest_of: Callable[[str], SuggestService],
        keyed_photos: KeyedPhotos,
        encoder_of: Callable[[str], str],
    ) -> None:
        self._products = products
        self._suggest_of = suggest_of
        self._keyed_photos = keyed_photos
        self._encoder_of = encoder_of

    async def __call__(
        self,
        channel: str,
        *,
        reference: str,
        designation: str,
        description: str,
        photos: tuple[bytes, ...],
        keys: tuple[str, ...] = (),
        timeout_s: float,
        client: str,
    ) -> SavedAndSuggested:
        """The product, committed when this returns, with a suggestion where the model could answer.

        Raises RequestInvalid, NothingToCategorise, SampleError for data that is no photo, StorageUnavailable,
        DatabaseUnavailable, and what `KeyedPhotos.read` raises; then nothing is stored.
        """
        if len(photos) + len(keys) > MOST_PHOTOS:  # before any of them is read
            raise RequestInvalid(f"A product has at most {MOST_PHOTOS} photos; these are {len(photos) + len(keys)}.")
        async with self._keyed_photos.read(channel, keys, timeout_s=timeout_s) as read:
            named = [(f"photo-{number}", data) for number, data in enumerate(photos, start=1)]
            named += zip(keys, read, strict=True)
            new = await asyncio.to_thread(self._new, reference, designation, description, named)
            saved = await asyncio.to_thread(self._products.save, channel, new)
        if saved.outcome is SaveOutcome.UNCHANGED and saved.product.suggestions:
            return SavedAndSuggested(product=saved.product, photos=saved.photos, outcome=saved.outcome)
        return await self._suggested(channel, saved, timeout_s=timeout_s, client=client)

    def _new(
        self, reference: str, designation: str, description: str, named: Sequence[tuple[str, bytes]]
    ) -> NewProduct:
        found = tuple(self._products.photo(name, data) for name, data in named)
        return NewProduct(reference=reference, designation=designation, description=description, photos=found or None)

    async def _suggested(
        self, channel: str, saved: SavedProduct, *, timeout_s: float, client: str
    ) -> SavedAndSuggested:
        product = saved.product
        request = SuggestRequest(
            designation=product.designation,
            description=product.description,
            product=product.id,
            timeout_s=timeout_s,
            client=client,
        )
        try:
            result = await self._asked(channel, saved, request)
            embedded = result.suggestion is not None and result.suggestion.embedding is not None
            encoder = await asyncio.to_thread(self._encoder_of, channel) if embedded else ""
            product = await asyncio.to_thread(partial(self._products.suggested, result, encoder=encoder))
            failure = result.failure
        except ShoplensError as error:  # the product is stored; a run adds the suggestion
            _log.warning("catalogue.not_suggested", product=product.id, code=error.code, reason=str(error))
            failure, result = error, None
        none = result is None or result.suggestion is None
        return SavedAndSuggested(
            product=product,
            photos=saved.photos,
            outcome=saved.outcome,
            not_suggested=failure.public if none and failure is not None else None,
        )

    async def _asked(self, channel: str, saved: SavedProduct, request: SuggestRequest) -> SuggestedProduct:
        """What the model says; where the photos cannot be used, of the text alone, if there is one."""
        data = await asyncio.to_thread(self._products.read_photos, saved.photos)
        suggest = self._suggest_of(channel).suggest
        fault: SampleError | None = None
        try:
            suggestion = await suggest(replace(request, photos=data))
        except SampleError as error:
            fault = error
            if not (request.designation or request.description):
                return SuggestedProduct(product=saved.product, photos=saved.photos, failure=fault)
            suggestion = await suggest(request)
        return SuggestedProduct(product=saved.product, photos=saved.photos, suggestion=suggestion, failure=fault)

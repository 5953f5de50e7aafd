"""Products: create or replace them, look them up, page through them, delete them, and keep what a model suggests."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from shoplens.catalogue.entities import Product, ProductPhoto, ProductState
from shoplens.catalogue.errors import NothingToCategorise
from shoplens.catalogue.photos import ProductPhotos, facts_of, photo_key
from shoplens.catalogue.repository import ProductFilter, ProductOrder, ProductRepository, cursor_of
from shoplens.catalogue.suggest.service import Suggestion
from shoplens.catalogue.tree.categories import Tree
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import ImageNotKept, RecordRefused, RequestInvalid, ShoplensError
from shoplens.images.picture import ImageFacts
from shoplens.predictions.image_store import ImageFile, ImageSize
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean

MAX_PAGE: Final = 200
MAX_REFERENCE: Final = 200
MOST_PHOTOS: Final = 20
MAX_PHOTO_NAME: Final = 2_000
_EMPTY: Final = "Give a designation, a description or a photo: without one of them nothing says what the product is."


class SaveOutcome(StrEnum):
    """What became of a product that was sent. The values are the names of the counts of an import."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPhoto:
    """A photo as it was sent; `name` says where it came from. `data` is None for one that the product has already."""

    name: str
    data: bytes | None
    facts: ImageFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProduct:
    """A product as it is sent. `photos` replace those that it has; None keeps them. `category` decides it at once."""

    reference: str
    designation: str = ""
    description: str = ""
    photos: tuple[NewPhoto, ...] | None = None
    category: str | None = None

    def cleaned(self) -> NewProduct:
        """The same with clean texts within their bounds. Raises RequestInvalid and NothingToCategorise."""
        reference = unicodedata.normalize("NFC", self.reference.strip())
        if not is_reference(reference):
            raise RequestInvalid(f"The reference must have 1 to {MAX_REFERENCE} printable characters.")
        if self.photos is not None and len(self.photos) > MOST_PHOTOS:
            raise RequestInvalid(f"A product has at most {MOST_PHOTOS} photos; these are {len(self.photos)}.")
        cleaned = replace(
            self,
            reference=reference,
            designation=clean(self.designation, TITLE_CHARACTERS),
            description=clean(self.description, DESCRIPTION_CHARACTERS),
        )
        if not (cleaned.designation or cleaned.description or cleaned.photos):
            raise NothingToCategorise(_EMPTY)
        return cleaned


def is_reference(text: str) -> bool:
    """Whether a product can have this reference."""
    return 0 < len(text) <= MAX_REFERENCE and text.isprintable()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedProduct:
    """A product as it is stored now, with what the request changed."""

    product: Product
    photos: tuple[ProductPhoto, ...]
    outcome: SaveOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductPage:
    """Products with their photos; `next` is the cursor of the page after it, None on the last one."""

    products: list[Product]
    photos: Mapping[str, tuple[ProductPhoto, ...]]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedProduct:
    """A product as it was read, with what a model said of it. Without a `suggestion`, `failure` is why.

    With both, the photos could not be used and the suggestion is for the text alone.
    """

    product: Product
    photos: tuple[ProductPhoto, ...]
    suggestion: Suggestion | None = None
    failure: ShoplensError | None = None


def write_suggestions(
    tx: Connection,
    results: Sequence[SuggestedProduct],
    *,
    now: datetime,
    run_id: str | None = None,
    encoder: str = "",
) -> list[SuggestedProduct]:
    """Write what a model said of products, but for those that changed since they were read; what was written.

    `encoder` names what made the embeddings. A category that was decided stays.
    """
    repository = ProductRepository(tx)
    locked = repository.lock_many([each.product.id for each in results])
    written = []
    for each in results:
        current = locked.get(each.product.id)
        if current is None or current.revision != each.product.revision:
            continue
        repository.replace(_with_suggestion(current, each, now=now, run_id=run_id))
        if each.suggestion is not None:
            for photo, facts in zip(each.photos, each.suggestion.images, strict=False):
                if photo.image.phash != facts.phash:
                    repository.note_facts(replace(photo, image=replace(facts, sha256=photo.image.sha256)))
            if each.suggestion.embedding is not None:
                repository.set_embedding(current.id, encoder, each.suggestion.embedding)
        written.append(each)
    return written


def _with_suggestion(product: Product, result: SuggestedProduct, *, now: datetime, run_id: str | None) -> Product:
    found, failure = result.suggestion, result.failure
    product = replace(
        product,
        run_id=run_id or product.run_id,
        failure_code=None if failure is None else failure.code,
        failure=None if failure is None else failure.public[:500],
        revision=product.revision + 1,
    )
    if found is None:
        return replace(product, needs_review=not product.decided)
    alone = not (product.decided or found.needs_review or failure is not None)
    share = found.audit_share if alone and found.audit_share else None
    drawn = None if share is None else random.random() < share  # noqa: S311  no secret
    return replace(
        product,
        state=product.state if product.decided else ProductState.SUGGESTED,
        answer=None if found.answer is None else found.answer.category,
        score=found.suggestions[0].score if found.suggestions else None,
        suggestions=found.suggestions,
        needs_review=not product.decided and (not alone or drawn is True),
        check_share=share,
        check_drawn=drawn,
        kind=found.kind,
        model=found.model,
        tree=found.tree,
        suggested_at=now,
    )


class ProductService:
    """The products of all channels with a catalogue side. All methods block and may be called from many threads.

    `tree_of` gives the live tree of a channel.
    """

    def __init__(
        self,
        database: Database,
        photos: ProductPhotos,
        *,
        tree_of: Callable[[str], Tree],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._photos = photos
        self._tree_of = tree_of
        self._clock = clock

    def photo(self, name: str, data: bytes) -> NewPhoto:
        """A photo that can be stored. Raises SampleError for data that is no photo, or too large."""
        return NewPhoto(name=name[:MAX_PHOTO_NAME], data=data, facts=facts_of(data, self._photos.limits))

    def named_photos(self, channel: str, references: Collection[str]) -> dict[tuple[str, str], NewPhoto]:
        """The photos that these products have, by reference and name, to be kept without being read again."""
        with self._database.reading() as tx:
            known = ProductRepository(tx).by_references(channel, references)
            photos = ProductRepository(tx).photos_of(product.id for product in known.values())
        return {
            (product.reference, photo.name): NewPhoto(name=photo.name, data=None, facts=photo.image)
            for product in known.values()
            for photo in photos.get(product.id, ())
        }

    def stored_photo(self, channel: str, reference: str, name: str, data: bytes) -> NewPhoto:
        """The same, in the store already, for a product that is saved next: so that many need no memory.

        Raises SampleError and StorageUnavailable.
        """
        photo = self.photo(name, data)
        self._photos.save(photo_key(channel, reference, photo.facts), data)
        return replace(photo, data=None)

    def save(self, channel: str, new: NewProduct) -> SavedProduct:
        """Create or replace one product; an equal one stays as it is.

        Raises RequestInvalid, NothingToCategorise, StorageUnavailable and DatabaseUnavailable.
        """
        return self.save_many(channel, [new.cleaned()])[0]

    def save_many(
        self,
        channel: str,
        new: Sequence[NewProduct],
        *,
        by: str = "",
        import_id: str | None = None,
        also: Callable[[Connection, list[SavedProduct]], None] = lambda *_: None,
    ) -> list[SavedProduct]:
        """Create or replace cleaned products of different references, in one transaction, photos first.

        `by` is who decides where a category is given; `also` writes more in the same transaction. Raises
        StorageUnavailable and DatabaseUnavailable.
        """
        for each in new:
            for photo in each.photos or ():
                if photo.data is not None:
                    self._photos.save(photo_key(channel, each.reference, photo.facts), photo.data)
        try:
            saved = self._write(channel, new, by, import_id, also)
        except RecordRefused:  # another process added one of them since the look
            saved = self._write(channel, new, by, import_id, also)
        for result in saved:
            if result.outcome is SaveOutcome.CHANGED:
                keep = frozenset(photo.image_key for photo in result.photos)
                self._photos.delete(channel, result.product.reference, keep=keep)
        return saved

    def suggested(self, result: SuggestedProduct, *, encoder: str) -> Product:
        """Keep what a model said of one product; the product as it is then. Raises ProductNotFound."""
        with self._database.transaction() as tx:
            write_suggestions(tx, [result], now=self._clock(), encoder=encoder)
            return ProductRepository(tx).get(result.product.channel, result.product.id)

    def get(self, channel: str, id_or_reference: str) -> tuple[Product, tuple[ProductPhoto, ...]]:
        """A product with its photos. Raises ProductNotFound."""
        with self._database.reading() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference)
            return product, ProductRepository(tx).photos_of([product.id]).get(product.id, ())

    def page(
        self,
        wanted: ProductFilter,
        *,
        order: ProductOrder = ProductOrder.ID,
        limit: int = 50,
        after: str | None = None,
    ) -> ProductPage:
        """Up to `limit` products after the cursor `after`, at most `MAX_PAGE`."""
        limit = min(limit, MAX_PAGE)
        with self._database.reading() as tx:
            found = ProductRepository(tx).page(wanted, order=order, limit=limit + 1, after=after)
            products = found[:limit]
            photos = ProductRepository(tx).photos_of(each.id for each in products)
        following = cursor_of(products[-1], order) if len(found) > limit else None
        return ProductPage(products=products, photos=photos, next=following)

    def tally(self, channel: str) -> list[tuple[str, int]]:
        """How many products are in each state."""
        with self._database.reading() as tx:
            return ProductRepository(tx).tally(ProductFilter(channel=channel))

    def count(self, wanted: ProductFilter) -> int:
        """How many products match."""
        with self._database.reading() as tx:
            return ProductRepository(tx).count(wanted)

    def below(self, channel: str, category: str) -> frozenset[str]:
        """A category and all below it, for a filter. Raises CategoryNotFound."""
        return frozenset(self._tree_of(channel).below(category))

    def delete(self, channel: str, id_or_reference: str) -> Product:
        """Delete a product with its photos and decisions. Raises ProductNotFound, StorageUnavailable."""
        with self._database.transaction() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference, lock=True)
            ProductRepository(tx).delete(product.id)
        self._photos.delete(channel, product.reference)
        return product

    def open_photo(self, channel: str, id_or_reference: str, position: int, size: ImageSize) -> ImageFile:
        """The photo at a place, 0 for the first. Raises ProductNotFound, ImageNotKept, and what `photos` raises."""
        product, photos = self.get(channel, id_or_reference)
        photo = next((each for each in photos if each.position == position), None)
        if photo is None:
            raise ImageNotKept(f"The product {product.reference} has {len(photos)} photos, counted from 0.")
        return self._photos.open(photo, size)

    def read_photos(self, photos: Collection[ProductPhoto]) -> tuple[bytes, ...]:
        """The photos as they were sent. Raises ImageNotKept, ImageChanged and StorageUnavailable."""
        return tuple(map(self._photos.read, photos))

    def _write(
        self,
        channel: str,
        new: Sequence[NewProduct],
        by: str,
        import_id: str | None,
        also: Callable[[Connection, list[SavedProduct]], None],
    ) -> list[SavedProduct]:
        now = self._clock()
        with self._database.transaction() as tx:
            repository = ProductRepository(tx)
            known = repository.by_references(channel, [each.reference for each in new])
            had = repository.photos_of(product.id for product in known.values())
            saved: list[SavedProduct] = []
            for each in new:
                before = known.get(each.reference)
                if before is None:
                    product = _added(channel, each, now=now, by=by, import_id=import_id)
                    photos = _placed(product, each.photos or ())
                    repository.add(product)
                    outcome = SaveOutcome.ADDED
                else:
                    photos = had.get(before.id, ())
                    new_photos = photos if each.photos is None else _placed(before, each.photos)
                    product = _changed(before, each, same_photos=_hashes(photos) == _hashes(new_photos), now=now, by=by)
                    outcome = SaveOutcome.UNCHANGED if product is before else SaveOutcome.CHANGED
                    if outcome is SaveOutcome.CHANGED:
                        product, photos = replace(product, import_id=import_id), new_photos
                        repository.replace(product)
                if outcome is not SaveOutcome.UNCHANGED and each.photos is not None:
                    repository.replace_photos(product.id, photos)
                saved.append(SavedProduct(product=product, photos=photos, outcome=outcome))
            also(tx, saved)
        return saved


def _added(channel: str, new: NewProduct, *, now: datetime, by: str, import_id: str | None) -> Product:
    product = Product(
        id=new_id(now),
        channel=channel,
        reference=new.reference,
        created_at=now,
        changed_at=now,
        designation=new.designation,
        description=new.description,
        state=ProductState.NEW,
        import_id=import_id,
    )
    return product if new.category is None else _given(product, new.category, now=now, by=by)


def _changed(before: Product, new: NewProduct, *, same_photos: bool, now: datetime, by: str) -> Product:
    """The product with what is new; `before` itself where nothing is.

    What people decided stays, unless the shop itself now gives another category than it gave before. A suggestion for
    other texts or photos does not stay.
    """
    same_content = same_photos and (new.designation, new.description) == (before.designation, before.description)
    same_category = new.category is None or new.category == before.given
    if same_content and same_category:
        return before
    product = replace(
        before,
        designation=new.designation,
        description=new.description,
        changed_at=now,
        revision=before.revision + 1,
    )
    if not same_content and not before.decided:
        product = replace(
            product,
            state=ProductState.NEW,
            answer=None,
            score=None,
            suggestions=(),
            needs_review=False,
            kind=None,
            model=None,
            tree=None,
            suggested_at=None,
            run_id=None,
            failure_code=None,
            failure=None,
            check_share=None,
            check_drawn=None,
        )
    if new.category is None or same_category:
        return product
    return _given(product, new.category, now=now, by=by)


def _given(product: Product, category: str, *, now: datetime, by: str) -> Product:
    """With the category that the shop itself gives."""
    return replace(
        product,
        state=ProductState.ACCEPTED,
        category=category,
        given=category,
        decided_at=now,
        decided_by=by,
        needs_review=False,
    )


def _placed(product: Product, photos: Sequence[NewPhoto]) -> tuple[ProductPhoto, ...]:
    return tuple(
        ProductPhoto(
            id=new_id(product.created_at),
            product_id=product.id,
            position=position,
            name=photo.name,
            image=photo.facts,
            image_key=photo_key(product.channel, product.reference, photo.facts),
        )
        for position, photo in enumerate(photos)
    )


def _hashes(photos: Sequence[ProductPhoto]) -> list[str]:
    return [photo.image.sha256 for photo in photos]

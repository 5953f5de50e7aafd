"""Products, their photos and what was decided on them in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    TextClause,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from shoplens.batch.entities import HOPELESS
from shoplens.catalogue import search
from shoplens.catalogue.entities import (
    CatalogueRun,
    CategoryDecision,
    CategoryDecisionKind,
    Product,
    ProductPhoto,
    ProductState,
)
from shoplens.catalogue.errors import ProductNotFound
from shoplens.catalogue.tables import decisions, embeddings, photos, products
from shoplens.db.tables import from_row, is_id, to_row
from shoplens.errors import RequestInvalid

_UNDECIDED: Final = (ProductState.NEW, ProductState.SUGGESTED)
_IN_ONE_QUERY: Final = 500


class ProductOrder(StrEnum):
    """The order of a page of products."""

    ID = "id"
    """As they were added."""
    SCORE = "score"
    """The least sure first; products without a suggestion are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFilter:
    """Which products of a channel are wanted; None means any.

    `categories` are ids of the category that was decided, else answered. `text` is words of reference, designation and
    description, or beginnings of them. `min_score` is inclusive, `max_score` is not. `without_checks` leaves
    out those that wait for a random check.
    """

    channel: str
    state: ProductState | None = None
    categories: frozenset[str] | None = None
    needs_review: bool | None = None
    text: str | None = None
    kind: str | None = None
    model: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    import_id: str | None = None
    without_checks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCount:
    """So many products of a run got this category, and so many of them need a person."""

    category: str | None
    products: int
    doubtful: int


class ProductRepository:
    """The tables `catalogue_products`, `catalogue_photos` and `catalogue_embeddings`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, product: Product) -> None:
        """Raises RecordRefused where the channel has a product with this reference."""
        self._tx.execute(insert(products), _row(product))

    def replace(self, product: Product) -> None:
        """Write every column of the product with this id."""
        row = _row(product)
        self._tx.execute(update(products).where(products.c.id == row.pop("id")).values(row))

    def replace_decided(self, changed: Sequence[Product]) -> None:
        """Write what a decision changes of these products."""
        names = ("state", "category", "decided_at", "decided_by", "changed_at", "needs_review", "revision")
        rows = [{"wanted": each.id, **{f"new_{name}": getattr(each, name) for name in names}} for each in changed]
        if rows:
            written = update(products).where(products.c.id == bindparam("wanted"))
            self._tx.execute(written.values({name: bindparam(f"new_{name}") for name in names}), rows)

    def get(self, channel: str, id_or_reference: str, *, lock: bool = False) -> Product:
        """By its id, else by its reference. With `lock` nobody else changes it in this transaction.

        Raises ProductNotFound.
        """
        columns = [products.c.reference]
        if is_id(id_or_reference):
            columns.insert(0, products.c.id)
        for column in columns:
            query = select(products).where(products.c.channel == channel, column == id_or_reference)
            row = self._tx.execute(query.with_for_update() if lock else query).one_or_none()
            if row is not None:
                return from_row(Product, row)
        raise ProductNotFound(f"The channel {channel} has no product {id_or_reference[:80]!r}.")

    def by_references(self, channel: str, references: Collection[str]) -> dict[str, Product]:
        """Those of these products that are there, by reference."""
        wanted = list(references)
        found: dict[str, Product] = {}
        for at in range(0, len(wanted), _IN_ONE_QUERY):
            some = products.c.reference.in_(wanted[at : at + _IN_ONE_QUERY])
            for row in self._tx.execute(select(products).where(products.c.channel == channel, some)):
                found[row.reference] = from_row(Product, row)
        return found

    def page(
        self, wanted: ProductFilter, *, order: ProductOrder, limit: int, after: str | None = None
    ) -> list[Product]:
        """At most `limit` products after the cursor `after`, as `cursor_of` gave it. Raises RequestInvalid for another.

        In the order of scores, products of an equal score come in the order of their ids.
        """
        query = select(products).where(*self._conditions(wanted))
        if order is ProductOrder.ID:
            query = query.order_by(products.c.id)
            if after is not None:
                query = query.where(products.c.id > after)
        else:
            query = query.where(products.c.score.is_not(None)).order_by(products.c.score, products.c.id)
            if after is not None:
                query = query.where(tuple_(products.c.score, products.c.id) > tuple_(*_score_and_id(after)))
        return [from_row(Product, row) for row in self._tx.execute(query.limit(limit))]

    def count(self, wanted: ProductFilter) -> int:
        """How many products match."""
        return int(self._tx.scalar(select(func.count()).select_from(products).where(*self._conditions(wanted))) or 0)

    def delete(self, product_id: str) -> None:
        """Delete the product; its photos, decisions and embedding go with it."""
        self._tx.execute(delete(products).where(products.c.id == product_id))

    def photos_of(self, product_ids: Iterable[str]) -> dict[str, tuple[ProductPhoto, ...]]:
        """The photos of these products in their order; products without any are left out."""
        wanted = list(product_ids)
        found: defaultdict[str, list[ProductPhoto]] = defaultdict(list)
        for at in range(0, len(wanted), _IN_ONE_QUERY):
            query = select(photos).where(photos.c.product_id.in_(wanted[at : at + _IN_ONE_QUERY]))
            for row in self._tx.execute(query.order_by(photos.c.product_id, photos.c.position)):
                found[row.product_id].append(from_row(ProductPhoto, row))
        return {product_id: tuple(each) for product_id, each in found.items()}

    def replace_photos(self, product_id: str, new: Sequence[ProductPhoto]) -> None:
        """These and no others."""
        self._tx.execute(delete(photos).where(photos.c.product_id == product_id))
        if new:
            self._tx.execute(insert(photos), [to_row(each) for each in new])

    def note_facts(self, photo: ProductPhoto) -> None:
        """Write what decoding a photo has found out."""
        row = to_row(photo)
        facts = {name: value for name, value in row.items() if name.startswith("image_")}
        self._tx.execute(update(photos).where(photos.c.id == photo.id).values(facts))

    def set_embedding(self, product_id: str, encoder: str, embedding: bytes) -> None:
        """The embedding of the product's photos; one that was there is replaced."""
        self._tx.execute(delete(embeddings).where(embeddings.c.product_id == product_id))
        row = {"product_id": product_id, "encoder": encoder, "embedding": embedding}
        self._tx.execute(insert(embeddings), row)

    def embeddings_of(self, product_ids: Collection[str]) -> dict[str, tuple[str, bytes]]:
        """The encoder's SHA-256 and the float16 embedding of each product that has one."""
        query = select(embeddings).where(embeddings.c.product_id.in_(list(product_ids)))
        return {row.product_id: (row.encoder, row.embedding) for row in self._tx.execute(query)}

    def waiting(self, channel: str, *, run_id: str, again: bool, limit: int, after: str) -> list[Product]:
        """The next products that a run has not looked at, in the order of their ids."""
        query = select(products).where(*_waiting(channel, run_id, again=again), products.c.id > after)
        return [from_row(Product, row) for row in self._tx.execute(query.order_by(products.c.id).limit(limit))]

    def count_waiting(self, channel: str, *, run_id: str, again: bool) -> int:
        """How many products such a run has to look at."""
        query = select(func.count()).select_from(products).where(*_waiting(channel, run_id, again=again))
        return int(self._tx.scalar(query) or 0)

    def decided(self, channel: str, *, after: str, limit: int) -> list[Product]:
        """The next products whose category was decided by itself, in the order of their ids: no person looked at those
        that were accepted in bulk.
        """
        state, made = products.c.state.not_in(_UNDECIDED), decisions.c
        in_bulk = exists().where(
            made.product_id == products.c.id,
            made.bulk_id.is_not(None),
            made.undone_at.is_(None),
            made.created_at == products.c.decided_at,
        )
        query = select(products).where(products.c.channel == channel, state, ~in_bulk, products.c.id > after)
        return [from_row(Product, row) for row in self._tx.execute(query.order_by(products.c.id).limit(limit))]

    def lock_many(self, product_ids: Collection[str]) -> dict[str, Product]:
        """These products as they are now; on PostgreSQL nobody else changes them in this transaction."""
        query = select(products).where(products.c.id.in_(list(product_ids))).order_by(products.c.id)
        rows = self._tx.execute(query.with_for_update())
        return {row.id: from_row(Product, row) for row in rows}

    def tally(self, wanted: ProductFilter) -> list[tuple[str, int]]:
        """How many of the products are in each state."""
        query = select(products.c.state, func.count()).where(*self._conditions(wanted)).group_by(products.c.state)
        return [(str(state), int(count)) for state, count in self._tx.execute(query)]

    def confidence(self, channel: str, *, bins: int) -> list[tuple[int, int]]:
        """How many products have a score in each of `bins` equal ranges; the last one includes 1."""
        place = func.floor(products.c.score * bins)
        query = select(place.label("place"), func.count()).where(
            products.c.channel == channel, products.c.score.is_not(None)
        )
        return [(min(int(at), bins - 1), int(count)) for at, count in self._tx.execute(query.group_by("place"))]

    def answers_of_run(self, run: CatalogueRun) -> list[AnswerCount]:
        """What a run answered, by category: the one of most products first; no category where it was not sure."""
        doubtful = func.sum(case((products.c.needs_review, 1), else_=0))
        query = select(products.c.answer, func.count().label("products"), doubtful.label("doubtful")).where(
            products.c.channel == run.channel, products.c.run_id == run.id
        )
        rows = self._tx.execute(query.group_by(products.c.answer).order_by(func.count().desc(), products.c.answer))
        return [AnswerCount(category=row.answer, products=row.products, doubtful=int(row.doubtful)) for row in rows]

    def faults_of_run(self, run: CatalogueRun) -> list[tuple[str, int]]:
        """How many products of a run had photos or texts that could not be used, by the code; most first."""
        of_run = products.c.channel == run.channel, products.c.run_id == run.id, products.c.failure_code.is_not(None)
        query = select(products.c.failure_code, func.count()).where(*of_run).group_by(products.c.failure_code)
        return [(str(code), int(count)) for code, count in self._tx.execute(query.order_by(func.count().desc()))]

    def models(self, channel: str) -> list[str]:
        """The model versions that answered, in alphabetical order."""
        query = select(products.c.model).where(products.c.channel == channel, products.c.model.is_not(None)).distinct()
        return sorted(str(model) for model in self._tx.scalars(query))

    def _conditions(self, wanted: ProductFilter) -> list[ColumnElement[bool] | TextClause]:
        found: list[ColumnElement[bool] | TextClause] = [products.c.channel == wanted.channel]
        equal = {
            products.c.state: wanted.state,
            products.c.kind: wanted.kind,
            products.c.model: wanted.model,
            products.c.import_id: wanted.import_id,
        }
        found += [column == value for column, value in equal.items() if value is not None]
        if wanted.needs_review is not None:
            found.append(products.c.needs_review if wanted.needs_review else ~products.c.needs_review)
        if wanted.categories is not None:
            found.append(func.coalesce(products.c.category, products.c.answer).in_(sorted(wanted.categories)))
        if wanted.min_score is not None:
            found.append(products.c.score >= wanted.min_score)
        if wanted.max_score is not None:
            found.append(products.c.score < wanted.max_score)
        if wanted.without_checks:
            found.append(~waits_for_check())
        if wanted.text is not None:
            condition = search.matching(wanted.text, self._tx.dialect.name)
            if condition is not None:
                found.append(condition)
        return found


def waits_for_check() -> ColumnElement[bool]:
    """Whether a person has yet to look at a suggestion that chance chose."""
    return and_(products.c.needs_review, func.coalesce(products.c.check_drawn, false()))


def cursor_of(product: Product, order: ProductOrder) -> str:
    """What `page` continues after, where `product` is the last one that was shown."""
    return product.id if order is ProductOrder.ID else f"{product.score!r}:{product.id}"


def _score_and_id(cursor: str) -> tuple[float, str]:
    score, _, product_id = cursor.partition(":")
    try:
        return float(score), product_id
    except ValueError:
        raise RequestInvalid(f"{cursor[:80]!r} is not a cursor of this order. Use `next` of a page.") from None


class DecisionRepository:
    """The table `catalogue_decisions`, which only grows; `undone_at` marks what was undone."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add_many(self, made: Iterable[CategoryDecision]) -> None:
        """Append them in this order."""
        rows = [to_row(each) for each in made]
        if rows:
            self._tx.execute(insert(decisions), rows)

    def of_product(self, product_id: str) -> list[CategoryDecision]:
        """Everything that was decided on a product, first word first."""
        query = select(decisions).where(decisions.c.product_id == product_id).order_by(decisions.c.id)
        return [from_row(CategoryDecision, row) for row in self._tx.execute(query)]

    def last_of(self, product_id: str) -> tuple[int, CategoryDecision] | None:
        """The number and the decision that stands: the last one that is neither undone nor an undoing."""
        query = select(decisions).where(decisions.c.product_id == product_id, *_STANDING)
        return _numbered(self._tx.execute(query.order_by(decisions.c.id.desc()).limit(1)).one_or_none())

    def of_bulk(self, bulk_id: str, *, limit: int) -> list[tuple[int, CategoryDecision]]:
        """Decisions of one bulk acceptance that still stand, oldest first."""
        query = select(decisions).where(decisions.c.bulk_id == bulk_id, *_STANDING).order_by(decisions.c.id)
        return [(row.id, from_row(CategoryDecision, row)) for row in self._tx.execute(query.limit(limit))]

    def count_bulk(self, bulk_id: str) -> int:
        """How many decisions of one bulk acceptance stand."""
        query = select(func.count()).select_from(decisions).where(decisions.c.bulk_id == bulk_id, *_STANDING)
        return int(self._tx.scalar(query) or 0)

    def last_numbers(self, product_ids: Collection[str]) -> dict[str, int]:
        """The number of the decision that stands, by product."""
        product = decisions.c.product_id
        query = select(product, func.max(decisions.c.id)).where(product.in_(list(product_ids)), *_STANDING)
        return {str(product_id): int(number) for product_id, number in self._tx.execute(query.group_by(product))}

    def mark_undone(self, numbers: Collection[int], now: datetime) -> None:
        """These do not stand any more."""
        self._tx.execute(update(decisions).where(decisions.c.id.in_(list(numbers))).values(undone_at=now))

    def each_standing(self, channel: str, *, since: datetime | None = None) -> Iterator[CategoryDecision]:
        """What people decided one by one and did not undo, where there was a suggestion to compare with."""
        compared = decisions.c.suggested.is_not(None), decisions.c.bulk_id.is_(None)
        query = select(decisions).where(decisions.c.channel == channel, *_STANDING, *compared)
        if since is not None:
            query = query.where(decisions.c.created_at >= since)
        for row in self._tx.execute(query.order_by(decisions.c.id).execution_options(yield_per=1_000)):
            yield from_row(CategoryDecision, row)


_STANDING: Final = (decisions.c.undone_at.is_(None), decisions.c.kind != CategoryDecisionKind.UNDONE)


def _numbered(row: Row[Any] | None) -> tuple[int, CategoryDecision] | None:
    return None if row is None else (int(row.id), from_row(CategoryDecision, row))


def _row(product: Product) -> dict[str, Any]:
    text = search.folded(product.reference, product.designation, product.description)
    return to_row(product) | {"search": text}


def _waiting(channel: str, run_id: str, *, again: bool) -> list[ColumnElement[bool]]:
    not_seen = or_(products.c.run_id.is_(None), products.c.run_id != run_id)
    wanted = [products.c.channel == channel, not_seen]
    if again:
        return [*wanted, products.c.state.in_(_UNDECIDED)]
    # What lies in a photo itself fails each time, until the product is sent again.
    usable = or_(products.c.failure_code.is_(None), products.c.failure_code.not_in(sorted(HOPELESS)))
    return [*wanted, products.c.state == ProductState.NEW, usable]

"""What people decide on products: accept a suggestion, choose another category, take it back; one or very many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shoplens.accounts.entities import Principal
from shoplens.catalogue.entities import CategoryDecision, DecisionKind, Product, ProductState
from shoplens.catalogue.errors import DecisionNotLast, ProductChanged
from shoplens.catalogue.repository import DecisionRepository, ProductFilter, ProductOrder, ProductRepository
from shoplens.catalogue.tree import Tree
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import RequestInvalid

MOST_UNDONE: Final = 20
"""How far back a person can undo."""
_COMMITTED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkAcceptance:
    """Products whose suggestion was accepted together. `id` is None where there were none."""

    id: str | None
    accepted: int


class DecisionService:
    """Decisions on the products of all channels. All methods block and may be called from many threads.

    `tree_of` gives the live tree of a channel.
    """

    def __init__(self, database: Database, *, tree_of: Callable[[str], Tree], clock: Callable[[], datetime]) -> None:
        self._database = database
        self._tree_of = tree_of
        self._clock = clock

    def decide(
        self,
        channel: str,
        id_or_reference: str,
        *,
        by: Principal,
        category: str | None = None,
        revision: int | None = None,
    ) -> Product:
        """Set the category of a product; without `category` the best suggestion is accepted.

        `revision` is that of the product as the person saw it. Raises ProductNotFound, CategoryNotFound,
        RequestInvalid where there is no suggestion to accept, and ProductChanged if the product changed since.
        """
        if category is not None:
            category = self._tree_of(channel)[category].id
        with self._database.transaction() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference, lock=True)
            suggested = _suggested(product)
            chosen = category or suggested
            if revision == product.revision - 1 and product.category == chosen:
                last = DecisionRepository(tx).last_of(product.id)
                if last is not None and last[1].by == by.id:  # sent again, because the answer to it was lost
                    return product
            _require_unchanged(product, revision)
            if chosen is None:
                raise RequestInvalid(f"The product {product.reference} has no suggestion to accept. Name its category.")
            return self._decided(tx, product, chosen, by=by, now=self._clock())

    def undo(self, channel: str, id_or_reference: str, *, by: Principal) -> Product:
        """Take back the last decision on a product, which must be this person's own.

        Raises ProductNotFound, and DecisionNotLast where somebody else decided after them, or nobody did.
        """
        with self._database.transaction() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference, lock=True)
            last = DecisionRepository(tx).last_of(product.id)
            if last is None or last[1].by != by.id:
                who = f"{last[1].by_name} decided last" if last else "nobody has decided"
                raise DecisionNotLast(f"There is nothing of yours to undo on the product {product.reference}: {who}.")
            return self._undone(tx, [last], {product.id: product}, by=by)[0]

    def recent(self, channel: str, *, by: Principal) -> list[tuple[int, CategoryDecision]]:
        """This person's last decisions that can be undone, newest first; a bulk acceptance is one of them."""
        with self._database.reading() as tx:
            return DecisionRepository(tx).undoable(channel, by.id, limit=MOST_UNDONE)

    def undo_last(self, channel: str, *, by: Principal) -> int:
        """Take back this person's last decision, or their last bulk acceptance as a whole; how many products.

        Raises DecisionNotLast, also where somebody else decided on the product since.
        """
        recent = self.recent(channel, by=by)
        if not recent:
            raise DecisionNotLast("You have decided nothing that can be undone.")
        last = recent[0][1]
        if last.bulk_id is not None:
            return self.undo_bulk(last.bulk_id, by=by)
        self.undo(channel, last.product_id, by=by)
        return 1

    def count_bulk(self, wanted: ProductFilter) -> int:
        """How many products `accept_bulk` would accept now."""
        with self._database.reading() as tx:
            return ProductRepository(tx).count(_acceptable(wanted))

    def accept_bulk(self, wanted: ProductFilter, *, by: Principal) -> BulkAcceptance:
        """Accept the best suggestion of every product that matches and is not decided, some hundred per transaction.

        `wanted` needs a `min_score`. Raises RequestInvalid.
        """
        if wanted.min_score is None:
            raise RequestInvalid("Name the least score from which on suggestions are accepted.")
        now = self._clock()
        bulk_id, accepted, after = new_id(now), 0, None
        while True:
            with self._database.transaction() as tx:
                repository = ProductRepository(tx)
                page = repository.page(
                    _acceptable(wanted), order=ProductOrder.ID, limit=_COMMITTED_AT_ONCE, after=after
                )
                locked = repository.lock_many([each.id for each in page])
                still = [
                    product
                    for product in locked.values()
                    if product.state is ProductState.SUGGESTED and product.revision == _revision_in(page, product)
                ]
                for product in still:
                    suggested = _suggested(product)
                    if suggested is not None:
                        self._decided(tx, product, suggested, by=by, now=now, bulk_id=bulk_id)
                        accepted += 1
            if len(page) < _COMMITTED_AT_ONCE:
                return BulkAcceptance(id=bulk_id if accepted else None, accepted=accepted)
            after = page[-1].id

    def undo_bulk(self, bulk_id: str, *, by: Principal) -> int:
        """Take back a bulk acceptance, but for products on which somebody decided since; how many.

        Raises DecisionNotLast where nothing of it stands, or it was made by somebody else.
        """
        undone = 0
        while True:
            with self._database.transaction() as tx:
                found = DecisionRepository(tx).of_bulk(bulk_id, limit=_COMMITTED_AT_ONCE)
                if not found:
                    break
                if found[0][1].by != by.id:
                    raise DecisionNotLast(f"{found[0][1].by_name} accepted these products, and may undo it.")
                products = ProductRepository(tx).lock_many({each.product_id for _, each in found})
                mine = [
                    (number, each)
                    for number, each in found
                    if each.product_id in products and DecisionRepository(tx).last_of(each.product_id) == (number, each)
                ]
                self._undone(tx, mine, products, by=by)
                overruled = {number for number, _ in found} - {number for number, _ in mine}
                DecisionRepository(tx).mark_undone(overruled, self._clock())
                undone += len(mine)
        if not undone:
            raise DecisionNotLast("Nothing of this bulk acceptance stands any more.")
        return undone

    def history(self, channel: str, id_or_reference: str) -> list[CategoryDecision]:
        """Everything that was decided on a product, first word first. Raises ProductNotFound."""
        with self._database.reading() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference)
            return DecisionRepository(tx).of_product(product.id)

    def _decided(
        self,
        tx: Connection,
        product: Product,
        category: str,
        *,
        by: Principal,
        now: datetime,
        bulk_id: str | None = None,
    ) -> Product:
        suggested = _suggested(product)
        kind = DecisionKind.ACCEPTED if category in (suggested, None) or suggested is None else DecisionKind.CORRECTED
        after = replace(
            product,
            state=ProductState(kind.value),
            category=category,
            decided_at=now,
            decided_by=by.name,
            changed_at=now,
            needs_review=False,
            revision=product.revision + 1,
        )
        ProductRepository(tx).replace(after)
        made = _decision(product, kind, by=by, now=now, category=category, bulk_id=bulk_id)
        DecisionRepository(tx).add_many([made])
        return after

    def _undone(
        self,
        tx: Connection,
        made: Sequence[tuple[int, CategoryDecision]],
        products: dict[str, Product],
        *,
        by: Principal,
    ) -> list[Product]:
        now = self._clock()
        restored = []
        for _, decision in made:
            product = products[decision.product_id]
            state = decision.state_before
            decided = state in (ProductState.ACCEPTED, ProductState.CORRECTED)
            before = replace(
                product,
                state=state,
                category=decision.before,
                decided_at=product.decided_at if decided else None,
                decided_by=product.decided_by if decided else None,
                needs_review=decision.review_before,
                changed_at=now,
                revision=product.revision + 1,
            )
            ProductRepository(tx).replace(before)
            restored.append(before)
            taken_back = _decision(product, DecisionKind.UNDONE, by=by, now=now, category=decision.before)
            DecisionRepository(tx).add_many([taken_back])
        DecisionRepository(tx).mark_undone([number for number, _ in made], now)
        return restored


def _decision(
    product: Product,
    kind: DecisionKind,
    *,
    by: Principal,
    now: datetime,
    category: str | None,
    bulk_id: str | None = None,
) -> CategoryDecision:
    return CategoryDecision(
        product_id=product.id,
        channel=product.channel,
        created_at=now,
        by=by.id,
        by_name=by.name,
        kind=kind,
        category=category,
        before=product.category,
        suggested=_suggested(product),
        score=product.score,
        model=product.model,
        tree=product.tree,
        state_before=product.state,
        review_before=product.needs_review,
        bulk_id=bulk_id,
    )


def _suggested(product: Product) -> str | None:
    return product.suggestions[0].category if product.suggestions else None


def _acceptable(wanted: ProductFilter) -> ProductFilter:
    return replace(wanted, state=ProductState.SUGGESTED)


def _revision_in(page: Sequence[Product], product: Product) -> int:
    return next(each.revision for each in page if each.id == product.id)


def _require_unchanged(product: Product, revision: int | None) -> None:
    if revision is None or revision == product.revision:
        return
    if product.decided and product.decided_at is not None:
        raise ProductChanged(
            f"{product.decided_by} set the category of {product.reference} to {product.category} at "
            f"{product.decided_at:%Y-%m-%d %H:%M} UTC, since you looked at it. Look again, then decide."
        )
    raise ProductChanged(f"The product {product.reference} changed since you looked at it. Look again, then decide.")

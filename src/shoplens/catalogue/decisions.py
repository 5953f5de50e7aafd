"""What people decide on single products: accept a suggestion, choose another category, take it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from shoplens.accounts.entities import Principal
from shoplens.catalogue.entities import CategoryDecision, CategoryDecisionKind, Product, ProductState
from shoplens.catalogue.errors import DecisionNotLast, ProductChanged, SuggestionOutdated
from shoplens.catalogue.repository import DecisionRepository, ProductRepository
from shoplens.catalogue.tree.categories import Tree
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.messages import marked


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
        RequestInvalid where there is no suggestion to accept, SuggestionOutdated where the live tree does not have its
        category any more, and ProductChanged if the product changed since.
        """
        tree = self._tree_of(channel)
        if category is not None:
            category = tree[category].id
        with self._database.transaction() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference, lock=True)
            suggested = suggested_category(product)
            chosen = category or suggested
            if revision == product.revision - 1 and product.category == chosen:
                last = DecisionRepository(tx).last_of(product.id)
                if last is not None and last[1].by == by.id:  # sent again, because the answer to it was lost
                    return product
            _require_unchanged(product, revision)
            if chosen is None:
                raise RequestInvalid(f"The product {product.reference} has no suggestion to accept. Name its category.")
            if chosen not in tree:
                raise SuggestionOutdated(
                    f"The suggestion for the product {product.reference} is {chosen}, which the live tree (version "
                    f"{tree.version}) does not have any more. Name a category of that tree, or start a run with "
                    "`again`: it suggests categories of the live tree."
                )
            return self._decided(tx, product, chosen, by=by, now=self._clock())

    def undo(self, channel: str, id_or_reference: str, *, by: Principal) -> Product:
        """Take back the last decision on a product, which must be this person's own.

        Raises ProductNotFound, and DecisionNotLast where somebody else decided after them, or nobody did.
        """
        with self._database.transaction() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference, lock=True)
            last = DecisionRepository(tx).last_of(product.id)
            if last is None or last[1].by != by.id:
                who = marked(f"{last[1].by_name} decided last") if last else marked("nobody has decided")
                raise DecisionNotLast(f"There is nothing of yours to undo on the product {product.reference}: {who}.")
            number, decision = last
            now = self._clock()
            before = restored(product, decision, now=now)
            ProductRepository(tx).replace_decided([before])
            author = Author(id=by.id, name=by.name)
            taken_back = decision_on(product, CategoryDecisionKind.UNDONE, by=author, now=now, category=decision.before)
            DecisionRepository(tx).add_many([taken_back])
            DecisionRepository(tx).mark_undone([number], now)
            return before

    def history(self, channel: str, id_or_reference: str) -> list[CategoryDecision]:
        """Everything that was decided on a product, first word first. Raises ProductNotFound."""
        with self._database.reading() as tx:
            product = ProductRepository(tx).get(channel, id_or_reference)
            return DecisionRepository(tx).of_product(product.id)

    def _decided(self, tx: Connection, product: Product, category: str, *, by: Principal, now: datetime) -> Product:
        author, suggested = Author(id=by.id, name=by.name), suggested_category(product)
        kind = CategoryDecisionKind.ACCEPTED if suggested in (category, None) else CategoryDecisionKind.CORRECTED
        after = decided(product, kind, category, by=author, now=now)
        ProductRepository(tx).replace_decided([after])
        made = decision_on(product, kind, by=author, now=now, category=category)
        DecisionRepository(tx).add_many([made])
        return after


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who decides: the id and the name of a person, a key or a command."""

    id: str
    name: str


def decided(product: Product, kind: CategoryDecisionKind, category: str, *, by: Author, now: datetime) -> Product:
    """The product after this decision."""
    return replace(
        product,
        state=ProductState(kind.value),
        category=category,
        decided_at=now,
        decided_by=by.name,
        changed_at=now,
        needs_review=False,
        revision=product.revision + 1,
    )


def restored(product: Product, decision: CategoryDecision, *, now: datetime) -> Product:
    """The product as it was before `decision`, the last one on it."""
    was_decided = decision.state_before in (ProductState.ACCEPTED, ProductState.CORRECTED)
    return replace(
        product,
        state=decision.state_before,
        category=decision.before,
        decided_at=product.decided_at if was_decided else None,
        decided_by=product.decided_by if was_decided else None,
        needs_review=decision.review_before,
        changed_at=now,
        revision=product.revision + 1,
    )


def decision_on(
    product: Product,
    kind: CategoryDecisionKind,
    *,
    by: Author,
    now: datetime,
    category: str | None,
    bulk_id: str | None = None,
) -> CategoryDecision:
    """What is kept of a decision on the product as it was before."""
    return CategoryDecision(
        product_id=product.id,
        channel=product.channel,
        created_at=now,
        by=by.id,
        by_name=by.name,
        kind=kind,
        category=category,
        before=product.category,
        suggested=suggested_category(product),
        score=product.score,
        model=product.model,
        tree=product.tree,
        state_before=product.state,
        review_before=product.needs_review,
        bulk_id=bulk_id,
    )


def suggested_category(product: Product) -> str | None:
    """The best suggestion."""
    return product.suggestions[0].category if product.suggestions else None


def _require_unchanged(product: Product, revision: int | None) -> None:
    if revision is None or revision == product.revision:
        return
    if product.decided and product.decided_at is not None:
        raise ProductChanged(
            f"{product.decided_by} set the category of {product.reference} to {product.category} at "
            f"{product.decided_at:%Y-%m-%d %H:%M} UTC, since you looked at it. Look again, then decide."
        )
    raise ProductChanged(f"The product {product.reference} changed since you looked at it. Look again, then decide.")

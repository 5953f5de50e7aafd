"""Decided products as examples of their categories, for first answers in a tree that no model knows."""

from __future__ import annotations

from typing import Final

import numpy as np
from sqlalchemy import Connection, func, select

from shoplens.catalogue.entities import ProductState
from shoplens.catalogue.suggest.cold_start import EXAMPLES, Example
from shoplens.catalogue.tables import embeddings, products
from shoplens.db import Database

_DECIDED: Final = (ProductState.ACCEPTED, ProductState.CORRECTED)


def read_examples(database: Database, channel: str) -> list[Example]:
    """The newest decided products of each category, twenty at most. Raises DatabaseUnavailable."""
    with database.reading() as tx:
        return _newest(tx, channel)


def _newest(tx: Connection, channel: str) -> list[Example]:
    column = products.c
    place = func.row_number().over(partition_by=column.category, order_by=column.id.desc())
    decided = select(column.id, place.label("place")).where(
        column.channel == channel, column.category.is_not(None), column.state.in_(_DECIDED)
    )
    ranked = decided.subquery()
    found = (
        select(column.category, column.designation, column.description, embeddings.c.embedding)
        .join(ranked, ranked.c.id == column.id)
        .join(embeddings, embeddings.c.product_id == column.id, isouter=True)
        .where(ranked.c.place <= EXAMPLES)
        .order_by(column.id)
    )
    return [
        Example(
            category=row.category,
            text=f"{row.designation}\n{row.description}" if row.description else row.designation,
            embedding=None if row.embedding is None else np.frombuffer(row.embedding, np.float16).astype(np.float32),
        )
        for row in tx.execute(found)
    ]

"""Versions of trees in the database, over a transaction that the caller opened."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, func, insert, select, update

from shoplens.catalogue.entities import Category, ProductState, TreeVersion
from shoplens.catalogue.tables import categories, mappings, products, trees
from shoplens.catalogue.tree.categories import Tree
from shoplens.db.tables import from_row, to_row

_trees = trees.c
_products = products.c


class TreeRepository:
    """The tables of trees. Every method raises DatabaseUnavailable through the transaction."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def newest(self, channel: str) -> TreeVersion | None:
        """The tree that is live."""
        found = select(trees).where(_trees.channel == channel).order_by(_trees.version.desc()).limit(1)
        row = self._tx.execute(found).one_or_none()
        return None if row is None else from_row(TreeVersion, row)

    def newest_version(self, channel: str) -> int:
        """Its number; 0 where there is none."""
        return self._tx.execute(select(func.max(_trees.version)).where(_trees.channel == channel)).scalar() or 0

    def versions(self, channel: str) -> list[TreeVersion]:
        """All of a channel, newest first."""
        rows = self._tx.execute(select(trees).where(_trees.channel == channel).order_by(_trees.version.desc()))
        return [from_row(TreeVersion, row) for row in rows]

    def tree(self, channel: str, version: int) -> Tree | None:
        """The categories of one version, in their order."""
        of = select(_trees.id).where(_trees.channel == channel, _trees.version == version)
        tree_id = self._tx.execute(of).scalar_one_or_none()
        if tree_id is None:
            return None
        rows = self._tx.execute(
            select(categories).where(categories.c.tree_id == tree_id).order_by(categories.c.position)
        )
        return Tree(
            (Category(id=row.id, path=tuple(row.path), names=row.names, synonyms=tuple(row.synonyms)) for row in rows),
            version=version,
        )

    def add(self, new: TreeVersion, tree: Tree, mapping: Mapping[str, str | None]) -> None:
        """Store a version. Raises RecordRefused through the transaction where another process added it meanwhile."""
        self._tx.execute(insert(trees), to_row(new))
        rows = [
            {
                "tree_id": new.id,
                "id": each.id,
                "position": position,
                "path": list(each.path),
                "names": dict(each.names),
                "synonyms": list(each.synonyms),
            }
            for position, each in enumerate(tree)
        ]
        self._tx.execute(insert(categories), rows)
        if mapping:
            self._tx.execute(
                insert(mappings),
                [{"tree_id": new.id, "before": before, "after": after} for before, after in mapping.items()],
            )

    def mapping(self, channel: str, version: int) -> dict[str, str | None]:
        """What became of categories of the version before in this one, where a mapping said so."""
        found = select(mappings.c.before, mappings.c.after).join(trees, _trees.id == mappings.c.tree_id)
        rows = self._tx.execute(found.where(_trees.channel == channel, _trees.version == version))
        return {row.before: row.after for row in rows}

    def categories_in_use(self, channel: str) -> dict[str, int]:
        """The number of products in each category that was decided."""
        found = select(_products.category, func.count()).where(
            _products.channel == channel, _products.category.is_not(None)
        )
        rows = self._tx.execute(found.group_by(_products.category))
        return {str(category): int(count) for category, count in rows}

    def move_products(self, channel: str, before: str, after: str | None) -> None:
        """Carry the decided products of a category over; without a successor they need a person again."""
        moved = update(products).where(_products.channel == channel, _products.category == before)
        if after is None:
            moved = moved.values(category=None, state=ProductState.SUGGESTED, needs_review=True)
        else:
            moved = moved.values(category=after)
        self._tx.execute(moved)

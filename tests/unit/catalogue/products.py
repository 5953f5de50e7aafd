"""A small catalogue for tests: a tree, services over a database, and products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import simplejpeg

from shoplens.accounts.entities import Permission, Principal, PrincipalKind
from shoplens.catalogue.bulk.service import BulkService
from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import Category, CategoryScore, Product, ProductState
from shoplens.catalogue.photos import ProductPhotos
from shoplens.catalogue.products import NewProduct, ProductService
from shoplens.catalogue.repository import ProductRepository
from shoplens.catalogue.tree.categories import Tree
from shoplens.db import Database
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.storage import open_store

CHANNEL = "catalogue"
ANNA = Principal(kind=PrincipalKind.PERSON, id="p1", name="anna", permissions=frozenset(Permission))
BERT = replace(ANNA, id="p2", name="bert")
TREE = Tree(
    [
        Category(id="food", path=("Food",), names={}),
        Category(id="apple", path=("Food", "Fruit", "Apple"), names={"de": "Apfel"}),
        Category(id="pear", path=("Food", "Fruit", "Pear"), names={}),
        Category(id="shirt", path=("Apparel", "Shirt"), names={}),
    ],
    version=1,
)
START = datetime(2026, 3, 2, 8, tzinfo=UTC)


class Clock:
    """A minute later at each look."""

    def __init__(self, start: datetime = START) -> None:
        self.now = start

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


def product_service(database: Database, folder: Path, clock: Clock | None = None) -> ProductService:
    """Products whose photos lie in `folder`."""
    sandbox = SandboxedDecoder(processes=1, memory_bytes=500_000_000, cpu_s=10, wall_s=60)
    photos = ProductPhotos(open_store(str(folder)), limits=Limits(), sandbox=sandbox)
    return ProductService(database, photos, tree_of=lambda _: TREE, clock=clock or Clock())


def decision_service(database: Database, clock: Clock | None = None, tree: Tree = TREE) -> DecisionService:
    """Decisions on them."""
    return DecisionService(database, tree_of=lambda _: tree, clock=clock or Clock())


@contextmanager
def bulk_service(database: Database, clock: Clock | None = None) -> Iterator[BulkService]:
    """Bulk acceptances of them on the next day; closed at the end."""
    service = BulkService(database, tree_of=lambda _: TREE, clock=clock or Clock(START + timedelta(days=1)))
    yield service
    service.close()


def suggested(database: Database, product: Product, category: str, score: float) -> Product:
    """The same product after a model has answered."""
    after = replace(
        product,
        state=ProductState.SUGGESTED,
        answer=category,
        score=score,
        suggestions=(CategoryScore(category=category, score=score),),
        needs_review=score < 0.8,
        kind="text",
        model="tiny@1",
        tree=1,
        suggested_at=product.changed_at,
        revision=product.revision + 1,
    )
    with database.transaction() as tx:
        ProductRepository(tx).replace(after)
    return after


def jpeg_of(width: int, height: int, seed: int = 0) -> bytes:
    """A small photo; another one for another seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels))


def add(service: ProductService, reference: str, designation: str, description: str = "") -> Product:
    """A stored product without photos."""
    new = NewProduct(reference=reference, designation=designation, description=description)
    return service.save(CHANNEL, new).product

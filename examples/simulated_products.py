"""Products in the simulated quarter: imported, suggested by runs and one by one, accepted, corrected, taken back.

The suggestions are drawn by chance: of those with a score of 0.8, about 80 % are right. Everything else is done by the
services of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from examples.simulated_agenda import Agenda, Pictures, people
from shoplens.batch.entities import RunOwner
from shoplens.catalogue.bulk.service import BulkService
from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import Category, CategoryScore, ImportFault, ImportJob, Product, ProductPhoto
from shoplens.catalogue.imports.repository import ImportRepository
from shoplens.catalogue.photos import ProductPhotos
from shoplens.catalogue.products import NewPhoto, NewProduct, ProductService, SuggestedProduct, write_suggestions
from shoplens.catalogue.repository import ProductFilter, ProductRepository
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.catalogue.runs.runner import add_run
from shoplens.catalogue.suggest.service import Suggestion
from shoplens.catalogue.tree.categories import Tree
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import ImageCorrupt

CHECKED: Final = 0.05
"""The share of sure suggestions that a person checks."""
_LOOKED_AT: Final = 0.85
"""The share of those that wait that clerks come to."""
_MODEL: Final = "1.0.0"
_CLERKS: Final = people("Dora", "Emil")
_BRANDS: Final = ("Almar", "Brisa", "Dunmore", "Eskil", "Fjordal", "Halden", "Kestrel", "Lumo", "Nordfeld", "Tavira")
_KINDS: Final = ("classic", "light", "for every day", "in a set of two", "made of cotton", "made of wood", "in blue")
_FAULTS: Final = (
    ("category_not_found", "The category 'Outdoor > Grills' is not in the tree."),
    ("nothing_to_categorise", "The row has no designation, no description and no photo."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCatalogue:
    """The channel, and what its settings say."""

    channel: str
    model: str
    accept_at: float
    answer_at: float
    tree: Tree


class Products:
    """The products of one channel. `products` counts those that were saved, `decisions` what people decided on them."""

    def __init__(
        self,
        database: Database,
        photos: ProductPhotos,
        catalogue: SimulatedCatalogue,
        *,
        agenda: Agenda,
        pictures: Pictures,
    ) -> None:
        def tree_of(_: str) -> Tree:
            return catalogue.tree

        self._database = database
        self._catalogue = catalogue
        self._agenda = agenda
        self._random = agenda.random
        self._pictures = pictures
        self._leaves = [each for each in catalogue.tree if catalogue.tree.is_leaf(each.id)]
        self._products = ProductService(database, photos, tree_of=tree_of, clock=agenda.clock)
        self._decisions = DecisionService(database, tree_of=tree_of, clock=agenda.clock)
        self._bulk = BulkService(database, tree_of=tree_of, clock=agenda.clock)
        self._right: dict[str, Category] = {}
        """The category that each product has in truth, by its reference."""
        self.decisions = 0

    @property
    def products(self) -> int:
        """How many were saved."""
        return len(self._right)

    def import_table(self, rows: int) -> None:
        """A table of products is imported now; an hour later a run suggests their categories."""
        now, faults = self._agenda.clock(), self._random.choice((0, 0, 1, 2))
        done = now + timedelta(seconds=rows / 20)
        job = ImportJob(
            id=new_id(now), channel=self._catalogue.channel, created_at=now, created_by="Dora",
            source=f"products-{now:%Y-%m-%d}.csv", rows=rows + faults, added=rows, faults=faults,
            options={"total": rows + faults}, beat_at=done, finished_at=done,
        )  # fmt: skip
        with self._database.transaction() as tx:
            ImportRepository(tx).add(job)
            ImportRepository(tx).add_faults(
                ImportFault(import_id=job.id, line=2 + 7 * number, code=code, reason=reason, reference=f"A-{number}")
                for number, (code, reason) in enumerate(_FAULTS[:faults])
            )
        new = [self._new().cleaned() for _ in range(rows)]
        self._products.save_many(self._catalogue.channel, new, by="Dora", import_id=job.id)
        self._agenda.at(now.timestamp() + 3600, self._run)

    def add_one(self) -> None:
        """The shop's system saves one product now, and gets its suggestion at once."""
        saved = self._products.save(self._catalogue.channel, self._new())
        suggestion = self._suggestion(saved.product.reference, photos=bool(saved.photos))
        asked = SuggestedProduct(product=saved.product, photos=saved.photos, suggestion=suggestion)
        product = self._products.suggested(asked, encoder="")
        if product.needs_review:
            self._agenda.at_work(self._random.uniform(20, 3000), partial(self._decide, product.reference))

    def accept_surest(self) -> None:
        """A clerk accepts all suggestions with a score of 0.97 or more at once."""
        self._bulk.run(ProductFilter(channel=self._catalogue.channel, min_score=0.97), by=_CLERKS[0])

    def _new(self) -> NewProduct:
        random, number = self._random, len(self._right) + 1
        reference, leaf = f"A-{10_000 + number}", self._random.choice(self._leaves)
        self._right[reference] = leaf
        name = self._catalogue.tree.name(leaf.id, "en")
        photos: tuple[NewPhoto, ...] = ()
        if random.random() < 0.6:
            photos = (self._products.photo(f"{reference}.jpg", self._pictures.file(1_000_000 + number)),)
        return NewProduct(
            reference=reference,
            designation=f"{random.choice(_BRANDS)} {name.lower()}, {random.choice(_KINDS)}",
            description="A simulated product; nobody sells it." if random.random() < 0.7 else "",
            photos=photos,
        )

    def _run(self) -> None:
        """A run over all products without a suggestion, as its process does it."""
        now, channel = self._agenda.clock(), self._catalogue.channel
        owner = RunOwner(id=new_id(now), host="simulation", pid=1)
        with self._database.transaction() as tx:
            run = add_run(tx, channel, again=False, requested_by="simulation", now=now)
            runs, products = CatalogueRunRepository(tx), ProductRepository(tx)
            runs.take_over(run, owner, now=now)
            model = f"{self._catalogue.model}@{_MODEL}"
            runs.describe(run.id, owner=owner.id, model=model, tree=self._catalogue.tree.version, planned=run.planned)
            waiting = products.waiting(channel, run_id=run.id, again=False, limit=run.planned, after="")
            photos = products.photos_of(each.id for each in waiting)
            asked = [self._asked(each, photos.get(each.id, ())) for each in waiting]
            ends = now + timedelta(seconds=len(waiting) / 15)
            write_suggestions(tx, asked, now=ends, run_id=run.id)
            failed = sum(each.suggestion is None for each in asked)
            runs.beat(run.id, owner=owner.id, now=ends, suggested=len(asked) - failed, failed=failed)
            runs.finish(run.id, owner=owner.id, now=ends)
            found = products.lock_many([each.id for each in waiting])
        for product in found.values():
            if product.needs_review and self._random.random() < _LOOKED_AT:
                self._agenda.at_work(self._random.uniform(60, 8000), partial(self._decide, product.reference))

    def _asked(self, product: Product, photos: tuple[ProductPhoto, ...]) -> SuggestedProduct:
        if self._random.random() < 0.008:
            damaged = ImageCorrupt("The file is damaged or incomplete. Upload it again.")
            return SuggestedProduct(product=product, photos=photos, failure=damaged)
        return SuggestedProduct(
            product=product, photos=photos, suggestion=self._suggestion(product.reference, photos=bool(photos))
        )

    def _suggestion(self, reference: str, *, photos: bool) -> Suggestion:
        random, tree = self._random, self._catalogue.tree
        right = self._right[reference]
        best = 1 - min(0.55, random.expovariate(7.0))
        others = random.sample(self._leaves, min(3, len(self._leaves)))
        ranked = [each for each in others if each.id != right.id]
        ranked.insert(0 if random.random() < best or not ranked else 1, right)
        shares = (best, (1 - best) * 0.7, (1 - best) * 0.3)
        scores = {each.id: round(share, 4) for each, share in zip(ranked, shares, strict=False)}
        return Suggestion(
            suggestions=tuple(CategoryScore(category=category, score=score) for category, score in scores.items()),
            answer=tree.answer(scores, self._catalogue.answer_at),
            kind="both" if photos else "text",
            model=f"{self._catalogue.model}@{_MODEL}",
            tree=tree.version,
            cold_start=False,
            needs_review=best < self._catalogue.accept_at,
            audit_share=CHECKED,
        )

    def _decide(self, reference: str) -> None:
        """A clerk looks at a product that waits, and knows its category most of the time."""
        random, channel = self._random, self._catalogue.channel
        right = self._right[reference] if random.random() < 0.95 else random.choice(self._leaves)
        clerk = random.choice(_CLERKS)
        self._decisions.decide(channel, reference, by=clerk, category=right.id)
        self.decisions += 1
        if random.random() < 0.03:
            self._decisions.undo(channel, reference, by=clerk)
            self._decisions.decide(channel, reference, by=clerk, category=self._right[reference].id)

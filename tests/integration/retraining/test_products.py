"""Products are retrained by the recipe fusion: texts, and embeddings that the catalogue has stored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from shoplens.accounts.audit import AuditLog
from shoplens.catalogue.entities import Category
from shoplens.catalogue.label_source import CategoryLabels
from shoplens.catalogue.repository import ProductRepository
from shoplens.catalogue.tree.categories import SEPARATOR, Tree, split_path
from shoplens.catalogue.tree.service import TreeService
from shoplens.db import Database, open_database, upgrade
from shoplens.images.picture import Limits
from shoplens.labels.service import LabelService
from shoplens.retraining.entities import RetrainingState
from shoplens.retraining.errors import NothingToLearn
from shoplens.retraining.pipeline import Pipeline
from shoplens.retraining.product_trainer import ProductTrainer
from shoplens.retraining.samples import LabelledSample
from shoplens.retraining.test_set import TestSample
from shoplens.retraining.trainers import Candidate
from shoplens.storage import open_store
from tests.conftest import jpeg_of
from tests.retraining_shop import RULES, ColourShop, Stages
from tests.unit.catalogue.products import ANNA, CHANNEL, TREE, Clock, add, decision_service, product_service
from tests.unit.training.colours import tinted

pytest.importorskip("torch")
WORDS = {
    "Food > Apple": "red sweet apple",
    "Apparel > Shirt": "cotton shirt long sleeve",
    "Home > Lamp": "desk lamp led",
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty one."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    upgrade(url)
    with closing(open_database(url)) as opened:
        yield opened


def test_products_are_trained_and_answered_from_texts_and_stored_embeddings(database: Database, tmp_path: Path) -> None:
    """No photo is read; the labels of the model have the ids of the categories."""
    service, store = product_service(database, tmp_path / "photos"), open_store(str(tmp_path / "store"))
    ids = {path: f"c{number}" for number, path in enumerate(WORDS)}
    trees = trees_of(database, ids)
    trainer = ProductTrainer(database, store, trees=trees, threads=1, limits=Limits())
    encoder = hashlib.sha256(trainer._encoder).hexdigest()
    random, samples = np.random.default_rng(1), []
    for number in range(60):
        path = list(WORDS)[number % 3]
        product = add(service, f"P-{number}", f"{WORDS[path]} number {number}")
        embedding = random.normal(size=1280) + 3 * (np.arange(1280) % 3 == number % 3)
        with database.transaction() as tx:
            ProductRepository(tx).set_embedding(product.id, encoder, embedding.astype(np.float16).tobytes())
        samples.append(
            LabelledSample(
                source="catalogue", sample_id=product.id, label=path, sha256=f"{number:064x}",
                image_key=f"gone/{number}.jpg", designation=product.designation,
            )
        )  # fmt: skip
    nothing = LabelledSample(source="catalogue", sample_id="x", label="Food > Apple")
    fetched, missing = trainer.fetch([*samples, nothing], tmp_path)
    assert (60, {}) == (len(fetched), missing)
    trainer.check(fetched, ["Toys > Ball"])
    with pytest.raises(NothingToLearn):
        trainer.check(fetched[::3], [])
    tests = [
        (TestSample(source=each.source, sample_id=each.sample_id, label=each.label, sha256="", phash=""), each)
        for each in fetched[45:]
    ]
    candidate = Candidate(
        name=CHANNEL, version="1.0.0", recipe="fusion", data_name="Made by a test.", folder=tmp_path / "work",
        date=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    photo = tmp_path / "base.jpg"
    photo.write_bytes(jpeg_of(tinted(1, (200, 30, 30))))
    base = LabelledSample(source="base", sample_id="1", label="Food > Apple", sha256="f" * 64, path=photo)
    bundle = trainer.fit(candidate, [*fetched[:45], base], tests, Stages())
    photo.unlink()  # its embedding is known from now on
    assert 61 == len(trainer.features([*fetched, base]))
    assert ids == {label.name: label.id for label in bundle.labels}
    assert bundle.digest == trainer.fit(candidate, fetched[:45], tests, Stages()).digest
    answers = trainer.answers(bundle, tests)
    assert [each.label for _, each in tests] == list(answers.labels)
    assert all(0 < score <= 1 for score in answers.scores)
    assert answers.labels == trainer.present(bundle, fetched[:45], tests).labels
    other = replace(bundle, labels=tuple(replace(each, name=f"Other > {each.name}") for each in bundle.labels))
    today = trainer.present(other, fetched[:45], tests)
    assert ("cold-start@0", [each.label for _, each in tests]) == (today.model, list(today.labels))
    assert {label.name for label in bundle.labels} == set(trainer.known(bundle))
    trees.save(
        Tree(
            [
                Category(id="fruit", path=("Fruit", "Apple"), names={}),
                Category(id="c1", path=("Apparel", "Shirt"), names={}),
                Category(id="c2", path=("Home", "Lamp"), names={}),
                Category(id="ball", path=("Toys", "Ball"), names={}),
            ]
        ),
        {"c0": "fruit"},
        source="test",
        note="",
        by=ANNA,
    )
    carried = trainer.present(bundle, fetched[:45], tests)
    assert trainer.current([each.label for _, each in tests]) == list(carried.labels)
    known = frozenset({"Fruit > Apple", "Apparel > Shirt", "Home > Lamp"})
    assert (known, known) == (carried.known, frozenset(trainer.known(bundle)))


def trees_of(database: Database, ids: Mapping[str, str]) -> TreeService:
    """The first tree has these paths with their ids."""
    first = Tree([Category(id=ids[path], path=split_path(path), names={}) for path in ids], version=0)
    clock = Clock()
    return TreeService(CHANNEL, database, first=lambda: first, audit=AuditLog(database, clock=clock), clock=clock)


def test_a_model_of_products_that_learned_from_corrections_passes_the_gate(database: Database, tmp_path: Path) -> None:
    """From decided products to the champion, twice: the first model learned categories that people corrected since."""
    shop, clock = ColourShop(database, tmp_path), Clock()
    service, decisions = product_service(database, tmp_path / "photos", clock), decision_service(database, clock)
    trees = trees_of(database, {SEPARATOR.join(each.path): each.id for each in TREE})
    labels = CategoryLabels(database, tree_of=lambda _: trees.live())
    parts = replace(
        shop.parts,
        labels=LabelService(database, shop.store, sources=[labels], clock=clock),
        trainer=ProductTrainer(database, shop.store, trees=trees, threads=1, limits=Limits()),
    )
    rules = replace(RULES, channel=CHANNEL, model="shop", recipe="fusion", promote="at_once")
    leaves, words = ("apple", "pear", "shirt"), ("red sweet apple", "green juicy pear", "cotton shirt")
    for number in range(60):
        product = add(service, f"P-{number}", f"{words[number % 3]} number {number}")
        decisions.decide(CHANNEL, product.id, by=ANNA, category=leaves[(number + 1) % 3])

    first = Pipeline(parts, rules).run(by=ANNA, callback=Stages())
    shop.service.approve(first.id, by=ANNA, why="It is the first one.")
    for number in range(60):
        decisions.decide(CHANNEL, f"P-{number}", by=ANNA, category=leaves[number % 3])
    second = Pipeline(parts, rules).run(by=ANNA, callback=Stages())

    assert (RetrainingState.WAITING, RetrainingState.PROMOTED, True) == (first.state, second.state, second.passed)
    assert (second.candidate, 0.0, 1.0) == (
        shop.registry.aliases("shop").champion, second.accuracy_before, second.accuracy,
    )  # fmt: skip
    refused = Pipeline(parts, rules).run(by=ANNA, callback=Stages())
    assert (RetrainingState.REFUSED, False) == (refused.state, refused.passed)

    renamed = [replace(each, path=("Fruit", "Malus")) if each.id == "apple" else each for each in TREE]
    ball = Category(id="ball", path=("Toys", "Ball"), names={})
    trees.save(Tree([*renamed, ball]), {}, source="test", note="", by=ANNA)
    for number in range(60, 100):
        product = add(service, f"P-{number}", f"bouncing rubber ball number {number}")
        decision_service(database, clock, Tree([*renamed, ball])).decide(CHANNEL, product.id, by=ANNA, category="ball")
    third = Pipeline(parts, rules).run(by=ANNA, callback=Stages())
    report = shop.service.report(third.id)
    assert report is not None
    compared = next(each for each in report.gate.checks if each.code == "not_worse_where_both_answer")
    assert compared.passed
    counts = re.search(r"Of the (\d+) others .* has (\d+) right, the present one (\d+) ", compared.sentence)
    assert counts is not None
    assert len({*counts.groups()}) == 1  # what was renamed is known, and both have it right

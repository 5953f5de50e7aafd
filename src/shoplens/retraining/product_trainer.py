"""How a model of products (photo, text or both) is trained and compared: the recipe `fusion`.

The catalogue stores the embedding of each product's photos; where it is of the same encoder, no photo is read again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.catalogue.label_source import SOURCE as CATALOGUE
from shoplens.catalogue.repository import ProductRepository
from shoplens.catalogue.suggest.cold_start import ColdStart, Example
from shoplens.catalogue.suggest.service import COLD_START, categories_of, knows
from shoplens.catalogue.tree.categories import SEPARATOR
from shoplens.catalogue.tree.service import TreeService
from shoplens.db import Database
from shoplens.images.picture import Limits
from shoplens.retraining.errors import NothingToLearn
from shoplens.retraining.gate import Answers
from shoplens.retraining.samples import LabelledSample
from shoplens.retraining.test_set import TestSample
from shoplens.retraining.trainers import Candidate, PhotoTrainer
from shoplens.storage import Store

if TYPE_CHECKING:
    from shoplens.training.products import Product
    from shoplens.training.progress import Callback

Floats = NDArray[np.float32]
_PAGE: Final = 500
_TEXT_DIMENSIONS: Final = 128
_PHOTO_DIMENSIONS: Final = 64


def _silent(_done: int, _total: int) -> None:
    """Nobody follows the progress."""


class ProductTrainer(PhotoTrainer):
    """The categories of the live one of `trees` are the labels of the new model; None where there is no tree."""

    def __init__(
        self,
        database: Database,
        store: Store,
        *,
        trees: TreeService | None,
        threads: int,
        limits: Limits,
    ) -> None:
        super().__init__(store, threads=threads, limits=limits)
        self._database = database
        self._trees = trees
        self._embeddings: dict[str, NDArray[np.float16]] = {}

    @cached_property
    def _encoder(self) -> bytes:
        from shoplens.bundles.builtin import BUILTIN_MODELS
        from shoplens.bundles.builtin.onnx_graph import encoder_graph
        from shoplens.training.train_products import ENCODER

        return encoder_graph(BUILTIN_MODELS[ENCODER].build())

    def read(self, place: str, source: str) -> list[LabelledSample]:
        """A CSV with the columns label, designation, description and path. Raises DatasetInvalid."""
        from shoplens.training.products import read_products

        found = []
        for product in read_products(Path(place), limits=self._limits):
            title, _, description = product.text.partition("\n")
            photo = product.photos[0] if product.photos else None
            found.append(
                LabelledSample(
                    source=source,
                    sample_id=product.name,
                    label=product.label,
                    sha256=photo.sha256 if photo else "",
                    path=photo.path if photo else None,
                    designation=title or None,
                    description=description or None,
                )
            )
        return found

    def fetch(self, samples: Sequence[LabelledSample], folder: Path) -> tuple[list[LabelledSample], dict[str, int]]:
        """Embeddings of the catalogue; photos only where there is none. What has a text needs no photo."""
        self._read_embeddings(samples)
        without = [each for each in samples if each.name not in self._embeddings and each.sha256]
        wanted = [each for each in without if each.path or each.image_key]
        fetched, missing = super().fetch(wanted, folder)
        paths = {each.name: each.path for each in fetched}
        usable = [
            replace(each, path=paths.get(each.name))
            for each in samples
            if each.name in self._embeddings or each.name in paths or each.text.strip()
        ]
        return usable, missing

    def _read_embeddings(self, samples: Sequence[LabelledSample]) -> None:
        ours = hashlib.sha256(self._encoder).hexdigest()
        ids = [each.sample_id for each in samples if each.source == CATALOGUE and each.name not in self._embeddings]
        for start in range(0, len(ids), _PAGE):
            with self._database.reading() as tx:
                found = ProductRepository(tx).embeddings_of(ids[start : start + _PAGE])
            for product_id, (encoder, embedding) in found.items():
                if encoder == ours:
                    self._embeddings[f"{CATALOGUE}/{product_id}"] = np.frombuffer(embedding, np.float16)

    def known(self, champion: Bundle) -> list[str]:
        """The paths in the live tree; labels that it does not have any more are as the bundle has them."""
        return self.current([label.name for label in champion.labels])

    def current(self, labels: Sequence[str]) -> list[str]:
        """The paths in the live tree of what were paths in an earlier one, by the mappings of the imports."""
        paths = self._paths_of(labels)
        return [paths.get(label, label) for label in labels]

    def _paths_of(self, labels: Sequence[str]) -> dict[str, str]:
        """The path in the live tree of each label that has a category there."""
        if self._trees is None:
            return {}
        tree = self._trees.live()
        found = categories_of(labels, self._trees)
        return {label: SEPARATOR.join(tree[category].path) for label, category in found.items()}

    def check(self, samples: Sequence[LabelledSample], known: Collection[str]) -> None:
        """Two categories are enough: a tree has many that no product has yet."""
        del known
        if len({sample.label for sample in samples}) < 2:
            raise NothingToLearn("The products have fewer than two categories. Accept or correct more suggestions.")

    def fit(
        self,
        candidate: Candidate,
        samples: Sequence[LabelledSample],
        tests: Sequence[tuple[TestSample, LabelledSample]],
        callback: Callback,
    ) -> Bundle:
        """By `train_products`."""
        from shoplens.training.train_products import train_products

        if candidate.bundle.is_dir():
            return open_bundle(candidate.bundle)
        callback.on_stage("Embedding the photos")
        products = [self._product(each) for each in (*samples, *(fetched for _, fetched in tests))]
        # Photos that cannot be read have no embedding then; `train_products` tries them again and reports them.
        products = self._embed(products, callback.on_samples)
        trained = train_products(
            products[: len(samples)],
            candidate.config(threads=self._threads, limits=self._limits),
            label_ids=self._label_ids(),
            tests=products[len(samples) :],
            callback=callback,
        )
        return trained.bundle

    def answers(self, bundle: Bundle, tests: Sequence[tuple[TestSample, LabelledSample]]) -> Answers:
        """Each product with what it has. A bundle with another encoder sees the photos that are files here."""
        return self._answers(bundle, tests, {label.name: label.name for label in bundle.labels})

    def _answers(
        self, bundle: Bundle, tests: Sequence[tuple[TestSample, LabelledSample]], called: Mapping[str, str]
    ) -> Answers:
        """With the labels as they are `called`, as `suggest` does: scores of labels that became one are added, labels
        without a name are left out.
        """
        from shoplens.serving.classifier import Classifier, PreparedSample
        from shoplens.texts.features import features

        products = self._embedded(bundle, [self._product(fetched) for _, fetched in tests])
        spec = bundle.manifest.text
        shown, rows = [], []
        for row, product in enumerate(products):
            read = features(product.text, spec) if spec is not None else None
            text = read if read is not None and len(read.tokens) else None
            if text is not None or product.embedding is not None:
                shown.append(PreparedSample(text=text, embedding=product.embedding))
                rows.append(row)
        classifier = Classifier(bundle)
        column_of = {name: column for column, name in enumerate(dict.fromkeys(called.values()))}
        names = list(column_of)
        kept = [row for row, label in enumerate(bundle.labels) if label.name in called]
        columns = [column_of[called[bundle.labels[row].name]] for row in kept]
        labels, scores = [""] * len(tests), [0.0] * len(tests)
        began = time.process_time()
        found = classifier.scores(shown) if shown else np.zeros((0, len(bundle.labels)), np.float32)
        seconds = time.process_time() - began
        added = np.zeros((len(rows), len(names)), np.float32)
        np.add.at(added.T, np.array(columns, np.int64), found[:, kept].T)
        for row, values in zip(rows, added, strict=True):
            best = int(values.argmax())
            if values[best] > 0:
                labels[row], scores[row] = names[best], min(1.0, float(values[best]))
        return Answers(
            model=str(bundle.ref),
            labels=labels,
            scores=scores,
            ms_per_sample=1e3 * seconds / max(1, len(shown)),
            size_bytes=bundle.size_bytes,
            known=frozenset(names),
        )

    def present(
        self,
        champion: Bundle,
        training: Sequence[LabelledSample],
        tests: Sequence[tuple[TestSample, LabelledSample]],
    ) -> Answers:
        """The champion's answers in the live tree; those of the cold start, with `training` as its examples, where the
        champion does not know that tree: then it answers nobody.
        """
        if self._trees is None:
            return self.answers(champion, tests)
        names = [label.name for label in champion.labels]
        paths = self._paths_of(names)
        if knows(paths, names):
            return self._answers(champion, tests, paths)
        tree = self._trees.live()
        ids = self._label_ids()
        newest = sorted(training, key=lambda each: each.sample_id, reverse=True)
        kept = [each for each in newest if each.label in ids]
        examples = [
            Example(category=ids[each.label], text=each.text.strip("\n"), embedding=product.embedding)
            for each, product in zip(kept, self._embedded(None, [self._product(each) for each in kept]), strict=True)
        ]
        cold = ColdStart(tree, examples)
        labels, scores = [], []
        for product in self._embedded(None, [self._product(fetched) for _, fetched in tests]):
            found = cold.scores(product.text, product.embedding)
            best = max(found, key=lambda each: found[each], default=None)
            labels.append("" if best is None else SEPARATOR.join(tree[best].path))
            scores.append(0.0 if best is None else found[best])
        return Answers(model=f"{COLD_START}@{tree.version}", labels=labels, scores=scores)

    def _label_ids(self) -> dict[str, str]:
        """The id of each category by its path."""
        return {SEPARATOR.join(category.path): category.id for category in (self._trees.live() if self._trees else ())}

    def features(self, samples: Sequence[LabelledSample]) -> Floats:
        """The texts and the embeddings, each brought to fewer dimensions."""
        from sklearn.decomposition import TruncatedSVD

        from shoplens.texts.features import features
        from shoplens.training.recipes.fusion import TEXT, FusionData, Vocabulary

        products = self._embedded(None, [self._product(each) for each in samples])
        size = next((len(each.embedding) for each in products if each.embedding is not None), 1)
        none = np.zeros(size, np.float32)
        photos = np.stack([none if each.embedding is None else each.embedding for each in products])
        data = FusionData.of([features(each.text, TEXT) for each in products])
        texts = Vocabulary.of(data, TEXT.buckets).matrix(data)
        parts: list[Any] = []
        for values, most in ((texts, _TEXT_DIMENSIONS), (photos, _PHOTO_DIMENSIONS)):
            kept = min(most, min(values.shape) - 1)
            if kept > 0:
                parts.append(TruncatedSVD(kept, random_state=0).fit_transform(values))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _embedded(self, bundle: Bundle | None, products: Sequence[Product]) -> list[Product]:
        """With the embeddings of the encoder of `bundle`, or our own."""
        from shoplens.training.products import embed_products

        path = bundle.encoder_path if bundle is not None else None
        if bundle is not None and path is None:
            return [replace(each, embedding=None) for each in products]
        if path is None or path.read_bytes() == self._encoder:
            return self._embed(products)
        assert bundle is not None
        assert bundle.manifest.image is not None
        plain = [replace(each, embedding=None) for each in products]
        return embed_products(plain, path.read_bytes(), bundle.manifest.image)[0]

    def _embed(self, products: Sequence[Product], on_progress: Callable[[int, int], None] = _silent) -> list[Product]:
        """By our own encoder. A photo is read once: training, gate and the search for label errors need it in turn."""
        from shoplens.training.products import embed_products
        from shoplens.training.train_products import PHOTO

        done = embed_products(products, self._encoder, PHOTO, on_progress=on_progress)[0]
        for each in done:
            if each.embedding is not None and each.name not in self._embeddings:
                self._embeddings[each.name] = each.embedding.astype(np.float16)
        return done

    def _product(self, sample: LabelledSample) -> Product:
        from shoplens.training.products import Product, product_text
        from shoplens.training.samples import PhotoFile

        known = self._embeddings.get(sample.name)
        photos: tuple[PhotoFile, ...] = ()
        if sample.path is not None and known is None:
            digest = hashlib.sha256(sample.path.read_bytes()).hexdigest()
            photos = (PhotoFile(path=sample.path, sha256=digest, limits=self._limits),)
        return Product(
            name=sample.name,
            label=sample.label,
            text=product_text(sample.designation or "", sample.description or ""),
            photos=photos,
            embedding=None if known is None else known.astype(np.float32),
        )

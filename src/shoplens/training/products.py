"""Labelled products: read a CSV of texts and photos, and embed the photos with the frozen network."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shoplens.bundles.builtin.onnx_graph import EMBEDDING, INPUT
from shoplens.bundles.probe import open_session
from shoplens.errors import SampleError
from shoplens.images.decoder import decode
from shoplens.images.picture import ImageSpec, Limits
from shoplens.images.preprocess import preprocess
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean
from shoplens.texts.features import words_of
from shoplens.training.errors import DatasetInvalid
from shoplens.training.recipes.fusion import mean_embedding
from shoplens.training.recipes.head import in_parallel
from shoplens.training.samples import PhotoFile, UnreadableFile
from shoplens.training.sources import clean_label, path_within

Floats = NDArray[np.float32]

PHOTO_SEPARATOR: Final = "|"
_TITLES: Final = ("designation", "title", "name")
_PHOTOS: Final = ("path", "photos", "photo")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """One labelled product. `text` is its title and, after a line break, its description; either may be empty.

    `embedding` is the mean of the embeddings of its photos, where they are known; `photos` need not be there then.
    """

    name: str
    label: str
    text: str = ""
    photos: tuple[PhotoFile, ...] = ()
    embedding: Floats | None = None


def product_text(designation: str, description: str = "") -> str:
    """The text of a product, cleaned as the catalogue cleans it."""
    return f"{clean(designation, TITLE_CHARACTERS)}\n{clean(description, DESCRIPTION_CHARACTERS)}".strip()


def read_products(file: Path, *, limits: Limits) -> list[Product]:
    """The rows of a CSV with the columns `label`, `designation` (or `title`), `description` and `path`.

    `path` names photos relative to the file, several with `|` between them. All columns but `label` may be missing or
    empty. Raises DatasetInvalid with the line of what is wrong.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            sample = lines.read(65_536)
            lines.seek(0)
            header = sample.partition("\n")[0]
            rows = csv.DictReader(lines, delimiter=max(",;\t", key=header.count), strict=True)
            rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
            if "label" not in rows.fieldnames:
                raise DatasetInvalid(f"The first line of {file.name} must name a column `label`.")
            return [_product(file, row, rows.line_num, limits) for row in rows]
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{file.name} is not a text file in UTF-8.") from error
    except csv.Error as error:
        raise DatasetInvalid(f"{file.name} is not a CSV: {error}.") from error
    except OSError as error:
        raise DatasetInvalid(f"{file} cannot be read: {error.strerror}.") from error


def _product(file: Path, row: dict[str, str | None], line: int, limits: Limits) -> Product:
    where = f"{file.name}, line {line}"
    if not (row["label"] or "").strip():
        raise DatasetInvalid(f"{where}: the label is empty.")
    paths = next((row[column] for column in _PHOTOS if row.get(column)), None) or ""
    photos = []
    for name in filter(None, (each.strip() for each in paths.split(PHOTO_SEPARATOR))):
        path = path_within(file.parent, name, where)
        try:
            photos.append(PhotoFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), limits=limits))
        except OSError as error:
            raise DatasetInvalid(f"{where}: {path} cannot be read: {error.strerror}.") from error
    title = next((row[column] for column in _TITLES if row.get(column)), None) or ""
    return Product(
        name=f"line {line}",
        label=clean_label(row["label"] or ""),
        text=product_text(title, row.get("description") or ""),
        photos=tuple(photos),
    )


def embed_products(
    products: Sequence[Product],
    encoder: bytes,
    spec: ImageSpec,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[list[Product], list[UnreadableFile]]:
    """The same products with embeddings, and the photos that cannot be read, which are left out."""
    session = open_session(encoder, optimise=True)

    def embedded(product: Product) -> tuple[Product, list[UnreadableFile]]:
        rows, unreadable = [], []
        if product.embedding is not None:
            return product, []
        for photo in product.photos:
            try:
                pixels = preprocess(decode(photo.data(), limits=photo.limits, short_side=spec.resize), spec)
            except SampleError as error:
                unreadable.append(UnreadableFile(name=photo.path.name, code=error.code, reason=str(error)))
                continue
            rows.append(np.asarray(session.run([EMBEDDING], {INPUT: pixels[None]})[0][0], np.float32))
        return replace(product, embedding=mean_embedding(np.stack(rows)) if rows else None), unreadable

    done, faults = [], []
    for product, unreadable in in_parallel(embedded, products):
        done.append(product)
        faults += unreadable
        on_progress(len(done), len(products))
    return done, faults


def group_products(products: Sequence[Product]) -> list[int]:
    """For each product a number that all have with the same words or with a photo of the same content."""
    first: dict[str, int] = {}
    pairs = []
    for index, product in enumerate(products):
        words = " ".join(word.text.casefold() for word in words_of(product.text))
        keys = [f"photo {photo.sha256}" for photo in product.photos] + ([f"text {words}"] if words else [])
        pairs += [(first.setdefault(key, index), index) for key in keys]
    edges = np.array(pairs or [(0, 0)]).T
    graph = coo_array((np.ones(edges.shape[1], np.bool_), (edges[0], edges[1])), shape=(len(products),) * 2)
    return [int(group) for group in connected_components(graph, directed=False)[1]]

"""`shoplens train --recipe fusion`: a bundle that answers to photo, text or both, from labelled products.

The steps are those of `train.py`: read, check, split, train, calibrate, export, prove, measure, write; every figure
and the temperature are per kind of input.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.builtin import BUILTIN_MODELS
from shoplens.bundles.builtin.onnx_graph import encoder_graph
from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.manifest import (
    TEXT_FORMAT_VERSION,
    Calibration,
    Card,
    ClassCount,
    Evaluation,
    Label,
    Manifest,
    Parity,
    PartResult,
    SampleKind,
    Speed,
    TrainingFacts,
)
from shoplens.images.picture import ImageSpec
from shoplens.serving.classifier import Classifier, PreparedSample
from shoplens.texts.features import features
from shoplens.texts.spec import TextSpec
from shoplens.training.calibrate import cross_fitted_error, fit_temperature
from shoplens.training.card import Hashes, card_of, data_facts
from shoplens.training.check import DataReport
from shoplens.training.errors import DatasetInvalid, TrainingDiverged
from shoplens.training.evaluate import measure
from shoplens.training.export import PARITY_SAMPLES, logit_difference
from shoplens.training.products import Product, embed_products, group_products, read_products
from shoplens.training.progress import Callback
from shoplens.training.recipes import RecipeOptions, required_packages
from shoplens.training.recipes.fusion import TEXT, FusionData, FusionModel, fit_fusion
from shoplens.training.recipes.head import IMAGE
from shoplens.training.samples import UnreadableFile, lines_digest
from shoplens.training.split import Split, held_out
from shoplens.training.train import Sources, TrainConfig, TrainResult

ENCODER: Final = "efficientnet-lite0-int8"
"""The built-in model whose network embeds the photos: as costly as the one that classifies looks."""
PHOTO: Final = replace(IMAGE, fit="squash")
"""The whole photo: a product fills it from edge to edge, and is often taller than wide."""
_ORDER: Final[tuple[SampleKind, ...]] = ("both", "photo", "text")
"""The kind that a card quotes first."""
_MAX_BATCH: Final = 32
_TOLERANCE: Final = 0.2
"""How much a logit may differ by the rounding of the heads to 16 bits, which has three digits."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """How photos and texts are read."""

    image: ImageSpec = PHOTO
    text: TextSpec = TEXT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """Products with the numbers of their labels, as training and measuring read them."""

    products: tuple[Product, ...]
    data: FusionData
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Class:
    label: int


def train_csv(
    sources: Sources, config: TrainConfig, *, callback: Callback, clock: Callable[[], float] = time.perf_counter
) -> TrainResult:
    """Train on the products of a CSV. Raises what `read_products` and `train_products` raise."""
    if sources.source.suffix.lower() != ".csv" or sources.labels is not None:
        raise DatasetInvalid("The recipe `fusion` reads a CSV with the columns label, designation, description, path.")
    callback.on_stage("Reading the products")

    def read(path: Path | None) -> list[Product]:
        return [] if path is None else read_products(path, limits=config.limits)

    return train_products(
        read(sources.source),
        config,
        validation=read(sources.validation),
        tests=read(sources.test),
        callback=callback,
        clock=clock,
    )


def train_products(
    products: Sequence[Product],
    config: TrainConfig,
    *,
    label_ids: Mapping[str, str] | None = None,
    validation: Sequence[Product] = (),
    tests: Sequence[Product] = (),
    inputs: Inputs = Inputs(),
    callback: Callback,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainResult:
    """Train a bundle on products, whose embeddings are computed where they are missing.

    `label_ids` has the id of each label, such as that of a category; without one the label is its own id. Without
    `validation` a share is held out. Raises RequestInvalid for an invalid config, Conflict if the bundle exists,
    DatasetInvalid for the data, ExtraMissing, TrainingDiverged.
    """
    config.check()
    encoder = encoder_graph(BUILTIN_MODELS[ENCODER].build())
    callback.on_stage("Embedding the photos")
    every, unreadable = embed_products(
        [*products, *validation, *tests], encoder, inputs.image, on_progress=callback.on_samples
    )
    own, held, tested = _split(every, len(products), len(validation), config)
    classes = tuple(sorted({product.label for product in own}))
    parts = {
        "train": _part(own, classes, inputs.text),
        "validation": _part(held, classes, inputs.text),
        "test": _part(tested, classes, inputs.text),
    }
    report = _report(parts, classes, unreadable, products)
    callback.on_report(report)
    _refuse_unlearnable(parts, classes)
    callback.on_stage("Training")
    train = parts["train"]
    options = RecipeOptions(seed=config.seed, epochs=config.epochs)
    model = fit_fusion(
        train.data, train.labels, len(classes), options=options, spec=inputs.text, on_progress=callback.on_progress
    )
    callback.on_stage("Calibrating and exporting")
    calibrations = [_calibration(model, parts["validation"], kind, config.seed) for kind in _kinds(model)]
    temperatures: dict[SampleKind, float] = {"photo": 1.0, "text": 1.0, "both": 1.0}
    temperatures |= {each.kind: each.temperature for each in calibrations if each.kind is not None}
    graph = model.export(temperatures)
    ids = label_ids or {}
    labels = tuple(Label(id=ids.get(name, name), name=name) for name in classes)

    def write(folder: Path, card: Card, evaluation: Evaluation | None = None) -> Bundle:
        return write_bundle(
            folder,
            manifest=fusion_manifest(config.name, config.version, photos=model.hidden is not None, inputs=inputs),
            labels=labels,
            card=card,
            model=graph,
            encoder=encoder if model.hidden is not None else None,
            evaluation=evaluation,
        )

    config.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.work_dir, prefix="measured-") as folder:
        callback.on_stage("Measuring the exported model")
        classifier = Classifier(write(Path(folder) / "bundle", config.texts.draft()))
        results, parity, speed = _measured(
            classifier, model, parts, classes=classes, temperatures=temperatures, clock=clock
        )
    split = Split(
        classes=classes, train=(), validation=(), test=(), validation_given=bool(validation), dropped=(), lookalikes=()
    )
    facts = data_facts(
        report,
        split,
        Hashes(train=report.sha256, validation=None, test=None),
        name=config.texts.data_name,
        fraction=config.fraction,
        seed=config.seed,
    )
    evaluation = Evaluation(
        schema_version=1,
        data=facts,
        training=TrainingFacts(
            recipe="fusion",
            seed=config.seed,
            epochs=config.epochs,
            parameters=model.parameters,
            versions={
                name: version(name) for name in ("shoplens", "numpy", "onnxruntime", *required_packages("fusion"))
            },
        ),
        calibration=calibrations[0],
        other_calibrations=tuple(calibrations[1:]),
        parts=tuple(results),
        parity=parity,
        model_bytes=len(graph) + (len(encoder) if model.hidden is not None else 0),
        speed=speed,
    )
    callback.on_stage("Writing the bundle")
    bundle = write(config.target, card_of(evaluation, config.texts), evaluation)
    return TrainResult(bundle=bundle, evaluation=evaluation, report=report)


def fusion_manifest(name: str, number: str, *, photos: bool, inputs: Inputs = Inputs()) -> Manifest:
    """`bundle.json` of a bundle of this recipe; of texts only without `photos`."""
    return Manifest(
        format_version=TEXT_FORMAT_VERSION,
        name=name,
        version=number,
        task="product-classification" if photos else "text-classification",
        input="pixels" if photos else "tokens",
        output="both" if photos else "text",
        embedding="embedding" if photos else None,
        activation="softmax",
        image=inputs.image if photos else None,
        max_batch=_MAX_BATCH,
        text=inputs.text,
    )


def _split(
    every: Sequence[Product], own: int, validation: int, config: TrainConfig
) -> tuple[list[Product], list[Product], list[Product]]:
    """The products to train, to validate and to test with, by groups: no part has a title or photo of another."""
    groups = group_products(every)
    tested, tested_groups = list(every[own + validation :]), set(groups[own + validation :])
    held = [product for product, group in zip(every[own:], groups[own : own + validation], strict=False)]
    held_groups = set(groups[own : own + validation])
    rest = [index for index in range(own) if groups[index] not in tested_groups | held_groups]
    if not validation:
        names = {label: number for number, label in enumerate(sorted({product.label for product in every}))}
        mask = held_out(
            [names[every[index].label] for index in rest],
            [groups[index] for index in rest],
            fraction=config.fraction,
            seed=config.seed,
        )
        held = [every[index] for index, holds in zip(rest, mask, strict=True) if holds]
        rest = [index for index, holds in zip(rest, mask, strict=True) if not holds]
    return [every[index] for index in rest], held, tested


def _part(products: Sequence[Product], classes: Sequence[str], spec: TextSpec) -> _Part:
    """Only what has an input and a known label; the others could neither be learned nor be answered."""
    number = {label: index for index, label in enumerate(classes)}
    size = next((len(product.embedding) for product in products if product.embedding is not None), 0)
    none = np.zeros(size, np.float32)
    texts = [features(product.text, spec) for product in products]
    kept = [
        index
        for index, (product, text) in enumerate(zip(products, texts, strict=True))
        if product.label in number and (product.embedding is not None or len(text.tokens))
    ]
    embeddings = [none if (found := products[index].embedding) is None else found for index in kept]
    return _Part(
        products=tuple(products[index] for index in kept),
        data=FusionData.of([texts[index] for index in kept], np.stack(embeddings) if size else None),
        labels=np.array([number[products[index].label] for index in kept], np.int64),
    )


def _report(
    parts: Mapping[str, _Part], classes: Sequence[str], unreadable: Sequence[UnreadableFile], source: Sequence[Product]
) -> DataReport:
    counts = {name: np.bincount(part.labels, minlength=len(classes)) for name, part in parts.items()}
    content = [
        (f"{product.name} {' '.join(photo.sha256 for photo in product.photos)}", f"{product.label}\t{product.text}")
        for product in source
    ]
    return DataReport(
        sha256=lines_digest(content),
        found=len(source),
        unreadable=tuple(unreadable),
        classes=tuple(
            ClassCount(label=label, **{name: int(found[index]) for name, found in counts.items()})
            for index, label in enumerate(classes)
        ),
        sizes=None,
        dropped=(),
        lookalikes=(),
        what="products",
    )


def _refuse_unlearnable(parts: Mapping[str, _Part], classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise DatasetInvalid(f"At least two categories are needed; there are {len(classes)}.")
    if not len(parts["validation"].labels):
        raise DatasetInvalid("No product could be held out for validation. Add products, or use --validation.")


def _kinds(model: FusionModel) -> tuple[SampleKind, ...]:
    return tuple(kind for kind in _ORDER if kind in model.kinds)


def _calibration(model: FusionModel, part: _Part, kind: SampleKind, seed: int) -> Calibration:
    mask = part.data.having(kind)
    logits, labels = model.logits(part.data, kind)[mask], part.labels[mask]
    if not np.isfinite(logits).all():
        raise TrainingDiverged("The trained model computes values that are not finite. Train with other options.")
    return Calibration(
        method="temperature scaling",
        temperature=round(fit_temperature(logits, labels), 6),
        fitted_on="validation",
        samples=len(labels),
        ece_cross_fitted=round(cross_fitted_error(logits, labels, seed=seed).ece, 6) if len(labels) > 1 else 0.0,
        kind=kind,
    )


def _measured(
    classifier: Classifier,
    model: FusionModel,
    parts: Mapping[str, _Part],
    *,
    classes: Sequence[str],
    temperatures: Mapping[SampleKind, float],
    clock: Callable[[], float],
) -> tuple[list[PartResult], Parity, Speed]:
    """The figures of each kind and part through the serving code, and how far it is from the trained model."""
    results: list[PartResult] = []
    greatest, compared, seconds, count = 0.0, 0, 0.0, 0
    for name in ("test", "validation"):
        part = parts[name]
        for kind in _kinds(model):
            rows = np.flatnonzero(part.data.having(kind))
            if not len(rows):
                continue
            logits = model.logits(part.data, kind)[rows]
            began = clock()
            scores = classifier.scores([_shown(part.products[row], kind, model.spec) for row in rows])
            seconds, count = seconds + clock() - began, count + len(rows)
            for at in np.unique(np.linspace(0, len(rows) - 1, min(PARITY_SAMPLES, len(rows))).round().astype(int)):
                greatest = max(greatest, logit_difference(scores[at], logits[at], temperatures[kind]))
                compared += 1
            result = measure(
                "test" if name == "test" else "validation",
                np.asarray(scores, np.float64),
                [_Class(int(label)) for label in part.labels[rows]],
                logits=logits,
                classes=classes,
            )
            results.append(replace(result, kind=kind))
    if not greatest <= _TOLERANCE:
        raise TrainingDiverged(f"The exported model computes other values: a logit differs by {greatest:.3g}.")
    speed = Speed(
        images_per_s=float(f"{count / max(seconds, 1e-9):.3g}"),
        threads=1,
        photos=count,
        machine=platform.machine() or "unknown",
    )
    return results, Parity(samples=compared, logit_difference=float(f"{greatest:.2g}"), tensors_equal=True), speed


def _shown(product: Product, kind: SampleKind, spec: TextSpec) -> PreparedSample:
    """What `kind` names of a product, as the server would prepare it."""
    return PreparedSample(
        text=None if kind == "photo" else features(product.text, spec),
        embedding=None if kind == "text" else product.embedding,
    )

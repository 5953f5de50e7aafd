"""The pages Models and one model: its card, measurements, preprocessing, labels and checksums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.bundles.bundle import CHECKSUMS, Bundle, read_checksums, read_plain
from shoplens.bundles.manifest import Label, ModelRef, PartResult
from shoplens.images.picture import ImageSpec
from shoplens.messages import gettext, localised, marked
from shoplens.predictions.confusion import Confusion
from shoplens.predictions.entities import Channel
from shoplens.registry.evaluation_charts import score_bands
from shoplens.registry.service import ModelService
from shoplens.registry.shadow_repository import ShadowAnswer
from shoplens.web.charts import Chart, Series, histogram, line_chart, numbers_axis, slots_axis
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

_MAX_SEARCH_CHARS = 200
_MAX_CONFUSION_CLASSES = 40
_STRONGEST = 9
_PARTS = {"test": marked("test part"), "validation": marked("validation part")}


def model_pages(
    models: ModelService, channels: Mapping[str, Channel], *, confusion: Callable[[ModelRef], Confusion]
) -> APIRouter:
    """The list, one model, and its labels for the pages that suggest labels. `confusion` is of what it did here."""
    router = page_router(dependencies=[guarded(Permission.MODELS_READ)])

    @router.get("/console/models")
    def all_models() -> HTMLResponse:
        return page(
            "models.html", views=models.all(), channels=channels, followed=models.followed(), compared=models.compared()
        )

    @router.get("/console/models/{name}/labels.json")
    def labels(name: str) -> JSONResponse:
        names = [label.name for label in models.get(name).bundle.labels]
        return JSONResponse(names, headers={"Cache-Control": "private, max-age=300"})

    @router.get("/console/models/{name}")
    def model(request: Request, name: str) -> HTMLResponse:
        view = models.get(name)
        search = request.query_params.get("q", "")[:_MAX_SEARCH_CHARS].strip()
        return page(
            "model.html",
            view=view,
            search=search,
            labels=_matching(view.bundle.labels, search),
            checksums=read_checksums(read_plain(view.bundle.root, CHECKSUMS)),
            measured=_measured(view.bundle),
            channels=[channels[channel] for channel in view.channels],
            answered=_answered(confusion(view.bundle.ref)),
        )

    return router


def _matching(labels: tuple[Label, ...], search: str) -> list[tuple[int, Label]]:
    """The labels whose name or id contains `search`, with their index in the model's output."""
    wanted = search.casefold()
    return [
        (index, label)
        for index, label in enumerate(labels)
        if wanted in label.name.casefold() or wanted == label.id.casefold()
    ]


Cell = tuple[int, float, int]
"""Of a confusion matrix: a count, its share of the row, and the strength of its colour, from 0 to 9: that of an error
is three times as strong.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What people said of a model's predictions here, as a matrix of at most 40 labels. `beyond` are in no cell of it:
    predictions of rarer labels.
    """

    confusion: Confusion
    labels: tuple[str, ...]
    cells: list[list[Cell]]
    beyond: int


def _answered(confusion: Confusion) -> Answered:
    labels = confusion.labels[:_MAX_CONFUSION_CLASSES]
    cells = _cells([[confusion.counts.get(truth, {}).get(label, 0) for label in labels] for truth in labels])
    shown = sum(count for row in cells for count, _, _ in row)
    return Answered(confusion=confusion, labels=labels, cells=cells, beyond=confusion.answered - shown)


def _cells(counts: Sequence[Sequence[int]]) -> list[list[Cell]]:
    cells: list[list[Cell]] = []
    for own, row in enumerate(counts):
        total = max(1, sum(row))
        strengths = [min(1.0, (1 if index == own else 3) * count / total) for index, count in enumerate(row)]
        cells.append(
            [
                (count, count / total, math.ceil(_STRONGEST * strength))
                for count, strength in zip(row, strengths, strict=True)
            ]
        )
    return cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The evaluation's first part for the page.

    `confusion` has the cells for each class; it is empty for more than 40 classes. `speed` is in photos per second.
    """

    part: PartResult
    confusion: list[list[Cell]]
    speed: float
    coverage: Chart | None
    scores: Chart
    reliability: Chart


def _measured(bundle: Bundle) -> Measured | None:
    if bundle.evaluation is None:
        return None
    part = bundle.evaluation.headline
    return Measured(
        part=part,
        confusion=_cells(part.confusion) if len(part.confusion) <= _MAX_CONFUSION_CLASSES else [],
        speed=bundle.evaluation.speed.images_per_s,
        coverage=_coverage_chart(part),
        scores=_score_chart(part),
        reliability=_reliability_chart(part),
    )


def _coverage_chart(part: PartResult) -> Chart | None:
    """What a threshold lets through, and how much of it is right; None with less than two thresholds."""
    points = sorted(part.thresholds, key=lambda each: each.at)
    if len(points) <= 1:
        return None
    axis = numbers_axis(
        [each.at for each in points], words=_two_digits, name="accept_at", low=points[0].at, high=points[-1].at
    )
    series = (
        Series(name=gettext("Automated"), values=[each.share for each in points]),
        Series(name=gettext("Accuracy"), values=[each.accuracy for each in points], tone="amber"),
    )
    return line_chart(gettext("Automated and accuracy by threshold"), axis, series, words=_whole_percent, top=1.0)


def _score_chart(part: PartResult) -> Chart:
    bands = score_bands(part)
    edges = [bands[0].low, *(each.high for each in bands)]
    series = [Series(name=gettext("Photos"), values=[each.share for each in bands])]
    return histogram(
        gettext("How sure the model is"),
        edges,
        series,
        words=_whole_percent,
        edge_words=_two_digits,
        name=gettext("Score"),
    )


def _reliability_chart(part: PartResult) -> Chart:
    bands = score_bands(part)
    axis = slots_axis(
        [gettext("%(low)s to %(high)s", low=_two_digits(each.low), high=_two_digits(each.high)) for each in bands],
        name=gettext("Score"),
    )
    axis = replace(axis, ticks=tuple((at, _two_digits(each.low)) for at, each in zip(axis.at, bands, strict=True))[::2])
    series = (
        Series(name=gettext("Accuracy"), values=[each.accuracy for each in bands]),
        # A band is as wide as the thresholds are apart; a calibrated model is right as often as the middle says.
        Series(name=gettext("Middle of the band"), values=[(each.low + each.high) / 2 for each in bands], tone="quiet"),
    )
    return line_chart(gettext("Reliability: how often it is right"), axis, series, words=_whole_percent, top=1.0)


def part_words(name: str) -> str:
    """A part of the data, after "of the"."""
    return gettext(_PARTS[name]) if name in _PARTS else gettext("%(name)s part", name=name)


def _two_digits(value: float) -> str:
    return localised(f"{value:.2f}")


def _whole_percent(value: float) -> str:
    return localised(f"{value:.0%}")


def preprocessing(spec: ImageSpec) -> list[str]:
    """The steps from a photo to the model's input."""
    side = gettext("%(resize)s px", resize=spec.resize)
    fit = (
        gettext("The shorter side becomes %(side)s", side=side)
        if spec.fit == "short_side"
        else gettext("Both sides become %(side)s", side=side)
    )
    steps = [f"{fit} ({spec.interpolation})."]
    if spec.jpeg_quality is not None:
        steps.append(
            gettext(
                "The photo is encoded as JPEG again with quality %(jpeg_quality)s, as in training.",
                jpeg_quality=spec.jpeg_quality,
            )
        )
    if spec.crop != spec.resize or spec.fit == "short_side":
        steps.append(gettext("Centre crop of %(crop)s × %(crop)s px.", crop=spec.crop))
    order = gettext("red, green, blue") if spec.colour == "rgb" else gettext("blue, green, red")
    steps.append(gettext("Channels in the order %(order)s, layout %(upper)s.", order=order, upper=spec.layout.upper()))
    if spec.dtype == "uint8":
        steps.append(gettext("The input is raw 8-bit values; the model normalises them."))
    else:
        steps.append(
            gettext(
                "Each value becomes (x − %(triple)s) ÷ %(triple_2)s.",
                triple=_triple(spec.mean),
                triple_2=_triple(spec.scale),
            )
        )
    return steps


def _triple(values: tuple[float, float, float]) -> str:
    first, *others = (f"{value:g}" for value in values)
    return first if all(other == first for other in others) else f"({', '.join([first, *others])})"


def shadow_address(answer: ShadowAnswer) -> str | None:
    """The page of a sample that champion and challenger answered; None where nothing of it is stored."""
    if answer.photo_id is not None:
        return f"/console/moderation/photos/{answer.photo_id}"
    if answer.product_id is not None:
        return f"/console/catalogue/products/{answer.product_id}"
    return None if answer.prediction_id is None else f"/console/records/{answer.prediction_id}"


add_filters(preprocessing, shadow_address, part_words)

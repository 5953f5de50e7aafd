"""The pages Models and one model: its card, measurements, preprocessing, labels and checksums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.bundles.bundle import CHECKSUMS, Bundle, read_checksums, read_plain
from shoplens.bundles.manifest import Label, PartResult
from shoplens.images.picture import ImageSpec
from shoplens.predictions.entities import Channel
from shoplens.registry.evaluation_charts import score_bands
from shoplens.registry.service import ModelService
from shoplens.registry.shadow_repository import ShadowAnswer
from shoplens.web.charts import Chart, Series, histogram, line_chart, numbers_axis, slots_axis
from shoplens.web.rendering import PageRoute, add_filters, page

_MAX_SEARCH_CHARS = 200
_MAX_CONFUSION_CLASSES = 40
_STRONGEST = 9


def model_pages(models: ModelService, channels: Mapping[str, Channel]) -> APIRouter:
    """The list, one model, and its label names for the pages that suggest labels."""
    router = APIRouter(route_class=PageRoute, dependencies=[guarded(Permission.MODELS_READ)])

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The evaluation's first part for the page.

    `confusion` has for each class the count of each predicted class, its share, and the strength of its colour, from 0
    to 9: that of an error is three times as strong. It is empty for more than 40 classes. `speed` is in photos per
    second.
    """

    part: PartResult
    confusion: list[list[tuple[int, float, int]]]
    speed: float
    coverage: Chart | None
    scores: Chart
    reliability: Chart


def _measured(bundle: Bundle) -> Measured | None:
    if bundle.evaluation is None:
        return None
    part = bundle.evaluation.headline
    confusion: list[list[tuple[int, float, int]]] = []
    for row in part.confusion if len(part.confusion) <= _MAX_CONFUSION_CLASSES else ():
        total = max(1, sum(row))
        own = len(confusion)
        strengths = [min(1.0, (1 if index == own else 3) * count / total) for index, count in enumerate(row)]
        confusion.append(
            [
                (count, count / total, math.ceil(_STRONGEST * strength))
                for count, strength in zip(row, strengths, strict=True)
            ]
        )
    return Measured(
        part=part,
        confusion=confusion,
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
        Series(name="Automated", values=[each.share for each in points]),
        Series(name="Accuracy", values=[each.accuracy for each in points], tone="amber"),
    )
    return line_chart("Automated and accuracy by threshold", axis, series, words=_whole_percent, top=1.0)


def _score_chart(part: PartResult) -> Chart:
    bands = score_bands(part)
    edges = [bands[0].low, *(each.high for each in bands)]
    series = [Series(name="Photos", values=[each.share for each in bands])]
    return histogram("How sure the model is", edges, series, words=_whole_percent, edge_words=_two_digits, name="Score")


def _reliability_chart(part: PartResult) -> Chart:
    bands = score_bands(part)
    axis = slots_axis([f"{each.low:.2f} to {each.high:.2f}" for each in bands], name="Score")
    axis = replace(axis, ticks=tuple((at, f"{each.low:.2f}") for at, each in zip(axis.at, bands, strict=True))[::2])
    series = (
        Series(name="Accuracy", values=[each.accuracy for each in bands]),
        # A band is as wide as the thresholds are apart; a calibrated model is right as often as the middle says.
        Series(name="Middle of the band", values=[(each.low + each.high) / 2 for each in bands], tone="quiet"),
    )
    return line_chart("Reliability: how often it is right", axis, series, words=_whole_percent, top=1.0)


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _whole_percent(value: float) -> str:
    return f"{value:.0%}"


def preprocessing(spec: ImageSpec) -> list[str]:
    """The steps from a photo to the model's input."""
    side = f"{spec.resize} px"
    fit = f"The shorter side becomes {side}" if spec.fit == "short_side" else f"Both sides become {side}"
    steps = [f"{fit} ({spec.interpolation})."]
    if spec.jpeg_quality is not None:
        steps.append(f"The photo is encoded as JPEG again with quality {spec.jpeg_quality}, as in training.")
    if spec.crop != spec.resize or spec.fit == "short_side":
        steps.append(f"Centre crop of {spec.crop} × {spec.crop} px.")
    order = "red, green, blue" if spec.colour == "rgb" else "blue, green, red"
    steps.append(f"Channels in the order {order}, layout {spec.layout.upper()}.")
    if spec.dtype == "uint8":
        steps.append("The input is raw 8-bit values; the model normalises them.")
    else:
        steps.append(f"Each value becomes (x − {_triple(spec.mean)}) ÷ {_triple(spec.scale)}.")
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


add_filters(preprocessing, shadow_address)

"""The pages Models and one model: its card, measurements, preprocessing, labels and checksums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.bundles.bundle import CHECKSUMS, Bundle, read_checksums, read_plain
from shoplens.bundles.manifest import Label, PartResult
from shoplens.images.picture import ImageSpec
from shoplens.predictions.entities import Channel
from shoplens.registry.service import ModelService
from shoplens.registry.shadow_repository import ShadowAnswer
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

    `confusion` has for each class the count of each predicted class and the strength of its colour, from 0 to 9. It
    is empty for more than 40 classes.
    """

    part: PartResult
    confusion: list[list[tuple[int, int]]]


def _measured(bundle: Bundle) -> Measured | None:
    if bundle.evaluation is None:
        return None
    part = bundle.evaluation.headline
    confusion = []
    for row in part.confusion if len(part.confusion) <= _MAX_CONFUSION_CLASSES else ():
        total = max(1, sum(row))
        confusion.append([(count, math.ceil(_STRONGEST * count / total)) for count in row])
    return Measured(part=part, confusion=confusion)


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

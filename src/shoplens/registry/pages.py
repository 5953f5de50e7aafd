"""The pages Models and one model: what answers, what it knows, how well, and on whose terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.evaluation import PartResult
from shoplens.bundles.manifest import Label
from shoplens.images.picture import ImageSpec
from shoplens.platform.server import Platform
from shoplens.web.rendering import PageRoute, add_filters, page

_LONGEST_SEARCH = 200
_LARGEST_CONFUSION = 40
_STRONGEST = 9


def model_pages(platform: Platform) -> APIRouter:
    """The list, one model, and its label names for the pages that suggest them."""
    router = APIRouter(route_class=PageRoute)

    @router.get("/console/models")
    def models() -> HTMLResponse:
        return page("models.html", views=platform.models.all())

    @router.get("/console/models/{name}/labels.json")
    def labels(name: str) -> JSONResponse:
        names = [label.name for label in platform.models.get(name).bundle.labels]
        return JSONResponse(names, headers={"Cache-Control": "private, max-age=300"})

    @router.get("/console/models/{name}")
    def model(request: Request, name: str) -> HTMLResponse:
        view = platform.models.get(name)
        search = request.query_params.get("q", "")[:_LONGEST_SEARCH].strip()
        return page(
            "model.html",
            view=view,
            search=search,
            labels=_matching(view.bundle.labels, search),
            checksums=_checksums(view.bundle),
            measured=_measured(view.bundle),
            policies={channel: platform.channels[channel].policy for channel in view.channels},
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
    """The evaluation's first part for the page. `confusion` has for each class the count of each answer, with how
    strong its colour is, from 0 (never) to 9 (always).
    """

    part: PartResult
    confusion: tuple[tuple[tuple[int, int], ...], ...]


def _measured(bundle: Bundle) -> Measured | None:
    if bundle.evaluation is None:
        return None
    part = bundle.evaluation.headline
    shown = part.confusion if len(part.confusion) <= _LARGEST_CONFUSION else ()
    return Measured(part=part, confusion=tuple(map(_coloured, shown)))


def _coloured(row: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    total = max(1, sum(row))
    return tuple((count, math.ceil(_STRONGEST * count / total)) for count in row)


def _checksums(bundle: Bundle) -> dict[str, Any]:
    """Size and SHA-256 by file name; opening the bundle has already checked the file's form."""
    sums: dict[str, Any] = orjson.loads((bundle.root / "checksums.json").read_bytes())
    return sums


def preprocessing(spec: ImageSpec) -> list[str]:
    """What happens to a photo before the model sees it, step by step."""
    side = f"{spec.resize} px"
    fit = f"The shorter side becomes {side}" if spec.fit == "short_side" else f"Both sides become {side}"
    steps = [f"{fit} ({spec.interpolation})."]
    if spec.jpeg_quality is not None:
        steps.append(f"It is encoded as JPEG again, quality {spec.jpeg_quality}, as in the model's training.")
    if spec.crop != spec.resize or spec.fit == "short_side":
        steps.append(f"The centre of {spec.crop} × {spec.crop} px is cut out.")
    order = "red, green, blue" if spec.colour == "rgb" else "blue, green, red"
    steps.append(f"Colours in the order {order}; memory layout {spec.layout.upper()}.")
    if spec.dtype == "uint8":
        steps.append("Raw 8-bit values go in; the model maps them itself.")
    else:
        steps.append(f"Each value becomes (x − {_triple(spec.mean)}) ÷ {_triple(spec.scale)}.")
    return steps


def _triple(values: tuple[float, float, float]) -> str:
    first, *others = (f"{value:g}" for value in values)
    return first if all(other == first for other in others) else f"({', '.join([first, *others])})"


add_filters(preprocessing)

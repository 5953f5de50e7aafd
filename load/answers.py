"""Judge an answer: right, a refusal that says when to come again, or a failure. No HTTP here, and no clock."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

REFUSALS: Final = frozenset({429, 503})
LONGEST_WAIT_S: Final = 30.0
Check = Callable[[bytes], Any]
"""Takes a body, returns what the journey needs of it. Raises ValueError for one that is not as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """At most one of `fault` and `wait_s` is set; `found` is what the check made of a right answer."""

    found: Any = None
    fault: str | None = None
    wait_s: float | None = None


def judge(status: int, headers: Mapping[str, str], body: bytes, *, wanted: int, check: Check) -> Judgement:
    """A refusal counts as one only if it says how long to wait; else it is a failure like any other."""
    if status in REFUSALS and (wait_s := retry_after_s(headers)) is not None:
        return Judgement(wait_s=min(wait_s, LONGEST_WAIT_S))
    if status != wanted:
        return Judgement(fault=f"{status} {_code(body)}".strip())
    try:
        return Judgement(found=check(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Judgement(fault=f"{status}, but the body is wrong: {error!r:.200}")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header; None without one, or with another form of it."""
    given = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    try:
        seconds = float(given)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def prediction(body: bytes) -> str:
    """The id of a prediction that has labels with scores."""
    answer = _object(body)
    _require(answer["labels"], "no labels")
    for each in answer["labels"]:
        _require(each["label"] and 0 <= each["score"] <= 1, f"not a label with its score: {each}")
    return _id(answer)


def feedback(body: bytes) -> str:
    """The id of a remark."""
    return _id(_object(body))


def records(body: bytes) -> dict[str, Any]:
    """A page of records, whose items may be none."""
    page = _object(body)
    for each in page["items"]:
        _id(each)
    return page


def runs(body: bytes) -> list[str]:
    """The ids of runs, newest first."""
    return [_id(each) for each in _object(body)["runs"]]


def taken_photos(body: bytes) -> list[str]:
    """The ids of the items that photos became."""
    photos = _object(body)["photos"]
    _require(photos, "no outcome")
    for each in photos:
        _require(each["item"] is not None, f"a photo was not taken: {each['code']}")
    return [_id(each["item"]) for each in photos]


def models(body: bytes) -> list[str]:
    """The names of the models that are served; at least one."""
    served = [each["name"] for each in json.loads(body) if each["served"]]
    _require(served, "no model is served")
    return served


def ready(body: bytes) -> None:
    """The server says that it is."""
    _require(_object(body)["status"] == "ready", "not ready")


def metrics(body: bytes) -> None:
    """Prometheus' text with metrics of ours."""
    _require(b"\nshoplens_" in body, "no metric of ours")


def page(body: bytes) -> None:
    """A page for people, whole."""
    _require(body.rstrip().endswith(b"</html>"), "the page is cut off")


def picture(body: bytes) -> None:
    """A JPEG."""
    _require(body.startswith(b"\xff\xd8\xff"), "no JPEG")


def _object(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    _require(isinstance(found, dict), "no JSON object")
    return dict(found)


def _id(found: Mapping[str, Any]) -> str:
    _require(isinstance(found["id"], str) and found["id"], "no id")
    return str(found["id"])


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _code(body: bytes) -> str:
    """The stable code of an error of ours, so that equal failures are counted together."""
    try:
        return str(_object(body).get("code", ""))
    except ValueError:
        return ""

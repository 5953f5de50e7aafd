"""POST /catalogue/suggest, the tree behind it, and the guide to it, over a real server."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest

from tests.acceptance.api.guides import run_guide
from tests.acceptance.catalogue_server import colour_photo
from tests.conftest import RunningServer

RED = "Colours > Red"


@pytest.mark.parametrize(
    ("designation", "photos", "kind", "path"),
    [
        ("A red jug", (), "text", RED),
        ("", ("green",), "photo", "Colours > Green"),
        ("a blue one", ("blue", "blue"), "both", "Colours > Blue"),
    ],
)
def test_a_text_a_photo_or_both_are_enough(
    paint: httpx.Client, designation: str, photos: tuple[str, ...], kind: str, path: str
) -> None:
    """As JSON with base64 and as a form: the same answer."""
    data = [colour_photo(colour, number) for number, colour in enumerate(photos)]
    encoded = [base64.b64encode(each).decode() for each in data]
    as_json = paint.post("/catalogue/suggest", json={"designation": designation, "photos": encoded})
    assert 200 == as_json.status_code, as_json.text
    found = as_json.json()
    assert (kind, path, 0, False) == (
        found["kind"], found["suggestions"][0]["path"], found["tree"], found["cold_start"]
    )  # fmt: skip
    assert 3 == len(found["suggestions"])
    assert pytest.approx(1.0) == sum(each["score"] for each in found["suggestions"])
    assert found["answer"]["score"] >= 0.55
    form = paint.post(
        "/catalogue/suggest", data={"designation": designation}, files=[("file", ("a.jpg", each)) for each in data]
        or [("file", ("", b""))],
    )  # fmt: skip
    assert found == form.json()


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        ({}, "nothing_to_categorise", "Send a title, a description or a photo"),
        ({"designation": " \u202e\u0007 <b></b> "}, "nothing_to_categorise", "Send a title"),
        ({"designation": 7}, "request_invalid", "'designation' must be a text"),
        ({"titel": "x"}, "request_invalid", "no field 'titel'"),
        ({"photos": ["no base64!"]}, "request_invalid", "not valid base64"),
        ({"photos": ["aGVsbG8="]}, "image_unsupported", ""),
        ({"designation": "x", "channel": "look"}, "no_catalogue", "'look' has no catalogue side"),
    ],
)
def test_what_cannot_be_categorised_gets_a_sentence(
    paint: httpx.Client, body: dict[str, object], code: str, sentence: str
) -> None:
    """And a code; nothing answers 500."""
    answer = paint.post("/catalogue/suggest", json=body)
    assert 400 <= answer.status_code < 500
    assert code == answer.json()["code"], answer.text
    assert sentence in answer.json()["detail"]


def test_a_title_of_a_megabyte_is_bounded(paint: httpx.Client) -> None:
    """Its beginning counts."""
    answer = paint.post("/catalogue/suggest", json={"designation": "<i>red</i> &amp; " + "x" * 1_000_000})
    assert (200, RED) == (answer.status_code, answer.json()["suggestions"][0]["path"])


def test_the_words_that_counted_are_named(paint: httpx.Client) -> None:
    """By what the score loses without each."""
    body = {
        "designation": "one red jug",
        "category": paint.get("/catalogue/categories?text=red").json()["items"][0]["id"],
    }
    words = paint.post("/catalogue/explain", json=body).json()["words"]
    assert ["one", "red", "jug"] == [each["text"] for each in words]
    assert "red" == max(words, key=lambda each: float(each["weight"]))["text"]


def test_the_guide_works_as_written(paint_server: RunningServer, paint: httpx.Client, tmp_path: Path) -> None:
    """It imports a tree of its own, for which first answers come from its names. It is the last test of this file."""
    (tmp_path / "product.jpg").write_bytes(colour_photo("red"))
    printed = run_guide("set-up-a-category-tree.md", paint_server, tmp_path)
    assert '"saved":false' in printed
    assert '"saved":true' in printed
    found = paint.post("/catalogue/suggest", json={"designation": "cast iron skillet"}).json()
    assert ("Kitchen > Frying Pans", True, True) == (
        found["suggestions"][0]["path"], found["cold_start"], found["needs_review"]
    )  # fmt: skip
    german = paint.post("/catalogue/suggest?language=de", json={"designation": "cast iron skillet"}).json()
    assert "Küche > Bratpfannen" == german["suggestions"][0]["path"]

"""POST /predict as a client sees it: every way in, every refusal, and the row behind each answer."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from shoplens.platform.server import Platform
from shoplens.predictions.api import PredictionOut
from tests.conftest import client_of, colourful, jpeg_of


def labels_of(answer: httpx.Response) -> list[tuple[str, float]]:
    """The labels of an answered request."""
    assert answer.status_code == 200, answer.text
    return [(each["label"], each["score"]) for each in answer.json()["labels"]]


async def test_every_way_in_gives_the_same_labels(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """Multipart, raw with three content types and with none, base64 and a data URL: one decoder, one answer."""
    text = base64.b64encode(photo).decode()
    answers = [
        await busy_client.post("/predict", files={"file": ("a.jpg", photo, "image/jpeg")}),
        await busy_client.post("/predict", files={"file": ("a.txt", photo, "text/plain")}),
        await busy_client.post("/predict", content=photo, headers={"content-type": "image/jpeg"}),
        await busy_client.post("/predict", content=photo, headers={"content-type": "image/png"}),
        await busy_client.post(
            "/predict", content=photo, headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        await busy_client.post("/predict", content=photo),
        await busy_client.post("/predict", json={"image": text}),
        await busy_client.post("/predict", json={"image": f"data:image/jpeg;base64,{text}"}),
    ]
    assert [labels_of(answers[0])] * len(answers) == [labels_of(answer) for answer in answers]
    assert 1 == len({answer.json()["image"]["sha256"] for answer in answers})


async def test_the_answer_has_the_documented_shape(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """Nothing is missing, nothing is added, and the facts are those of the photo."""
    answer = await busy_client.post("/predict?top_k=7", files={"file": photo})
    body = PredictionOut.model_validate_json(answer.content)
    assert 7 == len(body.labels)
    assert body.image is not None
    assert ("jpeg", 320, 240, len(photo)) == (body.image.format, body.image.width, body.image.height, body.image.bytes)
    assert ("look", "efficientnet-lite0-int8") == (body.channel, body.model.name)
    assert 0 < body.timing.inference_ms < body.timing.total_ms


async def test_an_answered_prediction_is_a_row(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """With the same labels and the same facts."""
    answered = (await busy_client.post("/predict?top_k=10", files={"file": photo})).json()
    stored = (await busy_client.get(f"/predictions/{answered['id']}")).json()
    assert [] == stored.pop("feedback")
    stored.pop("created_at")
    answered.pop("created_at")
    assert answered == stored


async def test_the_moderation_channel_decides(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """Its policy's outcome, version and threshold come with the answer."""
    body = (await busy_client.post("/predict?channel=reviews", files={"file": photo})).json()
    assert "opennsfw" == body["model"]["name"]
    assert {"safe", "nsfw"} == {each["label"] for each in body["labels"]}
    assert body["decision"]["outcome"] in {"accept", "review", "reject"}


async def test_the_decision_follows_the_shops_thresholds(make_platform: Callable[..., Platform], photo: bytes) -> None:
    """The same photo is accepted, held or refused as the shop sets its line."""
    outcomes = []
    for safe_at in ({"review_at": 0.05}, {"reject_at": 0.05}, {}):
        channels = {"reviews": {"model": "opennsfw", "labels": {"safe": safe_at, "nsfw": {}}}}
        async with client_of(make_platform(channels=channels)) as client:
            answer = (await client.post("/predict?channel=reviews", files={"file": photo})).json()
            outcomes.append(answer["decision"]["outcome"])
    assert ["review", "reject"] == outcomes[:2]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("channel=nix", 404, "channel_not_found"),
        ("top_k=0", 422, "request_invalid"),
        ("top_k=101", 422, "request_invalid"),
        ("top_k=many", 422, "request_invalid"),
        ("timeout_s=0", 422, "request_invalid"),
        ("timeout_s=nan", 422, "request_invalid"),
        ("chanel=reviews", 422, "request_invalid"),
    ],
)
async def test_an_invalid_parameter_has_an_error_code(
    busy_client: httpx.AsyncClient, photo: bytes, query: str, status: int, code: str
) -> None:
    """As problem+json with a sentence."""
    answer = await busy_client.post(f"/predict?{query}", files={"file": photo})
    problem = answer.json()
    assert (status, code, status) == (answer.status_code, problem["code"], problem["status"])
    assert "application/problem+json" == answer.headers["content-type"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_an_answer_that_is_late_says_whether_it_was_begun(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """A millisecond is too little for either."""
    answer = await busy_client.post("/predict?timeout_s=0.001", files={"file": photo})
    assert 504 == answer.status_code
    assert answer.json()["code"] in ("deadline_exceeded", "not_started")


async def test_a_misspelled_parameter_is_refused_with_the_name_that_was_meant(client: httpx.AsyncClient) -> None:
    """Another channel's answer would be taken for that of the one that was asked."""
    answer = await client.post("/predict?chanel=reviews", content=b"")
    assert "There is no parameter 'chanel' here (did you mean 'channel'?)." == answer.json()["detail"]
    answer = await client.get("/predictions.csv?since=2026-01-01&utnil=2026-02-01")
    assert (422, "request_invalid") == (answer.status_code, answer.json()["code"])
    assert 200 == (await client.get("/metrics?name=x")).status_code


BODIES: dict[str, tuple[dict[str, Any], int, str]] = {
    "nothing at all": ({"content": b""}, 422, "image_missing"),
    "an empty file": ({"files": {"file": b""}}, 422, "image_missing"),
    "a form without the field": ({"files": {"photo": b"x"}}, 422, "image_missing"),
    "json without the field": ({"json": {"photo": "x"}}, 422, "image_missing"),
    "json that is a list": ({"json": ["x"]}, 422, "image_missing"),
    "json with a number": ({"json": {"image": 5}}, 422, "image_missing"),
    "broken json": ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "request_invalid"),
    "broken base64": ({"json": {"image": "%%%"}}, 422, "request_invalid"),
    "base64 beyond ascii": ({"json": {"image": "é"}}, 422, "request_invalid"),
    "html as jpg": ({"files": {"file": ("a.jpg", b"<html></html>", "image/jpeg")}}, 415, "image_unsupported"),
    "svg": ({"content": b'<svg xmlns="http://www.w3.org/2000/svg"/>'}, 415, "image_unsupported"),
    "a form without boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        422,
        "request_invalid",
    ),
    "a form that is none": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        422,
        "request_invalid",
    ),
    "a form cut off": (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        422,
        "image_missing",
    ),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_refused_by_a_code(busy_client: httpx.AsyncClient, name: str) -> None:
    """Never with a 500."""
    request, status, code = BODIES[name]
    answer = await busy_client.post("/predict", **request)
    assert (status, code) == (answer.status_code, answer.json()["code"])


@pytest.fixture
async def small_limits(make_platform: Callable[..., Platform]) -> AsyncIterator[httpx.AsyncClient]:
    """A server that takes 20 kB and 0.1 megapixels."""
    async with client_of(make_platform(max_image_bytes=20_000, max_image_pixels=100_000)) as client:
        yield client


async def test_too_many_bytes_are_413_in_every_form(small_limits: httpx.AsyncClient) -> None:
    """With and without an announced length, framed and encoded."""
    large = jpeg_of(colourful(1, width=320, height=300), quality=100) + bytes(100_000)

    async def in_chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 1_000):
            yield large[start : start + 1_000]

    answers = [
        await small_limits.post("/predict", content=large),
        await small_limits.post("/predict", content=in_chunks()),
        await small_limits.post("/predict", files={"file": large}),
        await small_limits.post("/predict", json={"image": base64.b64encode(large).decode()}),
        await small_limits.post("/predict", json={"image": base64.b64encode(bytes(21_000)).decode()}),
    ]
    assert [(413, "image_too_large")] * 5 == [(each.status_code, each.json()["code"]) for each in answers]


async def test_too_many_pixels_are_413(small_limits: httpx.AsyncClient) -> None:
    """The header says so; the file itself is small."""
    buffer = io.BytesIO()
    Image.new("1", (400, 300)).save(buffer, "PNG")
    answer = await small_limits.post("/predict", content=buffer.getvalue())
    assert (413, "image_too_many_pixels") == (answer.status_code, answer.json()["code"])


async def test_a_form_may_have_other_fields_and_quoted_names(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """The photo is the field called file, wherever it stands."""
    answer = await busy_client.post("/predict", data={"note": "x" * 1_000}, files={"file": ('a"b\n.jpg', photo)})
    assert 200 == answer.status_code


async def test_nothing_is_kept_where_the_channel_says_so(make_platform: Callable[..., Platform], photo: bytes) -> None:
    """The row is there, the photo is not."""
    async with client_of(make_platform(channels={"look": {"keep": "nothing"}})) as client:
        body = (await client.post("/predict", files={"file": photo})).json()
        answer = await client.get(f"/predictions/{body['id']}/image")
    assert (404, "image_not_kept") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("keep", ["original", "thumbnail"])
async def test_kept_photos_are_shown_without_metadata(make_platform: Callable[..., Platform], keep: str) -> None:
    """The thumbnail and the view carry no EXIF; the original is byte for byte what was sent, where it was kept."""
    exif = Image.Exif()
    exif[0x010F] = "SecretCam"
    photo = jpeg_of(colourful(5, width=1_000, height=600), exif=exif.tobytes())
    assert b"SecretCam" in photo
    async with client_of(make_platform(channels={"look": {"keep": keep}})) as client:
        path = f"/predictions/{(await client.post('/predict', files={'file': photo})).json()['id']}/image"
        small, view = await client.get(f"{path}?size=thumbnail"), await client.get(path)
        original = await client.get(f"{path}?size=original")
    for answer in (small, view):
        assert "image/jpeg" == answer.headers["content-type"]
        assert b"SecretCam" not in answer.content
    assert (256, 154) == Image.open(io.BytesIO(small.content)).size
    assert (original.content == photo) is (keep == "original")
    assert "sandbox" in original.headers["content-security-policy"] or original.status_code == 404


async def test_feedback_lands_in_the_csv(client: httpx.AsyncClient, photo: bytes) -> None:
    """With the image's path, the prediction and what was said; formulas are disarmed."""
    made = (await client.post("/predict", files={"file": photo})).json()
    said = {"prediction_id": made["id"], "label": "=cmd|x", "comment": 'a "dog",\nreally'}
    answer = await client.post("/feedback", json=said)
    assert 201 == answer.status_code
    assert 201 == (await client.post("/feedback", json={"prediction_id": made["id"]})).status_code
    rows = list(csv.DictReader(io.StringIO((await client.get("/feedback.csv")).text, newline="")))
    assert ["'=cmd|x", ""] == sorted((row["right_label"] for row in rows), reverse=True)
    first = next(row for row in rows if row["right_label"])
    assert 'a "dog",\nreally' == first["comment"]
    assert (made["labels"][0]["label"], "wrong") == (first["predicted_label"], first["verdict"])
    assert made["image"]["sha256"] in first["image_path"]
    stored = (await client.get(f"/predictions/{made['id']}")).json()
    assert 2 == len(stored["feedback"])


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"prediction_id": "0" * 26}, 404, "prediction_not_found"),
        ({"prediction_id": "nix"}, 404, "prediction_not_found"),
        ({}, 422, "request_invalid"),
        ({"prediction_id": "0" * 26, "label": "x" * 201}, 422, "request_invalid"),
        ({"prediction_id": "0" * 26, "surprise": 1}, 422, "request_invalid"),
        ({"prediction_id": "0" * 26, "verdict": "maybe"}, 422, "request_invalid"),
    ],
)
async def test_bad_feedback_is_refused(
    busy_client: httpx.AsyncClient, said: dict[str, Any], status: int, code: str
) -> None:
    """With the code that fits."""
    answer = await busy_client.post("/feedback", json=said)
    assert (status, code) == (answer.status_code, answer.json()["code"])


async def test_a_full_queue_is_429_with_the_time_to_come_back(make_platform: Callable[..., Platform]) -> None:
    """At once, while those that were accepted are answered."""
    photo = jpeg_of(colourful(1, width=1_600, height=1_200))
    async with client_of(make_platform(queue_limit=1, threads=1)) as client:
        answers = await asyncio.gather(*(client.post("/predict", content=photo) for _ in range(20)))
    assert {200, 429} == {answer.status_code for answer in answers}
    for answer in answers:
        if answer.status_code == 429:
            assert "queue_full" == answer.json()["code"]
            assert int(answer.headers["retry-after"]) >= 1


async def test_more_bodies_than_memory_is_given_for_are_429(make_platform: Callable[..., Platform]) -> None:
    """Two uploads that announce more than fits together: one is accepted, one gets 429."""
    photo = jpeg_of(colourful(1))
    limits = {"max_image_bytes": len(photo), "max_queued_bytes": len(photo) + 100}
    accepted, refused = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield photo[:100]
        accepted.set()
        await refused.wait()
        yield photo[100:]

    headers = {"content-length": str(len(photo))}
    async with client_of(make_platform(**limits)) as client:
        first = asyncio.create_task(client.post("/predict", content=slowly(), headers=headers))
        await asyncio.wait_for(accepted.wait(), 60)
        second = await client.post("/predict", content=photo)
        refused.set()
        third = (await first, await client.post("/predict", content=photo))
    assert (429, "queue_full") == (second.status_code, second.json()["code"])
    assert [200, 200] == [answer.status_code for answer in third]


async def test_an_upload_that_does_not_arrive_is_408(make_platform: Callable[..., Platform]) -> None:
    """And its memory is given back."""

    async def never() -> AsyncIterator[bytes]:
        yield b"\xff\xd8"
        await asyncio.sleep(30)

    async with client_of(make_platform(upload_idle_s=0.2)) as client:
        answer = await client.post("/predict", content=never(), headers={"content-length": "1000"})
    assert (408, "upload_too_slow") == (answer.status_code, answer.json()["code"])


async def test_what_callers_make_up_makes_no_series(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """A thousand paths, channels, ids, labels, methods and file names: the metrics have as many series as before."""

    async def series() -> int:
        lines = (await busy_client.get("/metrics")).text.splitlines()
        return sum(not line.startswith("#") for line in lines)

    async def ask(name: str) -> None:
        remark = {"prediction_id": name, "verdict": "wrong", "label": name}
        answers = (
            await busy_client.get(f"/nothing/{name}", params={name: name}),
            await busy_client.get(f"/predictions/{name}"),
            await busy_client.post("/predict", params={"channel": name}, content=photo),
            await busy_client.post("/feedback", json=remark, headers={"X-Request-ID": name}),
            await busy_client.request(name.replace("-", ""), "/predict"),
        )
        assert {404, 405, 422} >= {answer.status_code for answer in answers}

    await ask("first-0")
    await busy_client.post("/predict", files={"file": ("first.jpg", photo)})
    await series()  # which is a request, too
    before = await series()
    for number in range(200):
        await ask(f"other-{number}")
    for number in range(5):
        await busy_client.post("/predict", files={"file": (f"anna-{number}.jpg", photo)})
    assert before == await series()

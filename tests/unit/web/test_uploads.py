"""Receiving uploads: every form of body, every limit, and what is given back afterwards."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from starlette.requests import Request

from shoplens.errors import ImageMissing, ImageTooLarge, QueueFull, RequestInvalid, UploadTooSlow
from shoplens.web.uploads import FORM_FRAMING_BYTES, Uploads

PHOTO = b"\xff\xd8photo\r\n--not the boundary\r\n\xff\xd9"
FORM = "multipart/form-data; boundary=b"


def request(
    chunks: Iterable[bytes], content_type: str = "", *, length: int | None = None, stalls: bool = False
) -> Request:
    """A request whose body arrives in `chunks`; one that `stalls` never ends."""
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if not waiting and stalls:
            await asyncio.sleep(60)
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting) or stalls}

    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return Request({"type": "http", "headers": headers}, receive)


def part(name: str, value: bytes, *, filename: str | None = "a.jpg") -> bytes:
    """One part of a form with the boundary `b`."""
    of_file = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode() + value + b"\r\n"


def in_pieces(body: bytes, size: int) -> list[bytes]:
    """`body` cut into pieces of `size` bytes."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def uploads(**limits: Any) -> Uploads:
    """A receiver for photos up to 1,000 bytes."""
    return Uploads(**{"max_image_bytes": 1_000, "max_queued_bytes": 300_000, "timeout_s": 5.0, **limits})


async def received(given: Request, receiver: Uploads | None = None) -> bytes:
    """The photo in a request."""
    async with (receiver or uploads()).photo(given) as photo:
        return photo


@pytest.mark.parametrize("piece", [1, 7, 1_000])
async def test_every_form_of_body_carries_the_same_photo(piece: int) -> None:
    """However the body is cut into packets."""
    form = part("note", b"x" * 50, filename=None) + part("file", PHOTO) + b"--b--\r\n"
    text = base64.b64encode(PHOTO).decode()
    requests = [
        request(in_pieces(PHOTO, piece)),
        request(in_pieces(PHOTO, piece), "image/png"),
        request(in_pieces(form, piece), FORM),
        request(in_pieces(orjson.dumps({"image": text}), piece), "application/json"),
        request(in_pieces(orjson.dumps({"image": f"data:image/jpeg;base64,{text}"}), piece), "Application/JSON; a=b"),
    ]
    assert [PHOTO] * 5 == [await received(each) for each in requests]


async def test_the_first_file_of_a_form_is_the_photo() -> None:
    """Later ones and other fields are ignored."""
    form = part("other", b"no") + part("file", b"one") + part("file", b"two") + b"--b--\r\n"
    assert b"one" == await received(request([form], FORM))


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (part("photo", PHOTO) + b"--b--\r\n", FORM, ImageMissing),
        (part("file", b"text", filename=None) + b"--b--\r\n", FORM, ImageMissing),
        (part("file", PHOTO)[:-10], FORM, ImageMissing),
        (b"no form", FORM, RequestInvalid),
        (b"", "multipart/form-data", RequestInvalid),
        (part("x", b"") * 101 + b"--b--\r\n", FORM, RequestInvalid),
        (b"{", "application/json", RequestInvalid),
        (b"[]", "application/json", ImageMissing),
        (b'{"image": 1}', "application/json", ImageMissing),
        (b'{"image": "%%%"}', "application/json", RequestInvalid),
    ],
)
async def test_a_body_without_a_photo_is_refused(body: bytes, content_type: str, error: type[Exception]) -> None:
    """With the error that says what is missing."""
    with pytest.raises(error):
        await received(request([body], content_type))


async def test_an_announced_length_above_the_limit_is_refused_unread() -> None:
    """The error names both sizes."""
    large = request([], length=32_700_000)
    with pytest.raises(ImageTooLarge, match=r"This photo is 32\.7 MB\. The limit is 1 kB\."):
        await received(large)


@pytest.mark.parametrize("content_type", ["", FORM, "application/json"])
async def test_an_unannounced_body_is_counted_while_it_arrives(content_type: str) -> None:
    """Reading stops at the limit."""
    chunks = (b"x" * 10_000 for _ in range(1_000))
    endless = request(chunks, content_type)
    if content_type == FORM:
        endless = request([part("file", b"x" * 100_000), *[b"x" * 10_000] * 100], FORM)
    with pytest.raises(ImageTooLarge):
        await received(endless)


async def test_a_photo_above_the_limit_is_refused_in_a_form_and_in_json() -> None:
    """Where the framing alone would have left room for it."""
    form = part("file", b"x" * 1_001) + b"--b--\r\n"
    json = orjson.dumps({"image": base64.b64encode(b"x" * 1_001).decode()})
    for given in (request([form], FORM), request([json], "application/json")):
        with pytest.raises(ImageTooLarge, match="larger than the limit of 1 kB"):
            await received(given)


async def test_bodies_beyond_the_memory_limit_are_refused_until_one_is_done() -> None:
    """The memory is taken until the photo is no longer needed, and given back after failures too."""
    receiver = uploads(max_queued_bytes=1_500)
    async with receiver.photo(request([PHOTO], length=1_000)):
        with pytest.raises(QueueFull) as refused:
            await received(request([PHOTO], length=600), receiver)
    assert 0 < refused.value.retry_after_s
    with pytest.raises(RequestInvalid):
        await received(request([b"no form"], FORM, length=1_400), receiver)
    assert PHOTO == await received(request([PHOTO], length=1_400), receiver)


async def test_a_body_without_a_length_reserves_the_most_that_it_may_have() -> None:
    """So that bodies which do not announce their size cannot exceed the memory limit together."""
    receiver = uploads(max_queued_bytes=1_000 + FORM_FRAMING_BYTES)
    async with receiver.photo(request([PHOTO])):
        with pytest.raises(QueueFull):
            await received(request([PHOTO], length=100), receiver)


async def test_a_body_that_does_not_arrive_in_time_is_refused() -> None:
    """Its memory is given back."""
    receiver = uploads(timeout_s=0.05, max_queued_bytes=1_000)
    with pytest.raises(UploadTooSlow, match=r"timed out after 0\.05 s"):
        await received(request([b"\xff\xd8"], length=1_000, stalls=True), receiver)
    assert PHOTO == await received(request([PHOTO], length=1_000), receiver)


async def test_a_form_has_files_and_fields() -> None:
    """Files keep their order and names."""
    body = part("order", b"4711", filename=None) + part("file", b"1", filename="a") + part("file", b"2", filename="b")
    async with uploads().form(request([body, b"--b--\r\n"], FORM), max_bytes=9_999, max_files=5, max_fields=2) as form:
        assert [("a", b"1"), ("b", b"2")] == [(each.filename, await each.read()) for each in form.files]
        assert {"order": "4711"} == form.fields


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_bytes": 100}, ImageTooLarge),
        ({"max_files": 1}, RequestInvalid),
        ({"max_fields": 0}, RequestInvalid),
    ],
)
async def test_a_form_beyond_its_limits_is_refused(limits: dict[str, int], error: type[Exception]) -> None:
    """Bytes, files and fields are each limited."""
    body = part("order", b"4711", filename=None) + part("file", b"1") + part("file", b"2") + b"--b--\r\n"
    with pytest.raises(error):
        async with uploads().form(
            request([body], FORM), **{"max_bytes": 999, "max_files": 9, "max_fields": 9, **limits}
        ):
            pass


async def test_at_most_four_forms_are_received_at_once() -> None:
    """The fifth gets 429."""
    receiver, started, finish = uploads(), asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> None:
        async with receiver.form(request([b"--b--\r\n"], FORM), max_bytes=999, max_files=1, max_fields=1):
            started.release()
            await finish.wait()

    held = [asyncio.create_task(hold()) for _ in range(4)]
    for _ in held:
        await started.acquire()
    with pytest.raises(QueueFull):
        await hold()
    finish.set()
    await asyncio.gather(*held)
    await hold()

"""Receiving uploads: every form of body, every limit, and what is given back afterwards."""

from __future__ import annotations

import asyncio
import base64
import random
import time
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from starlette.datastructures import Headers
from starlette.requests import Request

from shoplens.errors import (
    BodyUnsupported,
    ImageMissing,
    ImageTooLarge,
    QueueFull,
    RequestInvalid,
    UploadTooSlow,
)
from shoplens.web.bodies import RequestBody, UploadPace, require_utf_8
from shoplens.web.uploads import FORM_FRAMING_BYTES, Uploads, photo_in_json, texts_in_json

PHOTO = b"\xff\xd8photo\r\n--not the boundary\r\n\xff\xd9"
PACE = UploadPace(idle_s=5.0, least_rate=1_000)
FORM = "multipart/form-data; boundary=b"


def request(
    chunks: Iterable[bytes],
    content_type: str = "",
    *,
    length: int | None = None,
    stalls: bool = False,
    client: str = "192.0.2.1",
    pace: UploadPace = PACE,
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
    scope: dict[str, Any] = {"type": "http", "headers": headers, "client": (client, 1)}
    body = RequestBody(receive, Headers(scope=scope), pace)
    return Request(scope | {"state": {"body": body}}, body.receive)


def part(name: str, value: bytes, *, filename: str | None = "a.jpg") -> bytes:
    """One part of a form with the boundary `b`."""
    of_file = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode() + value + b"\r\n"


def in_pieces(body: bytes, size: int) -> list[bytes]:
    """`body` cut into pieces of `size` bytes."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def uploads(**limits: Any) -> Uploads:
    """A receiver for photos up to 1,000 bytes."""
    return Uploads(**{"max_image_bytes": 1_000, "max_queued_bytes": 300_000, **limits})


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
    receiver = uploads(max_queued_bytes=1_000)
    impatient = UploadPace(idle_s=0.05, least_rate=1_000)
    with pytest.raises(UploadTooSlow, match=r"a pause of more than 0\.05 s, or less than 1 kB per second"):
        await received(request([b"\xff\xd8"], length=1_000, stalls=True, pace=impatient), receiver)
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


async def test_at_most_four_forms_of_an_address_are_received_at_once() -> None:
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


async def test_one_address_cannot_take_all_forms_and_bytes() -> None:
    """What it may not hold is left to the others."""
    receiver = uploads(max_queued_bytes=200_000)
    async with AsyncExitStack() as held:
        for _ in range(4):
            form = request([b"--b--\r\n"], FORM)
            await held.enter_async_context(receiver.form(form, max_bytes=999, max_files=1, max_fields=1))
        with pytest.raises(QueueFull, match="from your address"):
            await held.enter_async_context(
                receiver.form(request([b"--b--\r\n"], FORM), max_bytes=999, max_files=1, max_fields=1)
            )
        other = request([b"--b--\r\n"], FORM, client="192.0.2.2")
        await held.enter_async_context(receiver.form(other, max_bytes=999, max_files=1, max_fields=1))
        await held.enter_async_context(receiver.photo(request([PHOTO], length=60_000)))
        with pytest.raises(QueueFull, match="from your address"):
            await received(request([PHOTO], length=60_000), receiver)
        assert PHOTO == await received(request([PHOTO], length=60_000, client="192.0.2.2"), receiver)


async def test_an_address_may_begin_so_many_uploads_per_minute() -> None:
    """The next one learns how long to wait; other addresses are not affected."""
    receiver = uploads(uploads_per_minute=3)
    for _ in range(3):
        await received(request([PHOTO]), receiver)
    with pytest.raises(QueueFull, match="3 uploads per minute") as refused:
        await received(request([PHOTO]), receiver)
    assert 19 < refused.value.retry_after_s <= 20
    assert PHOTO == await received(request([PHOTO], client="192.0.2.2"), receiver)


async def test_a_slow_body_is_taken_as_long_as_it_keeps_the_least_rate() -> None:
    """However long it takes in all: the pace is what counts."""

    async def arriving(piece: bytes, every_s: float) -> bytes:
        pieces = iter([piece] * 20)

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(every_s)
            body = next(pieces, None)
            return {"type": "http.request", "body": body or b"", "more_body": body is not None}

        scope: dict[str, Any] = {"type": "http", "headers": []}
        body = RequestBody(receive, Headers(scope=scope), UploadPace(idle_s=1.0, least_rate=200))
        return await received(Request(scope | {"state": {"body": body}}, body.receive), uploads())

    assert 800 == len(await arriving(b"x" * 40, 0.1))  # 400 bytes per second, for 2 s
    with pytest.raises(UploadTooSlow):
        await arriving(b"x" * 4, 0.1)  # 40 bytes per second


@pytest.mark.parametrize("written", [lambda text: text, lambda text: text.replace("/", "\\/")])
@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_a_long_json_document_is_decoded_in_pieces(written: Callable[[str], str], prefix: str) -> None:
    """Whatever falls on the edge of a piece: slashes that PHP escapes, and padding."""
    for extra in range(4):
        photo = random.Random(extra).randbytes(1_000_000 + extra)
        text = written(base64.b64encode(photo).decode())
        for document in (f'{{"image":"{prefix}{text}"}}', f' {{ "image" : "{prefix}{text}" }}\n'):
            assert photo == photo_in_json(document.encode())


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b'{"image":' + b"[" * 500_000 + b"]" * 500_000 + b"}", ImageMissing),
        (b"[" * 1_000_000, ImageMissing),
        (b" " * 1_000_000, ImageMissing),
        (b'{"image":"x",' + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}", RequestInvalid),
        (b'{"image":"' + b"AAAA" * 100_000 + b'","image":"' + b"AAAA" * 100_000 + b'"}', RequestInvalid),
        (b'{"image":"' + b"AAAA" * 100_000, RequestInvalid),
        (b'{"image":"' + b"AAAA" * 100_000 + b'="}', RequestInvalid),
        (b'{"image":"' + b"AAA=" * 100_000 + b'"}', RequestInvalid),
        (b'{"image":"' + b"AAA=" * 65_536 + b"AAAA" * 65_536 + b'"}', RequestInvalid),
        (b'{"image":"' + b"AAA=" + b"AAAA" * 65_536 + b'"}', RequestInvalid),
        (b'{"image":"' + b"\\n" * 200_000 + b'"}', RequestInvalid),
    ],
)
def test_a_long_json_document_of_another_form_is_refused_unparsed(document: bytes, error: type[Exception]) -> None:
    """In a moment, whatever it holds."""
    began = time.thread_time()
    with pytest.raises(error):
        photo_in_json(document)
    assert time.thread_time() - began < 0.1


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b'{"photos":' + b"[" * 5_000_000, "not a JSON object"),
        (b'{"photos":[' + b",".join([b"[]"] * 2_000_000) + b"]}", "at most 10"),
        (b'{"photos":[' + b",".join([b'"ab"'] * 1_000_000) + b"]}", "at most 10"),
        (b"{" + b",".join(b'"%x":1' % number for number in range(500_000)) + b"}", "no field '0'"),
        (b'{"' + b"ab" * 3_000_000 + b'":1}', "no field"),
        (b'{"designation":"' + "\N{OK HAND SIGN}".encode() + b"a" * 6_000_000 + b'"}', "more than 5,000,000 bytes"),
    ],
    ids=["nested", "lists", "texts", "fields", "name", "title"],
)
def test_json_with_texts_never_becomes_many_objects(document: bytes, sentence: str) -> None:
    """A product of six megabytes costs a moment and hardly any memory, whatever it holds."""
    tracemalloc.start()
    try:
        began = time.thread_time()
        with pytest.raises(RequestInvalid, match=sentence) as refused:
            texts_in_json(document, fields=frozenset({"designation", "description"}), most=10)
        assert time.thread_time() - began < 0.2
        assert tracemalloc.get_traced_memory()[1] < 3 * len(document)
        assert len(str(refused.value)) < 400
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=b; charset=punycode",
        'Multipart/Form-Data; Charset = "utf-7"; boundary=b',
        "application/x-www-form-urlencoded; charset=idna",
        "application/json;charset=utf-16",
        "multipart/form-data; charset=utf-8; charset=zlib_codec",
    ],
)
def test_forms_and_json_in_other_encodings_are_refused(content_type: str) -> None:
    """Before anything of them is read."""
    with pytest.raises(BodyUnsupported):
        require_utf_8(Headers({"content-type": content_type}))


@pytest.mark.parametrize(
    "content_type", ["", FORM, "application/json; charset=UTF-8", "image/jpeg; charset=binary", "text/plain; charset=x"]
)
def test_utf_8_and_photos_of_any_type_are_taken(content_type: str) -> None:
    """The type of a photo is not read at all."""
    require_utf_8(Headers({"content-type": content_type}))

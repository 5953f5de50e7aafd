"""The messages between web processes and workers: jobs, replies and heartbeats, each with a version.

The outer part of a message (version, id, where the reply goes, deadline) keeps its form in all versions, so that each
side can refuse the other with a sentence. What is inside belongs to one version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shoplens.errors import QueueFull, ShoplensError, WireMismatch
from shoplens.serving.engine import MAX_PHOTOS, MAX_TEXT_CHARACTERS, ClassifyRequest, ClassifyResult, ServedModel

VERSION: Final = 3
MAX_REPLY_BYTES: Final = 4_000_000

_Name = Annotated[str, Meta(max_length=300)]
_Text = Annotated[str, Meta(max_length=10_000)]


class DecodeError(ValueError):
    """Bytes that are not a message."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know of a request, beside its photos and its deadline.

    `sizes` are the bytes of each photo; in the envelope they lie one after the other. `traceparent` is the trace that
    the request belongs to. A side that does not know a field ignores it.
    """

    model: _Name
    top_k: Annotated[int, Meta(ge=1, le=1_000_000)]
    thumbnail: bool
    sha256: _Name | None
    request_id: _Name | None = None
    also: Annotated[tuple[_Name, ...], Meta(max_length=100)] = ()
    measure: bool = False
    embed: bool = False
    text: Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)] = ""
    sizes: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=MAX_PHOTOS)] = ()
    traceparent: _Name | None = None

    def request(self, photos: bytes, *, timeout_s: float) -> ClassifyRequest:
        """The request as the engine of a worker gets it. Raises DecodeError if `photos` has another size."""
        ends = list(accumulate(self.sizes, initial=0))
        if ends[-1] != len(photos):
            raise DecodeError(f"not a job: its photos have {len(photos)} bytes, not {ends[-1]}")
        return ClassifyRequest(
            model=self.model,
            images=tuple(photos[start:end] for start, end in pairwise(ends)),
            text=self.text,
            top_k=self.top_k,
            timeout_s=timeout_s,
            thumbnail=self.thumbnail,
            sha256=self.sha256,
            also=self.also,
            measure=self.measure,
            embed=self.embed,
        )


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an entry in a stream, the same in every version.

    `deadline_ms` is by the clock of Redis, `reply_to` the list for the reply, `job` an encoded Job of this version, and
    `image` the bytes of its photos.
    """

    version: int
    job_id: str
    reply_to: str
    deadline_ms: int
    job: bytes
    image: bytes


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one job."""

    job_id: str
    outcome: ClassifyResult | ShoplensError


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself every second. `models` are by the name under which requests ask for them."""

    worker_id: _Name
    host: _Name
    pid: int
    models: dict[_Name, ServedModel]
    version: int = VERSION

    @property
    def is_understood(self) -> bool:
        """Whether the worker uses the same version of the messages as this process."""
        return self.version == VERSION


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    code: _Name
    text: _Text
    retry_after_s: float | None


class _ReplyHeader(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    job_id: _Name


class _ReplyFrame(_ReplyHeader, frozen=True, kw_only=True):
    result: ClassifyResult | None = None
    failure: _Failure | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_job: Final = msgspec.msgpack.Decoder(Job).decode
_decode_header: Final = msgspec.msgpack.Decoder(_ReplyHeader).decode
_decode_frame: Final = msgspec.msgpack.Decoder(_ReplyFrame).decode
_decode_heartbeat: Final = msgspec.msgpack.Decoder(Heartbeat).decode


def encode_job(request: ClassifyRequest, *, request_id: str | None = None, traceparent: str | None = None) -> bytes:
    """Everything of a request but its photos and its deadline."""
    return _encode(
        Job(
            model=request.model,
            top_k=request.top_k,
            thumbnail=request.thumbnail,
            sha256=request.sha256,
            request_id=request_id,
            traceparent=traceparent,
            also=request.also,
            measure=request.measure,
            embed=request.embed,
            text=request.text,
            sizes=tuple(map(len, request.images)),
        )
    )


def decode_job(encoded: bytes) -> Job:
    """The reverse. Raises DecodeError."""
    try:
        return _decode_job(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a job: {error}") from error


def decode_envelope(fields: Mapping[bytes, bytes]) -> Envelope:
    """The envelope in the fields of a stream entry, of any version. Raises DecodeError."""
    try:
        return Envelope(
            version=int(fields[b"v"]),
            job_id=fields[b"id"].decode(),
            reply_to=fields[b"to"].decode(),
            deadline_ms=int(fields[b"by"]),
            job=fields[b"job"],
            image=fields[b"image"],
        )
    except (KeyError, ValueError) as error:
        raise DecodeError(f"not an envelope: {error!r}") from error


def encode_reply(reply: Reply) -> bytes:
    """A reply as it is sent to the process that waits for it."""
    outcome = reply.outcome
    if isinstance(outcome, ShoplensError):
        failure = _Failure(
            code=outcome.code,
            text=str(outcome)[:10_000],
            retry_after_s=outcome.retry_after_s if isinstance(outcome, QueueFull) else None,
        )
        return _encode(_ReplyFrame(version=VERSION, job_id=reply.job_id, failure=failure))
    return _encode(_ReplyFrame(version=VERSION, job_id=reply.job_id, result=outcome))


def decode_reply(encoded: bytes) -> Reply:
    """The reverse; a reply of another version has WireMismatch as its outcome. Raises DecodeError."""
    try:
        if len(encoded) > MAX_REPLY_BYTES:
            raise DecodeError(f"not a reply: {len(encoded)} bytes")
        header = _decode_header(encoded)
        if header.version != VERSION:
            mismatch = WireMismatch(
                f"A worker replies in version {header.version} of the messages, and this process reads version "
                f"{VERSION}. Install the same release on both."
            )
            return Reply(job_id=header.job_id, outcome=mismatch)
        frame = _decode_frame(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a reply: {error}") from error
    if (failure := frame.failure) is not None:
        kind = _BY_CODE.get(failure.code, ShoplensError)
        more = {"retry_after_s": failure.retry_after_s or 1.0} if issubclass(kind, QueueFull) else {}
        return Reply(job_id=frame.job_id, outcome=kind(failure.text, **more))
    if frame.result is None or not frame.result.prediction.labels:
        raise DecodeError("not a reply: it has neither a result nor an error")
    return Reply(job_id=frame.job_id, outcome=frame.result)


def wrong_version(version: int) -> WireMismatch:
    """What a worker replies to a job of another version than its own."""
    return WireMismatch(
        f"The web server sends jobs in version {version} of the messages, and this worker reads version {VERSION}. "
        "Install the same release on both."
    )


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """A heartbeat as it lies in Redis."""
    return _encode(heartbeat)


def decode_heartbeats(encoded: list[bytes]) -> tuple[Heartbeat, ...]:
    """Those that can be read; others are left out, since a newer release may write them differently."""
    found: list[Heartbeat] = []
    for each in encoded:
        try:
            found.append(_decode_heartbeat(each))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return tuple(found)


def _kinds(kind: type[ShoplensError]) -> Iterator[type[ShoplensError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


_BY_CODE: Final = {kind.code: kind for kind in _kinds(ShoplensError)}

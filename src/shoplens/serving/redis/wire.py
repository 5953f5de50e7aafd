"""The messages between web and worker: jobs and answers as bytes, with a version that both sides look at first.

The envelope of a message (its version, its id, where the answer goes, its time) keeps its form in all versions, so that
each side can refuse the other politely. What is inside belongs to one version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import QueueFull, ShoplensError, WireMismatch
from shoplens.images.picture import ImageFacts
from shoplens.serving.engine import ClassifyRequest, ClassifyResult
from shoplens.serving.prediction import LabelScore, Prediction

VERSION: Final = 1
_HEADER_SIZE_BYTES: Final = 4


class Garbage(ValueError):
    """Bytes that are no message of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A job as it lies in a stream. `by_ms` is its deadline by the clock of Redis; `to` the list for its answer."""

    version: int
    job_id: str
    to: str
    by_ms: int
    byte_count: int
    body: bytes
    image: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of one job."""

    job_id: str
    outcome: ClassifyResult | ShoplensError


def job_body(job: ClassifyRequest) -> bytes:
    """Everything of a job but its photo and its time."""
    body = {"model": job.model, "top_k": job.top_k, "thumbnail": job.thumbnail, "sha256": job.sha256}
    return orjson.dumps(body)


def job_of(envelope: Envelope, *, timeout_s: float) -> ClassifyRequest:
    """The job in an envelope of our version. Raises Garbage."""
    try:
        body = orjson.loads(envelope.body)
        job = ClassifyRequest(
            model=_text(body["model"]),
            image=envelope.image,
            top_k=int(body["top_k"]),
            timeout_s=timeout_s,
            thumbnail=bool(body["thumbnail"]),
            sha256=None if body["sha256"] is None else _text(body["sha256"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Garbage(f"no job: {error!r}") from error
    if job.top_k < 1:
        raise Garbage("no job: top_k is less than 1")
    return job


def envelope_of(fields: dict[bytes, bytes]) -> Envelope:
    """The envelope in the fields of a stream entry, of whatever version. Raises Garbage."""
    try:
        image = fields[b"image"]
        return Envelope(
            version=int(fields[b"v"]),
            job_id=fields[b"id"].decode(),
            to=fields[b"to"].decode(),
            by_ms=int(fields[b"by"]),
            byte_count=len(image),
            body=fields[b"body"],
            image=image,
        )
    except (KeyError, ValueError) as error:
        raise Garbage(f"no envelope: {error!r}") from error


def reply_bytes(reply: Reply) -> bytes:
    """A frame: the size of the header, the header as JSON, and the thumbnail where there is one."""
    thumbnail = b""
    header: dict[str, Any] = {"v": VERSION, "id": reply.job_id}
    if isinstance(reply.outcome, ShoplensError):
        header["error"] = _error_parts(reply.outcome)
    else:
        header["answer"] = _answer_parts(reply.outcome)
        thumbnail = reply.outcome.thumbnail or b""
    text = orjson.dumps(header)
    return b"".join((len(text).to_bytes(_HEADER_SIZE_BYTES, "big"), text, thumbnail))


def reply_of(frame: bytes) -> Reply:
    """The reply in a frame; one of another version becomes WireMismatch for its job. Raises Garbage."""
    try:
        at = _HEADER_SIZE_BYTES + int.from_bytes(frame[:_HEADER_SIZE_BYTES], "big")
        header = orjson.loads(frame[_HEADER_SIZE_BYTES:at])
        job_id = _text(header["id"])
        if header["v"] != VERSION:
            return Reply(job_id=job_id, outcome=_mismatch(header["v"]))
        if "error" in header:
            return Reply(job_id=job_id, outcome=_error(header["error"]))
        return Reply(job_id=job_id, outcome=_answer(header["answer"], frame[at:] or None))
    except (KeyError, TypeError, ValueError) as error:
        raise Garbage(f"no reply: {error!r}") from error


def refusal(envelope: Envelope) -> Reply:
    """What a worker says to a job of another version than its own."""
    error = WireMismatch(
        f"The web server sends jobs in version {envelope.version}, and this worker reads version {VERSION}. "
        "Bring both to the same release."
    )
    return Reply(job_id=envelope.job_id, outcome=error)


def _mismatch(version: object) -> ShoplensError:
    return WireMismatch(
        f"A worker answers in version {version}, and this web server reads version {VERSION}. "
        "Bring both to the same release."
    )


def _answer_parts(answer: ClassifyResult) -> dict[str, Any]:
    return {
        "model": asdict(answer.prediction.model),
        "labels": [(each.label, each.score) for each in answer.prediction.labels],
        "image": asdict(answer.image),
        "seconds": (answer.queue_s, answer.pixels_s, answer.inference_s),
    }


def _answer(parts: Any, thumbnail: bytes | None) -> ClassifyResult:
    queue_s, pixels_s, inference_s = parts["seconds"]
    return ClassifyResult(
        prediction=Prediction(
            model=ModelRef(**parts["model"]),
            labels=tuple(LabelScore(label, score) for label, score in parts["labels"]),
        ),
        image=ImageFacts(**parts["image"]),
        thumbnail=thumbnail,
        queue_s=queue_s,
        pixels_s=pixels_s,
        inference_s=inference_s,
    )


def _error_parts(error: ShoplensError) -> dict[str, Any]:
    wait_s = error.retry_after_s if isinstance(error, QueueFull) else None
    return {"code": error.code, "text": str(error), "retry_after_s": wait_s}


def _error(parts: Any) -> ShoplensError:
    text = _text(parts["text"])
    kind = _BY_CODE.get(parts["code"], ShoplensError)
    if issubclass(kind, QueueFull):
        return kind(text, retry_after_s=float(parts["retry_after_s"]))
    return kind(text)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _kinds(kind: type[ShoplensError]) -> Iterator[type[ShoplensError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


_BY_CODE: Final = {kind.code: kind for kind in _kinds(ShoplensError)}

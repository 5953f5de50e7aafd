"""The messages between web processes and workers come back as they were sent; anything else is a DecodeError."""

from __future__ import annotations

from dataclasses import fields

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import ImageCorrupt, QueueFull, ShoplensError, WireMismatch
from shoplens.images.picture import ImageFacts, Measurements
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, LabelScore, Prediction
from shoplens.serving.redis import messages
from shoplens.serving.redis.messages import DecodeError, Heartbeat, Reply

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SECONDS = st.floats(0, 1e6)
REQUESTS = st.builds(
    ClassifyRequest,
    model=TEXTS,
    images=st.lists(st.binary(max_size=50), max_size=3).map(tuple),
    text=TEXTS,
    top_k=st.integers(1, 1000),
    timeout_s=st.just(1.0),
    thumbnail=st.booleans(),
    sha256=st.none() | TEXTS,
    also=st.lists(TEXTS, max_size=3).map(tuple),
    measure=st.booleans(),
    embed=st.booleans(),
)
PREDICTIONS = st.builds(
    Prediction,
    model=st.builds(ModelRef, name=TEXTS, version=TEXTS),
    labels=st.lists(st.builds(LabelScore, TEXTS, st.floats(0, 1)), min_size=1, max_size=5).map(tuple),
    kind=st.sampled_from(["photo", "text", "both"]),
)
MEASUREMENTS = st.builds(
    Measurements,
    fingerprint=st.binary(max_size=400),
    **{each.name: SECONDS for each in fields(Measurements) if each.name != "fingerprint"},
)
FACTS = st.builds(
    ImageFacts,
    format=TEXTS,
    width=st.integers(1, 10**5),
    height=st.integers(1, 10**5),
    byte_count=st.integers(1, 10**9),
    sha256=TEXTS,
    phash=TEXTS,
)
RESULTS = st.builds(
    ClassifyResult,
    prediction=PREDICTIONS,
    images=st.lists(FACTS, max_size=3).map(tuple),
    thumbnail=st.none() | st.binary(min_size=1, max_size=50),
    queue_s=SECONDS,
    pixels_s=SECONDS,
    inference_s=SECONDS,
    others=st.lists(PREDICTIONS, max_size=2).map(tuple),
    measurements=st.none() | MEASUREMENTS,
    embedding=st.none() | st.binary(min_size=2, max_size=50),
)


def entry(**changes: bytes) -> dict[bytes, bytes]:
    """The fields of a good stream entry, but for these."""
    good = {b"v": b"3", b"id": b"7", b"to": b"a", b"by": b"5", b"job": b"", b"image": b"photo"}
    return good | {name.encode(): value for name, value in changes.items()}


@UNHURRIED
@given(REQUESTS)
def test_a_request_comes_back_as_it_was_sent(request: ClassifyRequest) -> None:
    """With its photos from the envelope and the time that is left."""
    job = messages.decode_job(messages.encode_job(request))
    assert request == job.request(b"".join(request.images), timeout_s=1.0)


def test_a_job_carries_the_id_of_its_request() -> None:
    """So that the logs of web process and worker can be joined."""
    request = ClassifyRequest(model="m", top_k=1, timeout_s=1.0)
    assert messages.decode_job(messages.encode_job(request, request_id="r-1")).request_id == "r-1"


def test_workers_with_and_without_traces_read_each_others_jobs() -> None:
    """The field came later, in the same version of the messages: one side ignores it, the other does without it."""
    wanted = ClassifyRequest(model="m", images=(b"photo",), top_k=1, timeout_s=1.0)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    new = messages.encode_job(wanted, request_id="r", traceparent=parent)
    assert parent == messages.decode_job(new).traceparent
    fields_of_new = msgspec.msgpack.decode(new)
    older = {name: value for name, value in fields_of_new.items() if name != "traceparent"}
    assert None is messages.decode_job(msgspec.msgpack.encode(older)).traceparent
    read = messages.decode_job(msgspec.msgpack.encode(fields_of_new | {"of_a_later_release": 1}))
    assert wanted == read.request(b"photo", timeout_s=1.0)


@UNHURRIED
@given(RESULTS)
def test_a_result_comes_back_as_it_was_sent(result: ClassifyResult) -> None:
    """To the last digit."""
    reply = Reply(job_id="7", outcome=result)
    assert reply == messages.decode_reply(messages.encode_reply(reply))


@pytest.mark.parametrize(
    "error", [ImageCorrupt("It ends too early."), QueueFull("Full.", retry_after_s=1.5), ShoplensError("Anything.")]
)
def test_an_error_comes_back_with_its_class(error: ShoplensError) -> None:
    """With its sentence, and how long to wait."""
    back = messages.decode_reply(messages.encode_reply(Reply(job_id="7", outcome=error))).outcome
    assert (type(error), str(error)) == (type(back), str(back))
    assert getattr(error, "retry_after_s", None) == getattr(back, "retry_after_s", None)


def test_a_reply_of_another_version_becomes_an_error_for_its_job() -> None:
    """What is in it is not looked at."""
    newer = msgspec.msgpack.encode({"version": messages.VERSION + 1, "job_id": "7", "result": {"anything": 1}})
    reply = messages.decode_reply(newer)
    assert ("7", WireMismatch) == (reply.job_id, type(reply.outcome))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xff\xff",
        msgspec.msgpack.encode({"version": messages.VERSION, "job_id": "7"}),
        msgspec.msgpack.encode({"version": messages.VERSION, "job_id": 7, "failure": None}),
        msgspec.msgpack.encode({"version": messages.VERSION, "job_id": "7" * 1000}),
        bytes(messages.MAX_REPLY_BYTES + 1),
    ],
    ids=["empty", "not msgpack", "neither result nor error", "wrong type", "long id", "too long"],
)
def test_what_is_not_a_reply_raises_decode_error(encoded: bytes) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(DecodeError):
        messages.decode_reply(encoded)


@UNHURRIED
@given(st.binary(max_size=60))
def test_random_bytes_raise_decode_error_and_nothing_else(encoded: bytes) -> None:
    """As a reply and as a job."""
    with pytest.raises(DecodeError):
        messages.decode_reply(encoded)
    with pytest.raises(DecodeError):
        messages.decode_job(encoded)


def test_a_job_with_values_out_of_bounds_raises_decode_error() -> None:
    """`top_k` is at least 1."""
    job = msgspec.msgpack.encode({"model": "m", "top_k": 0, "thumbnail": False, "sha256": None})
    with pytest.raises(DecodeError, match="top_k"):
        messages.decode_job(job)


@pytest.mark.parametrize("missing", [b"v", b"id", b"to", b"by", b"job", b"image"])
def test_an_entry_without_one_of_its_fields_raises_decode_error(missing: bytes) -> None:
    """Whatever its version."""
    incomplete = entry()
    del incomplete[missing]
    with pytest.raises(DecodeError):
        messages.decode_envelope(incomplete)


def test_a_heartbeat_that_cannot_be_read_is_left_out() -> None:
    """A newer release may write it differently; fields that were added are ignored."""
    heartbeat = Heartbeat(worker_id="w", host="h", pid=1, models={})
    longer = msgspec.msgpack.encode({**msgspec.to_builtins(heartbeat), "added": 1})
    assert (heartbeat,) == messages.decode_heartbeats([b"nonsense", longer])

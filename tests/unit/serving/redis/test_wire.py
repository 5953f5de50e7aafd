"""The messages between web and worker: they come back as they were sent, and garbage is told as such."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import ImageCorrupt, QueueFull, ShoplensError
from shoplens.images.picture import ImageFacts
from shoplens.serving.engine import ClassifyRequest, ClassifyResult
from shoplens.serving.prediction import LabelScore, Prediction
from shoplens.serving.redis import wire

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SECONDS = st.floats(0, 1e6)
JOBS = st.builds(
    ClassifyRequest,
    model=TEXTS,
    image=st.binary(max_size=50),
    top_k=st.integers(1, 1000),
    timeout_s=st.just(1.0),
    thumbnail=st.booleans(),
    sha256=st.none() | TEXTS,
)
ANSWERS = st.builds(
    ClassifyResult,
    prediction=st.builds(
        Prediction,
        model=st.builds(ModelRef, name=TEXTS, version=TEXTS),
        labels=st.lists(st.builds(LabelScore, TEXTS, st.floats(0, 1)), min_size=1, max_size=5).map(tuple),
    ),
    image=st.builds(
        ImageFacts,
        format=TEXTS,
        width=st.integers(1, 10**5),
        height=st.integers(1, 10**5),
        byte_count=st.integers(1, 10**9),
        sha256=TEXTS,
        phash=TEXTS,
    ),
    thumbnail=st.none() | st.binary(min_size=1, max_size=50),
    queue_s=SECONDS,
    pixels_s=SECONDS,
    inference_s=SECONDS,
)


def envelope(**changes: bytes) -> dict[bytes, bytes]:
    """The fields of a good entry, but for these."""
    fields = {b"v": b"1", b"id": b"7", b"to": b"a", b"by": b"5", b"body": b"{}", b"image": b"photo"}
    return fields | {name.encode(): value for name, value in changes.items()}


@given(JOBS)
def test_a_job_comes_back_as_it_was_sent(job: ClassifyRequest) -> None:
    """Its photo beside it, its time from the envelope."""
    fields = envelope(body=wire.job_body(job), image=job.image)
    assert job == wire.job_of(wire.envelope_of(fields), timeout_s=1.0)


@given(ANSWERS)
def test_an_answer_comes_back_as_it_was_sent(answer: ClassifyResult) -> None:
    """To the last digit."""
    assert wire.Reply(job_id="7", outcome=answer) == wire.reply_of(
        wire.reply_bytes(wire.Reply(job_id="7", outcome=answer))
    )


@pytest.mark.parametrize(
    "error", [ImageCorrupt("It ends too early."), QueueFull("Full.", retry_after_s=1.5), ShoplensError("Anything.")]
)
def test_an_error_comes_back_as_what_it_was(error: ShoplensError) -> None:
    """Its class, its sentence, and how long to wait."""
    back = wire.reply_of(wire.reply_bytes(wire.Reply(job_id="7", outcome=error))).outcome
    assert (type(error), str(error)) == (type(back), str(back))
    assert getattr(error, "retry_after_s", None) == getattr(back, "retry_after_s", None)


@given(st.binary(max_size=60))
def test_no_bytes_can_do_more_than_be_no_reply(frame: bytes) -> None:
    """Garbage, and nothing else, is raised."""
    with pytest.raises(wire.Garbage):
        wire.reply_of(frame)


@given(st.binary(max_size=60))
def test_no_body_can_do_more_than_be_no_job(body: bytes) -> None:
    """The same."""
    with pytest.raises(wire.Garbage):
        wire.job_of(wire.envelope_of(envelope(body=body)), timeout_s=1.0)


@pytest.mark.parametrize("missing", [b"v", b"id", b"to", b"by", b"body", b"image"])
def test_an_entry_without_one_of_its_fields_is_no_envelope(missing: bytes) -> None:
    """Whatever its version."""
    fields = envelope()
    del fields[missing]
    with pytest.raises(wire.Garbage):
        wire.envelope_of(fields)

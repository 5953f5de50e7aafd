"""Traces: off by default, bounded, and nobody is held up by a receiver that is away."""

from __future__ import annotations

import contextvars
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from servers.otlp import OtlpReceiver, running_receiver
from shoplens.errors import ExtraMissing, ImageCorrupt, Misconfigured
from shoplens.telemetry.tracing import (
    FirstSpans,
    linked_span,
    past_span,
    resume,
    span,
    trace,
    traceparent,
    tracing,
)

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """Where this process sends traces."""
    with running_receiver() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.url)
        yield started


def test_a_server_without_traces_imports_nothing_that_makes_them() -> None:
    """The SDK and the exporter take a third of a second."""
    probe = (
        "import sys, shoplens.cli.serve, shoplens.web.app, shoplens.platform.workers\n"
        "print(*[name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    assert "" == done.stdout.strip()


def test_without_traces_a_span_is_nothing() -> None:
    """The same object for all, and no id to pass on."""
    with trace("request", parent=PARENT) as block, span("part"):
        assert traceparent() is None
    assert block is span("other") is FirstSpans(9).span("item") is resume("job", PARENT, waited_s=1.0)


def test_a_part_belongs_to_the_trace_that_it_runs_in(receiver: OtlpReceiver) -> None:
    """One outside a trace is none, so that what runs in the background makes no traces; a failure has its code."""
    with tracing(on=True, service="shop"):
        with span("nowhere"):
            assert traceparent() is None
        with pytest.raises(ImageCorrupt), trace("request", {"kind": "test"}, kind="server"), span("part"):
            past_span("wait", 2.0)
            raise ImageCorrupt("The photo of Anna is damaged.")
    spans = {each.name: each for each in receiver.spans}
    assert {"request", "part", "wait"} == spans.keys()
    request, part, wait = spans["request"], spans["part"], spans["wait"]
    assert ("", request.id, part.id) == (request.parent, part.parent, wait.parent)
    assert 2.0 == pytest.approx((wait.ended_ns - wait.started_ns) / 1e9, abs=0.01)
    assert [("image_corrupt", True)] * 2 == [(each.attributes["error.type"], each.failed) for each in (request, part)]
    assert ("shop", "test") == (request.service, request.attributes["kind"])
    assert "Anna" not in str(spans)


def test_of_very_many_parts_the_first_are_traced(receiver: OtlpReceiver) -> None:
    """With all that is in them, and nothing of what is in the others."""
    with tracing(on=True, service="shop"), trace("run"):
        first = FirstSpans(2)
        for _ in range(5):
            with first.span("item"), span("part"):
                pass
    assert ["item", "item", "part", "part", "run"] == sorted(each.name for each in receiver.spans)


def test_work_for_several_traces_has_a_link_to_each(receiver: OtlpReceiver) -> None:
    """As a batch on a GPU has; a request without a trace adds none, and without any there is no span."""
    contexts = [contextvars.copy_context()]
    with tracing(on=True, service="shop"):
        with linked_span("batch of nobody", contexts):
            pass
        for name in ("one", "two"):
            with trace(name):
                contexts.append(contextvars.copy_context())
                with linked_span("batch", contexts):
                    pass
    batches = [each for each in receiver.spans if each.name == "batch"]
    requests = [(each.trace, each.id) for each in receiver.spans if each.name in {"one", "two"}]
    assert [requests[:1], requests[1:]] == [list(each.links) for each in batches]
    assert "batch of nobody" not in {each.name for each in receiver.spans}


@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "hangs"])
def test_a_receiver_that_is_away_holds_up_nobody(
    answers: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Spans are dropped, one line says so, and the process ends within seconds."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        if not answers:
            deaf.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:secret@127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        started = time.monotonic()
        with tracing(on=True, service="shop"):
            for _ in range(3_000):
                with trace("request"):
                    pass
            while "tracing.receiver_away" not in caplog.text and time.monotonic() < started + 20:
                time.sleep(0.02)
            ending = time.monotonic()
        assert 10.0 > time.monotonic() - ending
    assert 1 == caplog.text.count("tracing.receiver_away")
    assert 1 == len(caplog.records), caplog.text
    assert "secret" not in caplog.text


def test_traces_without_their_extra_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ExtraMissing, match=r"\[otel\]"), tracing(on=True, service="shop"):
        pass


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces would go nowhere, and nobody would notice."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(Misconfigured, match="4318"), tracing(on=True, service="shop"):
        pass

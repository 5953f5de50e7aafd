"""Traces with OpenTelemetry (extra `otel`): what became of a request, from HTTP through queue and worker to its row.

Off by default, and then nothing of OpenTelemetry is imported by this module and `span` does nothing. A trace begins
where work enters a process: `trace` in the HTTP middleware, a worker's job, a run, a webhook. `span` is for the parts
of that work and does nothing outside a trace, so that background work makes none. Exceptions are noted by their code,
never by their text, which may name files or people.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, cast

import structlog

import shoplens
from shoplens.advice import how_to_install
from shoplens.errors import ExtraMissing, Misconfigured
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.secrets import shown_address

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

TRACEPARENT: Final = "TRACEPARENT"
"""The variable in which a process that is started finds the trace that it belongs to."""
_DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_PROTOCOL: Final = "http/protobuf"
_LEAST_WAIT_S: Final = 0.001
_CLOSE_S: Final = 3.0
"""How long a process that ends tries to send its last spans."""
_log: Final = get_logger(__name__)


class Block(Protocol):
    """What is traced while the block runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None: ...

    def note(self, attributes: Attributes, *, name: str | None = None, error: str | None = None) -> None:
        """Add what became known meanwhile; `error` marks it as failed, by a code."""
        ...


class _Nothing:
    """A block that is not traced. There is one for all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, attributes: Attributes, *, name: str | None = None, error: str | None = None) -> None:
        """See Block."""


_NOTHING: Final = _Nothing()
_tracing: _Tracing | None = None


def is_tracing() -> bool:
    """Whether this process makes traces."""
    return _tracing is not None


def span(name: str, attributes: Attributes | None = None, *, kind: Kind = "internal") -> Block:
    """Time the block as a part of the trace that it runs in. Does nothing outside a trace, and while tracing is off."""
    return _NOTHING if _tracing is None else _tracing.part(name, attributes, kind)


def trace(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    link: str | None = None,
) -> Block:
    """Begin a trace with the block, or continue that of `parent`, a `traceparent` of the W3C. Lines that are logged in
    it have its `trace_id`.

    `link` is another one, of what the block is done for later and perhaps more than once: the traces stay apart, as
    OpenTelemetry's conventions for messages have it.
    """
    return _NOTHING if _tracing is None else _tracing.begin(name, attributes, kind, parent, link=link)


def resume(name: str, parent: str | None, *, waited_s: float, attributes: Attributes | None = None) -> Block:
    """Continue the trace of a message that waited so long in a queue; nothing for a message without one."""
    if _tracing is None or parent is None:
        return _NOTHING
    return _tracing.begin(name, attributes, "consumer", parent, waited_s=waited_s)


def untraced() -> Block:
    """A block that begins no trace."""
    return _NOTHING


def past_span(name: str, seconds: float, attributes: Attributes | None = None) -> None:
    """Note a part of the trace that has just ended and took so long: a wait, which no block could hold.

    One under a millisecond is left out: every photo would pay for a span that says nothing.
    """
    if _tracing is not None and seconds >= _LEAST_WAIT_S:
        _tracing.note_past(name, seconds, attributes)


def linked_span(name: str, contexts: Sequence[contextvars.Context], attributes: Attributes | None = None) -> Block:
    """Time a block that works for several traces at once, such as a batch: a trace of its own with a link to each."""
    return _NOTHING if _tracing is None else _tracing.begin_for(name, contexts, attributes)


def traceparent() -> str | None:
    """The trace that this code runs in, as the W3C writes it in headers and messages."""
    return None if _tracing is None else _tracing.traceparent()


class FirstSpans:
    """Spans for the first `limit` parts of work that may have very many: nothing inside the others is traced."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def span(self, name: str, attributes: Attributes | None = None) -> Block:
        """See `span`."""
        if _tracing is None:
            return _NOTHING
        self._left -= 1
        return _tracing.part(name, attributes, "internal") if self._left >= 0 else _tracing.outside()


@contextmanager
def tracing(*, on: bool, service: str) -> Iterator[None]:
    """Make traces while the block runs if `on`, and send them as the standard variables OTEL_… say.

    `service` is the service's name unless they have one. At the end the last spans are sent, for `_CLOSE_S` at most.
    Raises ExtraMissing, and Misconfigured for a protocol that is not supported.
    """
    global _tracing  # noqa: PLW0603  one for the process, as its log is
    if not on:
        yield
        return
    provider = _provider(service)
    _tracing = _Tracing(provider)
    try:
        yield
    finally:
        end_tracing()


def end_tracing() -> None:
    """Make no more traces in this process, and send the last spans, for `_CLOSE_S` at most. Blocks.

    A server calls it before it ends by a signal, which no block survives.
    """
    global _tracing
    ended, _tracing = _tracing, None
    if ended is not None:
        # A receiver that is away, or takes packets and never answers, holds up nobody.
        closing = threading.Thread(target=ended.provider.shutdown, name="end-tracing", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


def _provider(service: str) -> TracerProvider:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "", _PROTOCOL}:
        raise Misconfigured(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, and traces are sent by {_PROTOCOL} only. Remove it, and name "
            "the HTTP port of the receiver, usually 4318, in OTEL_EXPORTER_OTLP_ENDPOINT."
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ExtraMissing(f"The setting tracing needs the extra `otel`. {how_to_install('otel')}") from error
    import logging

    resource = Resource.create({SERVICE_VERSION: shoplens.__version__})
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = _QuietExporter(OTLPSpanExporter())
    provider.add_span_processor(BatchSpanProcessor(cast("SpanExporter", exporter)))
    # It logs every failed attempt, with a traceback, and every span that its bounded queue drops.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    return provider


class _QuietExporter:
    """Sends spans; says once that the receiver is away, and once that it is back. What could not be sent is lost."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter. Called by one thread."""
        result = self._exporter.export(spans)
        if result.name == "SUCCESS":
            if self._lost:
                _log.info("tracing.receiver_back", spans_lost=self._lost)
            self._lost = 0
            return result
        if not self._lost:
            _log.warning("tracing.receiver_away", endpoint=_endpoint(), detail="Spans are dropped until it answers.")
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """See SpanExporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See SpanExporter."""
        return self._exporter.force_flush(timeout_millis)


def _endpoint() -> str:
    named = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return shown_address(named or _DEFAULT_ENDPOINT)


class _Tracing:
    """The tracer of this process and what it needs of OpenTelemetry, which is imported by now."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.provider = provider
        self._tracer = provider.get_tracer("shoplens", shoplens.__version__)
        self._context = context
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._none = context.Context()
        self._kinds = {kind.name.lower(): kind for kind in trace.SpanKind}

    def part(self, name: str, attributes: Attributes | None, kind: Kind) -> Block:
        """A child of the current span, if that is recorded."""
        if not self._trace.get_current_span().is_recording():
            return _NOTHING
        started = self._tracer.start_span(name, kind=self._kinds[kind], attributes=attributes)
        return _SpanBlock(self, started, is_entry=False)

    def begin(
        self,
        name: str,
        attributes: Attributes | None,
        kind: Kind,
        parent: str | None,
        *,
        waited_s: float | None = None,
        link: str | None = None,
    ) -> Block:
        """The first span of this process in its trace, after one for the wait in a queue."""
        context = self._context_of(parent)
        if waited_s is not None:
            self._note_past("wait in queue", waited_s, context, None)
        linked = self._trace.get_current_span(self._context_of(link)).get_span_context()
        links = [self._trace.Link(linked)] if linked.is_valid else []
        started = self._tracer.start_span(name, context, kind=self._kinds[kind], attributes=attributes, links=links)
        return _SpanBlock(self, started, is_entry=True)

    def _context_of(self, sent: str | None) -> Context:
        """That of a `traceparent`; none of what is none."""
        return self._none if sent is None else self._propagator.extract({"traceparent": sent}, self._none)

    def begin_for(self, name: str, contexts: Sequence[contextvars.Context], attributes: Attributes | None) -> Block:
        """A span of its own with a link to each trace that is recorded among `contexts`."""
        spans = [each.copy().run(self._trace.get_current_span) for each in contexts]
        links = [self._trace.Link(each.get_span_context()) for each in spans if each.is_recording()]
        if not links:
            return _NOTHING
        started = self._tracer.start_span(name, self._none, links=links, attributes=attributes)
        return _SpanBlock(self, started, is_entry=False)

    def note_past(self, name: str, seconds: float, attributes: Attributes | None) -> None:
        """A child of the current span that ends now."""
        if self._trace.get_current_span().is_recording():
            self._note_past(name, seconds, None, attributes)

    def _note_past(self, name: str, seconds: float, context: Context | None, attributes: Attributes | None) -> None:
        now_ns = time.time_ns()
        began_ns = now_ns - int(max(0.0, seconds) * 1e9)
        self._tracer.start_span(name, context, attributes=attributes, start_time=began_ns).end(now_ns)

    def outside(self) -> Block:
        """A block outside every trace."""
        return _SpanBlock(self, self._trace.INVALID_SPAN, is_entry=False)

    def traceparent(self) -> str | None:
        """See `traceparent`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    def enter(self, entered: Span) -> Any:
        """Make it the current span; what it returns is for `leave`."""
        return self._context.attach(self._trace.set_span_in_context(entered))

    def leave(self, token: Any) -> None:
        """The reverse of `enter`."""
        self._context.detach(token)

    def mark_failed(self, failed: Span, error: str) -> None:
        """By a code: the texts of errors may name files or people."""
        failed.set_attribute("error.type", error)
        failed.set_status(self._trace.StatusCode.ERROR)


class _SpanBlock:
    """See Block. With `is_entry` what is logged in it has the id of the trace."""

    __slots__ = ("_fields", "_is_entry", "_span", "_token", "_tracing")

    def __init__(self, tracing: _Tracing, started: Span, *, is_entry: bool) -> None:
        self._tracing = tracing
        self._span = started
        self._is_entry = is_entry
        self._token: Any = None
        self._fields: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        self._token = self._tracing.enter(self._span)
        if self._is_entry:
            trace_id = f"{self._span.get_span_context().trace_id:032x}"
            self._fields = structlog.contextvars.bind_contextvars(trace_id=trace_id)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _at: object, /) -> None:
        if error is not None:
            code = getattr(error, "code", None)
            self._tracing.mark_failed(self._span, code if isinstance(code, str) else type(error).__qualname__)
        if self._fields:
            structlog.contextvars.reset_contextvars(**self._fields)
        self._tracing.leave(self._token)
        self._span.end()

    def note(self, attributes: Attributes, *, name: str | None = None, error: str | None = None) -> None:
        """See Block."""
        self._span.set_attributes(attributes)
        if name is not None:
            self._span.update_name(name)
        if error is not None:
            self._tracing.mark_failed(self._span, error)

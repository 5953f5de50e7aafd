"""A receiver of traces: OTLP over HTTP, as a collector, Jaeger or Tempo speak it. Keeps the spans that it was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """One span, its ids in hex. `parent` is empty for the first span of a trace."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    failed: bool


class OtlpReceiver:
    """The spans so far, of all processes that send here."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[ReceivedSpan] = []

    def wait_for(self, holds: Callable[[list[ReceivedSpan]], object]) -> list[ReceivedSpan]:
        """All spans, once `holds` is true of them. Fails with what is there when that takes too long."""
        give_up_at = time.monotonic() + _WITHIN_S
        while not holds(spans := list(self.spans)):
            assert time.monotonic() < give_up_at, [(each.service, each.name, each.attributes) for each in spans]
            time.sleep(0.05)
        return spans

    def keep(self, body: bytes) -> None:
        """Add the spans of one request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for each in (span for scope in resource.scope_spans for span in scope.spans):
                self.spans.append(
                    ReceivedSpan(
                        service=service,
                        name=each.name,
                        trace=each.trace_id.hex(),
                        id=each.span_id.hex(),
                        parent=each.parent_span_id.hex(),
                        started_ns=each.start_time_unix_nano,
                        ended_ns=each.end_time_unix_nano,
                        attributes=_values(each.attributes),
                        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in each.links),
                        failed=each.status.code == 2,
                    )
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def running_receiver() -> Iterator[OtlpReceiver]:
    """One on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.keep(self.rfile.read(int(self.headers["Content-Length"])))
            body = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = OtlpReceiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

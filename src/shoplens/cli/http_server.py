"""The HTTP server: uvicorn, with a protocol that wakes the application once per megabyte and not once per packet.

A photo arrives in many pieces. uvicorn hands each to the application and stops reading in between; for a photo of
900 kB that costs more than parsing the request. Here pieces gather, uncopied, until there is a megabyte or the end.
"""

from __future__ import annotations

from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

WAKE_BYTES: Final = 1_000_000


def http_server(app: Any, *, shutdown_s: float) -> uvicorn.Server:
    """A server for `app` that, when it stops, finishes what it accepted for up to `shutdown_s`."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        loop="auto",
        http=UploadProtocol,
        ws="none",
        timeout_graceful_shutdown=int(shutdown_s),
    )
    return uvicorn.Server(config)


class UploadProtocol(HttpToolsProtocol):
    """At most `WAKE_BYTES` and one read wait for the application; reading stops until it takes them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Called by the parser with each piece of the body."""
        if self.parser.should_upgrade() or self.cycle.response_complete:
            return
        self._pieces.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes >= WAKE_BYTES:
            self._hand_over()
            self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Called by the parser at the end of the request."""
        self._hand_over()
        super().on_message_complete()

    def _hand_over(self) -> None:
        """What has gathered becomes the body that the application receives next."""
        if self._pieces and not self.cycle.response_complete:
            taken = bytes(self.cycle.body)
            self.cycle.body = b"".join([taken, *self._pieces])  # type: ignore[assignment]  # only its bytes are read
        self._pieces = []
        self._waiting_bytes = 0

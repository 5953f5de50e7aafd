"""Bound what a connection may hold before its request is complete: bytes, seconds, and how many connections there are.

uvicorn bounds neither the bytes nor the time of a request's head, and never closes a connection that sends nothing.
Its parameter `http` takes any protocol class, so `BoundedConnection` stands between the socket and uvicorn's own
protocol, counts, and passes everything on. Decision 24 has the comparison with other servers.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import ip_address, ip_network
from typing import Any, Final, cast

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shoplens.telemetry.logs import get_logger
from shoplens.web.bodies import content_length
from shoplens.web.middleware import MAX_HEADER_BYTES

HEAD_S: Final = 10.0
"""How long a client may take for a head, and for what is left of a body that was refused."""

_SLICE_BYTES: Final = 16 * 1024
_UNREAD_BYTES: Final = 20_000_000
_LOGGED_EVERY_S: Final = 10.0
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CHUNK_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,15}")
_UPGRADE: Final = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
_HEAD_STARTS: Final = frozenset(
    bytes([letter]) for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r\n"
)
"""What is no letter begins no request of HTTP, so uvicorn refuses it at once, such as a connection of TLS."""
_log = get_logger(__name__)

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections there may be, and how long a head may take. A proxy may have all of them."""

    connections: int
    proxies: Sequence[str] = ()
    head_s: float = HEAD_S

    @property
    def per_address(self) -> int:
        """How many a client may have."""
        return self.connections // 2

    def is_proxy(self, host: str) -> bool:
        """Whether `host` is among the addresses and networks of `proxies`."""
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in ip_network(each, strict=False) for each in self.proxies)


class Connections:
    """All connections of a server, and the outermost application, which notes what each is doing.

    `X-Forwarded-For` and `X-Forwarded-Proto` count where a connection comes from one of the proxies, and nowhere else.
    """

    def __init__(self, app: ASGIApp, limits: ConnectionLimits) -> None:
        self.limits = limits
        proxies = list(limits.proxies)
        self._app: ASGIApp = cast(Any, ProxyHeadersMiddleware(cast(Any, app), proxies)) if proxies else app
        self._open: dict[Address, BoundedConnection] = {}
        self._of_address: Counter[str] = Counter()
        self._logged_at = -_LOGGED_EVERY_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        connection = self._open.get(cast(Address, scope.get("client")))
        if connection is None:
            await self._app(scope, receive, send)
            return

        async def receive_and_note() -> Message:
            connection.body_wanted()
            message = await receive()
            connection.body_received(complete=not message.get("more_body", False))
            return message

        async def send_unless_closing(message: Message) -> None:
            if connection.is_closing:  # uvicorn learns of it in the next turn of the loop, and would fail until then
                await asyncio.sleep(0)
            else:
                await send(message)

        headers = Headers(scope=scope)
        length = None if "transfer-encoding" in headers else content_length(headers) or 0
        connection.request_began(body_bytes=length)
        try:
            await self._app(scope, receive_and_note, send_unless_closing)
        finally:
            connection.request_ended()

    def protocol(self, **given: Any) -> asyncio.Protocol:
        """The protocol of a new connection; `given` is what uvicorn gives to any protocol."""
        return BoundedConnection(HttpToolsProtocol(**given), self)

    def admit(self, address: Address, connection: BoundedConnection) -> bool:
        """Whether there is room for one more; notes it if so."""
        host = address[0]
        is_crowded = self._of_address[host] >= self.limits.per_address and not self.limits.is_proxy(host)
        if is_crowded or len(self._open) >= self.limits.connections:
            if (now := time.monotonic()) > self._logged_at + _LOGGED_EVERY_S:
                self._logged_at = now
                _log.warning("connection.refused", client=host, open=len(self._open), of_client=self._of_address[host])
            return False
        self._open[address] = connection
        self._of_address[host] += 1
        return True

    def forget(self, address: Address) -> None:
        """Note that an admitted connection is closed."""
        if self._open.pop(address, None) is not None:
            self._of_address[address[0]] -= 1
            if not self._of_address[address[0]]:
                del self._of_address[address[0]]


class _Next(Enum):
    """What the next bytes of a client belong to."""

    HEAD = auto()
    NOT_KNOWN = auto()
    """A head was passed on; the application has not got its request yet."""
    BODY = auto()
    CHUNKS = auto()
    """A body without an announced length: it is passed on in slices, as the application asks for them."""
    LATER = auto()
    """Requests that the client sends in advance: they wait until the one before is served."""


class _Chunks:
    """Finds the end of a body in chunks; uvicorn's parser reads what is in them, and refuses what is malformed."""

    def __init__(self) -> None:
        self.ended = False
        self._framing_bytes = 0
        self._data_bytes = 0
        self._line = b""
        self._data_left = 0
        self._is_last = False

    @property
    def is_wasteful(self) -> bool:
        """Whether chunks are so small, some dozens of bytes on average, that reading them costs more than the body."""
        return self._framing_bytes > MAX_HEADER_BYTES + self._data_bytes // 16

    def scan(self, data: bytes) -> int:
        """How many bytes of `data` belong to the body."""
        at = 0
        while at < len(data) and not self.ended:
            if self._data_left:
                step = min(self._data_left, len(data) - at)
                self._data_left -= step
            else:
                step = (data.find(b"\n", at) + 1 or len(data)) - at
                self._line += data[at : at + step]
                if self._line.endswith(b"\n") or len(self._line) > _SLICE_BYTES:
                    self._take_line(self._line.strip())
                    self._line = b""
            at += step
        return at

    def _take_line(self, line: bytes) -> None:
        """The size of a chunk, or after the last one a line of the trailer, which ends with an empty line."""
        self._framing_bytes += len(line) + 4
        if self._is_last:
            self.ended = not line
            return
        digits = line.partition(b";")[0].strip()
        size = int(digits, 16) if _CHUNK_SIZE.fullmatch(digits) else sys.maxsize  # malformed: no head follows
        self._is_last = size == 0
        self._data_bytes += size
        self._data_left = size + 2 if size else 0  # with the end of its line


class BoundedConnection(asyncio.Protocol):
    """Passes a connection on to uvicorn's protocol: one head when it is complete, its body, and then the next head.

    The body of a refused request is passed on too, since a client that is cut off while it sends reads no response.
    """

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._address: Address | None = None
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._timer: asyncio.TimerHandle | None = None
        self._next = _Next.HEAD
        self._body_left = 0
        self._chunks = _Chunks()
        self._held = b""
        self._active = 0
        self._is_paused = False
        self._is_wanted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        address = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else ("", id(self))
        if not self._connections.admit(address, self):
            self._transport.abort()
            return
        self._address = address
        self._inner.connection_made(transport)
        self._start_timer()

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._address is None:
            return
        if self._next is _Next.BODY and not self._held and len(data) <= self._body_left:  # most of all that arrives
            self._pass_body(data)
            return
        if self._next is _Next.HEAD and not self._held and not self._active:
            self._start_timer()  # from the first byte of a head; the client may have been quiet before
        self._held += data
        self._pass_on()
        if len(self._held) > MAX_HEADER_BYTES and not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _pass_on(self) -> None:
        """Pass on what may be of what is held."""
        while self._held and not self._transport.is_closing():
            before = len(self._held)
            if self._next is _Next.HEAD:
                self._pass_head()
            elif self._next is _Next.BODY:
                body, self._held = self._held[: self._body_left], self._held[self._body_left :]
                self._pass_body(body)
            elif self._next is _Next.CHUNKS and (self._is_wanted or not self._active) and self._pass_chunks():
                break
            if len(self._held) == before:
                break
        if self._is_paused and len(self._held) <= MAX_HEADER_BYTES and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def _pass_head(self) -> None:
        end = self._held.find(b"\r\n\r\n", len(self._held) - len(self._held.lstrip(b"\r\n")))
        if end < 0 and self._held[:1] in _HEAD_STARTS:
            if len(self._held) > MAX_HEADER_BYTES:
                self._transport.write(_TOO_LARGE)
                self._transport.close()
            return
        end = len(self._held) if end < 0 else end + 4
        # An offer to speak HTTP/2 is left out, as a proxy does: httptools would take the body for that of HTTP/2.
        head, self._held = _UPGRADE.sub(b"\r\nx-offer:", self._held[:end]), self._held[end:]
        self._next = _Next.NOT_KNOWN
        self._inner.data_received(head)

    def _pass_body(self, data: bytes) -> None:
        self._body_left -= len(data)
        if not self._body_left:
            self._next = _Next.LATER if self._active else _Next.HEAD
        self._inner.data_received(data)

    def _pass_chunks(self) -> bool:
        """Pass on a slice of the body; whether the next one has to wait until the application asks for it."""
        piece = self._held[:_SLICE_BYTES]
        used = self._chunks.scan(piece)
        self._held = self._held[used:]
        if self._chunks.is_wasteful:
            self._transport.abort()
            return True
        self._inner.data_received(piece[:used])
        if self._chunks.ended:
            self._next = _Next.LATER if self._active else _Next.HEAD
            return False
        if not self._active:  # nobody reads it, so it goes on until it ends or is too long
            self._body_left -= used
            if self._body_left < 0:
                self._transport.abort()
            return False
        if self._held:  # the slice may have had nothing that wakes the application
            asyncio.get_running_loop().call_soon(self._pass_on)
        return True

    def request_began(self, *, body_bytes: int | None) -> None:
        """The application got a request, whose body has so many bytes; None where that is not announced."""
        self._active += 1
        self._stop_timer()
        self._body_left = body_bytes or 0
        self._chunks = _Chunks()
        self._next = _Next.CHUNKS if body_bytes is None else _Next.BODY if body_bytes else _Next.LATER
        self._pass_on()

    def body_wanted(self) -> None:
        """The application waits for a piece of the body."""
        self._is_wanted = True
        if self._next is _Next.CHUNKS:
            self._pass_on()

    def body_received(self, *, complete: bool) -> None:
        """The application got a piece of the body."""
        self._is_wanted = False
        if complete and self._next is _Next.CHUNKS:
            self._next = _Next.LATER

    def request_ended(self) -> None:
        """The application is done with a request."""
        self._active -= 1
        if self._transport.is_closing():
            return
        self._start_timer()
        if self._next is _Next.CHUNKS:
            self._body_left = _UNREAD_BYTES
        elif self._next is _Next.LATER:
            self._next = _Next.HEAD
        asyncio.get_running_loop().call_soon(self._pass_on)  # after uvicorn has noted the end of the response

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(self._connections.limits.head_s, self._end)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        if not self._active:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_timer()
        self._held = b""
        if self._address is not None:
            self._connections.forget(self._address)
            self._address = None
            self._inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol."""
        return self._inner.eof_received() if self._address is not None else None

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.resume_writing()

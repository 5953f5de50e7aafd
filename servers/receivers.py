"""Receivers of what Shoplens tells other systems and people: a web server for events, and what a mail server keeps."""

from __future__ import annotations

import email
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shoplens.mail.entities import MailServer


@dataclass
class Receiver:
    """A real web server that notes events. `answer` is called with each and gives a status, or hangs."""

    url: str = ""
    answer: Callable[[str], int] = lambda _: 204
    headers: dict[str, str] = field(default_factory=dict)
    events: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def running_event_receiver() -> Iterator[Receiver]:
    """One on a free port of this machine that takes everything."""
    noted = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            noted.paths.append(self.path)
            noted.events.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(noted.answer(self.path))
            for name, value in noted.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    noted.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield noted
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Inbox:
    """What the mail server took, and whom it refuses."""

    taken: list[tuple[str, list[str], EmailMessage]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    tls: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  the server calls it so
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        """Take or refuse a recipient."""
        if address in self.refused:
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a mail."""
        parsed: Any = email.message_from_bytes(envelope.content, policy=default)
        self.taken.append((envelope.mail_from, list(envelope.rcpt_tos), parsed))
        self.tls.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 taken"


@dataclass
class RunningMailServer:
    """A real mail server: its port, and what it took."""

    inbox: Inbox
    port: int

    def server(self, **more: Any) -> MailServer:
        """How Shoplens is told of it."""
        plain: dict[str, Any] = {
            "host": "localhost", "port": self.port, "security": "none", "sender": "shoplens@shop.example",
            "attempt_s": 5.0, **more,
        }  # fmt: skip
        return MailServer(**plain)

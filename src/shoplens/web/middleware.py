"""What every request passes: its id, the guards against foreign pages and host names, headers, log and counts."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoplens.errors import RequestForbidden, ShoplensError
from shoplens.telemetry.metrics import Metrics
from shoplens.web.problems import problem, problem_of

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNROUTED = "unrouted"

_log = structlog.get_logger("shoplens.http")


class Entrance:
    """Pure ASGI, outermost: nothing reaches a route unguarded, and nothing leaves without its id and headers."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Sequence[str], metrics: Metrics) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        try:
            self._guard(scope["method"], headers)
            await self._app(scope, receive, answer)
        except RequestForbidden as error:
            await problem_of(error, request_id=request_id)(scope, receive, answer)
        except Exception:  # noqa: BLE001 - the last line of defence: log it, and answer like any other error
            _log.exception("request.crashed", method=scope["method"], path=scope["path"])
            if not answer.started:
                await _crash(request_id)(scope, receive, answer)
        finally:
            self._note(scope, answer.status, time.perf_counter() - started)
            structlog.contextvars.unbind_contextvars("request_id")

    def _guard(self, method: str, headers: Headers) -> None:
        """Raises RequestForbidden for DNS rebinding and for what pages of other sites make a browser send."""
        if "*" not in self._hosts and _host_name(headers.get("host", "")) not in self._hosts:
            raise RequestForbidden(
                "The Host header names a host that this server does not answer for; see the setting allowed_hosts."
            )
        if method not in _SAFE_METHODS and headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            raise RequestForbidden("Pages of other sites may not send data to this server.")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNROUTED)
        self._metrics.http_requests.labels(route=route, status=str(status)).inc()
        if route == "/predict":
            self._metrics.predictions.labels(status=str(status)).inc()
        log = _log.info if status < HTTPStatus.INTERNAL_SERVER_ERROR else _log.warning
        log("request.answered", method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1e3, 2))


class _Answer:
    """The send side of one request: adds headers and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 499  # nginx's number for a client that left before its answer
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            for name, value in _SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def _crash(request_id: str) -> ASGIApp:
    return problem(
        500,
        ShoplensError.code,
        f"This request met a fault in the program. The log has it under the request id {request_id}.",
        request_id=request_id,
        retry_after_s=None,
    )


def _request_id(given: str | None) -> str:
    """The caller's own id where it is harmless, so that logs of several systems can be joined."""
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _host_name(host: str) -> str:
    """The Host header without its port: `[::1]:8000` is `[::1]`."""
    name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower()

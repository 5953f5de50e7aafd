"""What every request passes: request id, checks of host and origin, security headers, log line and metrics."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shoplens.errors import RequestForbidden, ShoplensError
from shoplens.telemetry.metrics import Metrics
from shoplens.web.problems import CLIENT_CLOSED_REQUEST, INTERNAL_ERROR_DETAIL, problem, problem_of

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNROUTED = "unrouted"

_log = structlog.get_logger("shoplens.http")


class RequestMiddleware:
    """The outermost layer, in plain ASGI.

    Starlette's TrustedHostMiddleware would do a part of it, but answers in plain text instead of problem+json.
    """

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
        given_id = headers.get("x-request-id", "")
        # A caller's own id is used where it is harmless, so that the logs of several systems can be joined.
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = list(message["headers"])
                named = dict(own)
                added = [header for header in _SECURITY_HEADERS if header[0] not in named]
                message["headers"] = [*own, (b"x-request-id", request_id.encode()), *added]
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                self._require_own_host_and_site(scope["method"], headers)
                await self._app(scope, receive, send_with_headers)
            except RequestForbidden as error:
                await problem_of(error, request_id=request_id)(scope, receive, send_with_headers)
            except ClientDisconnect:
                pass
            except Exception:  # noqa: BLE001 - the last line of defence: log it, and respond as to any other error
                _log.exception("request.crashed", method=scope["method"], path=scope["path"])
                if status is None:
                    crash = problem(500, ShoplensError.code, INTERNAL_ERROR_DETAIL, request_id=request_id)
                    await crash(scope, receive, send_with_headers)
            finally:
                ms = round((time.perf_counter() - started) * 1e3, 2)
                status = status or CLIENT_CLOSED_REQUEST
                route = getattr(scope.get("route"), "path", _UNROUTED)
                self._metrics.http_requests.labels(route=route, status=str(status)).inc()
                log = _log.info if status < HTTPStatus.INTERNAL_SERVER_ERROR else _log.warning
                log("request.answered", method=scope["method"], path=scope["path"], status=status, ms=ms)

    def _require_own_host_and_site(self, method: str, headers: Headers) -> None:
        """Raises RequestForbidden for DNS rebinding and for cross-site requests that could change something."""
        host = headers.get("host", "").lower()
        # Without its port: `[::1]:8000` is `[::1]`.
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if "*" not in self._hosts and name not in self._hosts:
            raise RequestForbidden("This server does not accept this Host header. See the setting allowed_hosts.")
        if method not in _SAFE_METHODS and headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            raise RequestForbidden("Pages of other sites may not send data to this server.")

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

from shoplens.accounts.principals import forget_principal
from shoplens.errors import (
    AddressTooLong,
    HeadersTooLarge,
    RequestForbidden,
    RequestInvalid,
    RequestMalformed,
    ShoplensError,
)
from shoplens.messages import DEFAULT, language
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.tracing import Block, trace, untraced
from shoplens.web.bodies import RequestBody, UploadPace, require_utf_8
from shoplens.web.handlers import error_answer
from shoplens.web.language import speak_to_script
from shoplens.web.problems import CLIENT_CLOSED_REQUEST, INTERNAL_ERROR_DETAIL, logged_path
from shoplens.web.session_cookie import SAFE_METHODS

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_OWN_SITES = frozenset({"same-origin", "none"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
MAX_HEADER_BYTES = 64 * 1024
_MAX_ADDRESS_BYTES = 8 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNROUTED = "unrouted"
_UNTRACED = ("/health/", "/metrics", "/static/")

_log = get_logger("shoplens.http")


class RequestMiddleware:
    """The outermost layer, in plain ASGI.

    Starlette's TrustedHostMiddleware would do a part of it, but answers in plain text instead of problem+json.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Sequence[str], pace: UploadPace, metrics: Metrics) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._pace = pace
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
        body = RequestBody(receive, headers, self._pace)
        scope.setdefault("state", {}).update(request_id=request_id, body=body)
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
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            _traced(scope, headers, request_id) as block,
        ):
            try:
                speak_to_script(headers)
                _require_bounded_head(scope, headers)
                require_utf_8(headers)
                self._require_own_host_and_site(scope, headers)
                await self._app(scope, body.receive, send_with_headers)
            except RequestInvalid as error:
                refusal = error_answer(error, scope, accept=headers.get("accept", ""), request_id=request_id)
                await refusal(scope, receive, send_with_headers)
            except ClientDisconnect:
                pass
            except Exception:  # noqa: BLE001 - the last line of defence: log it, and respond as to any other error
                _log.exception("request.crashed", method=scope["method"], path=logged_path(scope))
                if status is None:
                    fault = ShoplensError(INTERNAL_ERROR_DETAIL)
                    crash = error_answer(fault, scope, accept=headers.get("accept", ""), request_id=request_id)
                    await crash(scope, receive, send_with_headers)
            finally:
                ms = round((time.perf_counter() - started) * 1e3, 2)
                status = status or CLIENT_CLOSED_REQUEST
                route = getattr(scope.get("route"), "path", _UNROUTED)
                self._metrics.http_requests.labels(route=route, status=str(status)).inc()
                block.note(
                    {"http.response.status_code": status, "http.route": route},
                    name=f"{scope['method']} {route}",
                    error=str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None,
                )
                log = _log.info if status < HTTPStatus.INTERNAL_SERVER_ERROR else _log.warning
                log("request.answered", method=scope["method"], path=logged_path(scope), status=status, ms=ms)
                forget_principal()
                language.set(DEFAULT)

    def _require_own_host_and_site(self, scope: Scope, headers: Headers) -> None:
        """Raises RequestMalformed without exactly one host, and RequestForbidden for DNS rebinding and for cross-site
        requests that could change something.
        """
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise RequestMalformed(f"The request has {len(hosts)} Host headers instead of one.")
        host = hosts[0].lower()
        # Without its port: `[::1]:8000` is `[::1]`.
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if "*" not in self._hosts and name not in self._hosts:
            raise RequestForbidden("This server does not accept this Host header. See the setting allowed_hosts.")
        if scope["method"] in SAFE_METHODS:
            return
        own = all(_is_own_origin(origin, host, scope["scheme"]) for origin in headers.getlist("origin"))
        if not own or headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            raise RequestForbidden("Pages of other sites may not send data to this server.")


def _traced(scope: Scope, headers: Headers, request_id: str) -> Block:
    """The first span of the request in this process. Neither its path nor its query: they may name people.

    Probes and static files are asked for all the time, and would hide the rest.
    """
    method: str = scope["method"]
    if scope["path"].startswith(_UNTRACED):
        return untraced()
    about = {"http.request.method": method, "url.scheme": scope["scheme"], "shoplens.request_id": request_id}
    return trace(method, about, kind="server", parent=headers.get("traceparent"))


def _is_own_origin(origin: str, host: str, scheme: str) -> bool:
    """Whether `origin` is a page of this host: browsers send it with every form and script, also over plain HTTP.

    A proxy may end TLS without saying so, so a page of `https` may send to `http`, but not the other way round.
    """
    origin_scheme, _, origin_host = origin.lower().partition("://")
    if origin_scheme not in _DEFAULT_PORTS or (origin_scheme == "http" and scheme == "https"):
        return False
    default_port = _DEFAULT_PORTS[origin_scheme]
    return origin_host.removesuffix(default_port) == host.removesuffix(default_port)


def _require_bounded_head(scope: Scope, headers: Headers) -> None:
    """Raises AddressTooLong and HeadersTooLarge."""
    address_bytes = len(scope.get("raw_path") or scope["path"]) + len(scope.get("query_string", b""))
    if address_bytes > _MAX_ADDRESS_BYTES:
        raise AddressTooLong(f"The URL has {address_bytes} bytes; at most {_MAX_ADDRESS_BYTES} are read.")
    if sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"The headers have more than {MAX_HEADER_BYTES} bytes.")

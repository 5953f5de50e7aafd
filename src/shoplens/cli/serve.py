"""`shoplens serve`: bind, build the platform, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, cast

from rich.console import Console
from rich.markup import escape

from shoplens.cli.command import settings_for
from shoplens.cli.process import collect_all_rarely, keep_freed_memory, process_logs, switch_threads_often
from shoplens.errors import Misconfigured, StorageUnavailable, UnsafeBind
from shoplens.platform.accounts import has_people
from shoplens.platform.server import build_platform
from shoplens.settings import Settings
from shoplens.telemetry.logs import get_logger

_BACKLOG: Final = 2048
_UNSENT_BYTES: Final = 256 * 1024
"""What the kernel may hold of an answer whose client does not read it. Without a bound it takes 4 MB, and ten strangers
who ask for a table and read nothing have 40 MB of rows made for them (`bench/results.md`)."""
_SILENT_S: Final = 60
"""How long a client may read nothing of what was sent to it, or be gone, before the kernel ends its connection."""
_log = get_logger("shoplens.serve")


def run_server(*, host: str | None, port: int | None, data_dir: Path | None, allow_public: bool) -> None:
    """Serve until a signal. Raises UnsafeBind, Misconfigured and what `build_platform` raises."""
    settings = settings_for(data_dir, host=host, port=port, allow_public=allow_public or None)
    require_safe_bind(settings)
    console = Console(stderr=True)
    with process_logs(settings, command="serve"):
        keep_freed_memory()
        switch_threads_often()
        listener = listen(settings)
        with console.status("Starting") as status, ThreadPoolExecutor(1) as other_thread:
            building = other_thread.submit(build_platform, settings, progress=status.update)
            # Meanwhile: importing the web framework takes as long as loading the models does.
            import uvicorn

            from shoplens.web.app import create_app
            from shoplens.web.connections import ConnectionLimits, Connections

            platform = building.result()
            checking = other_thread.submit(platform.images.check)
            limits = ConnectionLimits(connections=settings.max_connections, proxies=settings.trusted_proxies)
            connections = Connections(create_app(platform), limits)
            config = uvicorn.Config(
                connections,
                http=cast(type[asyncio.Protocol], connections.protocol),
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=int(settings.shutdown_s),
            )
            fault = checking.exception()
        gc.enable()
        gc.collect()
        collect_all_rarely()
        if isinstance(fault, StorageUnavailable):  # it may come back; /health/ready reports it until then
            _log.warning("store.away", reason=str(fault))
            reason = escape(str(fault))
            console.print(f"[yellow]Photos cannot be kept now:[/yellow] {reason}", highlight=False, soft_wrap=True)
        elif fault is not None:
            raise fault
        shown_host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{shown_host}:{listener.getsockname()[1]}"
        console.print(f"Shoplens is ready at [bold]{url}[/bold]", highlight=False)
        console.print(f"Its data is in {escape(str(settings.data_dir.absolute()))}", highlight=False, soft_wrap=True)
        signal.signal(signal.SIGHUP, lambda *_: platform.follower.wake())
        _log.info("server.ready", url=url, data_dir=str(settings.data_dir.absolute()))
        uvicorn.Server(config).run(sockets=[listener])


def require_safe_bind(settings: Settings) -> None:
    """Raises UnsafeBind for an address that others can reach while there is no account, unless that was asked for.

    A disabled person counts: with one, every request needs an account, also if nobody can sign in any more.
    """
    if settings.binds_loopback or settings.allow_public or has_people(settings):
        return
    raise UnsafeBind(
        f"Listening on {settings.host} would let everyone who can reach this machine use it, because there is no "
        "account. Add the first person with `shoplens users add NAME --role admin`, listen on 127.0.0.1, or pass "
        "--allow-public."
    )


def listen(settings: Settings) -> socket.socket:
    """Bind before models are loaded, so that a port in use is reported at once. Raises Misconfigured."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted connections have the same options
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_S * 1000)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Another --port may be free."
        ) from error
    listener.listen(_BACKLOG)
    return listener

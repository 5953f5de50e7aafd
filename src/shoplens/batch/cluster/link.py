"""Join a Ray cluster, or start one on this machine: in silence, within seconds, or not at all with one sentence."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from shoplens.errors import ClusterUnavailable, ExtraMissing, Misconfigured

_REACH_S: Final = 5.0
_SETTINGS_FRAME: Final = b"\x04"
_EMPTY_SETTINGS: Final = b"\0\0\0" + _SETTINGS_FRAME + b"\0\0\0\0\0"
_PREFIX: Final = "shoplens-ray-"
_LOCK: Final = "in-use"
_LONGEST_FOLDER: Final = 22
_SHORT_FOLDER: Final = "/tmp"  # noqa: S108 - only the parent of a folder of our own
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_COLOR_PREFIX": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
_PORT: Final = re.compile(r"(?:ray://)?(?P<host>\[[^]]+\]|[^:/\s]+):(?P<port>\d{1,5})")


@contextlib.contextmanager
def linked(address: str | None, *, cpus: int) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address`, or to one of `cpus` processors that ends with the block.

    Raises ExtraMissing, Misconfigured and ClusterUnavailable.
    """
    ray = import_ray(local=address is None)
    if address is not None:
        _reach(address)
    with _session_folder() if address is None else contextlib.nullcontext() as folder:
        try:
            _init(ray, address, folder, cpus)
            yield ray
        finally:
            with contextlib.suppress(Exception):
                ray.shutdown()


@contextlib.contextmanager
def _session_folder() -> Iterator[Path]:
    """Where a cluster of our own writes; locked while it lives, so that what a killed one left can be told and goes."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _LONGEST_FOLDER:
        parent = Path(_SHORT_FOLDER)  # paths of sockets have an end
    for abandoned in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        _remove_if_abandoned(abandoned)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_abandoned(lock: Path) -> None:
    with contextlib.suppress(OSError), lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.parent, ignore_errors=True)


def import_ray(*, local: bool) -> Any:
    """Ray with its mouth shut. A cluster of our own is locked with a key that only its processes know.

    Raises ExtraMissing.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if local and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ExtraMissing("Nights on a cluster need the extra `ray`: pip install 'shoplens[ray]'.") from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


def _init(ray: Any, address: str | None, folder: Path | None, cpus: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
    own = {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": str(folder)} if folder else {}
    try:
        with _own_signals():
            ray.init(address=address or "local", **quiet, **own)
    except Exception as error:
        raise _told(error, address) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray's native part answers SIGTERM with an abort, behind Python's back; what was there before is put back."""
    calls = ctypes.PyDLL(None)
    calls.PyOS_getsig.restype = ctypes.c_void_p
    calls.PyOS_setsig.restype = ctypes.c_void_p
    calls.PyOS_setsig.argtypes = (ctypes.c_int, ctypes.c_void_p)
    before = calls.PyOS_getsig(signal.SIGTERM)
    try:
        yield
    finally:
        calls.PyOS_setsig(signal.SIGTERM, before)


def _told(error: Exception, address: str | None) -> Exception:
    """One sentence instead of Ray's many lines."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return Misconfigured(
            f"The cluster at {address} runs another version of Ray or Python than this machine, and Ray needs the same "
            f"ones everywhere: {text}"
        )
    where = f"The Ray cluster at {address}" if address else "A Ray cluster on this machine"
    hint = " Start one with `ray start --head`, or name its address." if address == "auto" else ""
    return ClusterUnavailable(f"{where} cannot be reached: {text[:400] or type(error).__name__}.{hint}")


def _reach(address: str) -> None:
    """Ray itself tries for a minute. Raises Misconfigured and ClusterUnavailable."""
    if address == "auto":
        return
    match = _PORT.fullmatch(address)
    if match is None:
        raise Misconfigured(f"{address!r} is no address of a Ray cluster: write host:6379, ray://host:10001 or auto.")
    if address.startswith("ray://") and find_spec("grpc") is None:
        raise ExtraMissing(
            "ray:// addresses need Ray's client on both sides: pip install 'ray[client]'. Without it, run the night on "
            "a node of the cluster with --address auto."
        )
    host, port = match["host"].strip("[]"), int(match["port"])
    try:
        with socket.create_connection((host, port), timeout=_REACH_S) as there:
            answers = os.environ.get("RAY_USE_TLS", "0") != "0" or _speaks_grpc(there)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterUnavailable(
            f"Nothing answers at {address}: {reason}. Is the Ray cluster running there?"
        ) from error
    if not answers:
        raise ClusterUnavailable(f"What answers at {address} is no Ray cluster. Is it the right port?")


def _speaks_grpc(there: socket.socket) -> bool:
    """Whether it greets as HTTP/2 does, on which all that Ray says is built."""
    there.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _EMPTY_SETTINGS)
    return there.recv(len(_EMPTY_SETTINGS))[3:4] == _SETTINGS_FRAME

"""Failed sign-ins, counted by address and by name, also for names that nobody has: guessing gets slower and slower.

The counts are in this process, or in Redis where several processes share one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, TypeVar

from shoplens.accounts.errors import TooManySignIns
from shoplens.messages import marked
from shoplens.telemetry.logs import get_logger

if TYPE_CHECKING:
    from limits.storage import Storage

T = TypeVar("T")

_ADDRESS_FAILURES: Final = 30
_ADDRESS_WINDOW_S: Final = 900
_FREE_FAILURES: Final = 4
_FIRST_LOCK_S: Final = 30.0
_LONGEST_LOCK_S: Final = 900.0
_REMEMBERED_S: Final = 86_400
_log = get_logger(__name__)


def lock_s(failures: int) -> float:
    """For how many seconds a name is locked after so many failures in a row: none, 30, 60, 120, up to 15 minutes."""
    if failures <= _FREE_FAILURES:
        return 0.0
    return min(_FIRST_LOCK_S * 2.0 ** min(failures - _FREE_FAILURES - 1, 10), _LONGEST_LOCK_S)


def too_many(retry_after_s: float) -> TooManySignIns:
    """The refusal, with how long to wait."""
    wait_s = max(1, round(retry_after_s))
    wait = marked(f"{wait_s} seconds") if wait_s <= 90 else marked(f"{round(wait_s / 60)} minutes")
    return TooManySignIns(f"Too many failed sign-ins. Try again in {wait}.", retry_after_s=max(1.0, retry_after_s))


class Throttle:
    """All methods block for as long as Redis needs, and may be called from many threads.

    If Redis does not answer, this process counts alone.
    """

    def __init__(self, storage: Callable[[], Storage]) -> None:
        """`storage` opens it when it is first needed: its package is not imported before."""
        self._open = storage
        self._shared: Storage | None = None
        self._own: Storage | None = None

    def require(self, *, name: str, address: str | None) -> None:
        """Raises TooManySignIns while the address, or a name that nobody has, is locked."""
        waits = [self._with(lambda storage: _locked_s(storage, f"name/{name}"))]
        if address is not None:
            waits.append(self._with(lambda storage: _window_s(storage, _network(address))))
        if max(waits) > 0:
            raise too_many(max(waits))

    def failed(self, *, name: str | None, address: str | None) -> None:
        """Count a failure. `name` only where nobody has it: those of people are counted in their rows."""
        if name is not None:
            self._with(lambda storage: _lock(storage, f"name/{name}"))
        if address is not None:
            self._with(lambda storage: _count(storage, _network(address)))

    def _with(self, use: Callable[[Storage], T]) -> T:
        from limits.errors import StorageError
        from limits.storage import MemoryStorage

        if self._own is None:
            self._own = MemoryStorage()
        try:
            if self._shared is None:
                self._shared = self._open()
            return use(self._shared)
        except StorageError as error:
            _log.warning("sign_in.counts_not_shared", reason=str(error))
            return use(self._own)


def _network(address: str) -> str:
    """The address; of IPv6 the network that one client has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return f"{int(parsed) >> 64:x}"
    return str(parsed)


def _locked_s(storage: Storage, key: str) -> float:
    locked = f"locked/{key}"
    return storage.get_expiry(locked) - time.time() if storage.get(locked) else 0.0


def _lock(storage: Storage, key: str) -> None:
    seconds = lock_s(storage.incr(f"failed/{key}", _REMEMBERED_S))
    if seconds:
        storage.incr(f"locked/{key}", round(seconds))


def _window_s(storage: Storage, network: str) -> float:
    failures = storage.get(f"address/{network}")
    return storage.get_expiry(f"address/{network}") - time.time() if failures >= _ADDRESS_FAILURES else 0.0


def _count(storage: Storage, network: str) -> None:
    storage.incr(f"address/{network}", _ADDRESS_WINDOW_S)

"""Hold the live classifier of one model name, and swap it without a gap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shoplens.inference.live import LiveModel


class Slot:
    """Readers lease the live model; `swap` puts a warm one in its place and lets the old one's readers finish."""

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self._leases: dict[LiveModel, int] = {live: 0}
        self._returned = threading.Condition()

    @property
    def live(self) -> LiveModel:
        """The model that the next lease gets."""
        return self._live

    @contextmanager
    def lease(self) -> Iterator[LiveModel]:
        """Use the live model; it stays open until the lease ends, even if it is swapped meanwhile."""
        with self._returned:
            live = self._live
            self._leases[live] += 1
        try:
            yield live
        finally:
            with self._returned:
                self._leases[live] -= 1
                self._returned.notify_all()

    def swap(self, replacement: LiveModel, *, drain_s: float) -> bool:
        """Warm `replacement`, make it live, and close the old one when its leases ended.

        Raises BundleInvalid if the replacement cannot answer; the old one then stays live. Returns whether all
        leases of the old one ended within `drain_s`; it is closed in either case.
        """
        replacement.warm()
        with self._returned:
            old, self._live = self._live, replacement
            self._leases[replacement] = 0
            drained = self._returned.wait_for(lambda: self._leases[old] == 0, timeout=drain_s)
            del self._leases[old]
        old.close()
        return drained

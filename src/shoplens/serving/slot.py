"""Hold the live classifier of one model name, and swap it without a gap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shoplens.serving.live import LiveModel


class Slot:
    """Readers lease the live model; `swap` puts a warm one in its place and lets the old one's readers finish."""

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self._leases: dict[LiveModel, int] = {live: 0}
        self._changed = threading.Condition()

    @property
    def live(self) -> LiveModel:
        """The model that the next lease gets."""
        return self._live

    @contextmanager
    def lease(self) -> Iterator[LiveModel]:
        """Use the live model; it stays open until the lease ends, even if it is swapped meanwhile."""
        with self._changed:
            live = self._live
            self._leases[live] += 1
        try:
            yield live
        finally:
            self._return(live)

    def swap(self, replacement: LiveModel, *, drain_s: float) -> bool:
        """Warm `replacement`, make it live, and close the old one when its last lease has ended.

        Raises BundleInvalid if the replacement cannot answer; the old one then stays live. Waits up to `drain_s` for
        the leases of the old one, and returns whether all of them ended in that time.
        """
        replacement.warm()
        with self._changed:
            old, self._live = self._live, replacement
            self._leases[replacement] = 0
            self._retire(old)
            return self._changed.wait_for(lambda: old not in self._leases, timeout=drain_s)

    def _return(self, live: LiveModel) -> None:
        with self._changed:
            self._leases[live] -= 1
            self._retire(live)

    def _retire(self, model: LiveModel) -> None:
        """Close a model that is no longer live once nobody uses it; whoever ends its last lease does that."""
        if model is self._live or self._leases[model]:
            return
        del self._leases[model]
        model.close()
        self._changed.notify_all()

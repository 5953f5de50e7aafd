"""Let the C library keep freed memory: decoding then reuses warm pages instead of asking the kernel each time."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD_BYTES = 1 << 28
_TRIM_THRESHOLD_BYTES = 1 << 29


def keep_freed_memory() -> bool:
    """Tune glibc's malloc for this process; does nothing elsewhere. Returns whether it took effect."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES), mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    return all(done)

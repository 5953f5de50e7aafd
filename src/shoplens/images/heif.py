"""Whether HEIC can be read here, and safely: the optional decoder and the versions of what it bundles."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

Version = tuple[int, ...]

# Older ones let a crafted picture run code (fixed in 2026).
SAFE_LIBHEIF: Final = (1, 23, 4)
SAFE_LIBDE265: Final = (1, 1, 3)


class HeicSupport(Enum):
    """What this installation can do with a HEIC photo."""

    READY = "ready"
    MISSING = "missing"
    UNSAFE = "unsafe"


def heic_support() -> HeicSupport:
    """Look whether the extra `heic` is installed and whether its bundled libraries are recent enough."""
    try:
        import pillow_heif
    except ImportError:
        return HeicSupport.MISSING
    info = pillow_heif.libheif_info()
    return judge(str(info.get("libheif", "")), str(info.get("decoders", {}).get("libde265", "")))


def judge(libheif: str, libde265: str) -> HeicSupport:
    """Compare two texts that carry version numbers with the oldest safe ones; no number is not safe."""
    safe = _version(libheif) >= SAFE_LIBHEIF and _version(libde265) >= SAFE_LIBDE265
    return HeicSupport.READY if safe else HeicSupport.UNSAFE


def _version(text: str) -> Version:
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else ()

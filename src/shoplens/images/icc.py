"""Which colour profiles may be given to the colour library in this process: those whose cost their structure bounds.

The structure is that of ICC.1:2022 (https://www.color.org/specification/ICC.1-2022-05.pdf), section 7: a header, a
table of tags, and the tags' data. Nearly all photos carry a profile of three primaries and three curves.
"""

from __future__ import annotations

import itertools
import struct
from typing import Final

_MAX_BYTES: Final = 1_000_000
_HEADER_BYTES: Final = 128
_MAX_TAGS: Final = 100
_TAG: Final = struct.Struct(">4sII")

_CLASSES: Final = (b"mntr", b"scnr", b"prtr", b"spac")
_SPACES: Final = (b"RGB ", b"GRAY")
_CONNECTIONS: Final = (b"XYZ ", b"Lab ")
# Pipelines of any number of elements: `D2B0` to `D2B3` and `B2D0` to `B2D3`.
_PIPELINES: Final = (b"D2B", b"B2D")
_CURVES: Final = (b"rTRC", b"gTRC", b"bTRC", b"kTRC")
_CURVE_TYPES: Final = (b"curv", b"para")
_TABLES: Final = (b"A2B", b"B2A")
_TABLE_TYPES: Final = (b"mft1", b"mft2", b"mAB ", b"mBA ")


def is_simple(profile: bytes) -> bool:
    """Whether the profile is of matrices, curves and plain tables for RGB or grey, at most 1 MB, without overlaps.

    False for a damaged one, too: what it would cost cannot be said.
    """
    if not _HEADER_BYTES + 4 <= len(profile) <= _MAX_BYTES or profile[36:40] != b"acsp":
        return False
    if profile[12:16] not in _CLASSES or profile[16:20] not in _SPACES or profile[20:24] not in _CONNECTIONS:
        return False
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    end = _HEADER_BYTES + 4 + _TAG.size * count
    if count > _MAX_TAGS or end > len(profile):
        return False
    tags = list(_TAG.iter_unpack(profile[_HEADER_BYTES + 4 : end]))
    return _lie_apart(tags, end, len(profile)) and all(
        _is_simple_tag(name, profile[offset : offset + 4]) for name, offset, _ in tags
    )


def _lie_apart(tags: list[tuple[bytes, int, int]], start: int, end: int) -> bool:
    """Whether all data lie inside the file and none overlap. Several tags may name the same data."""
    spans = sorted({(offset, offset + size) for _, offset, size in tags})
    inside = all(start <= first <= last <= end for first, last in spans)
    return inside and all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def _is_simple_tag(name: bytes, kind: bytes) -> bool:
    if name[:3] in _PIPELINES:
        return False
    if name in _CURVES:
        return kind in _CURVE_TYPES
    return name[:3] not in _TABLES or kind in _TABLE_TYPES

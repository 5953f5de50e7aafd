"""Read and write large objects in parts of bounded size, each a request with an end of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

import obstore
from obstore.store import ObjectStore

if TYPE_CHECKING:
    from obstore import GetOptions

PART_BYTES: Final = 8 << 20
"""10,000 parts, as many as S3 takes, are 80 GB."""
_PARTS_AT_ONCE: Final = 4


def read_ranges(objects: ObjectStore, name: str) -> Iterator[bytes]:
    """The content of an object, a part in memory at a time, all of one version.

    Raises FileNotFoundError, and PreconditionError when the object was changed meanwhile.
    """
    head = obstore.head(objects, name)
    for start in range(0, head["size"], PART_BYTES):
        wanted: GetOptions = {"range": (start, min(start + PART_BYTES, head["size"]))}
        if head["e_tag"]:
            wanted["if_match"] = head["e_tag"]
        yield bytes(obstore.get(objects, name, options=wanted).bytes())


def write_parts(objects: ObjectStore, name: str, pieces: Iterable[bytes]) -> None:
    """Write `pieces` as one object, which appears whole or not at all. At most 5 parts are in memory.

    What fits into a part is one request. For more, parts that were sent are dropped when it fails; a process that is
    killed leaves them, invisible, to the bucket's rule for unfinished uploads.
    """
    remaining = iter(pieces)
    start: list[bytes] = []
    while sum(map(len, start)) < PART_BYTES:
        piece = next(remaining, None)
        if piece is None:
            obstore.put(objects, name, b"".join(start), use_multipart=False)
            return
        start.append(piece)
    obstore.put(objects, name, chain(start, remaining), chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

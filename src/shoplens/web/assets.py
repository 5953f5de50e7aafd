"""Serve the console's own files: addresses carry a hash of the content, so browsers may keep them for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC_DIR = Path(__file__).parent / "static"
STATIC_URL = "/static"
_HASH_DIGITS = 12
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache"


def static_url(name: str) -> str:
    """The address of a file in `static/`, with its content's hash. Raises KeyError for a file that is not there."""
    return f"{STATIC_URL}/{name}?v={_hashes()[name]}"


class HashedFiles(StaticFiles):
    """Files asked for under their right hash never change; all others are compared with their ETag at each use."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file with its cache header."""
        response = await super().get_response(path, scope)
        wanted = scope.get("query_string", b"").decode("latin-1")
        current = _hashes().get(path)
        response.headers["Cache-Control"] = _FOR_EVER if current and wanted == f"v={current}" else _ASK_FIRST
        return response


@lru_cache(maxsize=1)
def _hashes() -> Mapping[str, str]:
    return {
        path.relative_to(STATIC_DIR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:_HASH_DIGITS]
        for path in sorted(STATIC_DIR.rglob("*"))
        if path.is_file()
    }

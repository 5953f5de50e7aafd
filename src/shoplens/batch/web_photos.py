"""Fetch photos by their addresses: only below allowed prefixes, from public addresses, within bounds of size and time.

A name is resolved once, and the connection goes to the address that was checked. Redirects are not followed. A photo
that was imported by its address is not fetched again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from shoplens.batch.sidecars import readable
from shoplens.batch.sources import FileSkipped, SkipReason
from shoplens.errors import ShoplensError
from shoplens.messages import marked
from shoplens.predictions.errors import PhotoNotFetched
from shoplens.webhooks.targets import Targets

if TYPE_CHECKING:
    import httpx

_TIME_LIMIT_S: Final = 60.0
_SILENCE_S: Final = 15.0
_ALREADY_IMPORTED: Final = "url"
"""The stamp of a photo from the web: its address alone says whether it was imported before."""


class WebPhotos:
    """The rules and the client. Thread-safe.

    `prefixes` are beginnings of addresses that are allowed, each with a path that ends with a slash; `networks` are
    those beyond public addresses over https that may be connected to, also over plain http. `setting` is what errors
    call the setting of the prefixes.
    """

    def __init__(
        self,
        prefixes: Sequence[str],
        *,
        networks: Sequence[str],
        max_bytes: int,
        time_limit_s: float = _TIME_LIMIT_S,
        setting: str = "url_prefixes",
    ) -> None:
        self._prefixes = tuple(prefixes)
        self._time_limit_s = time_limit_s
        self._setting = setting
        self._targets = Targets(networks)
        self._max_bytes = max_bytes
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def fault(self, url: str) -> str | None:
        """Why this address is not allowed, as a clause; None if it is. Resolves no name."""
        shown = readable(url[:200])
        if not any(url.startswith(prefix) for prefix in self._prefixes) or not url.isprintable():
            return marked(f"{shown} is not below one of the addresses in {self._setting}")
        # A proxy or server might read these as a way up, out of the prefix.
        path = unquote(unquote(urlsplit(url).path)).replace("\\", "/")
        if any(part in (".", "..") for part in path.split("/")) or "@" in urlsplit(url).netloc:
            return marked(f"{shown} is not a plain address")
        return None

    def read(self, url: str) -> bytes:
        """The photo at `url`. Raises PhotoNotFetched, also for an address that is not allowed."""
        if fault := self.fault(url):
            raise PhotoNotFetched(f"{fault}.")
        try:
            return b"".join(self.fetch(url))
        except _NotFetched as error:
            raise PhotoNotFetched(f"{readable(url[:200])}: {error}.") from error

    def file(self, url: str, *, label: str, changed_ms: int) -> WebFile:
        """The photo at an allowed address; `label` says where it is listed."""
        return WebFile(self, url, label=label, changed_ms=changed_ms)

    def fetch(self, url: str) -> Iterator[bytes]:
        """The content. Raises _NotFetched."""
        import httpx

        give_up_at = time.monotonic() + self._time_limit_s
        try:
            target = self._targets.resolve(url)
        except ShoplensError as error:
            host = urlsplit(url).hostname
            raise _NotFetched(marked(f"{host} is not a public address that can be reached over https")) from error
        headers = {"Host": target.host_header, "Accept": "image/*", "Accept-Encoding": "identity"}
        try:
            with self._opened().stream(
                "GET", target.url, headers=headers, extensions={"sni_hostname": target.host}
            ) as answer:
                if answer.status_code != httpx.codes.OK:
                    moved = marked("; redirects are not followed") if answer.is_redirect else ""
                    said = marked(f"the server responds {answer.status_code}{moved}")
                    raise _NotFetched(said, passing=answer.is_server_error)
                byte_count = 0
                for chunk in answer.iter_raw():  # decompressed, a small answer could be large
                    byte_count += len(chunk)
                    if byte_count > self._max_bytes:
                        raise _NotFetched(marked(f"it has more than the {self._max_bytes / 1e6:g} MB that are allowed"))
                    if time.monotonic() > give_up_at:
                        raise _NotFetched(
                            marked(f"it was not complete after {self._time_limit_s:g} seconds"), passing=True
                        )
                    yield chunk
        except httpx.HTTPError as error:
            raise _NotFetched(marked(f"it could not be fetched ({type(error).__name__})"), passing=True) from error

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                limits = httpx.Limits(max_keepalive_connections=0)  # each goes to the address that was checked
                self._client = httpx.Client(
                    timeout=min(_SILENCE_S, self._time_limit_s), limits=limits, follow_redirects=False, trust_env=False
                )
            return self._client


class _NotFetched(Exception):
    """The message is a clause. `passing`: another attempt may succeed."""

    def __init__(self, detail: str, *, passing: bool = False) -> None:
        super().__init__(detail)
        self.passing = passing


class WebFile:
    """A `SourceFile` whose size is known only when it was fetched."""

    def __init__(self, photos: WebPhotos, url: str, *, label: str, changed_ms: int) -> None:
        self._photos = photos
        self._url = url
        self._label = label
        self.name = readable(url)
        self.byte_count = 0
        self.changed_ms = changed_ms
        self.stamp = _ALREADY_IMPORTED

    def chunks(self) -> Iterator[bytes]:
        """As `SourceFile.chunks`."""
        try:
            yield from self._photos.fetch(self._url)
        except _NotFetched as error:
            # Also what may pass is named: nothing but this note says which line to look at.
            again = "; import the list again" if error.passing else ""
            raise FileSkipped(f"{self._label}: {self.name}", SkipReason.UNREADABLE, f"{error}{again}") from error

    def remove(self) -> bool:
        """As `SourceFile.remove`: it belongs to another server."""
        return False

"""Let a run of a few returned photos be over before people come, so that there is a run to look at."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from load.photos import Album, form, unlike_others

_PHOTOS: Final = 3
_TIMEOUT_S: Final = 120


def work_through_some_returns(url: str, folder: Path) -> None:
    """Bring photos in, start a run, wait for its end. Raises RuntimeError if it does not come."""
    smallest = min(each for photos in Album.read(folder).by_size.values() for each in photos)
    for number in range(_PHOTOS):
        _bring_in(url, unlike_others(smallest), f"{number:06}_0001.jpg")
    run = _json(urllib.request.Request(f"{url}/batch/runs", data=b"", method="POST"))
    give_up_at = time.monotonic() + _TIMEOUT_S
    while run["state"] != "finished":
        if run["state"] == "failed" or time.monotonic() > give_up_at:
            raise RuntimeError(f"the run did not end well: {run}")
        time.sleep(0.2)
        run = _json(urllib.request.Request(f"{url}/batch/runs/{run['id']}"))


def _bring_in(url: str, photo: bytes, name: str) -> None:
    body, headers = form(photo, name)
    _json(urllib.request.Request(f"{url}/batch/ingest", data=body, headers=headers))


def _json(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found

"""Moderation: what intake costs beside the raw classification, pages over a million photos, photos held for nothing.

Run: python -m bench.intake intake|pages|holds [--rows 1000000] [--keep FOLDER]
`pages` fills a SQLite database and asks a real server; `holds` needs the sample photos.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from bench.photos import SIZES, photos
from bench.server import Server
from shoplens.accounts.entities import SYSTEM
from shoplens.bundles.builtin import prepare_builtin
from shoplens.db import Database, open_database, upgrade
from shoplens.db.tables import make_id, to_row
from shoplens.images.picture import ImageFacts
from shoplens.moderation.decisions import first_decision
from shoplens.moderation.entities import (
    POLICY,
    ModerationPhoto,
    PhotoState,
    QueueReason,
    References,
    Signal,
)
from shoplens.moderation.files import folder_of, original_key
from shoplens.moderation.repository import PhotoRepository
from shoplens.moderation.tables import moderation_decisions
from shoplens.platform.parts import load_bundle
from shoplens.setting_groups import DEFAULT_CHANNELS
from shoplens.settings import read_settings
from shoplens.storage import open_store
from shoplens.testing import cost

_START = datetime(2026, 1, 1, tzinfo=UTC)
_ROUNDS = 40
_PER_COMMIT = 5_000
_REQUESTS = 400
_WITH_FILES = 200
_PRODUCTS = 20_000
_SIGNALS = (
    "nsfw",
    "screenshot",
    "document",
    "weapon",
    "person",
    "pet",
    "not_product",
    "blur",
    "dark",
    "text",
    "border",
)


def main() -> None:
    """Measure one of the three and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["intake", "pages", "holds"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="a folder to keep and to use again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        models = folder / "models"
        models.mkdir(parents=True, exist_ok=True)
        for name in ("efficientnet-lite0-int8", "opennsfw", "clothing"):
            prepare_builtin(name, models)
        match options.what:
            case "intake":
                _intake(folder, models)
            case "pages":
                _pages(folder, models, options.rows)
            case _:
                _holds(models)


def _intake(folder: Path, models: Path) -> None:
    """The same photo by turns as a plain prediction and as a shopper's photo, one at a time."""
    photo = photos(next(size for size in SIZES if size.name == "4 MP"), count=1)[0]
    with Server(folder, models) as server:
        connection = _connect(server)
        form, kind = _form(photo)
        ways: dict[str, Callable[[], float]] = {
            "prediction": lambda: _timed(connection, "POST", "/predict?channel=reviews", photo, {}),
            "intake": lambda: _timed(connection, "POST", "/moderation/photos", form, {"Content-Type": kind}),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_ROUNDS + 5):
            for name, run in ways.items():
                times[name].append(run())
    for name, found in times.items():
        print(f"{name}: {_quantiles(found[5:])}")
    more = statistics.median(b - a for a, b in zip(*(found[5:] for found in times.values()), strict=True))
    print(f"intake takes {more:.1f} ms more (median of {_ROUNDS} pairs)")


def _pages(folder: Path, models: Path, rows: int) -> None:
    path = folder / "shoplens.db"
    fresh = not path.exists()
    upgrade(f"sqlite:///{path}")
    if fresh:
        database = open_database(f"sqlite:///{path}")
        _fill(database, folder, rows)
        database.close()
    print(f"{rows} photos, {path.stat().st_size / 1e6:.0f} MB")
    shown = [photo.id for photo in _rows(_WITH_FILES * 2) if photo.state is PhotoState.PUBLISHED]
    chance = random.Random(3)

    def product() -> str:
        return f"/moderation/photos?product=p-{chance.randrange(_PRODUCTS)}&state=published&limit=50"

    ways: dict[str, Callable[[], str]] = {
        "media, stored copy": lambda: f"/media/{chance.choice(shown[:20])}?w=320",
        "media, not published": lambda: f"/media/{_id(chance.randrange(rows), chance)}",
        "page Moderation": lambda: "/console/moderation",
        "queue as JSON": lambda: "/moderation/queue?limit=50",
        "photos of a product": product,
        "held photos": lambda: "/moderation/photos?channel=reviews&state=held&limit=50",
        "refused photos": lambda: "/moderation/photos?channel=reviews&state=refused&limit=50",
        "a customer": lambda: f"/moderation/photos?customer=c-{chance.randrange(rows // 5)}",
    }
    with Server(folder, models) as server:
        connection = _connect(server)
        for name, address in ways.items():
            for _ in range(40):
                _timed(connection, "GET", address(), None, {})
            before = cost.read(server.pid)
            found = [_timed(connection, "GET", address(), None, {}) for _ in range(_REQUESTS)]
            cpu_ms = 1e3 * (cost.read(server.pid).cpu_s - before.cpu_s) / _REQUESTS
            print(f"{name}: {_quantiles(found)}, {cpu_ms:.1f} ms of CPU each", flush=True)


def _holds(models: Path) -> None:
    """How many photos of clothes, animals and things OpenNSFW alone would hold or refuse at the default thresholds."""
    root = Path(os.environ.get("SHOPLENS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    labels = DEFAULT_CHANNELS["reviews"]["labels"]
    assert isinstance(labels, dict)
    review_at, reject_at = labels["nsfw"]["review_at"], labels["nsfw"]["reject_at"]
    model = load_bundle("opennsfw", settings=read_settings(models_dir=models))
    for name, pattern in (("imagenet-samples", "*.JPEG"), ("clothing/validation", "*/*.jpg")):
        found: Counter[str] = Counter()
        scores = []
        for file in sorted((root / name).glob(pattern)):
            score = model.classify(file).score_of("nsfw")
            scores.append(score)
            found["refused" if score >= reject_at else "held" if score >= review_at else "passed"] += 1
        share = (found["held"] + found["refused"]) / found.total()
        highest = ", ".join(f"{score:.2f}" for score in sorted(scores)[-5:])
        print(f"{name}: {dict(found)} of {found.total()}, {share:.1%} held or refused; highest {highest}")


# Rows


def _fill(database: Database, folder: Path, rows: int) -> None:
    began = time.perf_counter()
    made = _rows(rows)
    while part := [photo for _, photo in zip(range(_PER_COMMIT), made, strict=False)]:
        with database.transaction() as tx:
            PhotoRepository(tx).add_many(part)
            tx.execute(insert(moderation_decisions), [to_row(first_decision(photo, by=SYSTEM)) for photo in part])
    print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    store = open_store(str(folder / "blobs"))
    photo = _photo()
    for each in _rows(2 * _WITH_FILES):
        store.put(original_key(folder_of(each.id), "jpeg"), photo)


def _rows(count: int) -> Iterator[ModerationPhoto]:
    """19 of 20 are published, 2 of 100 wait for a person, 3 of 100 are refused; the same at each run."""
    chance = random.Random(7)
    sha256 = hashlib.sha256(_photo()).hexdigest()
    for number in range(count):
        moment = _START + timedelta(milliseconds=50 * number)
        kind = chance.random()
        state = PhotoState.HELD if kind < 0.02 else PhotoState.REFUSED if kind < 0.05 else PhotoState.PUBLISHED
        photo_id = _id(number, chance)
        yield ModerationPhoto(
            id=photo_id,
            created_at=moment,
            channel="reviews",
            intake_id=_id(number, chance),
            position=0,
            ref=References(customer=f"c-{number // 5}", product=f"p-{chance.randrange(_PRODUCTS)}"),
            state=state,
            image=ImageFacts(
                format="jpeg",
                width=1156,
                height=868,
                byte_count=220_000,
                sha256=sha256,
                phash=chance.randbytes(8).hex(),
            ),
            image_key=folder_of(photo_id),
            fingerprint=None,
            signals=tuple(Signal(name=name, score=chance.random() / 2, version="model@1") for name in _SIGNALS),
            policy_version="abcdef012345",
            decided_by=POLICY,
            decided_at=moment,
            rule="All signals are below their thresholds.",
            queue=QueueReason.HELD if state is PhotoState.HELD else None,
        )


def _id(number: int, chance: random.Random) -> str:
    moment = _START + timedelta(milliseconds=50 * number)
    return make_id(int(moment.timestamp() * 1000), chance.randbytes(10))


def _photo() -> bytes:
    return photos(next(size for size in SIZES if size.name == "1 MP"), count=1)[0]


# Requests


def _connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)


def _form(photo: bytes) -> tuple[bytes, str]:
    edge = uuid.uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n\r\n'
    return b"".join([head.encode(), photo, f"\r\n--{edge}--\r\n".encode()]), f"multipart/form-data; boundary={edge}"


def _timed(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> float:
    """Milliseconds until the whole answer is there. An answer of 404 counts too."""
    began = time.perf_counter()
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 400 and answer.status != 404:
        raise SystemExit(f"{path}: {answer.status} {json.loads(text)['detail']}")
    return 1e3 * (time.perf_counter() - began)


def _quantiles(found: list[float]) -> str:
    p50, p99 = np.quantile(found, [0.5, 0.99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


if __name__ == "__main__":
    main()

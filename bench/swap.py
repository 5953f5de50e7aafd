"""Swaps of a live model under load: how many requests fail, and how much longer the slowest ones take.

    python -m bench.swap [--model NAME] [--swaps N] [--clients N]

Two versions of a model change places in a real server while clients ask without a pause. A swap, then as long without
one, and so on: other work on the machine slows both kinds of requests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from bench.photos import SIZES, photos
from bench.server import Server
from shoplens.bundles.builtin import prepare_builtin
from shoplens.bundles.bundle import write_bundle
from shoplens.registry.entities import CHAMPION, Aliases
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.storage import open_store

_NAME: Final = "swapped"
_VERSIONS: Final = ("1", "2")
_PERIOD_S: Final = 1.0
_BY: Final[dict[str, Any]] = {"by": "bench", "why": "to measure", "figures": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request: when it began and ended (monotonic seconds), its status and the version that answered."""

    began: float
    ended: float
    status: int
    version: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet-lite0-int8")
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--clients", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        registry = published(root, options.model)
        channels = f'{{"swapped": {{"model": "{_NAME}", "keep": "nothing"}}}}'
        environment = {
            "SHOPLENS_CHANNELS": channels,
            "SHOPLENS_DEFAULT_CHANNEL": "swapped",
            "SHOPLENS_MODELS_URL": str(root / "registry"),
        }
        (root / "data").mkdir()
        with Server(root / "data", root / "models", environment) as server:
            measure(server, registry, swaps=options.swaps, clients=options.clients)


def published(root: Path, model: str) -> ObjectRegistry:
    """A registry with two versions of a built-in model, the first of which is champion."""
    source = prepare_builtin(model, root / "models")
    registry = ObjectRegistry(open_store(str(root / "registry")), "the registry", clock=lambda: datetime.now(UTC))
    for version in _VERSIONS:
        bundle = write_bundle(
            root / "made" / version,
            manifest=replace(source.manifest, name=_NAME, version=version),
            labels=source.labels,
            card=source.card,
            model=source.model_path.read_bytes(),
        )
        registry.publish(bundle, **_BY)
    registry.set_alias(_NAME, CHAMPION, _VERSIONS[0], expected=Aliases(), **_BY)
    shutil.rmtree(root / "made")
    return registry


def measure(server: Server, registry: ObjectRegistry, *, swaps: int, clients: int) -> None:
    """Ask and swap, and print what came of it."""
    photo = photos(SIZES[1], count=1)[0]
    stop, asked = threading.Event(), list[Asked]()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not stop.is_set():
                began = time.monotonic()
                answer = client.post("/predict", content=photo)
                version = answer.json()["model"]["version"] if answer.is_success else ""
                asked.append(Asked(began=began, ended=time.monotonic(), status=answer.status_code, version=version))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    periods: list[tuple[float, float]] = []
    taken: list[float] = []
    for number in range(-2, swaps):  # the first two run each version on its probes
        version = _VERSIONS[(number + 1) % 2]
        began = time.monotonic()
        registry.set_alias(_NAME, CHAMPION, version, expected=registry.aliases(_NAME), **_BY)
        os.kill(server.pid, signal.SIGHUP)
        while not asked or asked[-1].version != version:
            time.sleep(0.005)
        if number >= 0:
            taken.append(time.monotonic() - began)
            periods.append((began, began + max(_PERIOD_S, taken[-1])))
        time.sleep(max(0.0, began + 2 * _PERIOD_S - time.monotonic()))
    stop.set()
    for thread in threads:
        thread.join()
    first = periods[0][0]
    during = [each for each in asked if any(start <= each.began < end for start, end in periods)]
    between = [each for each in asked if each.began >= first and each not in during]
    failed = sum(each.status != 200 for each in asked)
    print(f"{swaps} swaps, {len(asked):,} requests of {clients} clients, {failed} failed; a swap took "
          f"{np.median(taken) * 1e3:.0f} ms (median) from the promotion to its first answer")  # fmt: skip
    for what, some in (("during swaps", during), ("between them", between)):
        times = np.array([each.ended - each.began for each in some]) * 1e3
        p50, p99 = np.percentile(times, (50, 99))
        print(f"{what}: {len(some):,} requests, median {p50:.1f} ms, p99 {p99:.1f} ms, longest {times.max():.1f} ms")


if __name__ == "__main__":
    main()

"""What texts and photos cost a model that takes both, beside a photo on a model of photos alone.

    python -m bench.samples [--look NAME] [--both NAME] [--models-dir DIR]

Prints the median time in the server of one text and one photo in milliseconds, and the processor time of a photo on
both models, measured in turn in the same process, with their ratio; then what `POST /catalogue/suggest` takes with a
text, in a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx

from bench.photos import SIZES
from bench.photos import photos as make_photos
from bench.server import Server
from shoplens.cli.process import keep_freed_memory, switch_threads_often
from shoplens.platform.parts import build_channels, build_engine, build_sandbox
from shoplens.serving.engine import ClassifyRequest
from shoplens.serving.local import LocalEngine
from shoplens.settings import read_settings
from shoplens.telemetry.metrics import Metrics
from shoplens.testing import cost

_TEXT: Final = (
    "Samsung Galaxy Case red 6.1 inch with card holder and stand\n"
    "A flip case of imitation leather with room for three cards. It stands by itself, closes with a magnet and leaves "
    "all buttons, the camera and the socket free. Protects from scratches and falls of up to one metre."
)
_ROUNDS: Final = 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--look", default="efficientnet-lite0-int8")
    parser.add_argument("--both", default="starter-catalogue")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    keep_freed_memory()
    switch_threads_often()
    channels = {"look": {"model": options.look}, "both": {"model": options.both}}
    overrides = {} if options.models_dir is None else {"models_dir": options.models_dir.absolute()}
    settings = read_settings(channels=channels, threads=options.threads, **overrides)
    wanted = {name: build_channels(settings)[name] for name in channels}
    engine = build_engine(settings, wanted, metrics=Metrics(), sandbox=build_sandbox(settings))
    asyncio.run(measure(engine, options.look, options.both))
    over_http(settings.effective_models_dir, options.both)


def over_http(models_dir: Path, both: str) -> None:
    """One client asks the same text again and again; the first answers, which prepare the tree, do not count."""
    title, _, description = _TEXT.partition("\n")
    body = {"designation": title, "description": description}
    channels = {"SHOPLENS_CHANNELS__CATALOGUE__MODEL": both}
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder), models_dir, channels) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for _ in range(_ROUNDS):
            client.post("/catalogue/suggest", json=body).raise_for_status()
        before, waits = cost.read(server.pid), []
        for _ in range(20 * _ROUNDS):
            began = time.perf_counter()
            client.post("/catalogue/suggest", json=body).raise_for_status()
            waits.append(time.perf_counter() - began)
        cpu = (cost.read(server.pid).cpu_s - before.cpu_s) / len(waits)
    print(f"a text over HTTP: {1e3 * statistics.median(waits):.2f} ms for the client, {1e3 * cpu:.2f} ms of the "
          "server's processor")  # fmt: skip


async def measure(engine: LocalEngine, look: str, both: str) -> None:
    """Rounds of the same photos on each model in turn, so that a busy machine slows both."""
    photos = make_photos(SIZES[1], count=8)
    cpu: dict[str, list[float]] = {look: [], both: [], "with text": []}
    for _ in range(_ROUNDS):
        for kind, times in cpu.items():
            text = _TEXT if kind == "with text" else ""
            began = time.process_time()
            for photo in photos:
                model = both if kind == "with text" else kind
                await engine.classify(ClassifyRequest(model=model, images=(photo,), text=text, top_k=10, timeout_s=30))
            times.append((time.process_time() - began) / len(photos))
    waits, costs = [], []
    for _ in range(20 * _ROUNDS):
        began, began_cpu = time.perf_counter(), time.process_time()
        await engine.classify(ClassifyRequest(model=both, text=_TEXT, top_k=10, timeout_s=30))
        waits.append(time.perf_counter() - began)
        costs.append(time.process_time() - began_cpu)
    medians = {kind: statistics.median(times) for kind, times in cpu.items()}
    for kind, seconds in medians.items():
        print(f"{kind}: {1e3 * seconds:.2f} ms of processor per photo, {seconds / medians[look]:.3f} of {look}")
    print(f"a text: {1e3 * statistics.median(waits):.2f} ms in the server, {1e3 * statistics.median(costs):.2f} ms of "
          "processor")  # fmt: skip
    await engine.close()


if __name__ == "__main__":
    main()

"""`python -m bench.batch`: runs against the raw loop in turns, and runs of more and more items.

The first table: the raw loop, a run, the raw loop, several rounds for each size of photo. The ratio is taken within a
round, and the median round is reported. Loading the model is reported separately; the end (last moves, report) counts
and is reported, too. The second: small photos and a tiny model, so that the cost of the run itself per item is nearly
everything. It must not grow with the number of items, nor must memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import simplejpeg
from onnx import TensorProto, helper, numpy_helper

from bench.__main__ import heading, print_table
from bench.batch_loop import BatchRequest, BatchResult, run_batch
from bench.children import Child, Request
from bench.photos import SIZES, PhotoSize, photos, write_photos
from shoplens.bundles.builtin import prepare_builtin
from shoplens.bundles.bundle import write_bundle
from shoplens.bundles.manifest import Card, Label, Manifest
from shoplens.images.picture import ImageSpec
from shoplens.serving.cores import usable_cores

_TINY = "tiny"
_TINY_PHOTOS = 64
_RATIO_COLUMNS = (
    "photos",
    "run, images/s",
    "raw loop, images/s",
    "run / raw loop",
    "without the end",
    "CPU per image, run / raw loop",
    "start s",
    "end s",
    "peak MB",
)
_GROWTH_COLUMNS = ("items", "seconds", "items/s", "CPU ms per item", "second half / first half", "peak MB")


def main() -> None:
    """Measure and print."""
    options = _options()
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        if options.rounds:
            print_table(_RATIO_COLUMNS, _ratios(Path(folder), options))
        if options.items:
            print_table(_GROWTH_COLUMNS, _growth(Path(folder), options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.batch", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds against the raw loop; 0 leaves them out")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="length of one measurement; a run's report takes one"
    )
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["1 MP", "4 MP"])
    parser.add_argument("--model", default="efficientnet-lite0-int8", help="a built-in model")
    parser.add_argument("--items", type=int, nargs="*", default=[], help="runs of so many small items, as 1000 10000")
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    parser.add_argument("--place", type=Path, default=None, help="where photos and databases are; a folder on a disk")
    return parser.parse_args()


def _ratios(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    models_dir = options.models_dir.absolute()
    model = str(prepare_builtin(options.model, models_dir).model_path)
    for size in (size for size in SIZES if size.name in options.sizes):
        pictures = write_photos(folder / size.name, photos(size))
        request = Request(folder=str(pictures), model=model, threads=usable_cores(), seconds=options.seconds)
        with Child("bench.raw_loop") as raw:
            speed = raw.measure(request).per_second
            wanted = BatchRequest(
                folder=str(pictures), items=max(1, round(speed * options.seconds)), data_dir=str(folder / "run"),
                models_dir=str(models_dir), model=options.model,
            )  # fmt: skip
            rounds = [_round(raw, request, wanted) for _ in range(options.rounds)]
        yield _ratio_row(size, rounds)


Round = tuple[BatchResult, float, float]
"""A run, with the raw loop's images per second and CPU milliseconds per image beside it."""


def _round(raw: Child, request: Request, wanted: BatchRequest) -> Round:
    before = raw.measure(request)
    run = run_batch(wanted)
    after = raw.measure(request)
    per_second = statistics.mean((before.per_second, after.per_second))
    return run, per_second, statistics.mean((before.cpu_ms, after.cpu_ms))


def _ratio_row(size: PhotoSize, rounds: list[Round]) -> tuple[str, ...]:
    runs = [run for run, _, _ in rounds]
    return (
        size.name,
        f"{statistics.median(run.per_second for run in runs):.1f}",
        f"{statistics.median(raw for _, raw, _ in rounds):.1f}",
        f"{statistics.median(run.per_second / raw for run, raw, _ in rounds):.2f}",
        f"{statistics.median(run.items / sum(run.halves_s) / raw for run, raw, _ in rounds):.2f}",
        f"{statistics.median(run.cpu_ms / raw_ms for run, _, raw_ms in rounds):.2f}",
        f"{statistics.median(run.start_s for run in runs):.1f}",
        f"{statistics.median(run.end_s for run in runs):.1f}",
        f"{max(run.peak_mb for run in runs):.0f}",
    )


def _growth(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    pictures = write_photos(folder / "tiny", [_tiny_photo(number) for number in range(_TINY_PHOTOS)])
    models_dir = folder / "models"
    _write_tiny_model(models_dir)
    for items in options.items:
        run = run_batch(
            BatchRequest(
                folder=str(pictures),
                items=items,
                data_dir=str(folder / "run"),
                models_dir=str(models_dir),
                model=_TINY,
            )
        )
        first, second = run.halves_s
        yield (
            f"{items:,}",
            f"{run.wall_s:.1f}",
            f"{run.per_second:.0f}",
            f"{run.cpu_ms:.2f}",
            f"{second / first:.2f}",
            f"{run.peak_mb:.0f}",
        )


def _tiny_photo(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=85))


def _write_tiny_model(models_dir: Path) -> None:
    """Ten classes out of the mean colour: nothing beside what a run costs by itself."""
    matrix = np.random.default_rng(7).normal(size=(3, 10)).astype(np.float32) / 50
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "matrix"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes, _TINY, [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(matrix, "matrix")],
    )  # fmt: skip
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    manifest = Manifest(
        format_version=1, name=_TINY, version="1.0.0", task="image-classification", input="pixels", output="answer",
        embedding=None, activation="softmax", image=ImageSpec(resize=18, crop=16), max_batch=32,
    )  # fmt: skip
    card = Card(
        title=_TINY, description="For measuring.", task="None", data="None", licence="Apache-2.0", source="Made here",
        date="2026-11-21", limits=("Useless",), metrics=(),
    )  # fmt: skip
    labels = tuple(Label(id=str(number), name=f"class {number}") for number in range(10))
    write_bundle(
        models_dir / _TINY / "1.0.0", manifest=manifest, labels=labels, card=card, model=model.SerializeToString()
    )


if __name__ == "__main__":
    main()

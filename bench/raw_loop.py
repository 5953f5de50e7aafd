"""The limit: decode, resize, infer, on every core, and nothing else. No checks, no fingerprints, no answers kept.

Scaled decoding by simplejpeg, OpenCV's area filter and the same int8 model file as Shoplens, called directly.
Reads one JSON line from standard input per measurement, writes one per result; see `bench.__main__`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import simplejpeg
from numpy.typing import NDArray

from bench.children import Result, answer_requests
from shoplens.cli.process import keep_freed_memory
from shoplens.testing import cost

_CROP, _RESIZE = 224, 256


def main() -> None:
    """Answer requests for measurements until standard input ends."""
    keep_freed_memory()
    cv2.setNumThreads(1)
    answer_requests(lambda request: measure(request.photos(), Path(request.model), request.threads, request.seconds))


def measure(photos: list[bytes], model: Path, threads: int, seconds: float) -> Result:
    """`threads` threads classify `photos` in turn for `seconds`."""
    classify = _pipeline(model)
    for photo in photos:
        classify(photo)
    counts, latencies = [0] * threads, []
    before = cost.read()
    stop_at = time.perf_counter() + seconds

    def work(index: int) -> None:
        at = index
        while (started := time.perf_counter()) < stop_at:
            classify(photos[at % len(photos)])
            at += 1
            counts[index] += 1
            latencies.append(time.perf_counter() - started)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Result.of(images=sum(counts), before=before, after=cost.read(), latencies_s=latencies)


def _pipeline(model: Path) -> Callable[[bytes], int]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name, output = session.get_inputs()[0].name, "scores"

    def classify(photo: bytes) -> int:
        pixels = simplejpeg.decode_jpeg(photo, "RGB", min_height=_RESIZE, min_width=_RESIZE, min_factor=1)
        return int(np.argmax(session.run([output], {name: _crop(pixels)[np.newaxis]})[0]))

    return classify


def _crop(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """The centre at 7/8 of the shorter side, averaged down to what the model takes."""
    height, width = pixels.shape[:2]
    side = min(height, width) * _CROP // _RESIZE
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(pixels[top : top + side, left : left + side], (_CROP, _CROP), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()

"""A server whose threads are stuck says so, and when they are not any more; decoders that hang hold nobody else."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.bundle import write_bundle
from shoplens.testing.cost import family
from shoplens.testing.hostile import encoded
from shoplens.testing.hostile import photo as picture
from tests.conftest import colourful, jpeg_of, running_server
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

PATIENCE_S = 120
STUCK_CPU_S = 9
BRIGHT = 200.0


def test_decoders_that_hang_hold_no_jpeg_and_their_photos_are_refused_in_time(tmp_path: Path, models_dir: Path) -> None:
    """More of them than there are processes and threads; the server stays ready."""
    with running_server(tmp_path / "data", models_dir, threads="1", sandbox_cpu_s="0.3") as server:
        decoders = [pid for pid in family(server.process.pid) if is_decoder(pid)]
        assert decoders
        with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(4) as threads:
            for pid in decoders:
                os.kill(pid, signal.SIGSTOP)
            tiff = encoded(picture(), "tiff")
            hanging = [threads.submit(httpx.post, f"{server.url}/predict", content=tiff, timeout=60) for _ in range(4)]
            answered = 0
            while not any(each.done() for each in hanging):
                assert 200 == client.post("/predict", content=jpeg_of(colourful(1))).status_code
                assert 200 == client.get("/health/ready").status_code
                answered += 1
            assert answered >= 3
            outcomes = sorted(each.result().status_code for each in hanging)
            assert [200, 200, 422, 422] == outcomes  # processes that took the place of those that hung answer the rest


def test_readiness_fails_while_photos_wait_and_none_is_finished_and_recovers(tmp_path: Path, models_dir: Path) -> None:
    """The model takes very long for a bright photo, and another photo waits for the only thread."""
    models = tmp_path / "models"
    models.mkdir()
    for built in models_dir.iterdir():
        (models / built.name).symlink_to(built, target_is_directory=True)
    slow_model = slow_for_bright(turns=turns_within(STUCK_CPU_S))
    write_bundle(models / "fruit" / "1.2.0", manifest=MANIFEST, labels=LABELS, card=CARD, model=slow_model)
    settings = {"threads": "1", "deadline_s": "110", "channels__look__model": "fruit"}
    with (
        running_server(tmp_path / "data", models, **settings) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        white = jpeg_of(np.full((64, 64, 3), 255, np.uint8))
        slow = threads.submit(httpx.post, f"{server.url}/predict", content=white, timeout=PATIENCE_S)
        time.sleep(0.5)
        black = jpeg_of(np.zeros((64, 64, 3), np.uint8))
        waiting = threads.submit(httpx.post, f"{server.url}/predict", content=black, timeout=PATIENCE_S)
        stuck = until_status(client, 503)
        assert "engine_stuck" in stuck.text or "finished" in stuck.text
        assert 200 == client.get("/health/live").status_code
        assert 200 == until_status(client, 200).status_code
        assert 200 == slow.result().status_code
        assert 200 == waiting.result().status_code


def slow_for_bright(*, turns: int) -> bytes:
    """The small model, which first adds zero `turns` times to its answer if the mean of the pixels is above BRIGHT."""
    model = onnx.load_model_from_string(small_model())
    model.graph.node[-1].output[0] = "raw"
    value = [helper.make_tensor_value_info("value", TensorProto.FLOAT, None)]
    turn = [helper.make_tensor_value_info("turn", TensorProto.INT64, [])]
    going = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["value", "zero"], ["next"])],
        "body",
        [*turn, going, *value],
        [on, helper.make_tensor_value_info("next", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    model.graph.node.extend([
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "limit"], ["is_bright"]),
        helper.make_node("Loop", ["turns", "is_bright", "raw"], ["answer"], body=body),
    ])  # fmt: skip
    model.graph.initializer.extend([
        numpy_helper.from_array(np.array(turns, np.int64), "turns"),
        numpy_helper.from_array(np.array(BRIGHT, np.float32), "limit"),
    ])  # fmt: skip
    return bytes(model.SerializeToString())


def turns_within(cpu_s: float) -> int:
    """How many turns of that loop take so much CPU time here."""
    tried = 200_000
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(slow_for_bright(turns=tried), options, providers=["CPUExecutionProvider"])
    began = time.thread_time()
    session.run(None, {"pixels": np.full((1, 8, 8, 3), 255, np.float32)})
    return int(tried * cpu_s / (time.thread_time() - began))


def is_decoder(pid: int) -> bool:
    """Whether this is a process of the sandbox that decodes, not the one that forks them."""
    status = Path(f"/proc/{pid}/status").read_text()
    parent = int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])
    return "sandbox_process" in Path(f"/proc/{parent}/cmdline").read_text()


def until_status(client: httpx.Client, status: int) -> httpx.Response:
    """The first answer of the readiness probe with this status."""
    give_up_at = time.monotonic() + PATIENCE_S
    while (answer := client.get("/health/ready")).status_code != status:
        assert time.monotonic() < give_up_at, f"no {status} within {PATIENCE_S} s: {answer.text}"
        time.sleep(0.2)
    return answer

"""A model is replaced while requests use it, and none of them fails."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from servers.otlp import running_receiver
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.store import resolve_bundle
from shoplens.errors import BundleInvalid, EngineStopped
from shoplens.images.picture import Picture
from shoplens.serving.batcher import Batching
from shoplens.serving.classifier import Classifier
from shoplens.serving.engine import Prediction
from shoplens.serving.models import LoadedModel, ModelHandle, ModelPool
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.tracing import trace, tracing

BATCHES = Batching(threads=1, max_batch=4, max_wait_s=0.01)
ModelMaker = Callable[..., LoadedModel]


@pytest.fixture
def bundle(models_dir: Path) -> Bundle:
    """A real model."""
    return resolve_bundle("efficientnet-lite0-int8", models_dir)


@pytest.fixture
def load(bundle: Bundle) -> ModelMaker:
    """Opens the real model."""
    return lambda batching=None: LoadedModel(Classifier(bundle), batching=batching, metrics=Metrics())


def grey() -> Picture:
    """A picture of one colour."""
    return Picture(pixels=np.full((256, 256, 3), 99, np.uint8), format="png", width=256, height=256)


def classify(model: LoadedModel) -> str:
    """One call, as a thread of the engine makes it."""
    sample = model.classifier.prepare([grey()])
    return model.classify(sample, top_k=1, embed=False, deadline=time.monotonic() + 30).prediction.top.label


@pytest.mark.parametrize("batching", [None, BATCHES])
def test_a_swap_under_load_fails_no_call(load: ModelMaker, batching: Batching | None) -> None:
    """Two callers never stop while the model is replaced several times."""
    handle = ModelHandle(load(batching))
    stop = threading.Event()
    faults: list[BaseException] = []
    calls = [0, 0]

    def call(index: int) -> None:
        try:
            while not stop.is_set():
                with handle.lease() as model:
                    classify(model)
                calls[index] += 1
        except BaseException as error:  # noqa: BLE001 - the test reports whatever it was
            faults.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    drained = [handle.swap(load(batching), drain_s=10) for _ in range(5)]
    stop.set()
    for thread in threads:
        thread.join(20)
    handle.close()
    assert [] == faults
    assert [True] * 5 == drained
    assert min(calls) > 0


def test_a_lease_keeps_the_old_model_until_it_ends(load: ModelMaker) -> None:
    """The swap waits for it, and says so when it did not end in time."""
    handle = ModelHandle(load())
    with handle.lease() as held:
        assert not handle.swap(load(), drain_s=0.01)
        assert held is not handle.model
        assert classify(held) == classify(handle.model)


def test_the_last_lease_of_a_replaced_model_closes_it(load: ModelMaker) -> None:
    """Also when the swap has given up waiting for it. Until then it answers."""
    old, new = load(BATCHES), load(BATCHES)
    handle = ModelHandle(old)
    with handle.lease() as first, handle.lease():
        assert not handle.swap(new, drain_s=0.0)
        classify(first)
    with pytest.raises(EngineStopped):
        classify(old)
    with handle.lease() as current:
        classify(current)
    handle.close()


def test_a_lease_costs_next_to_nothing(load: ModelMaker) -> None:
    """Less than 50 µs even on a busy machine, where a photo takes some milliseconds."""
    handle = ModelHandle(load())
    began = time.thread_time()
    for _ in range(1000):
        with handle.lease():
            pass
    assert time.thread_time() - began < 0.05


def test_a_model_that_cannot_answer_never_goes_live(load: ModelMaker, bundle: Bundle) -> None:
    """The old one stays."""
    handle = ModelHandle(load())
    old = handle.model

    class Broken(Classifier):
        """Answers nothing that could be read."""

        def warm(self) -> None:
            raise BundleInvalid("broken")

    with pytest.raises(BundleInvalid):
        handle.swap(LoadedModel(Broken(bundle), batching=None, metrics=Metrics()), drain_s=1)
    assert old is handle.model


def test_batched_and_single_calls_give_the_same_labels(load: ModelMaker) -> None:
    """Batching is a policy; it must not change answers."""
    single, batched = load(), load(Batching(threads=1, max_batch=8, max_wait_s=0.05))
    pictures = [
        Picture(
            pixels=np.random.default_rng(seed).integers(0, 256, (256, 256, 3), np.uint8),
            format="png",
            width=256,
            height=256,
        )
        for seed in range(8)
    ]
    samples = [single.classifier.prepare([picture]) for picture in pictures]
    deadline = time.monotonic() + 60
    alone = [single.classify(sample, top_k=3, embed=False, deadline=deadline).prediction for sample in samples]
    together: dict[int, Prediction] = {}

    def call(index: int) -> None:
        found = batched.classify(samples[index], top_k=3, embed=False, deadline=deadline)
        together[index] = found.prediction

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batched.close()
    expected = {index: [each.label for each in prediction.labels[:3]] for index, prediction in enumerate(alone)}
    assert expected == {index: [each.label for each in answer.labels[:3]] for index, answer in together.items()}


def test_a_closed_pool_lets_go_of_its_models(load: ModelMaker) -> None:
    """Their memory is free at once, although something may still refer to the pool."""
    model = load()
    gone = weakref.ref(model)
    pool = ModelPool({"lite": ModelHandle(model)})
    del model
    pool.close()
    assert gone() is None
    with pytest.raises(EngineStopped):
        pool.current("lite")


def test_a_batch_on_a_gpu_has_a_link_to_each_request(load: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works for several traces at once, so it is a part of none."""
    with running_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        with tracing(on=True, service="gpu"):
            model = load(Batching(threads=1, max_batch=2, max_wait_s=30))

            def request(number: int) -> None:
                with trace(f"request {number}"):
                    classify(model)

            threads = [threading.Thread(target=request, args=(number,)) for number in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            model.close()
    (batch,) = (each for each in receiver.spans if each.name == "infer batch")
    requests = {(each.trace, each.id) for each in receiver.spans if each.name.startswith("request")}
    assert (requests, 2, "") == (set(batch.links), batch.attributes["shoplens.batch_size"], batch.parent)

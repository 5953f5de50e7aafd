"""The slot: the live model is swapped without a gap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.store import resolve_bundle
from shoplens.errors import BundleInvalid
from shoplens.images.picture import Picture
from shoplens.serving.batcher import Batching
from shoplens.serving.classifier import Classifier
from shoplens.serving.live import LiveModel
from shoplens.serving.slot import Slot
from shoplens.telemetry.metrics import Metrics

LiveMaker = Callable[..., LiveModel]


@pytest.fixture
def bundle(models_dir: Path) -> Bundle:
    """A real model."""
    return resolve_bundle("efficientnet-lite0-int8", models_dir)


@pytest.fixture
def make_live(bundle: Bundle) -> LiveMaker:
    """Real classifiers in service."""
    return lambda batching=None: LiveModel(Classifier(bundle), batching=batching, metrics=Metrics())


def grey() -> Picture:
    """A picture of one colour."""
    return Picture(pixels=np.full((256, 256, 3), 99, np.uint8), format="png", width=256, height=256)


def classify(live: LiveModel) -> str:
    """One call, as a worker makes it."""
    tensor = live.classifier.encode(grey())
    return live.classify(tensor, top_k=1, deadline=time.monotonic() + 30).top.label


@pytest.mark.parametrize("batching", [None, Batching(threads=1, max_batch=4, max_wait_s=0.01)])
def test_a_swap_under_load_fails_no_call(make_live: LiveMaker, batching: Batching | None) -> None:
    """Two callers never stop while the model is swapped several times."""
    slot = Slot(make_live(batching))
    stop = threading.Event()
    faults: list[BaseException] = []
    calls = [0, 0]

    def call(index: int) -> None:
        try:
            while not stop.is_set():
                with slot.lease() as live:
                    classify(live)
                calls[index] += 1
        except BaseException as error:  # noqa: BLE001 - the test reports whatever it was
            faults.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    drained = [slot.swap(make_live(batching), drain_s=10) for _ in range(5)]
    stop.set()
    for thread in threads:
        thread.join(20)
    slot.live.close()
    assert [] == faults
    assert [True] * 5 == drained
    assert min(calls) > 0


def test_a_lease_keeps_the_old_model_until_it_ends(make_live: LiveMaker) -> None:
    """The swap waits for it, and says so when it did not end in time."""
    slot = Slot(make_live())
    with slot.lease() as held:
        assert not slot.swap(make_live(), drain_s=0.01)
        assert held is not slot.live
        assert classify(held) == classify(slot.live)


def test_a_model_that_cannot_answer_never_goes_live(make_live: LiveMaker, bundle: Bundle) -> None:
    """The old one stays."""
    slot = Slot(make_live())
    old = slot.live

    class Broken(Classifier):
        """Answers nothing that could be read."""

        def warm(self) -> None:
            raise BundleInvalid("broken")

    with pytest.raises(BundleInvalid):
        slot.swap(LiveModel(Broken(bundle), batching=None, metrics=Metrics()), drain_s=1)
    assert old is slot.live


def test_batched_and_single_calls_give_the_same_labels(make_live: LiveMaker) -> None:
    """Batching is a policy; it must not change answers."""
    single, batched = make_live(), make_live(Batching(threads=1, max_batch=8, max_wait_s=0.05))
    pictures = [
        Picture(
            pixels=np.random.default_rng(seed).integers(0, 256, (256, 256, 3), np.uint8),
            format="png",
            width=256,
            height=256,
        )
        for seed in range(8)
    ]
    tensors = [single.classifier.encode(picture) for picture in pictures]
    deadline = time.monotonic() + 60
    alone = [single.classify(tensor, top_k=3, deadline=deadline) for tensor in tensors]
    together: dict[int, object] = {}

    def call(index: int) -> None:
        together[index] = batched.classify(tensors[index], top_k=3, deadline=deadline)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batched.close()
    expected = {index: [each.label for each in prediction.labels[:3]] for index, prediction in enumerate(alone)}
    assert expected == {index: [each.label for each in answer.labels[:3]] for index, answer in together.items()}  # type: ignore[attr-defined]

"""The model that answers for one name: how it is called, and how it is replaced while requests use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

from shoplens.errors import DeadlineExceeded, ShoplensError
from shoplens.futures import complete
from shoplens.serving.batcher import Batcher, Batching, PendingRequest
from shoplens.serving.classifier import Classifier, Tensor
from shoplens.serving.prediction import RANKED_LABELS, Prediction
from shoplens.telemetry.metrics import Metrics

_DRAIN_S = 5.0


class LoadedModel:
    """An open classifier, called in the way that suits its provider: directly on a CPU, in batches on a GPU.

    With `batching` None each caller runs the model on its own thread.
    """

    def __init__(self, classifier: Classifier, *, batching: Batching | None, metrics: Metrics) -> None:
        self.classifier = classifier
        self.batching = batching
        self._sizes = metrics.batch_size.labels(model=classifier.bundle.ref.name)
        self._batcher = (
            Batcher(self._run_batch, batching, name=f"{classifier.bundle.ref.name}-batch") if batching else None
        )

    def classify(self, tensor: Tensor, *, top_k: int, deadline: float) -> Prediction:
        """Classify one preprocessed sample; blocks until `deadline` (monotonic seconds) at most.

        Raises DeadlineExceeded, QueueFull, EngineStopped, and ShoplensError when the model gives no usable scores.
        """
        if self._batcher is None:
            self._sizes.observe(1)
            (outcome,) = self.classifier.classify([tensor], top_k=top_k)
            if isinstance(outcome, ShoplensError):
                raise outcome
            return outcome
        answer: Future[Prediction] = Future()
        pending = self._batcher.submit((tensor, top_k), deadline=deadline, done=partial(complete, answer))
        try:
            return answer.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            pending.abandoned = True
            raise DeadlineExceeded("The deadline of this request passed while the model was running.") from error

    def close(self) -> None:
        """Finish what was accepted and release the threads."""
        if self._batcher is not None:  # an empty one is false
            self._batcher.close(drain_s=_DRAIN_S)

    def _run_batch(
        self, batch: Sequence[PendingRequest[tuple[Tensor, int], Prediction]]
    ) -> Sequence[Prediction | ShoplensError]:
        self._sizes.observe(len(batch))
        top_k = max(RANKED_LABELS, *(each.item[1] for each in batch))
        return self.classifier.classify([each.item[0] for each in batch], top_k=top_k)


class ModelHandle:
    """Always points at one loaded model. Requests lease it; `swap` replaces it without failing any of them."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._leases: dict[LoadedModel, int] = {model: 0}
        self._changed = threading.Condition(threading.Lock())

    @property
    def model(self) -> LoadedModel:
        """The model that the next lease gets."""
        return self._model

    @contextmanager
    def lease(self) -> Iterator[LoadedModel]:
        """Use the current model. It stays open until the lease ends, also when it is replaced meanwhile."""
        with self._changed:
            model = self._model
            self._leases[model] += 1
        try:
            yield model
        finally:
            with self._changed:
                self._leases[model] -= 1
                unused = model is not self._model and not self._leases[model]
            if unused:
                self._retire(model)

    def swap(self, replacement: LoadedModel, *, drain_s: float) -> bool:
        """Warm `replacement`, make it the current model, and close the old one when its last lease has ended.

        Raises BundleInvalid if the replacement cannot answer; then nothing changes. Waits up to `drain_s` for the
        leases of the old model and returns whether they ended in time; if not, the last of them closes it.
        """
        replacement.classifier.warm()
        with self._changed:
            old, self._model = self._model, replacement
            self._leases[replacement] = 0
            unused = not self._leases[old]
        if unused:
            self._retire(old)
        with self._changed:
            return self._changed.wait_for(lambda: old not in self._leases, timeout=drain_s)

    def close(self) -> None:
        """Close the current model."""
        self._model.close()

    def _retire(self, old: LoadedModel) -> None:
        """Close a replaced model that nobody uses any more; without the lock, since its last batch may run."""
        old.close()
        with self._changed:
            del self._leases[old]
            self._changed.notify_all()

"""A classifier in service, called in the way that suits its provider: directly on a CPU, in batches on a GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from shoplens.errors import DeadlineExceeded, ShoplensError
from shoplens.serving.batcher import Batcher, Batching, PendingRequest
from shoplens.serving.classifier import Classifier, Tensor
from shoplens.serving.prediction import RANKED_LABELS, Prediction
from shoplens.telemetry.metrics import Metrics

_DRAIN_S = 5.0


class LiveModel:
    """`batching` None means that each caller runs the model on its own thread."""

    def __init__(self, classifier: Classifier, *, batching: Batching | None, metrics: Metrics) -> None:
        self.classifier = classifier
        self._sizes = metrics.batch_size.labels(model=classifier.bundle.ref.name)
        self._batcher = Batcher(self._run, batching, name=f"{classifier.bundle.ref.name}-batch") if batching else None

    @property
    def batching(self) -> Batching | None:
        """How calls are gathered; None for single calls."""
        return self._batcher.batching if self._batcher else None

    def classify(self, tensor: Tensor, *, top_k: int, deadline: float) -> Prediction:
        """Classify one sample; blocks. Raises ShoplensError, DeadlineExceeded among them."""
        if self._batcher is None:
            self._sizes.observe(1)
            (outcome,) = self.classifier.classify([tensor], top_k=top_k)
        else:
            outcome = _call(self._batcher, (tensor, top_k), deadline)
        if isinstance(outcome, ShoplensError):
            raise outcome
        return outcome

    def warm(self) -> None:
        """Run the model once. Raises BundleInvalid."""
        self.classifier.warm()

    def close(self) -> None:
        """Finish what was accepted and release the threads."""
        if self._batcher:
            self._batcher.close(drain_s=_DRAIN_S)

    def _run(
        self, tickets: Sequence[PendingRequest[tuple[Tensor, int], Prediction]]
    ) -> Sequence[Prediction | ShoplensError]:
        self._sizes.observe(len(tickets))
        top_k = max(RANKED_LABELS, *(ticket.item[1] for ticket in tickets))
        return self.classifier.classify([ticket.item[0] for ticket in tickets], top_k=top_k)


def _call(
    batcher: Batcher[tuple[Tensor, int], Prediction], item: tuple[Tensor, int], deadline: float
) -> Prediction | ShoplensError:
    """Submit and wait on this thread, until the deadline at most."""
    arrived = threading.Event()
    answer: list[Prediction | ShoplensError] = []

    def done(outcome: Prediction | ShoplensError) -> None:
        answer.append(outcome)
        arrived.set()

    ticket = batcher.submit(item, deadline=deadline, done=done)
    if not arrived.wait(max(0.0, deadline - time.monotonic())):
        ticket.abandoned = True
        return DeadlineExceeded("The time for this request passed while the model worked.")
    return answer[0]

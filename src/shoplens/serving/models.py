"""The models of a process: loaded, replaced while requests use them, and further versions that requests ask for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from shoplens.bundles.manifest import NAME_PATTERN, ModelRef
from shoplens.errors import DeadlineExceeded, EngineStopped, ModelNotFound, ShoplensError, TooManyVersions
from shoplens.serving.batcher import Batcher, Batching, PendingRequest, complete
from shoplens.serving.classifier import Classifier, ModelAnswer, PreparedSample
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.tracing import Attributes, linked_span

_DRAIN_S: Final = 5.0
_IDLE_S: Final = 60.0
"""A version that single requests asked for makes room for another one when nobody has asked for it for so long."""
_VERSION: Final = re.compile(NAME_PATTERN)
_log: Final = get_logger(__name__)

LoadVersion = Callable[[str], "LoadedModel"]
"""Loads `name@version`, warm. Raises ModelNotFound, BundleError and Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ModelCall:
    """What one sample asks of a model."""

    sample: PreparedSample
    top_k: int
    embed: bool


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

    @property
    def ref(self) -> ModelRef:
        """Its name and version."""
        return self.classifier.bundle.ref

    def classify(self, sample: PreparedSample, *, top_k: int, embed: bool, deadline: float) -> ModelAnswer:
        """Classify one preprocessed sample; blocks until `deadline` (monotonic seconds) at most.

        Raises DeadlineExceeded, QueueFull, EngineStopped, and ShoplensError when the model gives no usable scores.
        """
        call = _ModelCall(sample=sample, top_k=top_k, embed=embed)
        if self._batcher is None:
            (outcome,) = self._run([call])
            if isinstance(outcome, ShoplensError):
                raise outcome
            return outcome
        answer: Future[ModelAnswer] = Future()
        pending = self._batcher.submit(call, deadline=deadline, done=partial(complete, answer))
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
        self, batch: Sequence[PendingRequest[_ModelCall, ModelAnswer]]
    ) -> Sequence[ModelAnswer | ShoplensError]:
        calls = [each.item for each in batch]
        if len(calls) == 1:  # it runs in the trace of its request
            return self._run(calls)
        about: Attributes = {"shoplens.model": str(self.ref), "shoplens.batch_size": len(calls)}
        with linked_span("infer batch", [each.context for each in batch], about):
            return self._run(calls)

    def _run(self, calls: Sequence[_ModelCall]) -> Sequence[ModelAnswer | ShoplensError]:
        self._sizes.observe(len(calls))
        top_k = max(call.top_k for call in calls)
        embed = any(call.embed for call in calls)
        return self.classifier.classify([call.sample for call in calls], top_k=top_k, embed=embed)


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


class ModelPool:
    """The models of a process, by the name under which requests ask for them.

    `name@version` means that very version, whichever version is live: it is loaded with `load` when it is first asked
    for. At most `versions` such versions are loaded beside the live ones. Thread-safe.
    """

    def __init__(self, live: Mapping[str, ModelHandle], *, load: LoadVersion | None = None, versions: int = 2) -> None:
        self.live: Final = dict(live)
        self._load = load
        self._versions = versions
        self._pinned: dict[str, tuple[ModelHandle, float]] = {}
        self._changed = threading.Lock()
        self._loading = threading.Lock()
        self._closed = False

    def current(self, name: str) -> ModelHandle | None:
        """The model of this name, if it is loaded now. Raises ModelNotFound for a name that is not served, and
        EngineStopped after `close`.
        """
        if self._closed:
            raise EngineStopped("The engine is stopping.")
        if name in self.live:
            return self.live[name]
        base, _, version = name.partition("@")
        if base not in self.live or not _VERSION.fullmatch(version):
            known = ", ".join(sorted(self.live))
            raise ModelNotFound(f"No model {name!r} is loaded; there are: {known}.")
        if str(self.live[base].model.ref) == name:
            return self.live[base]
        with self._changed:
            if name not in self._pinned:
                return None
            handle, _ = self._pinned[name]
            self._pinned[name] = handle, time.monotonic()
            return handle

    def load(self, name: str) -> ModelHandle:
        """The same; a version that is not loaded is. Blocks. Raises TooManyVersions, and as `LoadVersion`."""
        with self._loading:  # one at a time, since each takes a core and much memory
            if (found := self.current(name)) is not None:
                return found
            if self._load is None:
                raise ModelNotFound(f"Only the live versions of models are loaded here, and {name} is none of them.")
            self._make_room(name)
            started = time.monotonic()
            handle = ModelHandle(self._load(name))
            with self._changed:
                self._pinned[name] = handle, time.monotonic()
            _log.info("model.version_loaded", model=name, seconds=round(time.monotonic() - started, 3))
            return handle

    @contextmanager
    def lease(self, name: str) -> Iterator[LoadedModel]:
        """Use a model that was loaded a moment ago."""
        with (self.current(name) or self.load(name)).lease() as model:
            if name in self.live or str(model.ref) == name:
                yield model
                return
        with self.load(name).lease() as model:  # the live version was replaced in between
            yield model

    def close(self) -> None:
        """Close all models and let go of them: what still refers to this pool does not keep their memory."""
        for handle in (*self.live.values(), *(handle for handle, _ in self._pinned.values())):
            handle.close()
        self._closed = True
        self.live.clear()
        self._pinned.clear()

    def _make_room(self, name: str) -> None:
        """Let go of a version that nobody has asked for lately. Raises TooManyVersions without any."""
        with self._changed:
            if len(self._pinned) < self._versions:
                return
            oldest = min(self._pinned, key=lambda each: self._pinned[each][1])
            if time.monotonic() - self._pinned[oldest][1] < _IDLE_S:
                loaded = ", ".join(sorted(self._pinned))
                raise TooManyVersions(
                    f"{name} cannot be loaded now: requests use {loaded}, and at most {self._versions} versions are "
                    "loaded beside the live ones. Try again in a minute, or raise the setting pinned_versions."
                )
            handle, _ = self._pinned.pop(oldest)
        handle.close()

"""Follow the alias `champion`: fetch, verify, probe and warm what it names, and let it answer from then on.

Requests never wait for any of this. What cannot be verified or does not answer its probes is refused, and so is a model
that does not fit its channels; the version that answers stays. A registry that is away changes nothing.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.store import bundle_folders
from shoplens.errors import BundleError, BundleInvalid, ShoplensError, Unavailable
from shoplens.messages import marked
from shoplens.registry.entities import Aliases
from shoplens.registry.finder import ModelFinder
from shoplens.registry.registry import Registry
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_RETRY_REFUSED_S: Final = 60.0
_CLOSE_S: Final = 10.0
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedModel:
    """A model that follows its champion, for people to read.

    `serving` answers since `since`, None if since the start. `champion` is what the registry names; it differs from
    `serving` while it is being loaded, and while it is refused. `fault` says why it is refused, or that the registry is
    away.
    """

    name: str
    serving: ModelRef
    champion: str | None = None
    challenger: str | None = None
    since: datetime | None = None
    fault: str | None = None
    refused: bool = False


class LiveEngine(Protocol):
    """What a follower changes: an engine with its models here, or one that knows what workers have."""

    def bundle(self, model: str) -> Bundle:
        """The bundle that answers under this name now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParts:
    """How a follower does its work.

    `swap` lets a verified bundle answer under a name. `probe` runs its graphs and `check` compares it with what the
    channels need of the model of that name; both raise BundleError. `clean_up` removes old versions of a name.
    """

    registry: Registry
    finder: ModelFinder
    engine: LiveEngine
    swap: Callable[[str, Bundle], None]
    probe: Callable[[Bundle], None]
    check: Callable[[str, Bundle], None]
    clean_up: Callable[[str, Aliases], None]
    clock: Callable[[], datetime]
    metrics: Metrics


class ModelFollower:
    """Asks the registry every `every_s` seconds, or when it is woken, on a thread of its own."""

    def __init__(self, names: Sequence[str], parts: LiveParts, *, every_s: float) -> None:
        self._parts = parts
        self._every_s = every_s
        self._seen: dict[str, Aliases] = {}
        self._retry_at: dict[str, float] = {}
        self._probed: set[str] = set()
        self._woken = threading.Event()
        self._closing = False
        self._one_at_a_time = threading.Lock()
        self._states = {name: FollowedModel(name=name, serving=parts.engine.bundle(name).ref) for name in names}
        self._thread = threading.Thread(target=self._follow, name="follow-models", daemon=True)
        for name in names:
            parts.metrics.follow_model(name)

    def start(self) -> None:
        """Begin to follow."""
        if self._states:
            self._thread.start()

    def wake(self) -> None:
        """Ask the registry now. May be called from a signal handler."""
        self._retry_at.clear()
        self._woken.set()

    def states(self) -> tuple[FollowedModel, ...]:
        """What is followed, by name."""
        return tuple(self._states.values())

    def challenger(self, name: str) -> str | None:
        """The challenger of a model, as far as it is known."""
        state = self._states.get(name)
        return None if state is None else state.challenger

    def close(self) -> None:
        """Stop after a change that is in work."""
        self._closing = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def look(self) -> None:
        """Ask once for every model and follow. Blocks; raises nothing."""
        with self._one_at_a_time:
            for name in self._states:
                try:
                    self._look_at(name)
                # One model must not end the loop that follows all of them: whatever it was, the next look must come.
                except Exception as error:  # noqa: BLE001
                    _log.exception("model.follow_failed", model=name, error=type(error).__name__)

    def _follow(self) -> None:
        while not self._closing:
            self.look()
            self._woken.wait(self._every_s)
            self._woken.clear()

    def _look_at(self, name: str) -> None:
        try:
            aliases = self._parts.registry.aliases(name, self._seen.get(name))
        except Unavailable as error:
            self._note(name, fault=marked(f"The registry does not answer: {error.public}"), error=error)
            return
        new = aliases is not self._seen.get(name)
        serving = self._parts.engine.bundle(name)
        champion = aliases.champion
        state = replace(self._states[name], serving=serving.ref, champion=champion, challenger=aliases.challenger)
        self._states[name] = state
        if champion is None and name in self._seen and self._seen[name].champion is not None:
            self._note(name, fault=marked(f"The registry names no champion of {name} any more; {serving.ref} stays."))
            return
        if champion is None or champion == serving.ref.version:
            self._seen[name] = aliases
            self._note(name)
            return
        if not new and time.monotonic() < self._retry_at.get(name, 0.0):
            return
        self._seen[name] = aliases
        self._change(name, serving, aliases)

    def _change(self, name: str, serving: Bundle, aliases: Aliases) -> None:
        """Let the champion answer, or refuse it."""
        parts, champion = self._parts, aliases.champion or ""
        started = time.monotonic()
        try:
            bundle = parts.finder.version(name, champion, digest=aliases.digests.get(champion))
            self._require_fit(name, serving, bundle)
            self._probe(bundle)
            parts.swap(name, bundle)
        except Unavailable as error:
            self._retry_at[name] = 0.0
            self._note(name, fault=marked(f"{name}@{champion} cannot be fetched: {error.public}"), error=error)
            return
        except ShoplensError as error:
            self._retry_at[name] = time.monotonic() + _RETRY_REFUSED_S
            digest = aliases.digests.get(champion, "")[:12]
            fault = marked(f"{name}@{champion} (digest {digest}) is refused, {serving.ref} stays: {error.public}")
            parts.metrics.model_changes.labels(model=name, outcome="refused").inc()
            self._note(name, fault=fault, refused=True, error=error)
            return
        parts.finder.remember(name, champion)
        parts.metrics.model_changes.labels(model=name, outcome="swapped").inc()
        self._states[name] = replace(self._states[name], serving=bundle.ref, since=parts.clock())
        _log.info("model.swapped", model=name, before=serving.ref.version, after=champion, digest=bundle.digest,
                  seconds=round(time.monotonic() - started, 3))  # fmt: skip
        self._note(name)
        parts.clean_up(name, aliases)

    def _probe(self, bundle: Bundle) -> None:
        """Each bundle once. Raises BundleError."""
        if bundle.digest in self._probed:
            return
        try:
            self._parts.probe(bundle)
        except BundleError as error:
            self._parts.finder.refuse(bundle, str(error))
            raise
        self._probed.add(bundle.digest)

    def _require_fit(self, name: str, serving: Bundle, bundle: Bundle) -> None:
        """Raises BundleInvalid for a version that the requests and channels of this model could not use."""
        if missing := set(serving.manifest.kinds) - set(bundle.manifest.kinds):
            raise BundleInvalid(f"it takes no {min(missing)} any more. Publish it under another name.")
        self._parts.check(name, bundle)

    def _note(
        self, name: str, *, fault: str | None = None, refused: bool = False, error: Exception | None = None
    ) -> None:
        """Keep the fault for people, and log it when it is another one than before."""
        before = self._states[name]
        self._states[name] = replace(before, fault=fault, refused=refused)
        self._parts.metrics.model_refused.labels(model=name).set(refused)
        if fault == before.fault:
            return
        if fault is None:
            _log.info("model.follows_again", model=name, serving=str(before.serving))
        else:
            event = "model.champion_refused" if refused else "model.registry_away"
            _log.error(event, model=name, champion=before.champion, served=before.serving.version,
                       code=getattr(error, "code", None), reason=str(error))  # fmt: skip


def faults_of(states: Sequence[FollowedModel]) -> dict[str, str]:
    """What does not work, by model."""
    return {state.name: state.fault for state in states if state.fault is not None}


def remove_old_versions(
    models_dir: Path, registry: Registry, name: str, *, keep: Collection[str], most: int
) -> list[str]:
    """Remove installed versions of a model until `most` are left, the longest installed first; returns them.

    Those in `keep` stay, and those that the registry does not have: they could not be fetched again.
    """
    installed = [folder for folder in bundle_folders(models_dir) if folder.parent.name == name]
    spare = len(installed) - most
    if spare <= 0:
        return []
    try:
        published = {version.ref.version for version in registry.versions(name)}
    except Unavailable:
        return []
    old = [each for each in installed if each.name in published and each.name not in keep]
    removed = sorted(old, key=lambda folder: folder.stat().st_mtime)[:spare]
    for folder in removed:
        grave = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.rename(grave / folder.name)  # at once, so that nobody finds half a version
        shutil.rmtree(grave, ignore_errors=True)
        _log.info("model.version_removed", model=name, version=folder.name)
    return [folder.name for folder in removed]

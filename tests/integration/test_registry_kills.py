"""A publisher or promoter that is killed at any moment leaves no half version, no second champion and no gap.

Each one is a process of its own that ends with SIGKILL: before each single access to the store, and at random moments.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shoplens.bundles.signing import Trust
from shoplens.registry.entities import HistoryEntry
from shoplens.registry.errors import AliasUnchanged
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.storage.local import LocalStore
from shoplens.testing.registry_contract import Make, promote, publish
from tests.registry_bundles import bundle_maker
from tests.unit.registry.test_object_registry import utc_now

NAME = "fruit"
_PROCESSES = multiprocessing.get_context("forkserver")
_RANDOM_KILLS = 20


class DyingStore(LocalStore):
    """Kills its process before the access with this number; each piece of an upload counts."""

    def __init__(self, root: Path, die_at: int) -> None:
        super().__init__(root)
        self._left = die_at

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Counted."""

        def counted() -> Iterator[bytes]:
            for piece in pieces:
                self._step()
                yield piece
            self._step()

        super().put_pieces(key, counted())

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """Counted."""
        self._step()
        done = super().put_if(key, data, seen=seen)
        self._step()
        return done

    def version(self, key: str) -> str | None:
        """Counted."""
        self._step()
        return super().version(key)

    def get(self, key: str) -> bytes:
        """Counted."""
        self._step()
        return super().get(key)

    def exists(self, key: str) -> bool:
        """Counted."""
        self._step()
        return super().exists(key)


def opened(root: Path, die_at: int = 0) -> ObjectRegistry:
    """The registry in a directory; 0 dies never."""
    return ObjectRegistry(DyingStore(root, die_at), "the registry", clock=utc_now)


def publish_and_promote(root: Path, made: Path, version: str, die_at: int) -> None:
    """What the killed process does."""
    registry = opened(root, die_at)
    publish(registry, bundle_maker(made, NAME)(version))
    promote(registry, NAME, version)


def check(root: Path, scratch: Path, made: Make) -> list[HistoryEntry]:
    """The newest version is whole, and the history without a gap ends with the champion."""
    registry = opened(root)
    for version in registry.versions(NAME)[-1:]:
        fetched = registry.fetch(version.ref, scratch, Trust())
        assert made(version.ref.version).digest == fetched.digest == version.digest
        assert version.created_at is not None
    history = registry.history(NAME)
    moves = [(entry.before, entry.after) for entry in history]
    assert [after for _, after in moves][:-1] == [before for before, _ in moves][1:]
    assert registry.aliases(NAME).champion == (history[-1].after if history else None)
    return history


def finish(root: Path, made: Make, version: str) -> None:
    """Do it again, as a person does after a crash: to the end."""
    registry = opened(root)
    publish(registry, made(version))
    with suppress(AliasUnchanged):
        promote(registry, NAME, version)
    assert version == registry.aliases(NAME).champion


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the bundles are made, the registry is, and another machine installs."""
    _PROCESSES.set_forkserver_preload([__name__])
    return tmp_path


def test_a_kill_before_any_access_to_the_store_does_no_harm(folder: Path) -> None:
    """From the first to the last; what was begun is finished by doing it again."""
    root, made = folder / "registry", bundle_maker(folder / "made", NAME)
    finish(root, made, "0")
    before = check(root, folder / "models", made)
    die_at, completed = 1, False
    while not completed:
        version = str(die_at)
        made(version)
        process = _PROCESSES.Process(target=publish_and_promote, args=(root, folder / "made", version, die_at))
        process.start()
        process.join(60)
        completed = process.exitcode == 0
        assert process.exitcode in (0, -signal.SIGKILL)
        history = check(root, folder / "models", made)
        assert len(before) <= len(history) <= len(before) + 1
        finish(root, made, version)
        before, expected = opened(root).history(NAME), len(before) + 1
        assert expected == len(before)
        die_at += 1
    assert die_at > 20


def test_kills_at_random_moments_do_no_harm(folder: Path) -> None:
    """Also within a write."""
    root, made = folder / "registry", bundle_maker(folder / "made", NAME)
    moments = random.Random(7)
    killed = 0
    for number in range(_RANDOM_KILLS):
        made(str(number))
        process = _PROCESSES.Process(target=publish_and_promote, args=(root, folder / "made", str(number), 0))
        process.start()
        time.sleep(moments.uniform(0.01, 0.06))
        process.kill()
        process.join(60)
        killed += process.exitcode == -signal.SIGKILL
        history = check(root, folder / "models", made)
        if number % 3 == 0:
            finish(root, made, str(number))
            assert history == check(root, folder / "models", made)[: len(history)]
    assert killed > 0

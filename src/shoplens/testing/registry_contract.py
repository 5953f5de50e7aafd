"""The contract of all registries, as tests: subclass `RegistryContract` and define its fixtures.

`registry` need not be empty; `name` is a model name that it does not have; `make(version, weight)` makes a bundle of
that name, another one for another weight; `tamper(ref)` changes a byte of what is published.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol

import pytest

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.signing import Trust, make_key, sign_bundle
from shoplens.errors import BundleInvalid, BundleTampered, BundleUntrusted, ModelNotFound, RequestInvalid
from shoplens.registry.entities import Alias, Aliases, HistoryEntry, live_at, previous_champion
from shoplens.registry.errors import AliasChanged, AliasUnchanged
from shoplens.registry.registry import Registry

NO_TRUST = Trust()
ANN = "ann"


class Make(Protocol):
    """Makes bundles of one name."""

    def __call__(self, version: str, weight: float = 1.0) -> Bundle:
        """A bundle with this version and content."""
        ...


def publish(registry: Registry, *bundles: Bundle) -> None:
    """Without figures."""
    for bundle in bundles:
        registry.publish(bundle, by=ANN, why="a test", figures={})


def promote(registry: Registry, name: str, version: str | None, alias: Alias = "champion") -> HistoryEntry:
    """From what is there now."""
    why = f"{version} is better"
    return registry.set_alias(
        name, alias, version, by=ANN, why=why, figures={"F1": 0.9}, expected=registry.aliases(name)
    )


class RegistryContract:
    """The tests that every implementation passes."""

    is_conditional: ClassVar = True
    """Whether of several writers at once exactly one wins."""

    def test_a_published_version_is_listed_with_who_and_why(self, registry: Registry, name: str, make: Make) -> None:
        """And what was measured."""
        bundle = make("1.0")
        version = registry.publish(bundle, by=ANN, why="the first one", figures={"F1": 0.5})
        assert [version] == registry.versions(name)
        assert name in registry.names()
        assert (bundle.ref, bundle.digest, bundle.size_bytes) == (version.ref, version.digest, version.size_bytes)
        assert (None, {"F1": 0.5}, "the first one", ANN) == (
            version.signed_by, version.figures, version.note, version.by
        )  # fmt: skip
        assert version.created_at is not None

    def test_another_machine_fetches_the_same_bytes(
        self, registry: Registry, name: str, make: Make, tmp_path: Path
    ) -> None:
        """Verified and installed there."""
        bundle = make("1.0")
        publish(registry, bundle)
        fetched = registry.fetch(bundle.ref, tmp_path / "other", NO_TRUST)
        assert (bundle.digest, tmp_path / "other" / name / "1.0") == (fetched.digest, fetched.root)

    def test_versions_are_in_the_order_of_their_numbers(self, registry: Registry, name: str, make: Make) -> None:
        """1.10 comes after 1.9."""
        publish(registry, make("1.10"), make("1.9"), make("2"))
        assert ["1.9", "1.10", "2"] == [version.ref.version for version in registry.versions(name)]

    def test_publishing_again_changes_nothing(self, registry: Registry, name: str, make: Make) -> None:
        """The record of the first time stays."""
        first = registry.publish(make("1.0"), by=ANN, why="the first one", figures={"F1": 0.5})
        assert first == registry.publish(make("1.0"), by="ben", why="once more", figures={})
        assert [first] == registry.versions(name)

    def test_a_version_never_becomes_another_bundle(self, registry: Registry, name: str, make: Make) -> None:
        """The first one stays, and the second leaves nothing."""
        first = registry.publish(make("1.0"), by=ANN, why="the first one", figures={})
        with pytest.raises(BundleInvalid, match=rf"{name}@1\.0"):
            registry.publish(make("1.0", 2.0), by=ANN, why="another", figures={})
        assert [first] == registry.versions(name)

    def test_a_signature_is_published_and_required_where_keys_are(
        self, registry: Registry, make: Make, tmp_path: Path
    ) -> None:
        """An unsigned version is not installed there."""
        signed, unsigned = make("1.0"), make("1.1")
        key = sign_bundle(signed, key_file(tmp_path))
        version = registry.publish(make("1.0"), by=ANN, why="signed", figures={})
        publish(registry, unsigned)
        trust = Trust(keys=frozenset({key}), required=True)
        assert key == version.signed_by == registry.fetch(signed.ref, tmp_path / "other", trust).signed_by
        with pytest.raises(BundleUntrusted, match="not signed"):
            registry.fetch(unsigned.ref, tmp_path / "other", trust)
        assert not (tmp_path / "other" / unsigned.ref.name / "1.1").exists()

    def test_a_changed_byte_is_refused_by_name(
        self, registry: Registry, make: Make, tamper: Callable[[ModelRef], None], tmp_path: Path
    ) -> None:
        """And nothing is installed."""
        bundle = make("1.0")
        publish(registry, bundle)
        tamper(bundle.ref)
        with pytest.raises(BundleTampered, match=str(bundle.ref)):
            registry.fetch(bundle.ref, tmp_path / "other", NO_TRUST)
        assert [] == list((tmp_path / "other").glob("*/[!.]*"))

    def test_what_is_not_published_is_not_found(self, registry: Registry, name: str, tmp_path: Path) -> None:
        """No name, no version, no alias; names that cannot be any are no exception."""
        for unknown in (name, "../x", "A b"):
            assert ([], [], Aliases()) == (
                registry.versions(unknown), registry.history(unknown), registry.aliases(unknown)
            )  # fmt: skip
            with pytest.raises(ModelNotFound):
                promote(registry, unknown, "1.0")
        with pytest.raises(ModelNotFound):
            registry.fetch(ModelRef(name=name, version="1.0"), tmp_path, NO_TRUST)

    def test_an_alias_moves_with_a_record(self, registry: Registry, name: str, make: Make) -> None:
        """Who, from, to, why and with which figures."""
        one, two = make("1.0"), make("2.0")
        publish(registry, one, two)
        entries = [promote(registry, name, "1.0"), promote(registry, name, "2.0")]
        aliases = registry.aliases(name)
        assert ({"champion": "2.0"}, {"2.0": two.digest}) == (aliases.by_alias, aliases.digests)
        assert entries == registry.history(name)
        moved = [(entry.before, entry.after, entry.by, entry.why, entry.figures) for entry in entries]
        first, second = (
            (None, "1.0", ANN, "1.0 is better", {"F1": 0.9}),
            ("1.0", "2.0", ANN, "2.0 is better", {"F1": 0.9}),
        )
        assert [first, second] == moved

    def test_a_challenger_that_wins_is_the_challenger_no_longer(
        self, registry: Registry, name: str, make: Make
    ) -> None:
        """The history has both."""
        publish(registry, make("1.0"), make("2.0"))
        promote(registry, name, "1.0")
        promote(registry, name, "2.0", "challenger")
        assert ("1.0", "2.0") == (registry.aliases(name).champion, registry.aliases(name).challenger)
        promote(registry, name, "2.0")
        assert {"champion": "2.0"} == registry.aliases(name).by_alias
        ended = [(entry.alias, entry.before, entry.after) for entry in registry.history(name)[-2:]]
        assert {("champion", "1.0", "2.0"), ("challenger", "2.0", None)} == set(ended)

    def test_an_alias_can_be_taken_away(self, registry: Registry, name: str, make: Make) -> None:
        """Then no version has it."""
        publish(registry, make("1.0"))
        promote(registry, name, "1.0")
        promote(registry, name, None)
        assert {} == registry.aliases(name).by_alias
        assert [(None, "1.0"), ("1.0", None)] == [(entry.before, entry.after) for entry in registry.history(name)]

    def test_nothing_to_change_is_a_conflict(self, registry: Registry, name: str, make: Make) -> None:
        """And leaves no record."""
        publish(registry, make("1.0"))
        promote(registry, name, "1.0")
        aliases: tuple[tuple[str | None, Alias], ...] = (
            ("1.0", "champion"), ("1.0", "challenger"), (None, "challenger")
        )  # fmt: skip
        for version, alias in aliases:
            with pytest.raises(AliasUnchanged):
                promote(registry, name, version, alias)
        assert 1 == len(registry.history(name))

    def test_a_change_on_what_was_read_before_another_change_is_refused(
        self, registry: Registry, name: str, make: Make
    ) -> None:
        """The sentence says who was faster; nothing is changed."""
        publish(registry, make("1.0"), make("2.0"), make("3.0"))
        nothing = registry.aliases(name)
        promote(registry, name, "1.0")
        one = registry.aliases(name)
        promote(registry, name, "2.0")
        for stale in (nothing, one):
            with pytest.raises(AliasChanged, match=ANN):
                registry.set_alias(name, "champion", "3.0", by="ben", why="late", figures={}, expected=stale)
        assert ("2.0", 2) == (registry.aliases(name).champion, len(registry.history(name)))

    def test_of_many_writers_at_once_one_wins(self, registry: Registry, name: str, make: Make) -> None:
        """There is one champion, and the history ends with it and has no gap."""
        versions = [f"{number}.0" for number in range(6)]
        publish(registry, *map(make, versions))
        seen = registry.aliases(name)

        def compete(version: str) -> bool:
            try:
                registry.set_alias(name, "champion", version, by=ANN, why="a race", figures={}, expected=seen)
            except AliasChanged:
                return False
            return True

        with ThreadPoolExecutor(6) as threads:
            won = [version for version, is_won in zip(versions, threads.map(compete, versions), strict=True) if is_won]
        assert won
        if self.is_conditional:
            assert [registry.aliases(name).champion] == won
            assert won == [entry.after for entry in registry.history(name)]
        assert registry.aliases(name).champion in {entry.after for entry in registry.history(name)}

    def test_who_polls_gets_the_same_state_until_it_changes(self, registry: Registry, name: str, make: Make) -> None:
        """From none to one and to the next."""
        publish(registry, make("1.0"), make("2.0"))
        seen = registry.aliases(name)
        assert seen == registry.aliases(name, seen)
        for version in ("1.0", "2.0"):
            promote(registry, name, version)
            new = registry.aliases(name, seen)
            assert (version, True) == (new.champion, new.etag != seen.etag)
            assert registry.aliases(name, new) is new
            seen = new

    def test_the_history_is_read_in_pages_from_new_to_old(self, registry: Registry, name: str, make: Make) -> None:
        """Together they are the whole history; what is no cursor is refused."""
        publish(registry, make("1.0"), make("2.0", 2.0))
        for version in ("1.0", "2.0", "1.0", None, "2.0"):
            promote(registry, name, version)
        cursor: str | None = None
        found: list[HistoryEntry] = []
        sizes: list[int] = []
        while True:
            page = registry.changes(name, before=cursor, limit=2)
            found += page.entries
            sizes.append(len(page.entries))
            cursor = page.next
            if cursor is None:
                break
        assert [2, 2, 1] == sizes
        assert registry.history(name) == found[::-1]
        assert ((), None) == (registry.changes("no-such-model", limit=2).entries, registry.changes("x", limit=2).next)
        with pytest.raises(RequestInvalid, match="no cursor"):
            registry.changes(name, before="yesterday", limit=2)

    def test_the_history_says_what_was_live_when(self, registry: Registry, name: str, make: Make) -> None:
        """And what to roll back to."""
        publish(registry, make("1.0"), make("2.0"))
        one, two = promote(registry, name, "1.0"), promote(registry, name, "2.0")
        history = registry.history(name)
        assert (one, two) == (live_at(history, one.at), live_at(history, two.at)) or one.at == two.at
        assert live_at(history, one.at.replace(year=2020)) is None
        assert "1.0" == previous_champion(history)
        assert history == sorted(history, key=lambda entry: entry.at)

    def test_a_change_without_a_reason_is_refused(self, registry: Registry, name: str, make: Make) -> None:
        """Also one without a name, with a figure that is no number, or with more words than anybody reads."""
        bundle = make("1.0")
        publish(registry, bundle)
        seen = registry.aliases(name)
        for by, why, figures in (
            (ANN, " ", {}), ("", "why", {}), (ANN, "x" * 1_001, {}), (ANN, "why", {"F1": float("nan")}),
            (ANN, "\x1b[2J", {}), ("\u202enna", "why", {}), (ANN, "why", {"\0": 1.0}),
        ):  # fmt: skip
            with pytest.raises(RequestInvalid):
                registry.set_alias(name, "champion", "1.0", by=by, why=why, figures=figures, expected=seen)
            with pytest.raises(RequestInvalid):
                registry.publish(bundle, by=by, why=why, figures=figures)
        assert [] == registry.history(name)

    def test_any_text_comes_back_as_it_was_given(self, registry: Registry, name: str, make: Make) -> None:
        """In the longest reason and the strangest name."""
        publish(registry, make("1.0"))
        why, by = ("Größer, «besser»\n\t\"'<b>&amp;\\ 好 " * 40)[:1_000], "Zoë O'Hara <z@x.example>"
        figures = {"F1 (gewichtet)": 1 / 3, "µs": 1e-9}
        registry.set_alias(
            name, "champion", "1.0", by=by, why=why, figures=figures, expected=replace(registry.aliases(name))
        )
        assert [(by, why, figures)] == [(entry.by, entry.why, entry.figures) for entry in registry.history(name)]


def key_file(folder: Path) -> Path:
    """A new private key."""
    file = folder / "key.pem"
    make_key(file)
    return file

"""The frozen test set of a channel: samples that test every new model and train none.

It is made once, of whole groups of near-duplicates, a share of every class. Later versions add a share of new groups
and nothing else: a sample that ever was on the side of training never tests, and one that tests never trains. Samples
that people withdrew or erased leave it, and a later word of people changes their label.

The first model of a channel is tested on a share of the base data, too. Where there is a model already, it may have
been trained on that data and would have an advantage: then labels of people test, and data that the shop keeps apart.

A version is one object in the store, `retraining/<channel>/test-000001.json`, written once and never changed. People's
photos stay where they are; photos of base data are copied beside it, since the folder of the base data may change.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson

from shoplens.labels.groups import Groups
from shoplens.retraining.samples import BASE, OWN, TEST, Gathered, LabelledSample
from shoplens.storage import Store

FOLDER: Final = "retraining"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSample:
    """One sample of a test set. `image_key` is the key of the copy of a base photo, None for samples of people."""

    __test__ = False

    source: str
    sample_id: str
    label: str
    sha256: str
    phash: str
    image_key: str | None = None
    designation: str | None = None
    description: str | None = None

    @property
    def name(self) -> str:
        """As `LabelledSample.name`."""
        return f"{self.source}/{self.sample_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """What is remembered of a sample that was put on the side of training."""

    sha256: str
    phash: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """One version. `digest` is the SHA-256 over its samples; `trained` are all that ever were on the other side."""

    __test__ = False

    channel: str
    version: int
    created_at: str
    share: float
    samples: tuple[TestSample, ...]
    trained: tuple[Considered, ...]

    @property
    def digest(self) -> str:
        """Of the samples, in 64 hex digits."""
        rows = [asdict(sample) for sample in self.samples]
        return hashlib.sha256(orjson.dumps(rows, option=orjson.OPT_SORT_KEYS)).hexdigest()


class TestSets:
    """The versions of the test sets in a store. All methods raise StorageUnavailable."""

    __test__ = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest(self, channel: str) -> TestSet | None:
        """The newest version."""
        versions = sorted(
            int(key.rsplit("test-", 1)[1][:6])
            for key in self._store.list(f"{FOLDER}/{channel}")
            if key.startswith(f"{FOLDER}/{channel}/test-")
        )
        return self.get(channel, versions[-1]) if versions else None

    def get(self, channel: str, version: int) -> TestSet:
        """One version. Raises BlobNotFound."""
        return _read(self._store.get(_key(channel, version)))

    def add(self, new: TestSet) -> TestSet:
        """Store a version. Where another process was faster, its version is returned."""
        if self._store.put_if(_key(new.channel, new.version), _write(new), seen=None):
            return new
        return self.get(new.channel, new.version)

    def keep_photo(self, channel: str, sample: LabelledSample) -> str:
        """Copy the photo of a sample of base data into the store; its key."""
        assert sample.path is not None
        suffix = sample.path.suffix.lower().lstrip(".") or "jpg"
        key = f"{FOLDER}/{channel}/photos/{sample.sha256}.{suffix if suffix.isalnum() else 'jpg'}"
        if not self._store.exists(key):
            self._store.put(key, sample.path.read_bytes(), durable=True)
        return key

    def forget(self, sample_ids: set[str]) -> int:
        """Write every version again that names one of these samples of people, without them; how many those were."""
        changed = 0
        for key in list(self._store.list(FOLDER)):
            if "/test-" not in key:
                continue
            known = _read(self._store.get(key))
            kept = tuple(each for each in known.samples if each.source in OWN or each.sample_id not in sample_ids)
            if len(kept) < len(known.samples):
                self._store.put_pieces(key, [_write(replace(known, samples=kept))])
                changed += 1
        return changed


def grown(
    channel: str, before: TestSet | None, gathered: Gathered, *, share: float, base_tests: bool, now: datetime
) -> tuple[TestSet, tuple[LabelledSample, ...]]:
    """The next version of a test set over what was gathered, and what may train.

    Where nothing changes, the version is `before` itself. Of each group one sample tests, and the others do nothing.
    With `base_tests` a share of the base data may test.
    """
    wanted = before.samples if before else ()
    trained = before.trained if before else ()
    groups = Groups()
    for sample in gathered.samples:
        groups.add(sha256=sample.sha256, phash=sample.phash, title=sample.designation)
    for tested in wanted:
        groups.add(sha256=tested.sha256, phash=tested.phash, title=tested.designation)
    for known in trained:
        groups.add(sha256=known.sha256, phash=known.phash, title=known.title)
    leaders = groups.leaders()
    first, second = len(gathered.samples), len(gathered.samples) + len(wanted)
    tests, trains = set(leaders[first:second]), set(leaders[second:])
    new: dict[int, list[LabelledSample]] = defaultdict(list)
    for sample, leader in zip(gathered.samples, leaders[:first], strict=True):
        if leader not in tests and leader not in trains:
            new[leader].append(sample)
    apart = {leader: found for leader, members in new.items() if (found := [m for m in members if m.source == TEST])}
    open_ = {
        leader: members
        for leader, members in new.items()
        if leader not in apart and (base_tests or all(each.source != BASE for each in members))
    }
    chosen = {**apart, **{leader: open_[leader] for leader in _chosen(open_, share, exact=before is None)}}
    kept = [*_still_there(wanted, gathered.samples), *(_tested(members[0]) for members in chosen.values())]
    training = tuple(
        sample
        for sample, leader in zip(gathered.samples, leaders[:first], strict=True)
        if leader not in tests and leader not in chosen and sample.source != TEST
    )
    if before is not None and kept == list(before.samples) and not any(leader not in chosen for leader in new):
        return before, training
    seen = {(each.sha256, each.phash, each.title) for each in trained}
    more = [_considered(sample) for sample in training]
    after = TestSet(
        channel=channel,
        version=before.version + 1 if before else 1,
        created_at=now.isoformat(timespec="seconds"),
        share=share,
        samples=tuple(kept),
        trained=(*trained, *(each for each in more if (each.sha256, each.phash, each.title) not in seen)),
    )
    return after, training


def _chosen(new: Mapping[int, Sequence[LabelledSample]], share: float, *, exact: bool) -> set[int]:
    """The groups that test. The first time a share of every class; later each group by its own hash.

    By its hash, so that a few new labels a week are no different from many at once.
    """
    numbers = {leader: _number(members[0]) for leader, members in new.items()}
    if not exact:
        return {leader for leader, number in numbers.items() if number < share}
    by_class: dict[str, list[int]] = defaultdict(list)
    for leader, members in new.items():
        by_class[members[0].label].append(leader)
    chosen: set[int] = set()
    for leaders in by_class.values():
        ordered = sorted(leaders, key=lambda leader: numbers[leader])
        count = round(share * len(ordered))
        chosen.update(ordered[: min(max(count, 1), len(ordered) - 1)])
    return chosen


def _number(sample: LabelledSample) -> float:
    """From 0 to 1, at random, always the same for a sample."""
    digest = hashlib.sha256(f"test set\0{sample.sha256 or sample.name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _still_there(wanted: Sequence[TestSample], present: Sequence[LabelledSample]) -> list[TestSample]:
    """Those that people did not withdraw, with the last word of people; the same content may have another name now."""
    by_name = {sample.name: sample for sample in present}
    by_content = {sample.sha256: sample for sample in present if sample.sha256 and sample.source not in OWN}
    kept = []
    for tested in wanted:
        if tested.source in OWN:
            kept.append(tested)
        elif found := by_name.get(tested.name) or by_content.get(tested.sha256):
            kept.append(replace(tested, source=found.source, sample_id=found.sample_id, label=found.label))
    return kept


def _tested(sample: LabelledSample) -> TestSample:
    return TestSample(
        source=sample.source,
        sample_id=sample.sample_id,
        label=sample.label,
        sha256=sample.sha256,
        phash=sample.phash,
        designation=sample.designation,
        description=sample.description,
    )


def _considered(sample: LabelledSample) -> Considered:
    return Considered(sha256=sample.sha256, phash=sample.phash, title=sample.designation or "")


def _key(channel: str, version: int) -> str:
    return f"{FOLDER}/{channel}/test-{version:06}.json"


def _write(new: TestSet) -> bytes:
    return orjson.dumps({**asdict(new), "digest": new.digest})


def _read(data: bytes) -> TestSet:
    values: dict[str, Any] = orjson.loads(data)
    del values["digest"]
    samples = tuple(TestSample(**each) for each in values.pop("samples"))
    return TestSet(samples=samples, trained=tuple(Considered(**each) for each in values.pop("trained")), **values)

"""What a model is retrained on: the labels of people and the base data as one list, each sample with its last word.

Of the same content the word of people counts more than the base data, and one person's later word more than an earlier
one. Where several people disagree, the sample is left out: nobody knows who is right. Labels that the present model
does not have become a class once there are enough of them; until then they are left out, since one typing error is no
class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from shoplens.labels.entities import Label
from shoplens.labels.groups import Groups, same_words

BASE: Final = "base"
"""`source` of samples of the base data."""
TEST: Final = "test"
"""`source` of samples that the shop keeps apart for tests."""
OWN: Final = (BASE, TEST)
"""Sources of the shop's own files, which people never labelled here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSample:
    """One sample with its label. `source` and `sample_id` name it as label sets do; base data has its own names.

    `image_key` is the photo's key in the store, `path` its file here. `sha256` is that of the photo's content, "" for a
    product without one, `phash` its perceptual hash. Products have texts.
    """

    source: str
    sample_id: str
    label: str
    sha256: str = ""
    phash: str = ""
    given_at: datetime | None = None
    given_by: str | None = None
    image_key: str | None = None
    path: Path | None = None
    designation: str | None = None
    description: str | None = None

    @property
    def name(self) -> str:
        """Unique among all samples."""
        return f"{self.source}/{self.sample_id}"

    @property
    def text(self) -> str:
        """What a model reads: the designation, a line break, and the description."""
        return f"{self.designation or ''}\n{self.description or ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The samples that can be used, with the number of their group, and how many were left out for which reason."""

    samples: tuple[LabelledSample, ...]
    groups: tuple[int, ...]
    left_out: dict[str, int]


def of_people(labels: Iterable[Label]) -> list[LabelledSample]:
    """The samples of a label set."""
    return [
        LabelledSample(
            source=label.source,
            sample_id=label.sample_id,
            label=label.label,
            sha256=label.image_sha256,
            phash=label.image_phash or "",
            given_at=label.given_at,
            given_by=label.given_by,
            image_key=label.image_key,
            designation=label.designation,
            description=label.description,
        )
        for label in labels
    ]


def gather(
    people: Sequence[LabelledSample], own: Sequence[LabelledSample], *, known: Collection[str], new_class_samples: int
) -> Gathered:
    """All samples, without what contradicts itself, is repeated, or has a label that too few have.

    `own` are base data and data for tests. `known` are the labels of the present model. People's samples come first.
    """
    left_out: Counter[str] = Counter()
    kept = [*_last_words(people, left_out)]
    contents = {sample.sha256 for sample in people if sample.sha256}
    for sample in own:
        if sample.sha256 in contents:
            left_out["base data that people labelled"] += 1
        else:
            kept.append(sample)
    classes = {sample.label for sample in own} | set(known)
    counts = Counter(sample.label for sample in kept)
    used = []
    for sample in kept:
        if sample.label in classes or counts[sample.label] >= new_class_samples:
            used.append(sample)
        else:
            left_out[f"label with fewer than {new_class_samples} samples"] += 1
    groups = Groups()
    for sample in used:
        groups.add(sha256=sample.sha256, phash=sample.phash, title=sample.designation)
    return Gathered(samples=tuple(used), groups=tuple(groups.leaders()), left_out=dict(left_out))


def _last_words(people: Sequence[LabelledSample], left_out: Counter[str]) -> list[LabelledSample]:
    """Each content once, with the word that counts."""
    words: dict[tuple[str, str], dict[str | None, LabelledSample]] = {}
    alone: list[LabelledSample] = []
    for sample in people:
        if not sample.sha256:
            alone.append(sample)
            continue
        # Products with the same photo and other titles are different products.
        by_person = words.setdefault((sample.sha256, same_words(sample.designation or "")), {})
        earlier = by_person.get(sample.given_by)
        if earlier is None or _is_later(sample, earlier):
            by_person[sample.given_by] = sample
        if earlier is not None:
            left_out["later word of the same person"] += 1
    kept = []
    for by_person in words.values():
        said = list(by_person.values())
        if len({each.label for each in said}) > 1:
            left_out["people disagree"] += len(said)
            continue
        left_out["the same photo again"] += len(said) - 1
        kept.append(said[0])
    for reason in [reason for reason, count in left_out.items() if not count]:
        del left_out[reason]
    return sorted([*kept, *alone], key=lambda each: each.name)


def _is_later(sample: LabelledSample, other: LabelledSample) -> bool:
    return (sample.given_at or datetime.min, sample.sample_id) > (other.given_at or datetime.min, other.sample_id)  # noqa: DTZ901


def with_files(samples: Iterable[LabelledSample], files: dict[str, Path]) -> list[LabelledSample]:
    """The samples whose photo is in `files` (by name), with its path."""
    return [replace(sample, path=files[sample.name]) for sample in samples if sample.name in files]

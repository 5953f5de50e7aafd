"""What another policy would do with the photos that were judged last, before it applies to new ones.

Nothing is computed again: the signals that each photo kept are evaluated by the policy in use and by the new one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shoplens.db import Database
from shoplens.errors import QueueFull
from shoplens.moderation.entities import PhotoState
from shoplens.moderation.policy.entities import ModerationPolicy, PolicyDecision, dropped_signals, evaluate
from shoplens.moderation.policy.repository import PolicyRepository, ScoredPhoto
from shoplens.moderation.policy.service import PolicyService

MAX_PHOTOS: Final = 10_000
EXAMPLES: Final = 24
"""How many photos of each move are named."""
BINS: Final = 20
_PAGE: Final = 500
_TIME_LIMIT_S: Final = 5.0
_LONGEST_WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedPhoto:
    """A photo that the new policy would put into another state. `decided` is what a person decided, None if nobody."""

    photo: ScoredPhoto
    before: PolicyDecision
    after: PolicyDecision

    @property
    def decided(self) -> PhotoState | None:
        """The state if a person gave it."""
        return self.photo.state if self.photo.by_person else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """All photos that go from one state to another, newest first; at most `EXAMPLES` of them are named."""

    before: PhotoState
    after: PhotoState
    count: int
    examples: tuple[MovedPhoto, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A policy beside what people decided: photos that it shows and they refused, and the other way round.

    `held` are those that it would leave to a person once more.
    """

    shown_wrongly: int
    refused_wrongly: int
    held: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How the scores of a signal are spread over `BINS` equal parts from 0 to 1. `missing` photos do not have it."""

    signal: str
    counts: tuple[int, ...]
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The result for `examined` photos; `complete` is False if the time ran out before all that were asked for.

    `dropped` are the signals that the policy in use has thresholds for and the new one has none for.
    """

    examined: int
    complete: bool
    before: Mapping[PhotoState, int]
    after: Mapping[PhotoState, int]
    moves: tuple[Move, ...]
    decided_by_people: int
    agreement_before: Agreement
    agreement_after: Agreement
    histograms: tuple[Histogram, ...]
    dropped: tuple[str, ...]


class DryRunService:
    """Blocks for up to some seconds; one dry run works at a time. Thread-safe."""

    def __init__(
        self, database: Database, policies: PolicyService, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._policies = policies
        self._monotonic = monotonic
        self._turn = threading.Lock()

    def __call__(self, channel: str, source: str | None, *, photos: int = 1_000) -> DryRun:
        """Try the policy of this TOML (None: the one in use) on the newest `photos`, at most `MAX_PHOTOS`.

        Raises ChannelNotFound, PolicyInvalid, QueueFull while others take too long, and DatabaseUnavailable.
        """
        current = self._policies.applied(channel).policy
        new = current if source is None else self._policies.parse(channel, source)
        if not self._turn.acquire(timeout=_LONGEST_WAIT_S):
            raise QueueFull("Another dry run takes long. Try again, or ask for fewer photos.", retry_after_s=5)
        try:
            give_up_at = self._monotonic() + _TIME_LIMIT_S
            examined: list[ScoredPhoto] = []
            for page in self._newest(channel, min(photos, MAX_PHOTOS)):
                examined += page
                if self._monotonic() > give_up_at:
                    break
            asked = min(photos, MAX_PHOTOS)
            complete = len(examined) >= asked or self._monotonic() <= give_up_at
            return compare(examined, current, new, signals=self._policies.signals(channel), complete=complete)
        finally:
            self._turn.release()

    def _newest(self, channel: str, most: int) -> Iterator[list[ScoredPhoto]]:
        """In short transactions, so that nothing waits for a long one."""
        last: str | None = None
        while most > 0:
            wanted = min(_PAGE, most)
            with self._database.reading() as tx:
                page = PolicyRepository(tx).judged(channel, limit=wanted, before=last)
            yield page
            if len(page) < wanted:
                return
            most -= wanted
            last = page[-1].id


def compare(
    photos: Sequence[ScoredPhoto],
    current: ModerationPolicy,
    new: ModerationPolicy,
    *,
    signals: Sequence[str],
    complete: bool = True,
) -> DryRun:
    """Both policies on the same photos, newest first. `signals` get a histogram each."""
    before = [evaluate(each.signals, current) for each in photos]
    after = [evaluate(each.signals, new) for each in photos]
    moved = [
        MovedPhoto(photo=photo, before=old, after=now)
        for photo, old, now in zip(photos, before, after, strict=True)
        if old.state is not now.state
    ]
    decided = [each.by_person for each in photos]
    return DryRun(
        examined=len(photos),
        complete=complete,
        before=_states(before),
        after=_states(after),
        moves=_moves(moved),
        decided_by_people=sum(decided),
        agreement_before=_agreement(photos, before),
        agreement_after=_agreement(photos, after),
        histograms=tuple(_histogram(photos, name) for name in signals),
        dropped=dropped_signals(current, new),
    )


def _states(decisions: Sequence[PolicyDecision]) -> dict[PhotoState, int]:
    counts = Counter(each.state for each in decisions)
    return {state: counts[state] for state in PhotoState}


def _moves(moved: Sequence[MovedPhoto]) -> tuple[Move, ...]:
    """Those that would show more come first: they are what to look at."""
    by_states: dict[tuple[PhotoState, PhotoState], list[MovedPhoto]] = {}
    for each in moved:
        by_states.setdefault((each.before.state, each.after.state), []).append(each)
    order = list(PhotoState)
    ranked = sorted(by_states, key=lambda pair: (pair[1] is not PhotoState.PUBLISHED, *map(order.index, pair)))
    return tuple(
        Move(before=pair[0], after=pair[1], count=len(by_states[pair]), examples=tuple(by_states[pair][:EXAMPLES]))
        for pair in ranked
    )


def _agreement(photos: Sequence[ScoredPhoto], decisions: Sequence[PolicyDecision]) -> Agreement:
    pairs = Counter(
        (photo.state, decision.state) for photo, decision in zip(photos, decisions, strict=True) if photo.by_person
    )
    shown, refused = PhotoState.PUBLISHED, PhotoState.REFUSED
    return Agreement(
        shown_wrongly=pairs[refused, shown],
        refused_wrongly=pairs[shown, refused],
        held=sum(count for (_, state), count in pairs.items() if state is PhotoState.HELD),
        right=pairs[shown, shown] + pairs[refused, refused],
    )


def _histogram(photos: Sequence[ScoredPhoto], name: str) -> Histogram:
    counts, missing = [0] * BINS, 0
    for photo in photos:
        score = next((each.score for each in photo.signals if each.name == name), None)
        if score is None:
            missing += 1
        else:
            counts[min(BINS - 1, int(score * BINS))] += 1
    return Histogram(signal=name, counts=tuple(counts), missing=missing)

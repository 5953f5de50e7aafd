"""The thresholds of the channels: which ones apply, saving others, and going back.

What the operator wrote (environment, `shoplens.toml`, option) wins and cannot be edited; a saved threshold wins over a
default. Version 0 is that of the settings and is not in the database. Going back adds a version with an earlier
content, so that the history only grows. docs/decisions/0038 says why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.advice import no_channel
from shoplens.configuration.entities import (
    ACCEPT_AT,
    AppliedThresholds,
    Change,
    ThresholdChannel,
    Thresholds,
    ThresholdVersion,
    changes_between,
    thresholds_of,
    with_thresholds,
)
from shoplens.configuration.errors import ThresholdsChanged, ThresholdsInvalid, ThresholdVersionNotFound
from shoplens.configuration.repository import ThresholdRepository
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import DatabaseUnavailable, RecordRefused, RequestInvalid
from shoplens.predictions.policy import Policy
from shoplens.telemetry.logs import get_logger

FRESH_S: Final = 1.0
"""How long a process may use thresholds without asking the database whether there are newer ones."""
MAX_NOTE: Final = 500
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedThresholds:
    """An entry of the history: a version with what it changed against the one before."""

    version: ThresholdVersion
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cached:
    applied: AppliedThresholds
    checked_at: float


class ThresholdService:
    """Thread-safe; methods block unless they say otherwise.

    `channels` are those whose thresholds can be edited. Every other channel keeps the policy in `policies`.
    """

    def __init__(
        self,
        database: Database,
        *,
        channels: Mapping[str, ThresholdChannel],
        policies: Mapping[str, Policy],
        audit: AuditLog,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._channels = channels
        self._policies = policies
        self._audit = audit
        self._clock = clock
        self._monotonic = monotonic
        self._cache: dict[str, _Cached] = {}
        self._lock = threading.Lock()

    @property
    def channels(self) -> Mapping[str, ThresholdChannel]:
        """The channels whose thresholds can be edited, by name."""
        return self._channels

    def channel(self, name: str) -> ThresholdChannel:
        """Raises ChannelNotFound for a channel whose thresholds cannot be edited."""
        if name not in self._channels:
            raise no_channel(name, self._channels)
        return self._channels[name]

    def known(self, channel: str) -> Policy | None:
        """The policy that applies, if memory has it and it is fresh. Does not block."""
        if channel not in self._channels:
            return self._policies[channel]
        cached = self._cache.get(channel)
        if cached is None or self._monotonic() - cached.checked_at >= FRESH_S:
            return None
        return cached.applied.policy

    def current(self, channel: str) -> Policy:
        """The policy that applies; a save in another process is seen after `FRESH_S`.

        While the database is away it is the one that applied before, since a sample that waits for a decision should
        not fail for it. Raises DatabaseUnavailable only where nothing was read yet.
        """
        with self._lock:  # others wait for the answer to the one who asks
            known = self.known(channel)
            if known is not None:
                return known
            try:
                return self._read(channel).policy
            except DatabaseUnavailable as error:
                cached = self._cache.get(channel)
                if cached is None:
                    raise
                _log.warning("thresholds.not_read", channel=channel, code=error.code, reason=str(error))
                self._cache[channel] = _Cached(applied=cached.applied, checked_at=self._monotonic())
                return cached.applied.policy

    def applied(self, channel: str) -> AppliedThresholds:
        """What applies, as the database has it now. Raises ChannelNotFound and DatabaseUnavailable."""
        self.channel(channel)
        with self._lock:
            return self._read(channel)

    def history(self, channel: str, *, limit: int = 20) -> list[SavedThresholds]:
        """The newest saves with what each changed, newest first. Raises ChannelNotFound and DatabaseUnavailable."""
        base = self.channel(channel).channel.policy
        with self._database.reading() as tx:
            versions = ThresholdRepository(tx).page(channel, limit=limit + 1)
        befores: Sequence[Thresholds] = [*(each.thresholds for each in versions[1:]), {}][: len(versions)]
        return [
            SavedThresholds(version=each, changes=_changes(base, before, each.thresholds))
            for each, before in zip(versions, befores, strict=True)
        ][:limit]

    def draft(self, channel: str, values: Thresholds) -> Policy:
        """The policy with these thresholds, which need not be all. Raises ChannelNotFound and ThresholdsInvalid."""
        applied = self.applied(channel)
        now = thresholds_of(applied.policy)
        for name, value in values.items():
            if applied.channel.answer_at is not None and name != ACCEPT_AT and value != now.get(name):
                raise ThresholdsInvalid(
                    f"{channel} suggests categories of products: its only threshold is {ACCEPT_AT}."
                )
            if applied.channel.is_fixed(name) and value != now.get(name):
                source = applied.channel.source_of(name).words
                raise ThresholdsInvalid(
                    f"{name} of {channel} cannot be edited here: it is set by the {source}. Remove it there first."
                )
        return with_thresholds(applied.policy, values)

    def save(
        self, channel: str, values: Thresholds, *, based_on: int, note: str = "", by: Principal
    ) -> AppliedThresholds:
        """Let these thresholds apply, as a version after `based_on`, which must be the newest one.

        The same thresholds again add no version. Raises ThresholdsChanged where somebody else was faster,
        RequestInvalid for a note that is too long, DatabaseUnavailable, and what `draft` raises.
        """
        policy = self.draft(channel, values)
        target = self.channel(channel)
        base, wanted = thresholds_of(target.channel.policy), thresholds_of(policy)
        names = [*wanted, *(name for name in base if name not in wanted)]
        edited = {
            name: wanted.get(name)
            for name in names
            if wanted.get(name) != base.get(name) and not target.is_fixed(name)
        }  # fmt: skip
        return self._add(channel, edited, based_on=based_on, note=_clean(note), by=by, action="thresholds.saved")

    def take_back(self, channel: str, version: int, *, based_on: int, by: Principal) -> AppliedThresholds:
        """Let what an earlier version had apply again, 0 for the settings, as a new version.

        Raises ThresholdVersionNotFound and what `save` raises.
        """
        self.channel(channel)
        thresholds: dict[str, float | None] = {}
        if version:
            with self._database.reading() as tx:
                earlier = ThresholdRepository(tx).get(channel, version)
            if earlier is None:
                raise ThresholdVersionNotFound(f"The thresholds of {channel} have no version {version}.")
            thresholds = earlier.thresholds
        note = f"Back to version {version}" if version else "Back to the settings"
        return self._add(channel, thresholds, based_on=based_on, note=note, by=by, action="thresholds.taken_back")

    def _add(
        self, channel: str, edited: Thresholds, *, based_on: int, note: str, by: Principal, action: str
    ) -> AppliedThresholds:
        before = self.applied(channel)
        if before.version != based_on:
            raise _changed(channel, before.version)
        if dict(before.edited) == dict(edited):
            return before
        now = self._clock()
        version = ThresholdVersion(
            id=new_id(now),
            created_at=now,
            channel=channel,
            version=based_on + 1,
            thresholds=dict(edited),
            created_by=by.name,
            note=note or None,
        )
        changes = _changes(before.channel.channel.policy, before.edited, edited)
        try:
            with self._database.transaction() as tx:
                ThresholdRepository(tx).add(version)
                details = {
                    "version": version.version,
                    "note": version.note,
                    "changes": {each.name: [each.before, each.after] for each in changes},
                }
                self._audit.record(tx, by, action, target=channel, details=details)
        except RecordRefused as error:
            newest = self.applied(channel).version
            if newest == based_on:
                raise
            raise _changed(channel, newest) from error
        _log.info(action, channel=channel, version=version.version, by=by.id)
        return self.applied(channel)

    def _read(self, channel: str) -> AppliedThresholds:
        asked_at = self._monotonic()
        with self._database.reading() as tx:
            thresholds = ThresholdRepository(tx)
            newest = thresholds.newest(channel)
            cached = self._cache.get(channel)
            if cached is not None and cached.applied.version == newest:
                applied = cached.applied
            else:
                applied = _applied(self._channels[channel], thresholds.get(channel, newest))
        self._cache[channel] = _Cached(applied=applied, checked_at=asked_at)
        return applied


def _applied(channel: ThresholdChannel, stored: ThresholdVersion | None) -> AppliedThresholds:
    """Thresholds that the operator fixed since they were saved do not apply."""
    base = channel.channel.policy
    if stored is None:
        return AppliedThresholds(channel=channel, policy=base, edited={})
    free = {name: value for name, value in stored.thresholds.items() if not channel.is_fixed(name)}
    fault = None
    try:
        policy = with_thresholds(base, free)
    except ThresholdsInvalid as error:
        policy, fault = base, str(error)
        _log.error("thresholds.ignored", channel=channel.name, version=stored.version, reason=fault)
    return AppliedThresholds(
        channel=channel,
        policy=policy,
        version=stored.version,
        edited=stored.thresholds,
        overruled=tuple(name for name in stored.thresholds if name not in free),
        fault=fault,
        created_at=stored.created_at,
        created_by=stored.created_by,
        note=stored.note,
    )


def _changes(base: Policy, before: Thresholds, after: Thresholds) -> tuple[Change, ...]:
    try:
        return changes_between(with_thresholds(base, before), with_thresholds(base, after))
    except ThresholdsInvalid:  # the settings changed since, and contradict what was saved then
        names = {**before, **after}
        pairs = [Change(name=name, before=before.get(name), after=after.get(name)) for name in names]
        return tuple(each for each in pairs if each.before != each.after)


def _changed(channel: str, newest: int) -> ThresholdsChanged:
    return ThresholdsChanged(
        f"The thresholds of {channel} changed meanwhile: their newest version is {newest}. Look at them, then save "
        "again."
    )


def _clean(note: str) -> str:
    note = " ".join(note.replace("\x00", "").split())
    if len(note) > MAX_NOTE:
        raise RequestInvalid(f"The note has {len(note)} characters; at most {MAX_NOTE} are kept.")
    return note

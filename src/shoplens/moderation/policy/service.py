"""The versions of each channel's policy: which one applies, its history, saving another one and rolling back.

Version 0 is made of the settings and is not in the database. Rolling back adds a version with an earlier content, so
that the history only grows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import ChannelNotFound, RecordRefused, RequestInvalid
from shoplens.moderation.entities import PolicyVersion
from shoplens.moderation.errors import PolicyChanged, PolicyVersionNotFound
from shoplens.moderation.policy.entities import ModerationPolicy, dropped_signals
from shoplens.moderation.policy.repository import PolicyRepository
from shoplens.moderation.policy.source import Change, differences, format_policy, parse_policy
from shoplens.telemetry.logs import get_logger

MAX_NOTE: Final = 500
MAX_HISTORY: Final = 200
FRESH_S: Final = 1.0
"""How long a process may use a policy without asking the database whether there is a newer one."""
SETTINGS: Final = "settings"
"""Who made version 0."""

_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPolicy:
    """One version of a channel's policy, read. `created_at` and `note` are None for version 0."""

    channel: str
    version: int
    policy: ModerationPolicy
    source: str
    created_by: str
    created_at: datetime | None = None
    note: str | None = None

    @property
    def digest(self) -> str:
        """What photos and decisions keep as their `policy_version`: equal for equal rules."""
        return self.policy.version


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A version with what it changed against the version before."""

    applied: AppliedPolicy
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cached:
    applied: AppliedPolicy
    checked_at: float


class PolicyService:
    """The policies of all channels with a moderation side. Methods block and are thread-safe.

    `defaults` are the policies of the settings, `signals` what each channel can be judged by.
    """

    def __init__(
        self,
        database: Database,
        *,
        defaults: Mapping[str, ModerationPolicy],
        signals: Mapping[str, Collection[str]],
        clock: Callable[[], datetime],
        audit: AuditLog,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._defaults = defaults
        self._signals = signals
        self._clock = clock
        self._audit = audit
        self._monotonic = monotonic
        self._cache: dict[str, _Cached] = {}
        self._lock = threading.Lock()

    def named(self, channel: str | None) -> str:
        """The name of this channel, or of the only one that there is. Raises RequestInvalid and ChannelNotFound."""
        if channel is not None:
            return self._default(channel).channel
        if len(self._defaults) == 1:
            return next(iter(self._defaults))
        known = ", ".join(sorted(self._defaults)) or "none"
        raise RequestInvalid(f"Name a channel. Channels with a moderation side: {known}.")

    def signals(self, channel: str) -> tuple[str, ...]:
        """The names of the signals that thresholds can be set for, in alphabetical order. Raises ChannelNotFound."""
        self._default(channel)
        return tuple(sorted(self._signals[channel]))

    def unknown_signals(self, channel: str, policy: ModerationPolicy) -> tuple[str, ...]:
        """The signals of a policy that the channel does not have now: each holds all of its photos."""
        return tuple(band.signal for band in policy.bands if band.signal not in self._signals[channel])

    def current(self, channel: str) -> ModerationPolicy:
        """The policy that applies now; a change in another process is seen after `FRESH_S`.

        Mostly from memory, else one search by an index. Raises ChannelNotFound and DatabaseUnavailable.
        """
        cached = self._cache.get(channel)
        if cached is not None and self._monotonic() - cached.checked_at < FRESH_S:
            return cached.applied.policy
        return self.applied(channel).policy

    def applied(self, channel: str) -> AppliedPolicy:
        """The version that applies, as the database has it now. Raises ChannelNotFound and DatabaseUnavailable."""
        default = self._default(channel)
        asked_at = self._monotonic()
        with self._database.reading() as tx:
            policies = PolicyRepository(tx)
            newest = policies.newest(channel)
            cached = self._cache.get(channel)
            if cached is not None and cached.applied.version == newest:
                applied = cached.applied
            else:
                stored = policies.get(channel, newest)
                applied = default if stored is None else _read(stored)
        with self._lock:
            known = self._cache.get(channel)
            if known is None or known.applied.version <= applied.version:
                self._cache[channel] = _Cached(applied=applied, checked_at=asked_at)
        return applied

    def version(self, channel: str, version: int) -> AppliedPolicy:
        """One version. Raises ChannelNotFound, PolicyVersionNotFound and DatabaseUnavailable."""
        if version == 0:
            return self._default(channel)
        self._default(channel)
        with self._database.reading() as tx:
            stored = PolicyRepository(tx).get(channel, version)
        if stored is None:
            raise PolicyVersionNotFound(f"The policy of {channel} has no version {version}.")
        return _read(stored)

    def history(self, channel: str, *, limit: int = 50) -> list[HistoryEntry]:
        """The newest versions with what each changed, newest first; version 0 is the last of all.

        At most `limit`, which is at most `MAX_HISTORY`. Raises ChannelNotFound and DatabaseUnavailable.
        """
        limit = min(limit, MAX_HISTORY)
        default = self._default(channel)
        with self._database.reading() as tx:
            stored = PolicyRepository(tx).page(channel, limit=limit + 1)
        versions = [*map(_read, stored), *([default] if len(stored) <= limit else [])]
        befores: list[AppliedPolicy | None] = [*versions[1:], None]
        return [
            HistoryEntry(applied=each, changes=differences(before.policy, each.policy) if before else ())
            for each, before in zip(versions, befores, strict=True)
        ][:limit]

    def dropped(self, applied: AppliedPolicy) -> tuple[str, ...]:
        """The signals that the version before had thresholds for and this one has none for.

        Raises DatabaseUnavailable.
        """
        if applied.version == 0:
            return ()
        return dropped_signals(self.version(applied.channel, applied.version - 1).policy, applied.policy)

    def parse(self, channel: str, source: str) -> ModerationPolicy:
        """The policy that this TOML describes, for this channel. Raises ChannelNotFound and PolicyInvalid."""
        return parse_policy(source, signals=self.signals(channel))

    def save(self, channel: str, source: str, *, based_on: int, note: str, by: Principal) -> AppliedPolicy:
        """Make `source` the policy that applies, as a version after `based_on`, which must be the newest one.

        The same rules again add no version. Raises ChannelNotFound, PolicyInvalid, RequestInvalid for a note that is
        missing or too long, PolicyChanged if somebody else was faster, and DatabaseUnavailable.
        """
        policy = self.parse(channel, source)
        return self._add(channel, policy, based_on=based_on, note=_clean(note), by=by, action="policy.saved")

    def roll_back(
        self, channel: str, version: int, *, note: str, by: Principal, based_on: int | None = None
    ) -> AppliedPolicy:
        """Make an earlier version apply again, as a new version. Without `based_on` the newest one is replaced.

        Raises PolicyVersionNotFound, and what `save` raises.
        """
        earlier = self.version(channel, version)
        if based_on is None:
            based_on = self.applied(channel).version
        note = f"Back to version {version}: {_clean(note)}"[:MAX_NOTE]
        return self._add(channel, earlier.policy, based_on=based_on, note=note, by=by, action="policy.rolled_back")

    def _add(
        self, channel: str, policy: ModerationPolicy, *, based_on: int, note: str, by: Principal, action: str
    ) -> AppliedPolicy:
        before = self.applied(channel)
        if before.version != based_on:
            raise _changed(channel, before.version)
        if before.digest == policy.version:
            return before
        now = self._clock()
        stored = PolicyVersion(
            id=new_id(now),
            channel=channel,
            version=based_on + 1,
            digest=policy.version,
            source=format_policy(policy),
            created_at=now,
            created_by=by.name,
            note=note,
        )
        changes = {each.place: f"{each.before} → {each.after}" for each in differences(before.policy, policy)}
        try:
            with self._database.transaction() as tx:
                PolicyRepository(tx).add(stored)
                details = {"version": stored.version, "digest": stored.digest, "note": note, "changes": changes}
                self._audit.record(tx, by, action, target=channel, details=details)
        except RecordRefused as error:
            newest = self.applied(channel).version
            if newest == based_on:
                raise
            raise _changed(channel, newest) from error
        _log.info(action, channel=channel, version=stored.version, digest=stored.digest, by=by.id)
        return self.applied(channel)

    def _default(self, channel: str) -> AppliedPolicy:
        policy = self._defaults.get(channel)
        if policy is None:
            known = ", ".join(sorted(self._defaults)) or "none"
            raise ChannelNotFound(f"There is no channel {channel[:80]!r} with a moderation side. There are: {known}.")
        return AppliedPolicy(
            channel=channel, version=0, policy=policy, source=format_policy(policy), created_by=SETTINGS
        )


def _read(stored: PolicyVersion) -> AppliedPolicy:
    """A band on a signal that the channel no longer has stays: it then holds every photo, and the page says so."""
    return AppliedPolicy(
        channel=stored.channel,
        version=stored.version,
        policy=parse_policy(stored.source, signals=None),
        source=stored.source,
        created_by=stored.created_by,
        created_at=stored.created_at,
        note=stored.note,
    )


def _changed(channel: str, newest: int) -> PolicyChanged:
    return PolicyChanged(
        f"The policy of {channel} was changed meanwhile: its newest version is {newest}. Look at it, then save again."
    )


def _clean(note: str) -> str:
    note = " ".join(note.replace("\x00", "").split())
    if not note:
        raise RequestInvalid("Say in a note why you change the policy.")
    if len(note) > MAX_NOTE:
        raise RequestInvalid(f"The note has {len(note)} characters; at most {MAX_NOTE} are kept.")
    return note

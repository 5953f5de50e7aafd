"""The settings as the page Settings shows them: by sections and groups, found by words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from shoplens.batch.schedule import Plan
from shoplens.configuration.dry_run import DryRunService
from shoplens.configuration.service import ThresholdService
from shoplens.messages import gettext, known, marked
from shoplens.predictions.retention import Due, Expires
from shoplens.setting_sources import SettingValue, Source, SourceKind

SECTIONS: Final = {
    "thresholds": marked("Thresholds"),
    "retention": marked("Retention"),
    "schedule": marked("Schedule"),
    "channels": marked("Channels"),
    "server": marked("Server"),
}
"""The parts of the page in their order."""
_GROUPS: Final = {
    "accounts": marked("Accounts"),
    "oidc": marked("Sign-in with OpenID Connect"),
    "monitoring": marked("Monitoring"),
    "alerts": marked("Alerts"),
    "mail": marked("Mail"),
    "batch": marked("Runs"),
    "photo_urls": marked("Photos by address"),
}
"""What the tables of settings are called, beside the channels."""
_THRESHOLDS: Final = ("accept_at", "answer_at", "review_at", "reject_at", "audit_share", "hide_after_reports",
                      "second_opinion_share")  # fmt: skip
_RETENTION: Final = ("keep", "keep_photos_days", "keep_records_days", "keep_refused_days", "keep_held_days",
                     "keep_published_days", "kept_versions", "pinned_versions", "minutes_hours", "hours_days", "days",
                     "log_files", "log_file_megabytes", "media_max_age_s", "session_idle_hours", "session_days",
                     "token_hours", "link_hours")  # fmt: skip
_SCHEDULE: Final = ("schedule", "time_zone")
_EXPIRES_WORDS: Final = {
    Expires.PHOTOS.value: marked("Photos of single classifications"),
    Expires.RECORDS.value: marked("Records of single classifications"),
    Expires.RUN_PHOTOS.value: marked("Photos of finished runs"),
    "refused": marked("Refused photos"),
    "held": marked("Held photos"),
    "published": marked("Published photos"),
}
_KIND_WORDS: Final = {
    SourceKind.OPTION: marked("Option of the command"),
    SourceKind.ENVIRONMENT: marked("Environment"),
    SourceKind.FILE: marked("File"),
    SourceKind.PAGE: marked("Edited here"),
    SourceKind.DEFAULT: marked("Default"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveChannel:
    """The model that answers in a channel now. `since` is None where no registry says it."""

    model: str
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the pages show and change. `values` are all settings with their sources; it blocks."""

    values: Callable[[], list[SettingValue]]
    thresholds: ThresholdService
    dry_run: DryRunService
    live: Callable[[], Mapping[str, LiveChannel]]
    labels: Callable[[str], tuple[str, ...]]
    moderated: frozenset[str]
    plan: Callable[[str], Plan | None]
    due: Callable[[], list[Due]]
    """What retention deletes next, by channel and setting; it blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingGroup:
    """Settings with a common table, such as those of one channel. `name` is "" for those without a table; channels have
    titles of their own.
    """

    name: str
    rows: tuple[SettingValue, ...]

    @property
    def title(self) -> str:
        """For people."""
        return gettext(_GROUPS[self.name]) if self.name in _GROUPS else self.name

    @property
    def set_count(self) -> int:
        """How many of them are no defaults."""
        return sum(row.source.kind is not SourceKind.DEFAULT for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingSection:
    """A part of the page."""

    key: str
    groups: tuple[SettingGroup, ...]

    @property
    def title(self) -> str:
        """For people."""
        return gettext(SECTIONS[self.key])


def section_of(value: SettingValue) -> str:
    """The part of the page where a setting stands."""
    last = value.path[-1]
    if last in _SCHEDULE:
        return "schedule"
    if last in _RETENTION:
        return "retention"
    if value.path[0] == "channels":
        return "thresholds" if last in _THRESHOLDS else "channels"
    return "server"


def sections_of(values: Iterable[SettingValue], *, words: str = "") -> list[SettingSection]:
    """All settings by section and group; with `words` those that have each of them in name, value, source or
    description.
    """
    wanted = words.casefold().split()
    found: dict[str, list[SettingValue]] = {key: [] for key in SECTIONS}
    for value in values:
        text = (
            f"{value.name} {value.text} {value.source.words} {value.description} {known(value.description)}".casefold()
        )
        if all(word in text for word in wanted):
            found[section_of(value)].append(value)
    return [SettingSection(key=key, groups=_groups(rows)) for key, rows in found.items() if rows]


def titles_of(values: Sequence[SettingValue]) -> Mapping[str, str]:
    """What people call each channel."""
    titles = (each for each in values if each.path[0] == "channels" and each.path[2:] == ("title",))
    return {each.path[1]: str(each.value) for each in titles if each.value}


def source_words(source: Source) -> str:
    """Where a value comes from, in the language of the page; without what names the variable or the file."""
    return gettext(_KIND_WORDS[source.kind])


def expires_words(due: Due) -> str:
    """What expires, in the language of the page."""
    return gettext(_EXPIRES_WORDS[due.what])


def _groups(rows: list[SettingValue]) -> tuple[SettingGroup, ...]:
    ordered = sorted(rows, key=lambda row: (row.path[0] != "channels", _group_of(row)))
    return tuple(SettingGroup(name=name, rows=tuple(inside)) for name, inside in groupby(ordered, key=_group_of))


def _group_of(value: SettingValue) -> str:
    if len(value.path) == 1:
        return ""
    return value.path[1] if value.path[0] == "channels" else value.path[0]

"""Build the thresholds that people edit, and the list of all settings with their sources, from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from shoplens.accounts.audit import AuditLog
from shoplens.advice import meant
from shoplens.batch.schedule import Plan
from shoplens.configuration.dry_run import DryRunService
from shoplens.configuration.entities import ACCEPT_AT, ThresholdChannel, label_of
from shoplens.configuration.service import ThresholdService
from shoplens.configuration.view import Configuration, LiveChannel
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable, Misconfigured
from shoplens.platform.parts import build_channels, build_database, utc_now
from shoplens.predictions.entities import Channel
from shoplens.predictions.retention import Due
from shoplens.setting_sources import NamePath, SettingValue, Source, SourceKind, setting_values
from shoplens.settings import Settings


def build_thresholds(settings: Settings, channels: Mapping[str, Channel], database: Database) -> ThresholdService:
    """The thresholds of `channels`. Those with a moderation side have a policy of their own, and keep what the settings
    say.
    """
    answer_at = _answer_at(settings)
    return ThresholdService(
        database,
        channels={
            name: ThresholdChannel(
                channel=channel, source_of=partial(_source_of, settings, name), answer_at=answer_at.get(name)
            )
            for name, channel in channels.items()
            if settings.channels[name].moderation is None
        },
        policies={name: channel.policy for name, channel in channels.items()},
        audit=AuditLog(database, clock=utc_now),
        clock=utc_now,
    )


def _answer_at(settings: Settings) -> dict[str, float]:
    """Of the channels with a catalogue side."""
    return {name: each.catalogue.answer_at for name, each in settings.channels.items() if each.catalogue is not None}


def threshold_path(threshold: str) -> NamePath:
    """Where a threshold lies in the settings of its channel. Raises ThresholdsInvalid."""
    return (ACCEPT_AT,) if threshold == ACCEPT_AT else ("labels", *label_of(threshold))


def _source_of(settings: Settings, channel: str, threshold: str) -> Source:
    return settings.origins.source_of(("channels", channel, *threshold_path(threshold)))


def current_values(settings: Settings) -> tuple[list[SettingValue], str | None]:
    """Every setting with its source, with the thresholds that were edited, for a command.

    The second value says why those could not be read: what a command shows of the settings needs no database.
    """
    values = setting_values(settings, settings.origins)
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        return values, None
    try:
        with closing(build_database(settings)) as database:
            thresholds = build_thresholds(settings, build_channels(settings), database)
            return with_edited(values, thresholds), None
    except DatabaseUnavailable as error:
        return values, f"Thresholds that were edited on the page Settings are not shown: {error}"


def with_edited(values: list[SettingValue], thresholds: ThresholdService) -> list[SettingValue]:
    """The values with those that people edited, in their places. Raises DatabaseUnavailable."""
    edited: dict[tuple[str, ...], SettingValue] = {}
    for name in thresholds.channels:
        applied = thresholds.applied(name)
        if applied.fault is not None:
            continue
        when = f"{applied.created_at:%Y-%m-%d %H:%M} UTC" if applied.created_at else ""
        source = Source(kind=SourceKind.PAGE, where=f"{applied.created_by}, {when}")
        for threshold, value in applied.edited.items():
            if threshold not in applied.overruled:
                path = ("channels", name, *threshold_path(threshold))
                edited[path] = SettingValue(path=path, value=value, source=source)
    found = []
    for each in values:
        mine = edited.pop(each.path, None)
        found.append(each if mine is None else replace(each, value=mine.value, source=mine.source))
    return [*found, *edited.values()]


def chosen_values(values: list[SettingValue], names: Sequence[str]) -> list[SettingValue]:
    """Those of these names, or within the tables of these names; all without a name. Raises Misconfigured."""
    if not names:
        return values
    tables = {".".join(each.path[:length]) for each in values for length in range(1, len(each.path) + 1)}
    for name in names:
        if name not in tables:
            raise Misconfigured(f"There is no setting {name[:100]!r}{meant(name, sorted(tables))}.")
    return [each for each in values if any(f"{each.name}.".startswith(f"{name}.") for name in names)]


def build_configuration(
    settings: Settings,
    thresholds: ThresholdService,
    *,
    database: Database,
    live: Callable[[], Mapping[str, LiveChannel]],
    labels: Callable[[str], tuple[str, ...]],
    plan: Callable[[str], Plan | None],
    due: Callable[[], list[Due]],
) -> Configuration:
    """What the page Settings of a server shows. `labels` gives those of a channel's model."""
    values = setting_values(settings, settings.origins)
    return Configuration(
        values=lambda: with_edited(values, thresholds),
        thresholds=thresholds,
        dry_run=DryRunService(database, answer_at=_answer_at(settings)),
        live=live,
        labels=labels,
        plan=plan,
        due=due,
        moderated=frozenset(name for name, each in settings.channels.items() if each.moderation is not None),
    )

"""`shoplens monitoring accuracy`: how often the models were right in production, from the answers of people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, complete_channels, handle_errors, settings_for
from shoplens.cli.output import Cell, remark, show_json, show_table

if TYPE_CHECKING:
    from shoplens.monitoring.accuracy.estimates import Estimate
    from shoplens.monitoring.accuracy.service import AccuracyReport


@handle_errors
def accuracy(
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", help="May be repeated; unset: all.", autocompletion=complete_channels),
    ] = None,
    days: Annotated[int, typer.Option("--days", help="7, 28, 90 or 365.")] = 28,
    goal: Annotated[
        float,
        typer.Option("--goal", help="Highest share of wrong automatic decisions, for which a threshold is named."),
    ] = 0.01,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show how often automatic decisions were right, with 95 % confidence, and a threshold for a goal.

    It comes from what people said, corrected for that they see mostly doubtful samples. Where it is not known, too few
    random checks (audit_share) were answered.
    """
    from shoplens.errors import RequestInvalid
    from shoplens.monitoring.accuracy.estimates import LEAST_ANSWERS
    from shoplens.platform.drift import open_accuracy

    if not 0 < goal <= 0.5:
        raise RequestInvalid("--goal must lie above 0 and be at most 0.5.")
    with open_accuracy(settings_for(data_dir)) as service:
        names = [service.channel(name).name for name in channel or service.channels]
        reports = [service.of(name, days=days) for name in names]
    if as_json:
        from shoplens.monitoring.accuracy.api import AccuracyOut

        show_json([AccuracyOut.of_report(each, goal).model_dump(mode="json") for each in reports])
        return
    heads = (
        "CHANNEL",
        "MODEL",
        "RIGHT",
        "FROM",
        "TO",
        "CHECKS",
        "ANSWERED",
        "FOR PEOPLE",
        "ALL",
        "ACCEPT_AT",
        "FOR GOAL",
    )
    known = [each for each in reports if each.production is not None]
    show_table(heads, [_row(each, goal) for each in known], nothing=f"Nothing was decided in the last {days} days.")
    if waiting := [each.channel for each in known if each.automatic is None]:
        remark(
            f"Not known yet for {', '.join(waiting)}: fewer than {LEAST_ANSWERS} random checks (audit_share) were "
            "answered."
        )


def _row(report: AccuracyReport, goal: float) -> tuple[str | int | float | Cell | None, ...]:
    found, right, choice = report.production, report.automatic, report.choose(goal).point
    return (
        report.channel,
        report.model,
        *map(_share, (None, None, None) if right is None else (right.value, right.low, right.high)),
        0 if found is None else found.checks,
        0 if found is None else len(found.checked.answers),
        _share(_value(report.reviewed)),
        _share(_value(report.overall)),
        report.accept_at,
        None if choice is None else choice.at,
    )


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _share(share: float | None) -> Cell | None:
    """In percent for people; programs get 0 to 1."""
    return None if share is None else Cell(shown=f"{share:.1%}", plain=round(share, 4), right=True)

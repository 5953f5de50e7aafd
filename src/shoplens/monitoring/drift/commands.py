"""`shoplens monitoring drift` and `normal`: compare days with the days before them, and say what is expected."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from shoplens.advice import no_channel
from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for


@handle_errors
def normal(
    since: Annotated[
        datetime | None, typer.Option("--since", formats=["%Y-%m-%d"], help="The first day (UTC) of the change.")
    ] = None,
    channel: Annotated[str | None, typer.Option("--channel", help="Unset: the first one.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why it is normal; kept in the audit log.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the last one back.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Say that a change of a channel is expected: days are compared with those from that day on, and it alarms nobody.

    Or take the last such word back.
    """
    from shoplens.accounts.commands import operator
    from shoplens.errors import RequestInvalid
    from shoplens.platform.drift import open_drift

    with open_drift(settings_for(data_dir)) as service:
        name = service.channel(channel).name
        if withdraw:
            gone = service.withdraw_change(name, by=operator())
            said = (
                "Nothing to take back." if gone is None else f"{name} is compared as before {gone.created_at:%Y-%m-%d}."
            )
        elif since is None:
            raise RequestInvalid("Name the first day of the change with --since, or --withdraw.")
        else:
            made = service.accept_change(name, since.date(), reason=reason, by=operator())
            said = f"{name} is normal from {made.day} on."
        typer.echo(said)


@handle_errors
def drift(
    day: Annotated[
        list[datetime] | None,
        typer.Option("--day", formats=["%Y-%m-%d"], help="A day (UTC); may be repeated. Unset: all that are missing."),
    ] = None,
    channel: Annotated[list[str] | None, typer.Option("--channel", help="May be repeated; unset: all.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Compute days that are stored already, too.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Compare days with the days before them, and store what differs: what a server does by itself once a day.

    Days that are stored already are left as they are, so an interrupted command goes on when it is given again.
    """
    import orjson

    from shoplens.monitoring.drift.api import DriftDayOut
    from shoplens.platform.drift import open_drift_job

    with open_drift_job(settings_for(data_dir)) as job:
        for unknown in set(channel or ()) - set(job.channels):
            raise no_channel(unknown, job.channels)
        days = None if day is None else [each.date() for each in day]
        found = 0
        for each in job.run(days, channels=channel, again=again):
            found += 1
            if as_json:
                typer.echo(orjson.dumps(DriftDayOut.of(each, address=None).model_dump(mode="json")).decode())
                continue
            alarms = ", ".join(finding.measure.value for finding in each.alarms)
            words = f"differs: {alarms}" if alarms else "as usual" if each.findings else "nothing to compare yet"
            typer.echo(
                f"{each.channel}\t{each.day}\t{each.profile.rows} samples\t{each.profile.photos} photos\t{words}"
            )
        if not found and not as_json:
            typer.echo("Nothing is missing.")

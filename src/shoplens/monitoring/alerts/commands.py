"""`shoplens monitoring alerts`: what fires, in a terminal or for a program."""

from __future__ import annotations

from typing import Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for


@handle_errors
def alerts(
    resolved: Annotated[bool, typer.Option("--resolved", help="List those that ended last, too.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List what is wrong now: status, severity, alert, subject, since when, figures.

    A web server looks; this command shows what it found.
    """
    from shoplens.cli.output import show_table
    from shoplens.monitoring.alerts.api import AlertsOut
    from shoplens.platform.alerts import open_alerts

    with open_alerts(settings_for(data_dir)) as service:
        view = service.view()
    if as_json:
        typer.echo(AlertsOut.of(view).model_dump_json(indent=2))
        return
    shown = [*view.firing, *view.pending, *(view.resolved if resolved else ())]
    looked = "no server has looked yet" if view.looked_at is None else f"last looked at {view.looked_at:%H:%M} UTC"
    show_table(
        ("STATUS", "SEVERITY", "ALERT", "SUBJECT", "SINCE", "WHAT"),
        [
            (each.status.value, each.severity.value, each.rule, each.subject or None, each.since, each.summary)
            for each in shown
        ],
        nothing=f"Nothing is wrong ({looked}).",
    )

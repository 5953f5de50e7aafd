"""`shoplens monitoring …`: the figures of the page Monitoring in a terminal, accuracy, drift and alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import remark, show_table
from shoplens.monitoring.accuracy.commands import accuracy
from shoplens.monitoring.alerts.commands import alerts
from shoplens.monitoring.drift.commands import drift, normal

if TYPE_CHECKING:
    from shoplens.monitoring.series.entities import Counts

monitoring_app = Commands(help="What happened on the server over time.")
monitoring_app.command(
    "drift",
    examples=["shoplens monitoring drift", "shoplens monitoring drift --day 2026-03-03 --channel returns"],
)(drift)
monitoring_app.command(
    "normal",
    examples=["shoplens monitoring normal --channel returns --since 2026-03-03 --reason Sale"],
)(normal)
monitoring_app.command(
    "accuracy",
    examples=["shoplens monitoring accuracy", "shoplens monitoring accuracy --channel returns --days 90 --json"],
)(accuracy)
monitoring_app.command("alerts", examples=["shoplens monitoring alerts", "shoplens monitoring alerts --resolved"])(
    alerts
)


@monitoring_app.callback()
def monitoring() -> None:
    """What happened on the server over time."""


@monitoring_app.command(examples=["shoplens monitoring show --range 7d"])
@handle_errors
def show(
    chosen: Annotated[str, typer.Option("--range", help="1h, 24h, 7d or 90d.")] = "24h",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show requests, failures and latency by channel and model, and how long the disk will last."""
    import orjson

    from shoplens.monitoring.series.entities import Range
    from shoplens.platform.monitoring import open_monitoring

    wanted = Range.named(chosen)
    with open_monitoring(settings_for(data_dir)) as monitoring:
        view, disk = monitoring.series(wanted), monitoring.disk()
    if as_json:
        by_model = [key._asdict() | _figures(counts) for key, counts in view.by_series.items()]
        typer.echo(orjson.dumps({"range": chosen, "by_model": by_model, "disk": disk}))
        return
    heads = ("CHANNEL", "MODEL", "REQUESTS", "REFUSED", "BUSY", "FAILED", "P50_MS", "P95_MS", "P99_MS")
    rows = [(key.channel, key.model, *_figures(counts).values()) for key, counts in view.by_series.items()]
    nothing = "Nobody asked for anything in this range." if view.recorded else "Nothing was written down yet."
    show_table(heads, rows, nothing=nothing)
    remark(disk.sentence)


def _figures(counts: Counts) -> dict[str, float | None]:
    plain = {name: getattr(counts, name) for name in ("requests", "refused", "busy", "failed")}
    latencies = {f"p{round(100 * share)}_ms": counts.latency_s(share) for share in (0.5, 0.95, 0.99)}
    return plain | {name: None if value is None else round(value * 1000, 1) for name, value in latencies.items()}

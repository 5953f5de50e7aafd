"""`shoplens monitoring …`: the figures of the page Monitoring in a terminal, and drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.monitoring.drift_commands import drift

if TYPE_CHECKING:
    from shoplens.monitoring.entities import Counts

monitoring_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What happened on the server over time.")
monitoring_app.command("drift")(drift)


@monitoring_app.callback()
def monitoring() -> None:
    """What happened on the server over time."""


@monitoring_app.command()
@handle_errors
def show(
    chosen: Annotated[str, typer.Option("--range", help="1h, 24h, 7d or 90d.")] = "24h",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show requests, failures and latency by channel and model, and how long the disk will last."""
    import orjson

    from shoplens.monitoring.entities import Range
    from shoplens.platform.monitoring import open_monitoring

    wanted = Range.named(chosen)
    with open_monitoring(settings_for(data_dir)) as monitoring:
        view, disk = monitoring.series(wanted), monitoring.disk()
    if as_json:
        by_model = [key._asdict() | _figures(counts) for key, counts in view.by_series.items()]
        typer.echo(orjson.dumps({"range": chosen, "by_model": by_model, "disk": disk}))
        return
    rows = [(key.channel, key.model, *map(str, _figures(counts).values())) for key, counts in view.by_series.items()]
    if not rows:
        typer.echo("Nobody asked for anything in this range." if view.recorded else "Nothing was written down yet.")
    else:
        heads = ("CHANNEL", "MODEL", "REQUESTS", "REFUSED", "BUSY", "FAILED", "P50_MS", "P95_MS", "P99_MS")
        widths = [max(len(row[index]) for row in (heads, *rows)) for index in range(len(heads))]
        for row in (heads, *rows):
            typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo(disk.sentence)


def _figures(counts: Counts) -> dict[str, float | None]:
    plain = {name: getattr(counts, name) for name in ("requests", "refused", "busy", "failed")}
    latencies = {f"p{round(100 * share)}_ms": counts.latency_s(share) for share in (0.5, 0.95, 0.99)}
    return plain | {name: None if value is None else round(value * 1000, 1) for name, value in latencies.items()}

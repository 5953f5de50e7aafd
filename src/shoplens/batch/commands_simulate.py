"""`shoplens batch simulate`: fill the drop folder as a day would, for trying things out."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import typer

from shoplens.batch.simulate import drawn_samples, photos_below, simulate
from shoplens.cli.options import settings_for
from shoplens.errors import RequestInvalid
from shoplens.platform.batch import local_folder

_SAMPLES = 60


def simulate_arrivals(
    photos: Path | None,
    *,
    samples: bool,
    into: Path | None,
    count: int | None,
    seed: int | None,
    messy: bool,
    channel: str | None,
    data_dir: Path | None,
) -> None:
    """Print what was made. Raises RequestInvalid and SourceUnavailable."""
    if samples == (photos is not None):
        raise RequestInvalid("Name a folder of photos, or say --samples for drawn ones; one of both.")
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    originals = drawn_samples(count or _SAMPLES, seed) if photos is None else photos_below(photos)
    target = into or _configured(channel, data_dir)
    made = simulate(
        originals,
        target,
        count=count or len(originals),
        seed=seed,
        messy=messy,
        now=datetime.now(UTC).astimezone(),
    )
    mess = f" and {made.messy} files that make trouble" if made.messy else ""
    typer.echo(f"{made.into}: {made.photos:,} photos, {made.sidecars:,} sidecars{mess} (seed {made.seed}).")


def _configured(channel: str | None, data_dir: Path | None) -> Path:
    settings = settings_for(data_dir)
    source = settings.batch_source(settings.batch_channel(channel))
    if len(urlsplit(source).scheme) > 1 and not source.startswith("file:"):
        raise RequestInvalid(f"The configured source {source} is no folder. Name one with --into.")
    return local_folder(source)

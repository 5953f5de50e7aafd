"""`shoplens datasets`: the public data that our trained models are made from, and whether a copy is the same."""

from __future__ import annotations

from pathlib import Path

import orjson
import typer
from rich.console import Console

from shoplens.cli.process import EXIT_FAILED
from shoplens.training.data_sources import SOURCES, DataSource, source_named, verify_copy


def list_sources(*, as_json: bool) -> None:
    """All of them, with who made them, their terms, and their checksums."""
    if as_json:
        typer.echo(orjson.dumps(SOURCES, option=orjson.OPT_INDENT_2))
        return
    for source in SOURCES:
        _present(source)


def verify_source(name: str, place: Path, *, as_json: bool) -> None:
    """Raises NotFound for an unknown name; exits with status 1 where a part is missing or differs."""
    source = source_named(name)
    with Console(stderr=True).status(f"Reading {place}"):
        verdicts = list(verify_copy(source, place))
    if as_json:
        rows = [{"part": each.part, "ok": each.fault is None, "detail": each.fault} for each in verdicts]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        for verdict in verdicts:
            typer.echo(f"{verdict.part}: {verdict.fault or 'the same, byte for byte'}")
    if any(verdict.fault for verdict in verdicts):
        raise typer.Exit(EXIT_FAILED)


def _present(source: DataSource) -> None:
    typer.echo(f"{source.name}: {source.title}")
    for key, value in (
        ("by", source.author), ("licence", source.licence), ("from", source.address), ("layout", source.layout),
    ):  # fmt: skip
        typer.echo(f"  {key:8} {value}")
    for part in source.parts:
        typer.echo(f"  {part.name:8} {part.files:,} files, {part.size_bytes:,} bytes, SHA-256 {part.sha256}")
    typer.echo(f"  {source.note}\n")

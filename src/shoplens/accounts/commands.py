"""`shoplens keys` and `shoplens audit`: API keys, and the log of who did what."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.accounts.entities import SYSTEM, Permission, Principal
from shoplens.cli.command import EXIT_FAILED, AsJson, DataDir, handle_errors, settings_for

if TYPE_CHECKING:
    from shoplens.accounts.audit import AuditLog
    from shoplens.accounts.keys import KeyService
    from shoplens.db import Database

keys_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Keys with which services use the API.")
audit_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The log of who did what.")

_HEAD_FILE = "audit-head"


class AuditFormat(StrEnum):
    """How the log is written."""

    CSV = "csv"
    JSONL = "jsonl"


def operator() -> Principal:
    """Who runs a command on this machine: everything is allowed, and the audit log names the user of the system."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return replace(SYSTEM, name=f"{user} on the command line")


@contextmanager
def opened(data_dir: Path | None) -> Iterator[tuple[Database, AuditLog]]:
    """The database and the audit log on it. Raises Misconfigured and DatabaseUnavailable."""
    from shoplens.accounts.audit import AuditLog
    from shoplens.platform.parts import build_database, utc_now

    database = build_database(settings_for(data_dir), pool=1)
    try:
        yield database, AuditLog(database, clock=utc_now)
    finally:
        database.close()


@contextmanager
def _keys(data_dir: Path | None) -> Iterator[KeyService]:
    from shoplens.accounts.keys import KeyService
    from shoplens.platform.parts import utc_now

    with opened(data_dir) as (database, audit):
        yield KeyService(database, audit, clock=utc_now)


@keys_app.command("create")
@handle_errors
def create_key(
    name: Annotated[str, typer.Argument(help="The service that uses the key.")],
    scope: Annotated[list[Permission], typer.Option(help="What the key may do (may be repeated).")],
    days: Annotated[int | None, typer.Option(help="After how many days it ends; never if unset.", min=1)] = None,
    per_minute: Annotated[int | None, typer.Option(help="Most requests per minute; any number if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Create a key and print it. It is shown this once; only its hash is stored."""
    from shoplens.platform.parts import utc_now

    expires_at = None if days is None else utc_now() + timedelta(days=days)
    with _keys(data_dir) as keys:
        key, text = keys.create(operator(), name=name, scopes=scope, expires_at=expires_at, per_minute=per_minute)
    typer.echo(text)
    until = "never ends" if key.expires_at is None else f"ends on {key.expires_at:%Y-%m-%d}"
    typer.echo(f"The key of {key.name} may: {key.scopes}. It {until}. It is not shown again.", err=True)


@keys_app.command("list")
@handle_errors
def list_keys(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show all keys without the keys themselves, newest first."""
    from dataclasses import asdict

    import orjson

    with _keys(data_dir) as keys:
        found = keys.all()
    if as_json:
        rows = [{name: value for name, value in asdict(key).items() if name != "key_hash"} for key in found]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("begins with", "service", "scopes", "ends", "last used", "revoked", box=None, padding=(0, 2, 0, 0))
    for key in found:
        moments = (key.expires_at, key.last_used_at, key.revoked_at)
        texts = (f"{moment:%Y-%m-%d %H:%M}" if moment else "–" for moment in moments)
        table.add_row(key.prefix, escape(key.name), key.scopes, *texts)
    Console().print(table if found else "There is no key yet.", highlight=False)


@keys_app.command("revoke")
@handle_errors
def revoke_key(
    key: Annotated[str, typer.Argument(help="The key's id, or what it begins with, as `list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """End a key. A running server refuses it within a few seconds."""
    with _keys(data_dir) as keys:
        revoked = keys.revoke(operator(), key)
    typer.echo(f"The key {revoked.prefix}… of {revoked.name} is revoked.")


@audit_app.command("verify")
@handle_errors
def verify_audit(
    head: Annotated[
        str | None, typer.Option(help="An end of the log that an earlier verification printed, kept elsewhere.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Recompute the chain of the audit log, and compare it with its end at the last verification.

    Ends with status 1 if an entry was changed, removed, inserted or moved.
    """
    import orjson

    from shoplens.accounts.audit_check import Head, read_head, verify, write_head

    file = settings_for(data_dir).data_dir / _HEAD_FILE
    known = [each for each in (read_head(file), Head.read(head) if head else None) if each is not None]
    with opened(data_dir) as (_, audit):
        found = verify(audit.all(), known=known)
    if not found.faults:
        write_head(file, found.head)
    if as_json:
        typer.echo(orjson.dumps({"ok": not found.faults, "head": str(found.head), "faults": found.faults}))
    elif found.faults:
        typer.echo("\n".join(found.faults))
    else:
        typer.echo(f"The audit log is whole: {found.head.seq} entries. Its end is\n{found.head}")
    if found.faults:
        raise typer.Exit(EXIT_FAILED)


@audit_app.command("export")
@handle_errors
def export_audit(
    format: Annotated[AuditFormat, typer.Option(help="How it is written.")] = AuditFormat.CSV,
    output: Annotated[Path | None, typer.Option(help="The file to write; standard output if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the whole audit log, oldest first. The export is an entry itself."""
    from shoplens.accounts.audit import audit_csv, audit_json_lines

    with opened(data_dir) as (_, audit):
        audit.note(operator(), "audit.exported", details={"format": format.value})
        entries = audit.all()
        chunks = audit_csv(entries) if format is AuditFormat.CSV else audit_json_lines(entries)
        with output.open("wb") if output is not None else sys.stdout.buffer as sink:
            for chunk in chunks:
                sink.write(chunk.encode() if isinstance(chunk, str) else chunk)

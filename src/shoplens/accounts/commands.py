"""`shoplens users`, `keys` and `audit`: people, API keys, and the log of who did what; the server may keep running."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shoplens.accounts.entities import MOST_KEY_DAYS, SYSTEM, Permission, Person, Principal, Role
from shoplens.cli.command import EXIT_FAILED, AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import show_table, warn

if TYPE_CHECKING:
    from shoplens.accounts.audit import AuditLog
    from shoplens.accounts.keys import KeyService
    from shoplens.accounts.people import PeopleService
    from shoplens.db import Database
    from shoplens.settings import Settings

users_app = Commands(help="People: who may sign in, and their roles.")
keys_app = Commands(help="Keys with which services use the API.")
audit_app = Commands(help="The log of who did what.")

_HEAD_FILE = "audit-head"
_EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - never bound here

Name = Annotated[str, typer.Argument(help="The name that they sign in with.")]


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


def note_command(settings: Settings, action: str, *, target: str, **details: object) -> None:
    """Append to the audit log what a command did beside the database, where there is one. Never fails."""
    from shoplens.accounts.audit import AuditLog
    from shoplens.db import open_database
    from shoplens.errors import ShoplensError
    from shoplens.platform.parts import utc_now

    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        return
    try:
        database = open_database(settings.effective_database_url, pool=1)
        try:
            AuditLog(database, clock=utc_now).note(operator(), action, target=target, details=details)
        finally:
            database.close()
    except ShoplensError as error:
        warn(f"This is not in the audit log: {error}")


@contextmanager
def _keys(data_dir: Path | None) -> Iterator[KeyService]:
    from shoplens.accounts.keys import KeyService
    from shoplens.platform.parts import utc_now

    with opened(data_dir) as (database, audit):
        yield KeyService(database, audit, clock=utc_now)


@keys_app.command("create", examples=["shoplens keys create returns-form --scope predict --days 365"])
@handle_errors
def create_key(
    name: Annotated[str, typer.Argument(help="The service that uses the key.")],
    scope: Annotated[
        list[Permission],
        typer.Option(metavar="PERMISSION", help=f"What the key may do (may be repeated): {', '.join(Permission)}."),
    ],
    days: Annotated[
        int | None, typer.Option(help="After how many days it ends; never if unset.", min=1, max=MOST_KEY_DAYS)
    ] = None,
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


@keys_app.command("list", examples=["shoplens keys list"])
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
    heads = ("BEGINS WITH", "SERVICE", "SCOPES", "ENDS", "LAST USED", "REVOKED")
    table = [(key.prefix, key.name, key.scopes, key.expires_at, key.last_used_at, key.revoked_at) for key in found]
    show_table(heads, table, nothing="There is no key yet.")


@keys_app.command("revoke", examples=["shoplens keys revoke 01J8ZK3V5QW7"])
@handle_errors
def revoke_key(
    key: Annotated[str, typer.Argument(help="The key's id, or what it begins with, as `list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """End a key. A running server refuses it within a few seconds."""
    with _keys(data_dir) as keys:
        revoked = keys.revoke(operator(), key)
    typer.echo(f"The key {revoked.prefix}… of {revoked.name} is revoked.")


@audit_app.command("verify", examples=["shoplens audit verify"])
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


@audit_app.command("export", examples=["shoplens audit export --format jsonl --output audit.jsonl"])
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


# People


@users_app.command(
    "add", examples=["shoplens users add anna --role moderator", "shoplens users add anna --role admin --link"]
)
@handle_errors
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.VIEWER,
    email: Annotated[str | None, typer.Option(help="Their e-mail address.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Print a one-time link; ask for no password.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Add a person. It asks for the password on a terminal; elsewhere it prints a one-time link to set one."""
    settings = settings_for(data_dir)
    password = None if link else _password(name, from_stdin=password_stdin)
    with _people(settings) as people:
        person = people.add(name, role, by=operator(), email=email, password=password)
        typer.echo(f"Added {person.name} as {person.role.value}.")
        if password is None:
            _print_link(people, person, settings)


@users_app.command("list", examples=["shoplens users list"])
@handle_errors
def show(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List all people."""
    with _people(settings_for(data_dir)) as people:
        everybody = people.all()
    if as_json:
        import orjson

        typer.echo(orjson.dumps([_row(each) for each in everybody]))
        return
    heads = ("NAME", "ROLE", "STATE", "SECOND FACTOR", "LAST SIGN-IN")
    rows = [
        (each.name, each.role.value, _row(each)["state"], "on" if each.totp_confirmed_at else "off",
         each.last_sign_in_at)
        for each in everybody
    ]  # fmt: skip
    show_table(heads, rows, nothing="Nobody has an account.")


@users_app.command("disable", examples=["shoplens users disable anna"])
@handle_errors
def disable(name: Name, data_dir: DataDir = None) -> None:
    """Sign somebody out everywhere and refuse every sign-in, until they are enabled."""
    with _people(settings_for(data_dir)) as people:
        people.change(people.named(name).id, by=operator(), disabled=True)
    typer.echo(f"{name} is disabled.")


@users_app.command("enable", examples=["shoplens users enable anna"])
@handle_errors
def enable(name: Name, data_dir: DataDir = None) -> None:
    """Let somebody sign in again who was disabled."""
    with _people(settings_for(data_dir)) as people:
        people.change(people.named(name).id, by=operator(), disabled=False)
    typer.echo(f"{name} is enabled.")


@users_app.command("role", examples=["shoplens users role anna clerk"])
@handle_errors
def role(
    name: Name, new_role: Annotated[Role, typer.Argument(help="What they may do.")], data_dir: DataDir = None
) -> None:
    """Give somebody another role."""
    with _people(settings_for(data_dir)) as people:
        people.change(people.named(name).id, by=operator(), role=new_role)
    typer.echo(f"{name} is {new_role.value} now.")


@users_app.command("reset", examples=["shoplens users reset anna", "shoplens users reset anna --second-factor"])
@handle_errors
def reset(
    name: Name,
    second_factor: Annotated[
        bool, typer.Option("--second-factor", help="Remove the second factor instead, for a lost phone.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Print a one-time link with which somebody sets a new password."""
    settings = settings_for(data_dir)
    if second_factor:
        from shoplens.platform.accounts import open_accounts

        with open_accounts(settings) as accounts:
            accounts.second_factor.remove(accounts.people.named(name).id, by=operator())
        typer.echo(f"The second factor of {name} is removed.")
        return
    with _people(settings) as people:
        _print_link(people, people.named(name), settings)


@contextmanager
def _people(settings: Settings) -> Iterator[PeopleService]:
    from shoplens.platform.accounts import open_accounts

    with open_accounts(settings) as accounts:
        yield accounts.people


def _password(name: str, *, from_stdin: bool) -> str | None:
    """What was typed, or the line of standard input; None where nobody can be asked."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        return None
    return str(typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))


def _print_link(people: PeopleService, person: Person, settings: Settings) -> None:
    link = people.make_link(person.id, by=operator())
    typer.echo(
        f"Open this link once, until {link.expires_at:%Y-%m-%d %H:%M} UTC, to set the password of {person.name}:"
    )
    typer.echo(f"{settings.public_url or _address(settings)}{link.path}")
    if settings.public_url is None:
        typer.echo(
            "The beginning of the link is the address of the settings. If people reach the server at another one "
            "(--port, a proxy), put that in its place, and set public_url to it.",
            err=True,
        )


def _address(settings: Settings) -> str:
    """Where a server with these settings is reached on this machine."""
    host = "127.0.0.1" if settings.host in _EVERY_ADDRESS else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _row(person: Person) -> dict[str, Any]:
    state = "disabled" if person.disabled_at else "active" if person.password_hash or person.subject else "no password"
    return {
        "id": person.id,
        "name": person.name,
        "role": person.role.value,
        "email": person.email,
        "state": state,
        "second_factor": person.totp_confirmed_at is not None,
        "last_sign_in_at": f"{person.last_sign_in_at:%Y-%m-%d %H:%M} UTC" if person.last_sign_in_at else None,
    }

"""`shoplens moderation …`: policies of channels, erasing a customer, and deleting what is too old.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import show_table, warn

if TYPE_CHECKING:
    from shoplens.moderation.policy.dry_run import DryRun
    from shoplens.moderation.policy.service import HistoryEntry

moderation_app = Commands(help="Moderate the photos of shoppers.")
policy_app = Commands(help="The policy of a channel, as TOML.")
moderation_app.add_typer(policy_app, name="policy")

ChannelName = Annotated[
    str | None, typer.Option("--channel", help="Optional if only one channel has a moderation side.")
]
PolicyFile = Annotated[Path, typer.Argument(help="A file with the policy as TOML; - reads standard input.")]
Note = Annotated[str, typer.Option("--note", help="Why, for the history.")]


@policy_app.command("show", examples=["shoplens moderation policy show", "shoplens moderation policy show --version 0"])
@handle_errors
def show(
    version: Annotated[
        int | None, typer.Option("--version", help="An earlier version; 0 is that of the settings.", min=0)
    ] = None,
    channel: ChannelName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Print the policy that applies, as TOML that `set` takes."""
    import orjson

    from shoplens.platform.moderation import open_policies

    with open_policies(settings_for(data_dir)) as (policies, _):
        name = policies.named(channel)
        applied = policies.applied(name) if version is None else policies.version(name, version)
        unknown = policies.unknown_signals(name, applied.policy)
    if as_json:
        fields = ("channel", "version", "digest", "source", "created_by", "created_at", "note")
        typer.echo(orjson.dumps({field: getattr(applied, field) for field in fields}))
    else:
        typer.echo(applied.source, nl=False)
    for signal in unknown:
        warn(f"The signal {signal} is not computed, so every photo is held.")


@policy_app.command("set", examples=['shoplens moderation policy set policy.toml --note "Hold more weapons"'])
@handle_errors
def set_policy(
    file: PolicyFile,
    note: Note,
    based_on: Annotated[
        int | None, typer.Option("--based-on", help="Refuse if this is no longer the newest version.", min=0)
    ] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Apply another policy. All processes use it within two seconds."""
    from shoplens.accounts.commands import operator
    from shoplens.platform.moderation import open_policies

    source = _read(file)
    with open_policies(settings_for(data_dir)) as (policies, _):
        name = policies.named(channel)
        newest = policies.applied(name).version
        saved = policies.save(name, source, based_on=newest if based_on is None else based_on, note=note, by=operator())
        dropped = policies.dropped(saved) if saved.version != newest else ()
    same = " It is as it was." if saved.version == newest else ""
    typer.echo(f"Version {saved.version} of the policy of {name} applies ({saved.digest}).{same}")
    _warn_of(dropped)


@policy_app.command("rollback", examples=['shoplens moderation policy rollback 3 --note "Too many were held"'])
@handle_errors
def roll_back(
    version: Annotated[int, typer.Argument(help="The version to go back to; 0 is that of the settings.", min=0)],
    note: Note,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Apply an earlier version again, as a new one."""
    from shoplens.accounts.commands import operator
    from shoplens.platform.moderation import open_policies

    with open_policies(settings_for(data_dir)) as (policies, _):
        name = policies.named(channel)
        back = policies.roll_back(name, version, note=note, by=operator())
    typer.echo(f"Version {back.version} of the policy of {name} applies, with the rules of version {version}.")


@policy_app.command("history", examples=["shoplens moderation policy history --limit 5"])
@handle_errors
def history(
    limit: Annotated[int, typer.Option(help="How many versions.", min=1, max=200)] = 20,
    channel: ChannelName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Who changed what, when and why; the newest first."""
    import orjson

    from shoplens.platform.moderation import open_policies

    with open_policies(settings_for(data_dir)) as (policies, _):
        entries = policies.history(policies.named(channel), limit=limit)
    if as_json:
        fields = ("version", "digest", "created_at", "created_by", "note")
        rows = [{**{f: getattr(e.applied, f) for f in fields}, "changes": e.changes} for e in entries]
        typer.echo(orjson.dumps(rows))
        return
    heads = ("VERSION", "CHANGED", "BY", "NOTE", "CHANGES")
    table = [
        (str(each.applied.version), each.applied.created_at, each.applied.created_by,
         each.applied.note or "the settings", _changes(each))
        for each in entries
    ]  # fmt: skip
    show_table(heads, table, nothing="The policy was never changed.")


@policy_app.command("dry-run", examples=["shoplens moderation policy dry-run policy.toml --photos 5000"])
@handle_errors
def dry_run(
    file: PolicyFile,
    photos: Annotated[int, typer.Option(help="How many of the newest photos.", min=1, max=10_000)] = 1_000,
    channel: ChannelName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Say how many of the newest photos another policy would publish, hold or refuse. Nothing changes."""
    import orjson

    from shoplens.platform.moderation import open_policies

    source = _read(file)
    with open_policies(settings_for(data_dir)) as (policies, try_out):
        result = try_out(policies.named(channel), source, photos=photos)
    if as_json:
        typer.echo(orjson.dumps(result))
    else:
        _print(result)


@moderation_app.command("erase-customer", examples=["shoplens moderation erase-customer C-4711 --yes"])
@handle_errors
def erase_customer(
    reference: Annotated[str, typer.Argument(help="The customer as the shop calls them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Delete all photos, files, hashes, decisions, appeals and events of a customer for good, and print the receipt."""
    import orjson

    from shoplens.accounts.commands import operator
    from shoplens.platform.consequences import open_customers

    with open_customers(settings_for(data_dir)) as customers:
        total = customers.get(reference).total
        if not yes:
            typer.confirm(f"Delete {total:,} photos of this customer for good?", abort=True)
        receipt = customers.erase(reference, by=operator())
    if as_json:
        typer.echo(orjson.dumps(receipt))
        return
    typer.echo(
        f"Erased {receipt.photos:,} photos, {receipt.files:,} files, {receipt.hashes:,} hashes and "
        f"{receipt.events:,} events; {receipt.label_sets:,} label sets were written again."
    )
    typer.echo(f"Receipt {receipt.id} of {receipt.at:%Y-%m-%d %H:%M} UTC, customer {receipt.customer_digest}.")


@moderation_app.command(examples=["shoplens moderation retention --json"])
@handle_errors
def retention(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Delete now what is older than the settings allow; the server does it every hour."""
    import orjson

    from shoplens.platform.consequences import open_retention

    with open_retention(settings_for(data_dir)) as task:
        deleted = task.run()
    if as_json:
        typer.echo(orjson.dumps(deleted))
        return
    typer.echo(
        f"Deleted the files of {deleted.photos:,} photos ({deleted.files:,} files), {deleted.requests:,} requests and "
        f"{deleted.events:,} events."
    )


def _changes(entry: HistoryEntry) -> str:
    return "; ".join(f"{each.place}: {each.before or 'not set'} → {each.after or 'not set'}" for each in entry.changes)


def _warn_of(dropped: Sequence[str]) -> None:
    if dropped:
        names = ", ".join(dropped)
        warn(f"It has no threshold any more for {names}; no photo is held or refused for them.")


def _print(result: DryRun) -> None:
    _warn_of(result.dropped)
    cut = "" if result.complete else "; the time ran out before all that were asked for"
    typer.echo(f"{result.examined:,} photos examined{cut}. What the policy alone makes of them, now and then:")
    for state, count in result.after.items():
        typer.echo(f"  {state.value:<10}{result.before[state]:>8,} → {count:,}")
    for move in result.moves:
        typer.echo(f"{move.before.value} → {move.after.value}: {move.count:,}, such as {move.examples[0].photo.id}")
        typer.echo(f"     {move.examples[0].after.rule}")
    if not result.moves:
        typer.echo("No photo would change its state.")
    if result.decided_by_people:
        before, after = result.agreement_before, result.agreement_after
        typer.echo(
            f"Of {result.decided_by_people:,} photos that people decided it would show {after.shown_wrongly:,} that "
            f"they refused (now {before.shown_wrongly:,}), and refuse {after.refused_wrongly:,} that they accepted "
            f"(now {before.refused_wrongly:,})."
        )


def _read(file: Path) -> str:
    """The text of a file or of standard input. Raises PolicyInvalid for bytes that are no text."""
    from shoplens.moderation.errors import PolicyInvalid
    from shoplens.moderation.policy.source import MAX_SOURCE_BYTES

    if file == Path("-"):
        data = typer.get_binary_stream("stdin").read(MAX_SOURCE_BYTES + 1)
    else:
        with file.open("rb") as opened:
            data = opened.read(MAX_SOURCE_BYTES + 1)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{file} is not a text in UTF-8.") from error

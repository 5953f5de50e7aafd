"""`shoplens registry …`: publish, promote, roll back, history, what was live, pin, export and import.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shoplens.accounts.commands import operator
from shoplens.advice import meant, no_channel
from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import show_table
from shoplens.errors import ModelNotFound, RequestInvalid

if TYPE_CHECKING:
    from shoplens.registry.entities import Alias, HistoryEntry
    from shoplens.registry.publishing import RegisteredModel

_CHANGES_AT_ONCE: Final = 100
_DAY: Final = "%Y-%m-%d %H:%M UTC"

registry_app = Commands(help="Publish models, and say which version is live.")

Name = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[str, typer.Argument(help="name@version of a published model.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
Challenger = Annotated[bool, typer.Option("--challenger", help="The alias `challenger` instead of `champion`.")]
Figure = Annotated[
    list[str] | None, typer.Option(help="A measurement that led to it, as name=number (may be repeated).")
]


@registry_app.command("list", examples=["shoplens registry list", "shoplens registry list clothing"])
@handle_errors
def list_models(
    name: Annotated[str | None, typer.Argument(help="One model with all its versions; all models if unset.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the models of the registry and which version is live, or the versions of one model."""
    from shoplens.platform.registry import open_registry_service

    with open_registry_service(settings_for(data_dir)) as registry:
        models = [registry.model(name)] if name else registry.all()
        place = registry.place
    if as_json:
        typer.echo(json.dumps([_row(model) for model in models], indent=2))
        return
    nothing = f"Nothing is published at {place}. Begin: shoplens registry publish MODEL --why REASON"
    if name is None:
        heads = ("MODEL", "CHAMPION", "LIVE SINCE", "CHALLENGER", "VERSIONS")
        rows = [
            (
                each.name,
                each.aliases.champion,
                each.live.at if each.live else None,
                each.aliases.challenger,
                len(each.versions),
            )
            for each in models
        ]
        show_table(heads, rows, nothing=nothing)
        return
    names = {version: alias for alias, version in models[0].aliases.by_alias.items()}
    show_table(
        ("VERSION", "ALIAS", "PUBLISHED", "BY", "FIGURES", "WHY"),
        [
            (each.ref.version, names.get(each.ref.version), each.created_at, each.by or None, _figures(each.figures),
             each.note)
            for each in models[0].versions
        ],
        nothing=nothing,
    )  # fmt: skip


@registry_app.command("publish", examples=['shoplens registry publish clothing --why "First model" --figure F1=0.97'])
@handle_errors
def publish(
    name: Annotated[str, typer.Argument(help="An installed model: name, name@version, or the folder of a bundle.")],
    why: Why,
    figure: Figure = None,
    data_dir: DataDir = None,
) -> None:
    """Publish a model. It goes live when it is promoted."""
    from shoplens.bundles.store import resolve_bundle
    from shoplens.platform.parts import trust_of
    from shoplens.platform.registry import open_registry_service

    settings = settings_for(data_dir)
    bundle = resolve_bundle(name, settings.make_models_dir(), trust=trust_of(settings))
    with open_registry_service(settings) as registry:
        version = registry.publish(bundle, operator(), why=why, figures=_parsed(figure))
        place = registry.place
    typer.echo(
        f"{version.ref} is published at {place}, digest {version.digest[:12]}. "
        f"Make it live: shoplens registry promote {version.ref} --why REASON"
    )


@registry_app.command(
    "promote",
    examples=[
        'shoplens registry promote clothing@1.1.0 --why "Better on coats"',
        'shoplens registry promote clothing@1.1.0 --why "To compare" --challenger',
    ],
)
@handle_errors
def promote(
    version: Version, why: Why, challenger: Challenger = False, figure: Figure = None, data_dir: DataDir = None
) -> None:
    """Make a published version the champion, which answers, or the challenger."""
    from shoplens.platform.registry import open_registry_service

    name, _, number = version.partition("@")
    if not number:
        raise RequestInvalid(f"Name the version: {name}@VERSION. `shoplens registry list {name}` lists them.")
    alias: Alias = "challenger" if challenger else "champion"
    with open_registry_service(settings_for(data_dir)) as registry:
        entry = registry.set_alias(name, alias, number, operator(), why=why, figures=_parsed(figure) or None)
    typer.echo(_changed(entry))


@registry_app.command("rollback", examples=['shoplens registry rollback clothing --why "Too many wrong shoes"'])
@handle_errors
def roll_back(name: Name, why: Why, data_dir: DataDir = None) -> None:
    """Make the earlier champion the champion again, or the built-in model if no version was before."""
    from shoplens.platform.registry import open_registry_service

    with open_registry_service(settings_for(data_dir)) as registry:
        entry = registry.roll_back(name, operator(), why=why)
    typer.echo(_changed(entry))


@registry_app.command("withdraw", examples=['shoplens registry withdraw clothing --challenger --why "Compared"'])
@handle_errors
def withdraw(name: Name, why: Why, challenger: Challenger = False, data_dir: DataDir = None) -> None:
    """Take the alias `champion` or `challenger` away from a model; no version has it then."""
    from shoplens.platform.registry import open_registry_service

    alias: Alias = "challenger" if challenger else "champion"
    with open_registry_service(settings_for(data_dir)) as registry:
        entry = registry.set_alias(name, alias, None, operator(), why=why)
    typer.echo(_changed(entry))


@registry_app.command("history", examples=["shoplens registry history clothing"])
@handle_errors
def history(name: Name, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show every change of the aliases of a model: who, when, from, to, why, with which figures."""
    from shoplens.platform.registry import open_registry_service

    with open_registry_service(settings_for(data_dir)) as registry:
        entries: list[HistoryEntry] = []
        page = registry.changes(name, limit=_CHANGES_AT_ONCE)
        while page.next is not None:
            entries += page.entries
            page = registry.changes(name, before=page.next, limit=_CHANGES_AT_ONCE)
        entries = list(reversed([*entries, *page.entries]))
    if as_json:
        typer.echo(json.dumps([_entry(each) for each in entries], indent=2))
        return
    heads = ("WHEN", "ALIAS", "FROM", "TO", "BY", "WHY", "FIGURES")
    rows = [
        (each.at, each.alias, each.before, each.after, each.by, each.why, _figures(each.figures)) for each in entries
    ]
    show_table(heads, rows, nothing=f"No alias of {name} was ever changed.")


@registry_app.command(
    "live", examples=["shoplens registry live clothing", "shoplens registry live clothing --at 2026-03-03T14:30"]
)
@handle_errors
def live(
    name: Name,
    at: Annotated[
        str | None,
        typer.Option(help="A day, of which its end counts, or a moment in UTC such as 2026-03-03T14:30; now if unset."),
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Say which version is or was live, since when and why."""
    from shoplens.platform.registry import open_registry_service

    moment = _moment(at) if at else datetime.now(UTC)
    with open_registry_service(settings_for(data_dir)) as registry:
        entry = registry.live(name, moment)
    if as_json:
        typer.echo(json.dumps(_entry(entry) if entry else None, indent=2))
    elif entry is None or entry.after is None:
        typer.echo(f"{name} had no champion at {moment:{_DAY}}.")
    else:
        since = f"since {entry.at:{_DAY}}, by {entry.by}: {entry.why}"
        typer.echo(f"{name}@{entry.after} at {moment:{_DAY}}, {since}")


@registry_app.command("pin", examples=["shoplens registry pin returns clothing@1.0.0"])
@handle_errors
def pin(
    channel: Annotated[str, typer.Argument(help="Name of the channel.")],
    version: Annotated[str | None, typer.Argument(help="name@version; the one that is live now if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Install a version here, and print the setting with which a channel stays with it."""
    from shoplens.platform.parts import find_bundle

    settings = settings_for(data_dir)
    if channel not in settings.channels:
        raise no_channel(channel, settings.channels)
    if version is not None and "@" not in version:
        raise RequestInvalid(f"Name the version: {version}@VERSION.")
    bundle = find_bundle(version or settings.channels[channel].model, settings)
    typer.echo(f"{bundle.ref} is installed and verified, digest {bundle.digest[:12]}. Set this and restart:")
    typer.echo(f'[channels.{channel}]\nmodel = "{bundle.ref}"')
    typer.echo(f"or SHOPLENS_CHANNELS__{channel.upper()}__MODEL={bundle.ref}")


@registry_app.command("export", examples=["shoplens registry export models.tar clothing"])
@handle_errors
def export(
    file: Annotated[Path, typer.Argument(help="The archive to write, such as models.tar.")],
    names: Annotated[list[str] | None, typer.Argument(help="Models; all of them if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write published models to one archive, with a table of their metadata, the history, and checksums."""
    from shoplens.platform.parts import open_registry, trust_of
    from shoplens.registry.archive import export_models

    settings = settings_for(data_dir)
    registry = open_registry(settings)
    for name in names or []:
        if not registry.versions(name):
            known = meant(name, registry.names())
            raise ModelNotFound(f"There is no model {name!r} at {registry.place}{known}.")
    count = export_models(registry, names or registry.names(), file, trust_of(settings))
    typer.echo(f"{count} versions are in {file} ({file.stat().st_size / 1e6:.1f} MB).")


@registry_app.command("import", examples=["shoplens registry import models.tar --aliases"])
@handle_errors
def import_(
    file: Annotated[Path, typer.Argument(help="An archive that `shoplens registry export` wrote.")],
    aliases: Annotated[
        bool, typer.Option("--aliases", help="Also make the champions and challengers of the archive those here.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Publish the models of an archive. Everything is verified before anything is published."""
    from shoplens.platform.registry import open_registry_service
    from shoplens.registry.archive import import_models

    settings = settings_for(data_dir)
    with open_registry_service(settings) as registry:
        imported = import_models(registry, file, operator(), aliases=aliases, scratch=settings.make_models_dir())
    for ref in imported.published:
        typer.echo(f"{ref} is published.")
    for entry in imported.changes:
        typer.echo(_changed(entry))


def _moment(text: str) -> datetime:
    """Raises RequestInvalid."""
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"):
        with suppress(ValueError):
            found = datetime.strptime(text, form).replace(tzinfo=UTC)
            return found if "T" in text else found + timedelta(days=1, microseconds=-1)
    raise RequestInvalid(f"--at {text!r} is no day or moment, such as 2026-03-03 or 2026-03-03T14:30 (UTC).")


def _parsed(figures: list[str] | None) -> dict[str, float]:
    """Raises RequestInvalid."""
    parsed = {}
    for each in figures or []:
        name, _, number = each.rpartition("=")
        try:
            parsed[name.strip()] = float(number)
        except ValueError as error:
            raise RequestInvalid(f"--figure {each!r} is not name=number, such as F1=0.97.") from error
    return parsed


def _changed(entry: HistoryEntry) -> str:
    if entry.after is None:
        return f"{entry.name} has no {entry.alias} any more; it was {entry.before}."
    before = f", after {entry.before}" if entry.before else ""
    return f"{entry.name}@{entry.after} is the {entry.alias} now{before}."


def _figures(figures: dict[str, float]) -> str | None:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items()) or None


def _entry(entry: HistoryEntry) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(entry), "at": entry.at.isoformat()}


def _row(model: RegisteredModel) -> dict[str, Any]:
    versions = [
        {
            "version": each.ref.version,
            "digest": each.digest,
            "created_at": each.created_at.isoformat() if each.created_at else None,
            "by": each.by,
            "why": each.note,
            "figures": each.figures,
            "size_bytes": each.size_bytes,
            "signed_by": each.signed_by,
        }
        for each in model.versions
    ]
    return {
        "name": model.name,
        "champion": model.aliases.champion,
        "challenger": model.aliases.challenger,
        "live_since": model.live.at.isoformat() if model.live else None,
        "versions": versions,
    }

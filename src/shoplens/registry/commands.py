"""`shoplens models …`: list, show, prepare, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from shoplens.bundles.builtin import builtin_names, prepare_builtin, verify_builtin
from shoplens.bundles.bundle import Bundle, verify_bundle
from shoplens.bundles.evaluation import Evaluation, PartResult
from shoplens.bundles.store import installed_bundles
from shoplens.cli.options import settings_for
from shoplens.cli.process import EXIT_FAILED
from shoplens.errors import ShoplensError
from shoplens.platform.parts import find_bundle
from shoplens.registry.commands_shared import published_models
from shoplens.settings import Settings

_SHOWN_CLASSES: Final = 50


def list_models(*, as_json: bool, data_dir: Path | None) -> None:
    """The installed bundles, those that only `models_url` has, and the built-in ones that are not built yet."""
    settings = settings_for(data_dir)
    bundles = installed_bundles(settings.effective_models_dir)
    published = published_models(settings)
    away = sorted(set(published) - {bundle.ref for bundle in bundles}, key=str)
    unbuilt = [name for name in builtin_names() if name not in {bundle.ref.name for bundle in bundles}]
    if as_json:
        rows = [{**summary(bundle), "here": True, "shared": bundle.ref in published} for bundle in bundles]
        rows += [{"name": ref.name, "version": ref.version, "here": False, "shared": True} for ref in away]
        rows += [{"name": name, "built": False} for name in unbuilt]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    table = Table(
        Column("Model", no_wrap=True), "Version", *(["Where"] if settings.models_url else []), "Labels", "MB",
        "Licence", "Title", box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for bundle in bundles:
        megabytes = f"{bundle.size_bytes / 1e6:.1f}"
        where = ["here, shared" if bundle.ref in published else "here"] if settings.models_url else []
        facts = (str(len(bundle.labels)), megabytes, bundle.card.licence, bundle.card.title)
        table.add_row(bundle.ref.name, bundle.ref.version, *where, *facts)
    for ref in away:
        table.add_row(
            ref.name, ref.version, "shared", "–", "–", "–", "fetched at first use, or by `shoplens models pull`"
        )
    for name in unbuilt:
        where = ["–"] if settings.models_url else []
        table.add_row(name, "–", *where, "–", "–", "–", "built in; made at first use, or by `shoplens models prepare`")
    Console().print(table)


def show_model(name: str, *, as_json: bool, data_dir: Path | None) -> None:
    """The card, the labels and the preprocessing. Raises ModelNotFound and BundleError."""
    bundle = find_bundle(name, settings_for(data_dir))
    if as_json:
        typer.echo(orjson.dumps(details(bundle), option=orjson.OPT_INDENT_2))
        return
    card, console = bundle.card, Console()
    console.print(f"[bold]{escape(card.title)}[/bold]  {bundle.ref}\n{escape(card.description)}\n", highlight=False)
    table = Table.grid(padding=(0, 2))
    for key, value in _facts(bundle).items():
        table.add_row(key, escape(str(value)))
    console.print(table)
    for metric in card.metrics:
        line = f"  {metric.name}: {metric.value:g}  ({metric.data}; {metric.source})"
        console.print(line, highlight=False, markup=False)
    for limit in card.limits:
        console.print(f"  – {limit}", highlight=False, markup=False)
    if bundle.evaluation is not None:
        _show_evaluation(bundle.evaluation, console)


def prepare_models(names: list[str], *, data_dir: Path | None) -> None:
    """Build what is missing. Raises ModelNotFound and BundleError."""
    models_dir = settings_for(data_dir).effective_models_dir
    console = Console(stderr=True)
    with console.status("Preparing the models") as status:
        for name in names or builtin_names():
            bundle = prepare_builtin(name, models_dir, progress=status.update)
            console.print(f"{bundle.ref} is ready ({bundle.size_bytes / 1e6:.1f} MB).", highlight=False)


def verify_models(names: list[str], *, as_json: bool, data_dir: Path | None) -> None:
    """Check each and go on after a bad one; exits with status 1 if there was one."""
    settings = settings_for(data_dir)
    wanted = names or _installed_paths(settings.effective_models_dir)
    faults = {name: _fault(name, settings) for name in wanted}
    if as_json:
        rows = [
            {"model": name, "ok": fault is None, "code": fault and fault.code, "detail": fault and str(fault)}
            for name, fault in faults.items()
        ]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        for name, fault in faults.items():
            typer.echo(f"{name}: {'ok' if fault is None else f'{fault.code}: {fault}'}")
    if any(faults.values()):
        raise typer.Exit(EXIT_FAILED)


def summary(bundle: Bundle) -> dict[str, Any]:
    """One row of the list, for programs."""
    return {
        "name": bundle.ref.name,
        "version": bundle.ref.version,
        "title": bundle.card.title,
        "labels": len(bundle.labels),
        "size_bytes": bundle.size_bytes,
        "licence": bundle.card.licence,
        "digest": bundle.digest,
        "path": str(bundle.root),
        "built": True,
    }


def details(bundle: Bundle) -> dict[str, Any]:
    """All of a bundle, for programs."""
    return {
        **summary(bundle),
        "card": bundle.card,
        "manifest": bundle.manifest,
        "label_names": [label.name for label in bundle.labels],
        "evaluation": bundle.evaluation,
    }


def _facts(bundle: Bundle) -> dict[str, object]:
    spec = bundle.manifest.image
    return {
        "task": bundle.card.task,
        "data": bundle.card.data,
        "licence": bundle.card.licence,
        "source": bundle.card.source,
        "date": bundle.card.date,
        "labels": len(bundle.labels),
        "size": f"{bundle.size_bytes / 1e6:.1f} MB",
        "pictures": f"{spec.crop} px from {spec.resize} px, {spec.interpolation}, {spec.colour}, {spec.dtype}",
        "digest": bundle.digest,
        "folder": bundle.root,
    }


def _show_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Per class, and what each accept_at would do, on the part that the card quotes."""
    part = evaluation.headline
    console.print(f"\n[bold]On {part.samples:,} pictures of the {part.name} part[/bold]", highlight=False)
    table = Table("class", "pictures", "precision", "recall", "F1", box=None, padding=(0, 2, 0, 0))
    for each in part.classes[:_SHOWN_CLASSES]:
        shares = (f"{share:.1%}" for share in (each.precision, each.recall, each.f1))
        table.add_row(escape(each.label), f"{each.samples:,}", *shares)
    console.print(table)
    if len(part.classes) > _SHOWN_CLASSES:
        console.print(f"… and {len(part.classes) - _SHOWN_CLASSES:,} more, with --json", highlight=False)
    console.print()
    console.print(threshold_table(part))


def threshold_table(part: PartResult) -> Table:
    """What each accept_at would do to the pictures of `part`."""
    table = Table("accept_at", "decided alone", "of these right", box=None, padding=(0, 2, 0, 0))
    for each in part.thresholds:
        table.add_row(f"{each.at:g}", f"{each.share:.1%}", "–" if each.accuracy is None else f"{each.accuracy:.1%}")
    return table


def _fault(name: str, settings: Settings) -> ShoplensError | None:
    try:
        bundle = verify_bundle(name if Path(name).is_dir() else find_bundle(name, settings).root)
        if bundle.ref.name in builtin_names():
            verify_builtin(bundle)
    except ShoplensError as error:
        return error
    return None


def _installed_paths(models_dir: Path) -> list[str]:
    """Every folder that should be a bundle, the unreadable ones included."""
    return [str(path.parent) for path in sorted(models_dir.glob("[!.]*/[!.]*/bundle.json"))]

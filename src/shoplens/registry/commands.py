"""`shoplens models …`: list, show, prepare, verify, import, pack, install, push and pull bundles.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from shoplens.accounts.commands import note_command
from shoplens.cli.command import EXIT_FAILED, AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import (
    Cell,
    Value,
    for_people,
    progress_console,
    show_facts,
    show_json,
    show_table,
    visible,
    warn,
)
from shoplens.errors import Misconfigured, RequestInvalid, ShoplensError, StorageUnavailable

if TYPE_CHECKING:
    from shoplens.bundles.bundle import Bundle
    from shoplens.bundles.manifest import ModelRef, PartResult
    from shoplens.bundles.preprocessing import Preprocessing
    from shoplens.bundles.store import SharedBundles
    from shoplens.settings import Settings

_MAX_CLASSES = 50
_TIME_LIMIT_S = 300.0
_MEMORY_LIMIT_MB = 8_000
_PACKED = ".shoplens"

models_app = Commands(help="List, inspect, import and verify models.")

TimeLimit = Annotated[float, typer.Option(help="Longest time for checking the model, in seconds.", min=1)]
MemoryLimit = Annotated[int, typer.Option(help="Most memory for checking the model, in MB.", min=500)]
ModelName = Annotated[str, typer.Argument(help="Name, name@version, or the folder of a bundle.")]


@models_app.command("list", examples=["shoplens models list", "shoplens models list --json"])
@handle_errors
def list_models(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the installed models, the built-in ones, and those published at models_url."""
    from shoplens.bundles.builtin import builtin_names
    from shoplens.bundles.store import installed_bundles

    settings = settings_for(data_dir)
    bundles = installed_bundles(settings.effective_models_dir)
    published = _published(settings)
    remote = sorted(set(published) - {bundle.ref for bundle in bundles}, key=str)
    unbuilt = [name for name in builtin_names() if name not in {bundle.ref.name for bundle in bundles}]
    if as_json:
        rows: list[dict[str, Any]] = [
            {**_summary(bundle), "here": True, "shared": bundle.ref in published} for bundle in bundles
        ]
        rows += [{"name": ref.name, "version": ref.version, "here": False, "shared": True} for ref in remote]
        rows += [{"name": name, "built": False} for name in unbuilt]
        show_json(rows)
        return
    pulled = "downloaded at first use or by `shoplens models pull`"
    built = "built in; built at first use or by `shoplens models prepare`"
    listed: list[tuple[Value | Cell, ...]] = [
        (each.ref.name, each.ref.version, "here, shared" if each.ref in published else "here", len(each.labels),
         _megabytes(each.size_bytes), each.card.licence, each.card.title)
        for each in bundles
    ]  # fmt: skip
    listed += [(ref.name, ref.version, "shared", None, None, None, pulled) for ref in remote]
    listed += [(name, None, "not built", None, None, None, built) for name in unbuilt]
    show_table(
        ("MODEL", "VERSION", "WHERE", "LABELS", "MB", "LICENCE", "TITLE"), listed, nothing="There are no models."
    )


def _megabytes(size_bytes: int) -> Cell:
    return Cell(shown=f"{size_bytes / 1e6:.1f}", plain=round(size_bytes / 1e6, 1), right=True)


@models_app.command("show", examples=["shoplens models show clothing"])
@handle_errors
def show_model(name: ModelName, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the card, the measurements and the preprocessing of a model."""
    bundle = _find(name, settings_for(data_dir))
    card, spec, text = bundle.card, bundle.manifest.image, bundle.manifest.text
    if as_json:
        labels = [label.name for label in bundle.labels]
        parts = {"card": card, "manifest": bundle.manifest, "label_names": labels, "evaluation": bundle.evaluation}
        show_json({**_summary(bundle), **parts})
        return
    facts: dict[str, Value | Cell] = {
        "model": str(bundle.ref),
        "title": card.title,
        "description": card.description,
        "task": card.task,
        "data": card.data,
        "licence": card.licence,
        "source": card.source,
        "date": card.date,
        "labels": len(bundle.labels),
        "size": Cell(shown=f"{bundle.size_bytes / 1e6:.1f} MB", plain=bundle.size_bytes),
        "takes": " or ".join(bundle.manifest.kinds),
        "pictures": f"{spec.crop} px from {spec.resize} px, {spec.interpolation}, {spec.colour}, {spec.dtype}"
        if spec
        else "none",
        "texts": f"{text.algorithm}, the first {text.max_characters:,} characters" if text else "none",
        "digest": bundle.digest,
        "signature": _signer(bundle),
        "folder": str(bundle.root),
    }
    facts |= {metric.name: f"{metric.value:g}  ({metric.data}; {metric.source})" for metric in card.metrics}
    facts |= {f"limit {number}": limit for number, limit in enumerate(card.limits, start=1)}
    show_facts(facts)
    if bundle.evaluation is not None and for_people():
        part = bundle.evaluation.headline
        typer.echo(f"\nOn {part.samples:,} photos of the {part.name} part")
        _show_classes(part)
        if len(part.classes) > _MAX_CLASSES:
            typer.echo(f"… and {len(part.classes) - _MAX_CLASSES:,} more, with --json")
        typer.echo()
        show_thresholds(part)


@models_app.command("prepare", examples=["shoplens models prepare", "shoplens models prepare fashion-mnist"])
@handle_errors
def prepare_models(
    names: Annotated[list[str] | None, typer.Argument(help="Built-in models; all of them if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Build the built-in models now instead of at their first use."""
    from shoplens.bundles.builtin import builtin_names, prepare_builtin

    models_dir = settings_for(data_dir).make_models_dir()
    console = progress_console()
    with console.status("Preparing the models") as status:
        for name in names or builtin_names():
            bundle = prepare_builtin(name, models_dir, progress=status.update)
            console.print(f"{bundle.ref} is ready ({bundle.size_bytes / 1e6:.1f} MB).", highlight=False)


@models_app.command("verify", examples=["shoplens models verify", "shoplens models verify clothing --json"])
@handle_errors
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, name@version, or folders; all installed if unset.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Compare the files and the answers of models with what is recorded. Exits with status 1 if one fails."""
    from shoplens.bundles.builtin import builtin_names, verify_builtin
    from shoplens.bundles.bundle import open_bundle
    from shoplens.bundles.store import bundle_folders, require_trust
    from shoplens.platform.parts import trust_of

    settings = settings_for(data_dir)
    trust = trust_of(settings)
    rows: list[dict[str, Any]] = []
    for name in names or [str(folder) for folder in bundle_folders(settings.effective_models_dir)]:
        row: dict[str, Any] = {"model": name, "ok": True, "code": None, "detail": None, "signed_by": None}
        try:
            bundle = open_bundle(name if Path(name).is_dir() else _find(name, settings).root)
            if bundle.ref.name in builtin_names():
                verify_builtin(bundle)
            row["signed_by"] = bundle.signed_by
            require_trust(bundle, trust)
        except ShoplensError as error:
            row |= {"ok": False, "code": error.code, "detail": str(error)}
        rows.append(row)
    if as_json:
        show_json(rows)
    else:
        for row in rows:
            signed = f", signed by {row['signed_by']}" if row["signed_by"] else ""
            said = f"ok{signed}" if row["ok"] else f"{row['code']}: {row['detail']}"
            typer.echo(f"{visible(row['model'])}: {visible(said)}")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(EXIT_FAILED)


@models_app.command(
    "import",
    examples=[
        "shoplens models import resnet50.onnx --labels imagenet --name resnet50",
        "shoplens models import exported/ --name shoes",
    ],
)
@handle_errors
def import_model(  # noqa: PLR0913 - the options of the command
    file: Annotated[Path, typer.Argument(help="An image classifier in ONNX, or the folder of one from Hugging Face.")],
    labels: Annotated[
        str | None,
        typer.Option(
            help="`imagenet`, a text file with one name per line, or a JSON file. Unset: id2label of config.json."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the file's name if unset.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0.0",
    preset: Annotated[
        str | None,
        typer.Option(
            help="How pixels were normalised in training: imagenet, half (mean and deviation 0.5), efficientnet-lite, "
            "unit or raw. Unset: as preprocessor_config.json next to the file says, else imagenet."
        ),
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the input in pixels, if the graph leaves it open.")] = None,
    resize: Annotated[int | None, typer.Option(help="Shorter side before the crop, in pixels.")] = None,
    colour: Annotated[str | None, typer.Option(help="Order of the channels: rgb (unset) or bgr.")] = None,
    time_limit: TimeLimit = _TIME_LIMIT_S,
    memory_mb: MemoryLimit = _MEMORY_LIMIT_MB,
    data_dir: DataDir = None,
) -> None:
    """Make a bundle of an ONNX model, check in a process of its own that it runs, and install it."""
    from shoplens.bundles.import_process import ImportJob, ImportLimits, import_within
    from shoplens.bundles.manifest import NAME_PATTERN, labels_from
    from shoplens.bundles.preprocessing import CONFIG, PRESETS, beside, model_file

    for option, value, known in (("preset", preset, tuple(PRESETS)), ("colour", colour, ("rgb", "bgr"))):
        if value is not None and value not in known:
            raise RequestInvalid(f"{value!r} is not a value of --{option}; choose one of {', '.join(known)}.")
    file, given = model_file(file), file
    label_source = labels or beside(file, CONFIG)
    if label_source is None:
        raise RequestInvalid(f"Name the classes with --labels: there is no {CONFIG} next to {file.name}.")
    name = name or (given.resolve().name if given.is_dir() else file.stem).lower()
    for what, text in (("name", name), ("version", version)):
        if not re.fullmatch(NAME_PATTERN, text):
            raise RequestInvalid(f"{text!r} is not a valid {what}. Use lower-case letters, digits, '.', '_' and '-'.")
    class_names = labels_from(str(label_source))
    job = ImportJob(
        file=file.absolute(),
        labels=class_names,
        name=name,
        version=version,
        preprocessing=_preprocessing(file, preset=preset, crop=crop, resize=resize, colour=colour),
    )
    settings = settings_for(data_dir)
    with progress_console().status(f"Checking {file.name}"):
        bundle = import_within(
            job, into=settings.make_models_dir(), limits=ImportLimits(seconds=time_limit, memory_mb=memory_mb)
        )
    note_command(settings, "model.imported", target=str(bundle.ref), digest=bundle.digest, file=file.name)
    if all(label.name == f"LABEL_{index}" for index, label in enumerate(class_names)):
        typer.echo(f"{label_source} has no names but LABEL_0, LABEL_1 and so on; pass --labels for better ones.")
    repeated = [label.name for index, label in enumerate(class_names) if label.name.endswith(f" ({index})")]
    if repeated:
        typer.echo(f"Classes with the same name are distinguished by their number: {', '.join(repeated)}.")
    spec = bundle.manifest.image_spec
    typer.echo(
        f"Installed {bundle.ref} with {len(bundle.labels)} labels from {label_source}; input {spec.crop} px from "
        f"{spec.resize} px, mean {_numbers(spec.mean)}, scale {_numbers(spec.scale)}. "
        f"Try it: shoplens classify PHOTO --model {bundle.ref}"
    )


def _preprocessing(
    file: Path, *, preset: str | None, crop: int | None, resize: int | None, colour: str | None
) -> Preprocessing:
    """What the files next to the model say, overridden by the options that were given."""
    from shoplens.bundles.preprocessing import PRESETS, Preprocessing, preprocessing_beside

    found = preprocessing_beside(file) or Preprocessing()
    if preset is not None:
        mean, scale = PRESETS[preset]
        found = replace(found, mean=mean, scale=scale)
    if crop is not None and resize is None:
        found = replace(found, resize=None)
    if colour is not None:
        found = replace(found, colour=cast('Literal["rgb", "bgr"]', colour))
    return replace(found, crop=crop or found.crop, resize=resize or found.resize)


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)


@models_app.command("pack", examples=["shoplens models pack clothing clothing.shoplens"])
@handle_errors
def pack_model(
    name: ModelName,
    file: Annotated[Path, typer.Argument(help="The file to write; its name ends with .shoplens.")],
    data_dir: DataDir = None,
) -> None:
    """Pack a model into one file for another machine."""
    from shoplens.bundles.store import pack_bundle

    if file.suffix != _PACKED:
        raise RequestInvalid(f"{file.name} does not end with {_PACKED}, as packed models do.")
    bundle = _find(name, settings_for(data_dir))
    packed = pack_bundle(bundle.root, file)
    typer.echo(f"Packed {bundle.ref} into {packed} ({packed.stat().st_size / 1e6:.1f} MB).")


@models_app.command("install", examples=["shoplens models install clothing.shoplens"])
@handle_errors
def install_model(
    source: Annotated[Path, typer.Argument(help="A packed model, or the folder of a bundle.")],
    time_limit: TimeLimit = _TIME_LIMIT_S,
    memory_mb: MemoryLimit = _MEMORY_LIMIT_MB,
    data_dir: DataDir = None,
) -> None:
    """Verify a packed model, check in a process of its own that it runs, and install it."""
    from shoplens.bundles.import_process import ImportLimits, check_within
    from shoplens.bundles.store import install_bundle, unpack_bundle
    from shoplens.platform.parts import trust_of

    settings = settings_for(data_dir)
    install = install_bundle if source.is_dir() else unpack_bundle
    check = partial(check_within, name=source.name, limits=ImportLimits(seconds=time_limit, memory_mb=memory_mb))
    with progress_console().status(f"Checking {source.name}"):
        bundle = install(source, settings.make_models_dir(), trust_of(settings), check)
    note_command(settings, "model.installed", target=str(bundle.ref), digest=bundle.digest, file=source.name)
    typer.echo(f"Installed {bundle.ref}, digest {bundle.digest[:12]}, {_signer(bundle)}.")


@models_app.command("keygen", examples=["shoplens models keygen signing.key"])
@handle_errors
def make_signing_key(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist. Keep it secret.")],
) -> None:
    """Make a key to sign models with, and print its public half for the setting trusted_keys."""
    from shoplens.bundles.signing import make_key

    typer.echo(make_key(file))


@models_app.command("sign", examples=["shoplens models sign clothing --key signing.key"])
@handle_errors
def sign_model(
    name: ModelName,
    key: Annotated[Path, typer.Option(help="The file of the private key.")],
    data_dir: DataDir = None,
) -> None:
    """Sign an installed model, in place of an earlier signature."""
    from shoplens.bundles.signing import sign_bundle
    from shoplens.bundles.store import resolve_bundle
    from shoplens.platform.parts import open_shared

    settings = settings_for(data_dir)
    bundle = resolve_bundle(name, settings.make_models_dir(), open_shared(settings))  # it need not be trusted yet
    typer.echo(f"{bundle.ref}, digest {bundle.digest[:12]}, is signed by {sign_bundle(bundle, key)}.")


@models_app.command("push", examples=["shoplens models push clothing@1.0.0"])
@handle_errors
def push_model(name: ModelName, data_dir: DataDir = None) -> None:
    """Publish a model at models_url for all machines with the same setting."""
    settings = settings_for(data_dir)
    shared = _require_shared(settings)
    bundle = _find(name, settings)
    state = "is published" if shared.push(bundle) else "was already published"
    typer.echo(f"{bundle.ref} {state} at {shared.place}, digest {bundle.digest[:12]}.")


@models_app.command("pull", examples=["shoplens models pull clothing opennsfw"])
@handle_errors
def pull_models(
    names: Annotated[list[str], typer.Argument(help="Names, or name@version.")], data_dir: DataDir = None
) -> None:
    """Download models from models_url now instead of at their first use."""
    settings = settings_for(data_dir)
    _require_shared(settings)
    for name in names:
        bundle = _find(name, settings)
        typer.echo(f"{bundle.ref} is installed and verified, digest {bundle.digest[:12]}.")


def show_thresholds(part: PartResult) -> None:
    """Print what each accept_at would do to the photos of `part`."""
    rows = [(f"{each.at:g}", _percent(each.share), _percent(each.accuracy)) for each in part.thresholds]
    show_table(("ACCEPT_AT", "AUTOMATED", "ACCURACY"), rows, nothing="")


def _show_classes(part: PartResult) -> None:
    rows = [
        (each.label, each.samples, _percent(each.precision), _percent(each.recall), _percent(each.f1))
        for each in part.classes[:_MAX_CLASSES]
    ]
    show_table(("CLASS", "PHOTOS", "PRECISION", "RECALL", "F1"), rows, nothing="")


def _percent(share: float | None) -> Cell | None:
    return None if share is None else Cell(shown=f"{share:.1%}", plain=round(share, 4), right=True)


def _signer(bundle: Bundle) -> str:
    return f"signed by {bundle.signed_by}" if bundle.signed_by else "not signed"


def _summary(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.ref.name,
        "version": bundle.ref.version,
        "title": bundle.card.title,
        "labels": len(bundle.labels),
        "size_bytes": bundle.size_bytes,
        "licence": bundle.card.licence,
        "digest": bundle.digest,
        "signed_by": bundle.signed_by,
        "path": str(bundle.root),
        "built": True,
    }


def _find(name: str, settings: Settings) -> Bundle:
    from shoplens.platform.parts import find_bundle

    return find_bundle(name, settings)


def _published(settings: Settings) -> list[ModelRef]:
    """The models at `models_url`. If it cannot be reached, prints a warning: the rest of the list is still useful."""
    from shoplens.platform.parts import open_shared

    shared = open_shared(settings, fail_fast=True)
    if shared is None:
        return []
    try:
        return shared.published()
    except StorageUnavailable as error:
        warn(f"The published models are not known: {error}")
        return []


def _require_shared(settings: Settings) -> SharedBundles:
    from shoplens.platform.parts import open_shared

    shared = open_shared(settings)
    if shared is None:
        raise Misconfigured("models_url is not set. Set it on each machine: SHOPLENS_MODELS_URL=s3://bucket/models")
    return shared

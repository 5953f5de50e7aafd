"""`shoplens models import|pack|install`: bundles out of files, and into files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import typer

from shoplens.bundles.importing import Preprocessing, Preset, import_onnx
from shoplens.bundles.manifest import labels_from
from shoplens.bundles.store import install_bundle, pack_bundle, unpack_bundle
from shoplens.cli.options import settings_for
from shoplens.errors import RequestInvalid
from shoplens.platform.parts import find_bundle

Colour = Literal["rgb", "bgr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the graph itself does not tell."""

    version: str
    preset: str
    crop: int | None
    resize: int | None
    colour: str

    def preprocessing(self) -> Preprocessing:
        """As the bundle wants it. Raises RequestInvalid for a preset or an order that is not known."""
        _require(self.preset, get_args(Preset), "preset")
        _require(self.colour, get_args(Colour), "colour")
        return Preprocessing(
            preset=cast(Preset, self.preset), crop=self.crop, resize=self.resize, colour=cast(Colour, self.colour)
        )


def import_model(file: Path, *, labels: str, name: str | None, options: ImportOptions, data_dir: Path | None) -> None:
    """Raises BundleIncomplete and BundleInvalid with the reason."""
    bundle = import_onnx(
        file,
        labels=labels_from(labels),
        name=name or file.stem.lower(),
        version=options.version,
        into=settings_for(data_dir).effective_models_dir,
        preprocessing=options.preprocessing(),
    )
    spec = bundle.manifest.image
    typer.echo(
        f"Installed {bundle.ref} with {len(bundle.labels)} labels for pictures of {spec.crop} px ({options.preset}). "
        f"Try it: shoplens classify PHOTO --model {bundle.ref}"
    )


def pack_model(name: str, file: Path, *, data_dir: Path | None) -> None:
    """Raises ModelNotFound and BundleError."""
    bundle = find_bundle(name, settings_for(data_dir))
    packed = pack_bundle(bundle.root, file)
    typer.echo(f"Packed {bundle.ref} into {packed} ({packed.stat().st_size / 1e6:.1f} MB).")


def install_model(source: Path, *, data_dir: Path | None) -> None:
    """Raises BundleError."""
    into = settings_for(data_dir).effective_models_dir
    bundle = install_bundle(source, into) if source.is_dir() else unpack_bundle(source, into)
    typer.echo(f"Installed {bundle.ref}, digest {bundle.digest[:12]}.")


def _require(value: str, known: tuple[str, ...], name: str) -> None:
    if value not in known:
        raise RequestInvalid(f"There is no {name} {value!r}; there are: {', '.join(known)}.")

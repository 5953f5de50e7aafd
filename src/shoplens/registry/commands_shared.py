"""`shoplens models push|pull`: bundles to and from the store that many machines share."""

from __future__ import annotations

from pathlib import Path

import typer

from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.sharing import SharedBundles
from shoplens.cli.options import settings_for
from shoplens.errors import Misconfigured, StorageUnavailable
from shoplens.platform.parts import find_bundle, open_shared
from shoplens.settings import Settings


def push_model(name: str, *, data_dir: Path | None) -> None:
    """Raises Misconfigured, ModelNotFound, BundleError and StorageUnavailable."""
    settings = settings_for(data_dir)
    shared = _require_shared(settings)
    bundle = find_bundle(name, settings)
    is_new = shared.push(bundle)
    said = f"{bundle.ref} is published at {shared.place}" if is_new else f"{bundle.ref} was at {shared.place} already"
    typer.echo(f"{said}, digest {bundle.digest[:12]}.")


def pull_models(names: list[str], *, data_dir: Path | None) -> None:
    """Raises Misconfigured, ModelNotFound, BundleError and StorageUnavailable."""
    settings = settings_for(data_dir)
    _require_shared(settings)
    for name in names:
        bundle = find_bundle(name, settings)
        typer.echo(f"{bundle.ref} is here, verified, digest {bundle.digest[:12]}.")


def published_models(settings: Settings) -> list[ModelRef]:
    """What is at `models_url`; a store that is away costs a line on standard error, since there is more to list."""
    shared = open_shared(settings, hurry=True)
    if shared is None:
        return []
    try:
        return shared.published()
    except StorageUnavailable as error:
        typer.secho(f"What other machines share is not known: {error}", err=True, fg=typer.colors.YELLOW)
        return []


def _require_shared(settings: Settings) -> SharedBundles:
    shared = open_shared(settings)
    if shared is None:
        raise Misconfigured(
            "No store for models is set. Set models_url, as in SHOPLENS_MODELS_URL=s3://bucket/models, on each machine."
        )
    return shared

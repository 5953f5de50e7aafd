"""The bundles of a models directory, `<name>/<version>/`: list them, find one by name, version or path.

What a models directory lacks may come from a place that many machines share.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import structlog

from shoplens.bundles.builtin import builtin_names, prepare_builtin
from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.bundles.ref import ModelRef
from shoplens.bundles.shared import SharedBundles
from shoplens.errors import BundleError, ModelNotFound, StorageUnavailable

_log: Final = structlog.get_logger(__name__)


def resolve_bundle(name_or_path: str, models_dir: Path, shared: SharedBundles | None = None) -> Bundle:
    """The bundle that `name_or_path` means, verified.

    It is the path of a bundle directory, `name@version`, or a name: the latest version in `models_dir` and `shared`,
    else the built-in model, which is made if need be. What only `shared` has is brought into `models_dir`. While
    `shared` is away, a version that is here will do.

    Raises ModelNotFound, StorageUnavailable, what `open_bundle` raises and what `SharedBundles.fetch` raises.
    """
    if _looks_like_path(name_or_path):
        return open_bundle(name_or_path)
    name, _, version = name_or_path.partition("@")
    if name in builtin_names():
        prepared = prepare_builtin(name, models_dir)
        if version in ("", prepared.ref.version):
            return prepared
    here = _versions(models_dir / name)
    there = _shared_versions(shared, name, version, here)
    known = sorted({*here, *there}, key=_version_order)
    wanted = version or (known[-1] if known else "")
    if wanted in here:
        return open_bundle(models_dir / name / wanted)
    if shared is None or wanted not in there:
        raise ModelNotFound(_unknown(name_or_path, models_dir, shared))
    bundle = shared.fetch(ModelRef(name=name, version=wanted), models_dir)
    _log.info("model.fetched", model=str(bundle.ref), source=shared.place, size_bytes=bundle.size_bytes)
    return bundle


def installed_bundles(models_dir: Path) -> list[Bundle]:
    """The readable bundles of `models_dir` by name and rising version; contents are not compared with checksums."""
    found = []
    for path in sorted(models_dir.glob("[!.]*/[!.]*/bundle.json"), key=_order):
        try:
            found.append(open_bundle(path.parent, verify=False))
        except BundleError:
            continue
    return found


def known_names(models_dir: Path) -> list[str]:
    """The names that `resolve_bundle` takes: installed and built in."""
    installed = {path.parent.parent.name for path in models_dir.glob("[!.]*/[!.]*/bundle.json")}
    return sorted(installed | set(builtin_names()))


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text in (".", "..") or (Path(text) / "bundle.json").is_file()


def _versions(folder: Path) -> list[str]:
    """The installed versions, oldest first."""
    return sorted((path.parent.name for path in folder.glob("[!.]*/bundle.json")), key=_version_order)


def _shared_versions(shared: SharedBundles | None, name: str, version: str, here: list[str]) -> set[str]:
    """Those that others have; none is looked for where it is not needed. Raises StorageUnavailable."""
    if shared is None or (version and version in here):
        return set()
    try:
        return shared.versions(name)
    except StorageUnavailable as error:
        if version or not here:
            raise
        _log.warning("model.newest_not_known", model=name, served=here[-1], reason=str(error))
        return set()


def _unknown(name_or_path: str, models_dir: Path, shared: SharedBundles | None) -> str:
    known, place = set(known_names(models_dir)), ""
    if shared is not None:
        known |= {ref.name for ref in shared.published()}
        place = f", neither in {models_dir} nor at {shared.place}"
    return f"There is no model {name_or_path!r}{place}; known are {', '.join(sorted(known))}."


def _order(path: Path) -> tuple[str, list[tuple[int, int | str]]]:
    return path.parent.parent.name, _version_order(path.parent.name)


def _version_order(version: str) -> list[tuple[int, int | str]]:
    """With its numbers compared as numbers: 1.10 comes after 1.9."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]

"""The bundles of a models directory, `<name>/<version>/`: list them, find one by name, version or path."""

from __future__ import annotations

import re
from pathlib import Path

from shoplens.bundles.builtin import builtin_names, prepare_builtin
from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.errors import BundleError, ModelNotFound


def resolve_bundle(name_or_path: str, models_dir: Path) -> Bundle:
    """The bundle that `name_or_path` means, verified.

    It is the path of a bundle directory, `name@version`, or a name: the latest version in `models_dir`, else the
    built-in model, which is made if need be. Raises ModelNotFound, and what `open_bundle` raises.
    """
    if _looks_like_path(name_or_path):
        return open_bundle(name_or_path)
    name, _, version = name_or_path.partition("@")
    if name in builtin_names():
        prepared = prepare_builtin(name, models_dir)
        if version in ("", prepared.ref.version):
            return prepared
    versions = _versions(models_dir / name)
    wanted = version or (versions[-1] if versions else "")
    if wanted not in versions:
        raise ModelNotFound(f"There is no model {name_or_path!r}; known are {', '.join(known_names(models_dir))}.")
    return open_bundle(models_dir / name / wanted)


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
    return [path.parent.name for path in sorted(folder.glob("[!.]*/bundle.json"), key=_order)]


def _order(path: Path) -> tuple[str, list[tuple[int, int | str]]]:
    """Name, then the version with its numbers compared as numbers: 1.10 comes after 1.9."""
    parts = re.findall(r"\d+|[^\d.]+", path.parent.name)
    return path.parent.parent.name, [(1, int(part)) if part.isdigit() else (0, part) for part in parts]

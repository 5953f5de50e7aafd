"""Which bundle a model's name means: its champion in the registry, or what is installed.

A name without a version follows the alias `champion`. What was champion last is remembered beside the installed
bundles, so that a registry that cannot be reached, or a champion that cannot be verified, changes nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from shoplens import __version__
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import NAME_PATTERN, ModelRef
from shoplens.bundles.signing import Trust
from shoplens.bundles.store import SharedBundles, bundle_folders, resolve_bundle
from shoplens.errors import BundleError, BundleInvalid, BundleTampered, ModelNotFound, Unavailable
from shoplens.registry.entities import Aliases
from shoplens.registry.registry import Registry
from shoplens.telemetry.logs import get_logger

_LAST: Final = ".champion"
"""In the folder of a model: the version that was its champion last."""
_REFUSED: Final = ".refused.json"
"""In the folder of a model: the bundles that did not answer their probes."""
_MOST_REFUSALS: Final = 50
_NAME: Final = re.compile(NAME_PATTERN)
_PINNED: Final = re.compile(f"({NAME_PATTERN})@({NAME_PATTERN})")
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """One bundle that a release of this program could not serve."""

    program: str
    version: str
    digest: str
    reason: str


_REFUSALS: Final = TypeAdapter(list[_Refusal])


class ModelFinder:
    """Finds bundles by name, verified and trusted, and installs in `models_dir` what is missing there. Blocks.

    `shared` has bundles that were pushed without a registry; None where there is no such store.
    """

    def __init__(self, models_dir: Path, *, registry: Registry, shared: SharedBundles | None, trust: Trust) -> None:
        self._models_dir = models_dir
        self._registry = registry
        self._shared = shared
        self._trust = trust

    def follows(self, name_or_path: str) -> bool:
        """Whether this is a name without a version, which follows the alias `champion`."""
        return bool(_NAME.fullmatch(name_or_path)) and not (Path(name_or_path) / "bundle.json").is_file()

    def find(self, name_or_path: str | Path) -> Bundle:
        """The bundle that `name_or_path` means: a path, `name@version`, or a name.

        A name means its champion, where it has one. If the registry cannot be reached or its champion is refused, it
        means what was champion last; the log says so. Without any, it means the newest installed version.

        Raises ModelNotFound, BundleError, StorageUnavailable, RegistryUnavailable and Misconfigured.
        """
        if isinstance(name_or_path, Path):
            # "fruit" as a path is a folder here, and not the name of a model.
            name_or_path = str(name_or_path.absolute())
        if not self.follows(name_or_path):
            return self._pinned(name_or_path)
        try:
            aliases = self._registry.aliases(name_or_path)
        except Unavailable as error:
            return self._last(name_or_path, error)
        if aliases.champion is None:
            self.remember(name_or_path, None)
            return self._newest(name_or_path, aliases)
        try:
            return self.champion(name_or_path, aliases)
        except (BundleError, ModelNotFound, Unavailable) as error:
            last = self.remembered(name_or_path)
            if last in (None, aliases.champion):
                raise
            _log.error("model.champion_refused", model=name_or_path, champion=aliases.champion, served=last,
                       code=error.code, reason=str(error))  # fmt: skip
            return self._pinned(f"{name_or_path}@{last}")

    def champion(self, name: str, aliases: Aliases) -> Bundle:
        """The champion of `aliases`, which has one, installed and verified; it is remembered as the last one.

        Raises BundleTampered if another bundle is installed under its name and version, and as `find`.
        """
        version = aliases.champion or ""
        bundle = self.version(name, version, digest=aliases.digests.get(version))
        self.remember(name, version)
        return bundle

    def version(self, name: str, version: str, *, digest: str | None = None) -> Bundle:
        """This version, installed and verified, with this digest if one is given.

        Raises BundleInvalid if it was refused here before, and as `champion`.
        """
        self._require_not_refused(name, version, digest)
        bundle = self._pinned(f"{name}@{version}")
        if digest not in (None, bundle.digest):
            raise BundleTampered(
                f"The installed model {bundle.ref} has the digest {bundle.digest[:12]}, but the one that was published "
                f"has {str(digest)[:12]}. Remove {bundle.root}; it is downloaded again."
            )
        return bundle

    def _pinned(self, name_or_path: str) -> Bundle:
        """As `resolve_bundle`; what is only in the registry is fetched from there."""
        try:
            return resolve_bundle(name_or_path, self._models_dir, self._shared, self._trust)
        except ModelNotFound:
            pinned = _PINNED.fullmatch(name_or_path)
            if pinned is None:
                raise
            ref = ModelRef(name=pinned[1], version=pinned[2])
            if ref.version not in {version.ref.version for version in self._registry.versions(ref.name)}:
                raise
        bundle = self._registry.fetch(ref, self._models_dir, self._trust)
        _log.info("model.fetched", model=str(ref), source=self._registry.place, size_bytes=bundle.size_bytes)
        return bundle

    def _newest(self, name: str, aliases: Aliases) -> Bundle:
        """The newest version of a model without a champion, apart from those that wait to be promoted.

        That is a challenger, and what was published with the registry and is not installed.
        """
        installed = {folder.name for folder in bundle_folders(self._models_dir) if folder.parent.name == name}
        published = self._registry.versions(name)
        waiting = {each.ref.version for each in published if each.created_at is not None} - installed
        waiting |= {aliases.challenger} if aliases.challenger else set()
        try:
            return resolve_bundle(name, self._models_dir, self._shared, self._trust, without=waiting)
        except ModelNotFound as error:
            if not waiting:
                raise
            known = ", ".join(sorted(waiting))
            raise ModelNotFound(
                f"The model {name} has no champion. Its versions are: {known}. Choose one: "
                f"shoplens registry promote {name}@VERSION --why REASON"
            ) from error

    def _last(self, name: str, error: Unavailable) -> Bundle:
        """What was champion last; without that, what is installed. The registry raised `error`."""
        last = self.remembered(name)
        try:
            wanted = name if last is None else f"{name}@{last}"
            bundle = resolve_bundle(wanted, self._models_dir, trust=self._trust)
        except ModelNotFound:
            raise error from None
        _log.warning("model.registry_away", model=name, served=bundle.ref.version, code=error.code, reason=str(error))
        return bundle

    def remembered(self, name: str) -> str | None:
        """The version that was champion last, if it is installed."""
        try:
            version = (self._models_dir / name / _LAST).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError):
            return None
        known = _NAME.fullmatch(version) and (self._models_dir / name / version / "bundle.json").is_file()
        return version if known else None

    def remember(self, name: str, version: str | None) -> None:
        """Note what is champion now.

        A folder that cannot be written keeps nothing: then the registry must be there at the next start.
        """
        file = self._models_dir / name / _LAST
        draft = file.with_name(f"{_LAST}.{os.getpid()}")
        try:
            if version is None:
                file.unlink(missing_ok=True)
            elif version != self.remembered(name):
                draft.write_text(version, encoding="utf-8")
                draft.replace(file)
        except OSError as error:
            _log.warning("model.champion_not_remembered", model=name, reason=str(error))

    def refuse(self, bundle: Bundle, reason: str) -> None:
        """Note that this program cannot serve the bundle, so that no later start tries to.

        The newest refusals of each model are kept, one for each digest.
        """
        file = self._models_dir / bundle.ref.name / _REFUSED
        noted = _Refusal(program=__version__, version=bundle.ref.version, digest=bundle.digest, reason=reason)
        kept = [each for each in self._refusals(bundle.ref.name) if each.digest != bundle.digest]
        draft = file.with_name(f"{_REFUSED}.{os.getpid()}")
        try:
            draft.write_bytes(_REFUSALS.dump_json([*kept, noted][-_MOST_REFUSALS:]))
            draft.replace(file)
        except OSError as error:
            _log.warning("model.refusal_not_noted", model=str(bundle.ref), reason=str(error))

    def require_not_refused(self, bundle: Bundle) -> None:
        """Raises BundleInvalid for the bundle that was refused here before."""
        self._require_not_refused(bundle.ref.name, bundle.ref.version, bundle.digest)

    def _require_not_refused(self, name: str, version: str, digest: str | None) -> None:
        """A refusal holds for one digest and one release of this program."""
        for noted in self._refusals(name):
            if (noted.program, noted.digest) == (__version__, digest):
                raise BundleInvalid(
                    f"{name}@{version} was refused here before: {noted.reason} To try again, remove "
                    f"{self._models_dir / name / _REFUSED}."
                )

    def _refusals(self, name: str) -> list[_Refusal]:
        """What was refused here, oldest first; a file that cannot be read says nothing."""
        try:
            return _REFUSALS.validate_json((self._models_dir / name / _REFUSED).read_bytes())
        except (OSError, ValidationError):
            return []

"""A registry on an MLflow 3 server.

A model is a registered model with the tag `shoplens`. A version is a model version whose source is the folder `bundle`
of a run in the experiment `shoplens-models`; it is created last, with tags for its version, digest, size and signature,
so that it is complete or invisible. The aliases are MLflow's own. Each change of an alias is a tag of the model,
`shoplens.history.<time>.<number>.<random>`, written before the alias is changed.

What MLflow cannot do, and the registry on objects can: change an alias on condition. Here the aliases are compared just
before they are changed, so of two changes within the same fraction of a second both may be recorded, and the
later one holds. A client that may write to the server may also change tags and aliases past Shoplens; the next change
records that.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from shoplens.bundles.bundle import MAX_BYTES, MAX_FILES, Bundle, open_bundle
from shoplens.bundles.manifest import NAME_PATTERN, ModelRef
from shoplens.bundles.signing import SIGNATURE, Trust
from shoplens.bundles.store import by_number, install_bundle
from shoplens.errors import BundleError, BundleInvalid, BundleTampered, ExtraMissing, ModelNotFound, RequestInvalid
from shoplens.messages import marked
from shoplens.registry.entities import (
    ALIASES,
    Alias,
    Aliases,
    Figures,
    HistoryEntry,
    HistoryPage,
    Reason,
    RegisteredVersion,
    alias_changes,
)
from shoplens.registry.errors import AliasChanged, RegistryDamaged, RegistryUnavailable
from shoplens.telemetry.secrets import shown_address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

EXPERIMENT: Final = "shoplens-models"
_FOLDER: Final = "bundle"
_MARK: Final = "shoplens"
_HISTORY: Final = "shoplens.history."
_VERSION: Final = "shoplens.version"
_DIGEST: Final = "shoplens.digest"
_SIZE: Final = "shoplens.size_bytes"
_SIGNED: Final = "shoplens.signed_by"
_PUBLISHED: Final = "shoplens.published"
_MAX_TAG: Final = 5_000
"""Characters; more do not fit into the column of MLflow's tables on servers."""
_PAGE: Final = 1_000
_NAME: Final = re.compile(NAME_PATTERN)
_ABSENT: Final = "RESOURCE_DOES_NOT_EXIST"
_EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
_OUTSIDE: Final = "outside Shoplens"
_VARIABLES: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""How the client behaves unless the environment says otherwise: it reports nothing to others, and gives up in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Publication:
    """The tag `shoplens.published`."""

    at: datetime
    by: str
    why: str
    figures: dict[str, float]


_PUBLICATION: Final = TypeAdapter(_Publication)
_ENTRY: Final = TypeAdapter(HistoryEntry)


def open_client(url: str) -> MlflowClient:
    """A client for the server at `url`; sends no request yet. Raises ExtraMissing."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ExtraMissing("mlflow_url needs an optional part: pip install 'shoplens[mlflow]'") from error
    return MlflowClient(url, registry_uri=url)


class MlflowRegistry:
    """A `Registry` on the server at `url`. All methods raise RegistryUnavailable."""

    def __init__(self, url: str, *, clock: Callable[[], datetime]) -> None:
        self.place = shown_address(url)
        self._client = open_client(url)
        self._clock = clock

    def publish(self, bundle: Bundle, *, by: str, why: str, figures: Figures) -> RegisteredVersion:
        """As `Registry.publish`. The record of the first who published a bundle stays."""
        reason = Reason(by=by, why=why, figures=figures)
        name = bundle.ref.name
        with self._translated():
            there = self._versions(name).get(bundle.ref.version)
            if there is None:
                record = _Publication(at=self._clock(), by=by, why=why, figures=dict(reason.figures))
                run_id = self._upload(bundle, record)
                self._create(name)
                tags = {
                    _VERSION: bundle.ref.version,
                    _DIGEST: bundle.digest,
                    _SIZE: str(bundle.size_bytes),
                    _PUBLISHED: self._tag(_PUBLICATION.dump_json(record)),
                    **({_SIGNED: bundle.signed_by} if bundle.signed_by else {}),
                }
                source = f"runs:/{run_id}/{_FOLDER}"
                own = self._client.create_model_version(name, source, run_id=run_id, tags=tags, await_creation_for=0)
                there = self._versions(name)[bundle.ref.version]
                if there.version != own.version:  # another publication was faster
                    self._client.delete_model_version(name, own.version)
            if there.tags[_DIGEST] != bundle.digest:
                raise BundleInvalid(
                    f"Another bundle is published as {bundle.ref} at {self.place}. Give this one another version."
                )
            if bundle.signed_by is not None and there.tags.get(_SIGNED) != bundle.signed_by:
                self._client.log_artifact(str(there.run_id), str(bundle.root / SIGNATURE), _FOLDER)
                self._client.set_model_version_tag(name, there.version, _SIGNED, bundle.signed_by)
                there = self._versions(name)[bundle.ref.version]
            return self._registered(there)

    def names(self) -> list[str]:
        """As `Registry.names`."""
        with self._translated():
            models = _all(lambda token: self._client.search_registered_models(max_results=_PAGE, page_token=token))
            return sorted(each.name for each in models if _MARK in each.tags and self._versions(each.name))

    def versions(self, name: str) -> list[RegisteredVersion]:
        """As `Registry.versions`."""
        with self._translated():
            found = self._versions(name)
            return [self._registered(found[version]) for version in sorted(found, key=by_number)]

    def aliases(self, name: str, seen: Aliases | None = None) -> Aliases:
        """As `Registry.aliases`."""
        with self._translated():
            model = self._model(name)
            if model is None:
                return Aliases()
            etag = _etag(model)
            return seen if seen is not None and seen.etag == etag else self._aliases(model)

    def set_alias(
        self, name: str, alias: Alias, version: str | None, *, by: str, why: str, figures: Figures, expected: Aliases
    ) -> HistoryEntry:
        """As `Registry.set_alias`, with a moment in which another change is not noticed."""
        reason = Reason(by=by, why=why, figures=figures)
        with self._translated():
            versions = self._versions(name)
            if version is not None and version not in versions:
                raise ModelNotFound(f"There is no model {name[:80]}@{version[:80]} at {self.place}. Publish it first.")
            model = self._model(name)
            present = self._aliases(model) if model else Aliases()
            history = self._history(model) if model else []
            if present.etag != expected.etag:
                raise self._changed(name, history)
            # Clocks of machines differ: a later change never has an earlier time.
            at = max([self._clock(), *(entry.at for entry in history[-1:])])
            entries = alias_changes(present, name, alias, version, reason=reason, at=at)
            for number, entry in enumerate((*_made_outside(name, present, history, at), *entries)):
                key = f"{_HISTORY}{int(at.timestamp() * 1e6):020}.{number}.{secrets.token_hex(6)}"
                self._client.set_registered_model_tag(name, key, self._tag(_ENTRY.dump_json(entry)))
            for entry in entries:
                if entry.after is None:
                    self._client.delete_registered_model_alias(name, entry.alias)
                else:
                    self._client.set_registered_model_alias(name, entry.alias, versions[entry.after].version)
            model = self._model(name)
            if model is None or self._aliases(model).by_alias.get(alias) != version:
                raise self._changed(name, self._history(model) if model else [])
            return entries[0]

    def history(self, name: str) -> list[HistoryEntry]:
        """As `Registry.history`. An entry that somebody removed from the server is not missed."""
        with self._translated():
            model = self._model(name)
            return self._history(model) if model else []

    def changes(self, name: str, *, before: str | None = None, limit: int) -> HistoryPage:
        """As `Registry.changes`. MLflow gives all tags of a model at once; the cursor is the name of one."""
        if before is not None and not before.startswith(_HISTORY):
            raise RequestInvalid(f"{before[:50]!r} is no cursor of a history. Leave it out to begin with the newest.")
        with self._translated():
            model = self._model(name)
            tags = {} if model is None else model.tags
        keys = [key for key in sorted(tags, reverse=True) if key.startswith(_HISTORY)]
        keys = [key for key in keys if before is None or key < before]
        entries = tuple(self._entry(name, tags[key]) for key in keys[:limit])
        return HistoryPage(entries=entries, next=keys[limit - 1] if len(keys) > limit else None)

    def fetch(self, ref: ModelRef, models_dir: Path, trust: Trust) -> Bundle:
        """As `Registry.fetch`."""
        with self._translated():
            version = self._versions(ref.name).get(ref.version)
            if version is None:
                raise ModelNotFound(f"There is no model {ref} at {self.place}.")
            run_id = str(version.run_id)
            files = self._client.list_artifacts(run_id, _FOLDER)
            if len(files) > MAX_FILES + 2 or sum(each.file_size or 0 for each in files) > MAX_BYTES:
                raise BundleInvalid(f"The model {ref} at {self.place} is too large, or has too many files.")
            models_dir.mkdir(parents=True, exist_ok=True)
            digest = version.tags[_DIGEST]
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=models_dir) as folder:
                self._client.download_artifacts(run_id, _FOLDER, folder)
                try:
                    draft = Path(folder) / _FOLDER
                    bundle = open_bundle(draft)
                    if (bundle.ref, bundle.digest) != (ref, digest):
                        raise BundleTampered(f"it is {bundle.ref} with the digest {bundle.digest[:12]}.")
                    return install_bundle(draft, models_dir, trust)
                except BundleError as error:
                    raise type(error)(
                        f"The model {ref} at {self.place}, digest {digest[:12]}, is refused: {error}"
                    ) from error

    def _upload(self, bundle: Bundle, record: _Publication) -> str:
        """A run with the bundle's files and figures, and its id."""
        client = self._client
        try:
            experiment_id = client.create_experiment(EXPERIMENT)
        except _mlflow_error() as error:
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if error.error_code != _EXISTS or experiment is None:
                raise
            experiment_id = experiment.experiment_id
        run_id: str = client.create_run(experiment_id, run_name=str(bundle.ref)).info.run_id
        try:
            client.log_artifacts(run_id, str(bundle.root), _FOLDER)
            for name, value in record.figures.items():
                client.log_metric(run_id, re.sub(r"[^\w\-. /]", "_", name), value)
            if open_bundle(bundle.root).digest != bundle.digest:
                raise BundleTampered(f"{bundle.ref} was changed while it was published.")
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        return run_id

    def _create(self, name: str) -> None:
        """The registered model, marked as one of ours."""
        try:
            self._client.create_registered_model(name, tags={_MARK: "bundles"})
        except _mlflow_error() as error:
            if error.error_code != _EXISTS:
                raise
            self._client.set_registered_model_tag(name, _MARK, "bundles")

    def _model(self, name: str) -> RegisteredModel | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            return self._client.get_registered_model(name)
        except _mlflow_error() as error:
            if error.error_code != _ABSENT:
                raise
            return None

    def _versions(self, name: str) -> dict[str, ModelVersion]:
        """MLflow's version of each of ours; of two publications at once the first one counts."""
        if not _NAME.fullmatch(name):
            return {}
        wanted = f"name = '{name}'"
        found = _all(lambda token: self._client.search_model_versions(wanted, max_results=_PAGE, page_token=token))
        ours = [each for each in found if _DIGEST in each.tags and _NAME.fullmatch(each.tags.get(_VERSION, ""))]
        return {each.tags[_VERSION]: each for each in sorted(ours, key=lambda each: -int(each.version))}

    def _aliases(self, model: RegisteredModel) -> Aliases:
        versions = {each.version: each.tags for each in self._versions(model.name).values()}
        by_alias: dict[Alias, str] = {}
        digests = {}
        for alias in ALIASES:
            tags = versions.get(model.aliases.get(alias, ""))
            if tags is not None:
                by_alias[alias] = tags[_VERSION]
                digests[tags[_VERSION]] = tags[_DIGEST]
        return Aliases(by_alias=by_alias, digests=digests, etag=_etag(model))

    def _history(self, model: RegisteredModel) -> list[HistoryEntry]:
        keys = sorted(key for key in model.tags if key.startswith(_HISTORY))
        return [self._entry(model.name, model.tags[key]) for key in keys]

    def _entry(self, name: str, tag: str) -> HistoryEntry:
        try:
            return _ENTRY.validate_json(tag)
        except ValidationError as error:
            raise RegistryDamaged(
                f"A tag {_HISTORY}… of {name} at {self.place} cannot be read. Correct it or remove it there."
            ) from error

    def _registered(self, version: ModelVersion) -> RegisteredVersion:
        tags = version.tags
        try:
            record = _PUBLICATION.validate_json(tags[_PUBLISHED])
            return RegisteredVersion(
                ref=ModelRef(name=version.name, version=tags[_VERSION]),
                digest=tags[_DIGEST],
                created_at=record.at,
                size_bytes=int(tags[_SIZE]),
                signed_by=tags.get(_SIGNED),
                figures=record.figures,
                note=record.why,
                by=record.by,
            )
        except (ValueError, KeyError) as error:
            raise RegistryDamaged(
                f"The tags of {version.name}, version {version.version}, at {self.place} cannot be read."
            ) from error

    def _tag(self, data: bytes) -> str:
        text = data.decode()
        if len(text) > _MAX_TAG:
            raise RequestInvalid("The reason and the figures are too long for MLflow: name fewer figures.")
        return text

    def _changed(self, name: str, history: list[HistoryEntry]) -> AliasChanged:
        who = marked(f": {history[-1].by} made {history[-1].after} the {history[-1].alias}") if history else ""
        return AliasChanged(f"The aliases of {name} have changed{who}. Look at the registry and try again.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import requests

        try:
            yield
        except (_mlflow_error(), requests.RequestException) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise RegistryUnavailable(
                f"The MLflow server {self.place} did not do what was asked: {shown_address(reason)}. Check mlflow_url, "
                "MLFLOW_TRACKING_TOKEN or _USERNAME and _PASSWORD, and that the server is running."
            ) from error


def _mlflow_error() -> Any:
    from mlflow.exceptions import MlflowException

    return MlflowException


def _all(page: Callable[[str | None], Any]) -> Iterator[Any]:
    """Every entity of all pages."""
    token = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return


def _etag(model: RegisteredModel) -> str | None:
    """None where no alias was ever set."""
    aliases = sorted((alias, str(model.aliases[alias])) for alias in ALIASES if alias in model.aliases)
    changes = sorted(key for key in model.tags if key.startswith(_HISTORY))
    if not aliases and not changes:
        return None
    return hashlib.sha256(repr((aliases, changes)).encode()).hexdigest()[:32]


def _made_outside(name: str, present: Aliases, history: list[HistoryEntry], at: datetime) -> Iterator[HistoryEntry]:
    """The entries that are missing: aliases that are not what the history says were changed past Shoplens, or a change
    was interrupted.
    """
    for alias in ALIASES:
        recorded = next((entry.after for entry in reversed(history) if entry.alias == alias), None)
        if recorded != present.by_alias.get(alias):
            yield HistoryEntry(
                at=at.astimezone(UTC),
                by=_OUTSIDE,
                name=name,
                alias=alias,
                before=recorded,
                after=present.by_alias.get(alias),
                why="The alias was not what the history said: it was changed in MLflow, or a change was interrupted.",
                figures={},
            )

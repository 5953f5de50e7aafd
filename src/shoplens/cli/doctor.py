"""`shoplens doctor`: look at every part, say how it is, and what to do about what is not well."""

from __future__ import annotations

import platform as machine
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import orjson
import typer

import shoplens
from shoplens.accounts.doctor import look_at_accounts
from shoplens.advice import Caution, file_unusable, how_to_install
from shoplens.batch.doctor import look_at_drop, look_at_ingest, look_at_logs, look_at_run
from shoplens.cli.command import EXIT_FAILED, settings_for
from shoplens.cli.output import Cell, show_table
from shoplens.cli.serve import require_safe_bind
from shoplens.db import open_database
from shoplens.db.sqlite import driver, has_wal_reset_bug
from shoplens.errors import DatabaseUnavailable, DatabaseUnusable, Misconfigured, ShoplensError, StorageUnavailable
from shoplens.images.sandbox_process import HeicSupport, heic_support
from shoplens.moderation.intake.signals import resolve_groups
from shoplens.platform.audit import audit_store, in_words
from shoplens.platform.parts import build_channels, find_bundle, open_registry, open_shared, require_labels
from shoplens.serving.classifier import Classifier, choose_provider
from shoplens.serving.cores import usable_cores
from shoplens.setting_sources import settings_in_use
from shoplens.settings import Settings, unknown_variables
from shoplens.storage import open_store

_LEAST_FREE_BYTES = 1_000_000_000
_QUICK_CHECK_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one part is. `fault` is the code of what is wrong; `text` says what is, or what to do.

    `caution` stands for what works, but should be looked at.
    """

    part: str
    text: str
    fault: str | None = None
    caution: bool = False


Check = Callable[[Settings], str | Caution]
CHECKS: Final[dict[str, Check]] = {}


def check(part: str) -> Callable[[Check], Check]:
    """Register a check of a part: it returns how the part is, or raises one of our errors."""

    def register(function: Check) -> Check:
        CHECKS[part] = function
        return function

    return register


def examine(*, as_json: bool, data_dir: Path | None) -> None:
    """Print every finding; exits with status 1 when something is wrong. Raises Misconfigured."""
    settings = settings_for(data_dir)
    checks = {**CHECKS, "people": look_at_accounts, "log folder": look_at_logs}
    for name in settings.batch_channels:
        checks[f"drop folder of {name}"] = partial(look_at_drop, channel=name)
        checks[f"last ingest of {name}"] = partial(look_at_ingest, channel=name)
        checks[f"last run of {name}"] = partial(look_at_run, channel=name)
    for name in settings.channels:
        checks[f"model of {name}"] = partial(check_model, channel=name)
    findings = []
    for part, function in checks.items():
        try:
            found = function(settings)
        except (ShoplensError, OSError) as error:
            fault = error if isinstance(error, ShoplensError) else file_unusable(error)
            findings.append(Finding(part=part, text=str(fault), fault=fault.code))
            continue
        match found:
            case Caution(text=text):
                findings.append(Finding(part=part, text=text, caution=True))
            case text:
                findings.append(Finding(part=part, text=text))
    if as_json:
        typer.echo(orjson.dumps([asdict(finding) for finding in findings], option=orjson.OPT_INDENT_2))
    else:
        rows = [(_mark(finding), finding.part, finding.text) for finding in findings]
        show_table(("", "PART", "FINDING"), rows, nothing="")
    if any(finding.fault for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _mark(finding: Finding) -> Cell:
    if finding.fault:
        return Cell(shown="✗", plain="✗", mood="bad")
    return Cell(shown="!", plain="!", mood="careful") if finding.caution else Cell(shown="✓", plain="✓", mood="good")


@check("program")
def _program(_: Settings) -> str:
    runtime = version("onnxruntime")
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Shoplens {shoplens.__version__}, Python {python}, ONNX Runtime {runtime}, {machine.platform()}"


@check("settings")
def _sources(_: Settings) -> str | Caution:
    if unknown := unknown_variables():
        return Caution(text=f"{'; '.join(unknown)}. Correct the name or remove the variable.")
    return f"read from {', '.join(settings_in_use())}" if settings_in_use() else "the defaults"


@check("processor")
def _processor(settings: Settings) -> str:
    provider = choose_provider(settings.provider)
    threads = settings.threads or usable_cores()
    return f"models run on {provider}; {usable_cores()} usable cores, {threads} threads"


@check("listening")
def _listening(settings: Settings) -> str:
    require_safe_bind(settings)
    reach = "this machine only" if settings.binds_loopback else "everyone who can reach this machine"
    return f"{settings.host}:{settings.port}, open to {reach}"


@check("disk")
def _disk(settings: Settings) -> str:
    existing = next(
        path for path in (settings.data_dir.absolute(), *settings.data_dir.absolute().parents) if path.exists()
    )
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < _LEAST_FREE_BYTES:
        raise Misconfigured(
            f"{settings.data_dir.absolute()} has {free_bytes / 1e6:.0f} MB left. Make room, or set data_dir elsewhere."
        )
    return f"{settings.data_dir.absolute()}, {free_bytes / 1e9:.0f} GB free"


@check("database")
def _database(settings: Settings) -> str:
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        return "none yet; SQLite is made at the first start"
    database = open_database(settings.effective_database_url)
    with closing(database):
        database.check()
        faults = database.faults(within_s=_QUICK_CHECK_S)
    if faults:
        raise DatabaseUnusable(
            f"The database {database.place} is damaged ({'; '.join(faults)}). Stop Shoplens, move the file away and "
            "restore it from a backup with `shoplens restore`."
        )
    checked = ", its structure is sound" if faults is not None else ""
    return f"{database.place} can be read and written{checked}"


@check("SQLite")
def _sqlite(settings: Settings) -> str | Caution:
    if settings.database_url is not None and not settings.database_url.startswith("sqlite"):
        return "not used"
    version = f"SQLite {driver.sqlite_version}"
    if has_wal_reset_bug(driver.sqlite_version_info):
        return Caution(
            text=f"{version} has a bug that can damage the database (WAL reset, fixed in 3.51.3). Install the package "
            "pysqlite3 0.6.1 or newer, or a Python with a newer SQLite; the image has one."
        )
    return version


@check("photos and rows")
def _photos_and_rows(settings: Settings) -> str | Caution:
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        return "none yet"
    store = open_store(settings.effective_storage_url, setting="storage_url", fail_fast=True)
    try:
        with closing(open_database(settings.effective_database_url)) as database:
            text, is_fault = in_words(audit_store(database, store))
    except DatabaseUnavailable:
        return Caution(text="unknown while the database is unavailable")
    except StorageUnavailable:
        return Caution(text="unknown while the photo store is unavailable")
    return Caution(text=text) if is_fault else text


@check("photo store")
def _storage(settings: Settings) -> str:
    open_store(settings.effective_storage_url, setting="storage_url", fail_fast=True).check()
    return f"{settings.effective_storage_url} can be read and written"


@check("model store")
def _shared_models(settings: Settings) -> str:
    shared = open_shared(settings, fail_fast=True)
    if shared is None:
        return "none; models_url names one, where several machines work together"
    return f"{shared.place} can be read; it has {len(shared.published())} bundles"


@check("registry")
def _registry(settings: Settings) -> str | Caution:
    try:
        registry = open_registry(settings, fail_fast=True)
        live = [f"{name}@{version}" for name in registry.names() if (version := registry.aliases(name).champion)]
    except StorageUnavailable:
        return Caution(text="unknown while the model store is unavailable")
    return f"{registry.place} can be read; live: {', '.join(live) or 'no champion, so the newest installed versions'}"


@check("queue")
def _queue(settings: Settings) -> str | Caution:
    if settings.redis_url is None:
        return "none; models run in this process"
    from shoplens.platform.workers import look_for_workers

    workers = look_for_workers(settings)
    missing = {channel.model for channel in build_channels(settings).values()}
    missing -= {name for worker in workers if worker.is_understood for name in worker.models}
    if missing:
        return Caution(text=f"Redis answers, but no worker of this version does for {', '.join(sorted(missing))}.")
    return f"Redis answers, and {len(workers)} {'worker' if len(workers) == 1 else 'workers'} with every model"


@check("HEIC")
def _heic(_: Settings) -> str:
    match heic_support():
        case HeicSupport.READY:
            return "photos of this format are read, in a process of their own"
        case HeicSupport.MISSING:
            return f"photos of this format are refused; the extra `heic` has their decoder. {how_to_install('heic')}"
        case HeicSupport.UNSAFE:
            raise Misconfigured(
                "The installed HEIC decoder has known vulnerabilities and is not used. Upgrade pillow-heif."
            )


@check("channels")
def _channels(settings: Settings) -> str:
    return ", ".join(f"{each.name} (keeps {each.keep})" for each in build_channels(settings).values())


def check_model(settings: Settings, channel: str) -> str:
    """Load the models of a channel and run each once. Raises ModelNotFound, BundleError and Misconfigured."""
    bundle = find_bundle(settings.channels[channel].model, settings)
    Classifier(bundle).warm()
    require_labels(build_channels(settings)[channel], [label.name for label in bundle.labels])
    answers = f"{bundle.ref}, {len(bundle.labels)} labels, verified and answers"
    moderated = settings.channels[channel].moderation
    if moderated is None or moderated.general_model is None:
        return answers
    general = find_bundle(moderated.general_model, settings)
    Classifier(general).warm()
    groups = resolve_groups(channel, moderated.groups, [label.name for label in general.labels])
    return f"{answers}; for moderation also {general.ref} with the groups {', '.join(groups)}"

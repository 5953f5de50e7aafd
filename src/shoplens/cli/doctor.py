"""`shoplens doctor`: look at every part, say how it is, and what to do about what is not well."""

from __future__ import annotations

import platform as machine
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import orjson
import typer
from rich.console import Console
from rich.table import Table

import shoplens
from shoplens.batch.doctor import Caution, look_at_drop, look_at_ingest, look_at_logs, look_at_run
from shoplens.cli.errors import EXIT_FAILED
from shoplens.cli.options import settings_for
from shoplens.cli.serve import require_safe_bind
from shoplens.db import open_database
from shoplens.errors import Misconfigured, ShoplensError
from shoplens.images.sandbox import HeicSupport, heic_support
from shoplens.platform.parts import build_channels, find_bundle, open_shared
from shoplens.serving.classifier import Classifier
from shoplens.serving.cores import usable_cores
from shoplens.serving.session import choose_provider
from shoplens.settings import Settings
from shoplens.storage import open_store

_LEAST_FREE_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one part is. `fault` is the code of what is wrong; `text` says what is, or what to do.

    `caution` stands for what works, but should be looked at.
    """

    part: str
    text: str
    fault: str | None = None
    caution: bool = False


Look = Callable[[Settings], str | Caution]
ChannelLook = Callable[[Settings, str], str | Caution]


def examine(*, as_json: bool, data_dir: Path | None) -> None:
    """Print every finding; exits with status 1 when something is wrong. Raises Misconfigured."""
    settings = settings_for(data_dir)
    findings = [_finding(part, look, settings) for part, look in _LOOKS.items()]
    for channel in settings.batch_channels:
        for part, look_at in _BATCH_LOOKS.items():
            findings.append(_finding(f"{part} of {channel}", partial(_look_at_channel, look_at, channel), settings))
    findings += [_finding(f"model of {name}", _channel_look(name), settings) for name in settings.channels]
    _print(findings, as_json=as_json)
    if any(finding.fault for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _look_at_channel(look_at: ChannelLook, channel: str, settings: Settings) -> str | Caution:
    return look_at(settings, channel)


def _finding(part: str, look: Look, settings: Settings) -> Finding:
    try:
        found = look(settings)
        if isinstance(found, Caution):
            return Finding(part=part, text=found.text, caution=True)
        return Finding(part=part, text=found)
    except ShoplensError as error:
        return Finding(part=part, text=str(error), fault=error.code)


def _program(_: Settings) -> str:
    runtime = version("onnxruntime")
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Shoplens {shoplens.__version__}, Python {python}, ONNX Runtime {runtime}, {machine.platform()}"


def _processor(settings: Settings) -> str:
    provider = choose_provider(settings.provider)
    threads = settings.threads or usable_cores()
    return f"models run on {provider}; {usable_cores()} usable cores, {threads} threads"


def _listening(settings: Settings) -> str:
    require_safe_bind(settings)
    reach = "this machine only" if settings.binds_loopback else "everyone who can reach this machine"
    return f"{settings.host}:{settings.port}, open to {reach}"


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


def _database(settings: Settings) -> str:
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        return "none yet; SQLite is made at the first start"
    database = open_database(settings.effective_database_url)
    try:
        database.check()
        return f"{database.place} can be read and written"
    finally:
        database.close()


def _storage(settings: Settings) -> str:
    open_store(settings.effective_storage_url, setting="storage_url", fail_fast=True).check()
    return f"{settings.effective_storage_url} can be read and written"


def _shared_models(settings: Settings) -> str:
    shared = open_shared(settings, fail_fast=True)
    if shared is None:
        return "none; models_url names one, where several machines work together"
    return f"{shared.place} can be read; it has {len(shared.published())} bundles"


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


def _heic(_: Settings) -> str:
    match heic_support():
        case HeicSupport.READY:
            return "photos of this format are read, in a process of their own"
        case HeicSupport.MISSING:
            return "photos of this format are refused; pip install 'shoplens[heic]' adds their decoder"
        case HeicSupport.UNSAFE:
            raise Misconfigured("The installed HEIC decoder has known holes and is not used. Upgrade pillow-heif.")


def _channels(settings: Settings) -> str:
    return ", ".join(f"{each.name} (keeps {each.keep})" for each in build_channels(settings).values())


def _channel_look(name: str) -> Callable[[Settings], str]:
    def look(settings: Settings) -> str:
        bundle = find_bundle(settings.channels[name].model, settings)
        Classifier(bundle).warm()
        return f"{bundle.ref}, {len(bundle.labels)} labels, verified and answers"

    return look


_LOOKS: dict[str, Look] = {
    "program": _program,
    "processor": _processor,
    "listening": _listening,
    "disk": _disk,
    "database": _database,
    "photo store": _storage,
    "model store": _shared_models,
    "queue": _queue,
    "HEIC": _heic,
    "channels": _channels,
    "log folder": look_at_logs,
}

_BATCH_LOOKS: dict[str, ChannelLook] = {
    "drop folder": look_at_drop,
    "last ingest": look_at_ingest,
    "last run": look_at_run,
}


def _print(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps([asdict(finding) for finding in findings], option=orjson.OPT_INDENT_2))
        return
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(_mark(finding), finding.part, finding.text)
    Console().print(table, highlight=False)


def _mark(finding: Finding) -> str:
    if finding.fault:
        return "[red]✗[/red]"
    return "[yellow]![/yellow]" if finding.caution else "[green]✓[/green]"

"""Import or check a model in a process with limits, since the graph of somebody else may never end or take all memory.

The first half starts the process and installs what it made. The second half runs inside it (`python -m
shoplens.bundles.import_process`): a job comes in as JSON, a bundle is written to or checked in a folder for it alone,
and the outcome goes out as JSON.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from shoplens.bundles.bundle import MAX_BYTES, Bundle, open_bundle
from shoplens.bundles.manifest import Label
from shoplens.bundles.preprocessing import Preprocessing
from shoplens.bundles.probe import check_answers
from shoplens.errors import BundleError, BundleInvalid, ShoplensError

_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
_AFTER_KILL_S: Final = 5.0
_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportLimits:
    """What an import may take: time on the clock and of the processor, and memory."""

    seconds: float
    memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """What `import_onnx` needs, for a process."""

    file: Path
    labels: tuple[Label, ...]
    name: str
    version: str
    preprocessing: Preprocessing


_JOB: Final = TypeAdapter(ImportJob)


def import_within(job: ImportJob, *, into: Path, limits: ImportLimits) -> Bundle:
    """`import_onnx` in a process with `limits`, installed as `<into>/<name>/<version>/`.

    Raises BundleInvalid when a limit is reached or another bundle is there already, and what `import_onnx` raises.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=into) as folder:
        _run(Path(folder), _JOB.dump_json(job), job.file.name, limits)
        made = open_bundle(Path(folder) / job.name / job.version, verify=False)  # the process has verified it
        root = into / job.name / job.version
        root.parent.mkdir(exist_ok=True)
        with suppress(OSError):  # it is there already
            made.root.rename(root)
        bundle = open_bundle(root, verify=False)
    if bundle.digest != made.digest:
        raise BundleInvalid(f"Another bundle is at {root}. Remove it, or choose another name or version.")
    return bundle


def check_within(folder: Path, *, name: str, limits: ImportLimits) -> None:
    """Verify the bundle in `folder` and run its model on the probe pictures, in a process with `limits`.

    `name` is for messages. Raises BundleInvalid when a limit is reached or the model cannot answer, and what
    `open_bundle` raises.
    """
    _run(folder, b"", name, limits)


def _run(folder: Path, job: bytes, name: str, limits: ImportLimits) -> None:
    """Import `job` into `folder`; without a job, check the bundle there. Raises what went wrong in the process."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", __name__, str(folder.absolute()), str(limits.seconds), str(limits.memory_mb)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            said, _ = process.communicate(job, timeout=limits.seconds)
        except subprocess.TimeoutExpired as error:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # it may wait for a disk that does not answer
                process.communicate(timeout=_AFTER_KILL_S)
            raise _too_slow(name, limits) from error
        except BaseException:
            process.kill()
            raise
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _too_slow(name, limits)
    _raise_outcome(said, name, limits)


def _too_slow(name: str, limits: ImportLimits) -> BundleInvalid:
    return BundleInvalid(
        f"Checking {name} took more than {limits.seconds:g} s or more memory than this machine has, and was "
        "ended. If you trust the model, allow more with --time-limit."
    )


def _raise_outcome(said: bytes, name: str, limits: ImportLimits) -> None:
    try:
        outcome = from_json(said)
        code, sentence = outcome["code"], str(outcome["sentence"])
    except (ValueError, TypeError, KeyError) as error:
        raise BundleInvalid(f"Checking {name} crashed, so it is not safe to serve. Export it again.") from error
    if code == "memory":
        raise BundleInvalid(
            f"Checking {name} took more than {limits.memory_mb:,} MB of memory. If you trust the model, allow "
            "more with --memory-mb."
        )
    if code is not None:
        kinds: dict[str, type[BundleError]] = {kind.code: kind for kind in BundleError.__subclasses__()}
        raise kinds.get(code, BundleError)(sentence)


def _main(arguments: Sequence[str]) -> None:
    """Inside the process: limit it, import, say how it went."""
    folder, seconds, memory_mb = Path(arguments[0]), float(arguments[1]), int(arguments[2])
    cpu_s = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * _MEGABYTE, memory_mb * _MEGABYTE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code: str | None = None
    sentence = ""
    try:
        if data := sys.stdin.buffer.read():
            job = _JOB.validate_json(data)
            from shoplens.bundles.importing import import_onnx

            import_onnx(
                job.file, labels=job.labels, name=job.name, version=job.version, into=folder,
                preprocessing=job.preprocessing,
            )  # fmt: skip
        else:
            bundle = open_bundle(folder)
            check_answers(bundle.model_path, bundle.encoder_path, bundle.manifest, len(bundle.labels))
    except MemoryError:
        code = "memory"
    except ShoplensError as error:
        code, sentence = error.code, str(error)
        if "bad_alloc" in sentence or "allocate memory" in sentence or "bad allocation" in sentence:
            code = "memory"
    sys.stdout.buffer.write(to_json({"code": code, "sentence": sentence}))


if __name__ == "__main__":
    _main(sys.argv[1:])

"""Write the lock files from pyproject.toml, or say whether they are stale.

One resolution, cut into what each use needs: `run` is the server, `heic` one more format, `scale` several machines,
`ray` a cluster, `mlflow` a registry, `otel` traces, `train` training, `load` load tests, `test` the tests,
`dev` the checks.
Each file starts with a digest of what it was made from, so that a stale file is found without a network.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.project import ROOT, pyproject

FOLDER: Final = ROOT / "requirements"
EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "dev": ("heic", "scale", "train", "ray", "mlflow", "otel", "load", "test", "dev"),
    "test": ("heic", "scale", "train", "ray", "mlflow", "otel", "load", "test"),
    "train": ("train",),
    "ray": ("scale", "ray"),
    "mlflow": ("mlflow",),
    "otel": ("otel",),
    "load": ("load",),
    "scale": ("scale",),
    "heic": ("heic",),
    "run": (),
}
DIGEST_LINE: Final = "# made from pyproject.toml by `make lock`: "
PIP_COMPILE: Final = (
    *("uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--group", "build"),
    *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"),
)


def inputs_digest() -> str:
    """SHA-256 of everything in pyproject.toml that decides what is installed."""
    table = pyproject()
    project = table["project"]
    inputs = [
        project["requires-python"],
        project["dependencies"],
        project["optional-dependencies"],
        table["dependency-groups"],
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def stale() -> list[Path]:
    """The lock files that are missing or were made from something else."""
    digest = inputs_digest()
    return [path for path in map(lock_file, EXTRAS) if recorded_digest(path) != digest]


def lock_file(name: str) -> Path:
    """Where the lock of this name lies."""
    return FOLDER / f"{name}.lock"


def recorded_digest(path: Path) -> str | None:
    """The digest in the first line of a lock file, None without one."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as lines:
        first = lines.readline()
    return first.removeprefix(DIGEST_LINE).strip() if first.startswith(DIGEST_LINE) else None


def write_all(*, upgrade: bool) -> None:
    """Resolve everything once, then cut the smaller locks out of that resolution."""
    FOLDER.mkdir(exist_ok=True)
    widest = next(iter(EXTRAS))
    for name, extras in EXTRAS.items():
        constraint = () if name == widest else ("--constraint", str(lock_file(widest)))
        _compile(name, extras, (*constraint, *(("--upgrade",) if upgrade and name == widest else ())))


def _compile(name: str, extras: tuple[str, ...], options: tuple[str, ...]) -> None:
    path = lock_file(name)
    chosen = [part for extra in extras for part in ("--extra", extra)]
    subprocess.run([*PIP_COMPILE, *chosen, *options, "--output-file", str(path)], cwd=ROOT, check=True)
    path.write_text(f"{DIGEST_LINE}{inputs_digest()}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run `check`, `write` (keeps what is pinned where it can) or `upgrade`."""
    if arguments == ["check"]:
        old = stale()
        for path in old:
            print(f"{path.relative_to(ROOT)} does not fit pyproject.toml. Run `make lock`.", file=sys.stderr)
        return 1 if old else 0
    if arguments in (["write"], ["upgrade"]):
        write_all(upgrade=arguments == ["upgrade"])
        return 0
    print("usage: python -m tools.lock check|write|upgrade", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

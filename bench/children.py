"""The protocol between the bench and its child processes: one JSON line in per measurement, one out per result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from shoplens.testing import cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to measure: the photos in a folder, with so many threads, for so long."""

    folder: str
    model: str
    threads: int
    seconds: float

    def photos(self) -> list[bytes]:
        """The photos, in the order of their names."""
        return [path.read_bytes() for path in sorted(Path(self.folder).iterdir())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement; times in milliseconds, memory in megabytes."""

    images: int
    wall_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float
    peak_mb: float

    @classmethod
    def of(
        cls,
        *,
        images: int,
        before: cost.Reading,
        after: cost.Reading,
        latencies_s: list[float],
        peak_mb: float | None = None,
    ) -> Self:
        """From the readings around it."""
        ranked = sorted(latencies_s)
        return cls(
            images=images,
            wall_s=after.at_s - before.at_s,
            cpu_s=after.cpu_s - before.cpu_s,
            p50_ms=1e3 * ranked[len(ranked) // 2],
            p99_ms=1e3 * ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)],
            peak_mb=cost.peak_megabytes() if peak_mb is None else peak_mb,
        )

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per image."""
        return 1e3 * self.cpu_s / self.images

    @property
    def per_second(self) -> float:
        """Images per second."""
        return self.images / self.wall_s


class Child:
    """A process that measures on request. `environment` holds settings such as SHOPLENS_REDIS_URL."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def measure(self, request: Request) -> Result:
        """Blocks for about `request.seconds`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(request)) + "\n")
        self._process.stdin.flush()
        return Result(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


def answer_requests(measure: Callable[[Request], Result]) -> None:
    """The child's side."""
    for line in sys.stdin:
        print(json.dumps(asdict(measure(Request(**json.loads(line))))), flush=True)

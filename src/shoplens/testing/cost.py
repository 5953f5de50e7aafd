"""What something costs a process and all that descend from it: CPU time and memory, from the system's own accounts.

with Meter(pid) as meter:
    ...send it a request...
print(meter.cost.cpu_s, meter.cost.megabytes)

`read` is for work that begins and ends at different places. All of it works on Linux.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_EVERY_S: Final = 0.002
_LOOK_FOR_CHILDREN_EVERY_S: Final = 0.02  # which takes long where there are many of them
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_GENERATIONS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU time in seconds and the most memory beyond what was in use at the start, in megabytes."""

    cpu_s: float
    megabytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """CPU seconds of a process and its descendants since it began, and the clock."""

    cpu_s: float
    at_s: float


class Meter:
    """Measures a process and its descendants between entering and leaving. Memory is sampled."""

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid or os.getpid()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="meter", daemon=True)
        self._base: dict[int, int] = {}
        self._peak_bytes = 0
        self._own_s = 0.0
        self.cost = Cost(cpu_s=0.0, megabytes=0.0)

    def __enter__(self) -> Self:
        self._base = _resident(family(self._pid))
        self._began_s = cpu_seconds(self._pid)
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._sampler.join()
        own_s = self._own_s if self._pid == os.getpid() else 0.0
        used_s = cpu_seconds(self._pid) - self._began_s - own_s
        self.cost = Cost(cpu_s=max(0.0, used_s), megabytes=self._peak_bytes / 1e6)

    def _sample(self) -> None:
        known, look_at, ended = set[int](), 0.0, False
        while not ended:  # once more at the end: what was measured may have left this thread no moment to run
            ended = self._ended.wait(_EVERY_S)
            if ended or time.monotonic() > look_at:
                known, look_at = family(self._pid), time.monotonic() + _LOOK_FOR_CHILDREN_EVERY_S
            now = _resident(known)
            # A process that was forked meanwhile shares what it has at first with the one it was forked from.
            used = sum(max(0, size - self._base.setdefault(pid, size)) for pid, size in now.items())
            self._peak_bytes = max(self._peak_bytes, used)
        self._own_s = time.thread_time()


def read(pid: int | None = None) -> Reading:
    """What a process has used so far, by default this one. Raises ProcessLookupError if it has ended."""
    reading = Reading(cpu_s=cpu_seconds(pid or os.getpid()), at_s=time.perf_counter())
    if reading.cpu_s == 0:
        raise ProcessLookupError(f"There is no process {pid}.")
    return reading


def peak_megabytes(pid: int | None = None) -> float:
    """The most resident memory that a process ever had, without its descendants."""
    return _status_kilobytes(pid or os.getpid(), "VmHWM") / 1e3


def megabytes(pid: int | None = None) -> float:
    """The resident memory of a process now, without its descendants."""
    return _status_kilobytes(pid or os.getpid(), "VmRSS") / 1e3


def family(pid: int) -> set[int]:
    """The process and all that descend from it."""
    found = {pid}
    for _ in range(_GENERATIONS):
        for parent in tuple(found):
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{parent}/task").iterdir():
                    # While threads end this list may be incomplete, so that it is read several times.
                    found.update(map(int, (task / "children").read_text().split()))
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process and its descendants so far, those included that have ended and were reaped."""
    seconds = 0.0
    for each in family(pid):
        with contextlib.suppress(OSError):
            seconds += time.clock_gettime((~each << 3) | 2)  # the process's CPU clock: see clock_getcpuclockid
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(fields[13]) + int(fields[14])) / _TICKS_PER_S
    return seconds


def _resident(pids: set[int]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            sizes[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return sizes


def _status_kilobytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"{key} is not in /proc/{pid}/status")

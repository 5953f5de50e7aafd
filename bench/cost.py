"""What a process used: CPU seconds, wall seconds and peak memory, from the operating system's own accounts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """CPU seconds of all threads since the process began, and the clock."""

    cpu_s: float
    at_s: float


def read(pid: int | str = "self") -> Reading:
    """User and system time of a process with all its threads, its ended children included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Reading(cpu_s=sum(map(int, fields[11:15])) / _TICKS, at_s=time.perf_counter())


def peak_megabytes(pid: int | str = "self") -> float:
    """The most resident memory that the process ever had."""
    return _status_kilobytes(pid, "VmHWM") / 1e3


def megabytes(pid: int | str = "self") -> float:
    """Its resident memory now."""
    return _status_kilobytes(pid, "VmRSS") / 1e3


def _status_kilobytes(pid: int | str, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"{key} is not in /proc/{pid}/status")

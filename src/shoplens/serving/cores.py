"""Tell how many cores this process may use: affinity and the container's quota, not the host's count."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cores() -> int:
    """At least 1. A quota of 1.5 cores counts as 2: threads that wait cost less than a core that idles."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def quota_of(cpu_max: str) -> float | None:
    """Cores granted by a cgroup v2 `cpu.max` line such as `150000 100000`; None for `max` or an unknown form."""
    match cpu_max.split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period) > 0:
            return int(quota) / int(period)
        case _:
            return None


def _quota() -> float | None:
    if (line := _read(_CGROUP_V2)) is not None:
        return quota_of(line)
    quota, period = _read(_CGROUP_V1_QUOTA), _read(_CGROUP_V1_PERIOD)
    return quota_of(f"{quota} {period}") if quota and period else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None

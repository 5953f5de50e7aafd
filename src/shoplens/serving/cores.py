"""Tell how many cores this process may use: affinity and the container's quota, not the host's count."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CGROUP_V2: Final = (Path("/sys/fs/cgroup/cpu.max"),)
_CGROUP_V1: Final = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cores() -> int:
    """At least 1. A quota of 1.5 cores counts as 2: threads that wait cost less than a core that idles."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (_CGROUP_V2, _CGROUP_V1):
        try:
            quota = quota_of(" ".join(file.read_text() for file in files))
        except OSError:
            continue
        return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))
    return affinity


def quota_of(cpu_max: str) -> float | None:
    """Cores granted by a cgroup v2 `cpu.max` line such as `150000 100000`; None for `max` or an unknown form."""
    match cpu_max.split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period) > 0:
            return int(quota) / int(period)
        case _:
            return None

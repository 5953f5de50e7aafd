"""How many cores a process may use."""

from __future__ import annotations

import os

import pytest

from shoplens.serving.cores import quota_of, usable_cores


@pytest.mark.parametrize(
    ("line", "cores"),
    [("150000 100000", 1.5), ("400000 100000", 4.0), ("max 100000", None), ("-1 100000", None), ("", None)],
)
def test_the_containers_quota_is_read(line: str, cores: float | None) -> None:
    """`max`, the -1 of older kernels and anything unknown mean no quota."""
    assert cores == quota_of(line)


def test_never_more_than_the_affinity_allows() -> None:
    """Nor fewer than one."""
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_a_pinned_process_uses_one_core() -> None:
    """The host's other cores do not count."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)

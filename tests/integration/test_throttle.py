"""Failed sign-ins counted in a real Redis: by all processes together, and by each alone while it is away."""

from __future__ import annotations

import pytest
from limits.storage import RedisStorage

from shoplens.accounts.errors import TooManySignIns
from shoplens.accounts.throttle import Throttle
from shoplens.platform.accounts import open_counts

FAILURES = 5
NOWHERE = "redis://127.0.0.1:1"


def fail(throttle: Throttle, name: str) -> None:
    """As often as locks a name."""
    for _ in range(FAILURES):
        throttle.failed(name=name, address=None)


def test_two_processes_count_together(redis_url: str) -> None:
    """What one locks, the other knows; another installation in the same Redis has counts of its own."""
    first, second = (Throttle(lambda: open_counts(redis_url, prefix="shop")) for _ in range(2))
    fail(first, "anna")
    with pytest.raises(TooManySignIns) as refused:
        second.require(name="anna", address=None)
    assert 20 < refused.value.retry_after_s <= 30
    Throttle(lambda: open_counts(redis_url, prefix="other")).require(name="anna", address=None)


def test_without_redis_each_process_counts_alone() -> None:
    """A sign-in neither fails nor becomes unlimited when Redis is away."""
    throttle = Throttle(lambda: open_counts(NOWHERE, prefix="shop"))
    throttle.require(name="anna", address="192.0.2.7")
    fail(throttle, "anna")
    with pytest.raises(TooManySignIns):
        throttle.require(name="anna", address="192.0.2.7")


def test_redis_is_used_where_it_is_set(redis_url: str) -> None:
    """Not a counter in memory that looks the same."""
    assert isinstance(open_counts(redis_url, prefix="shop"), RedisStorage)

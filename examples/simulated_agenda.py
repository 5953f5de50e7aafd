"""What is to happen at which moment of the simulated quarter, the people who do it, and the pictures that they see."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from random import Random
from typing import Final

from examples.simulate_returns import GARMENTS, draw
from shoplens.accounts.entities import Permission, Principal, PrincipalKind

_DRAWN: Final = 27
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400
_OPENS, _CLOSES = 8, 18
"""Hours in UTC between which people decide."""
_ALL: Final = frozenset(Permission)


def people(*names: str) -> tuple[Principal, ...]:
    """Who decides. They have no accounts: only their names are kept with what they decided."""
    return tuple(
        Principal(kind=PrincipalKind.PERSON, id=f"simulated-{name.lower()}", name=name, permissions=_ALL)
        for name in names
    )


class Agenda:
    """Actions in the order of their moments. While one runs, `clock` is its moment, for the services that it calls."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._now = 0.0
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def clock(self) -> datetime:
        """The moment of what happens now."""
        return datetime.fromtimestamp(self._now, UTC)

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Let something happen at this Unix second."""
        self._count += 1
        heapq.heappush(self._waiting, (max(moment, self._now), self._count, action))

    def at_work(self, minutes: float, action: Callable[[], None]) -> None:
        """Let a person do something after so many minutes, or in the first hour of the next working day."""
        moment = self._now + minutes * _MINUTE_S
        hour = moment % _DAY_S / 3600
        if not _OPENS <= hour < _CLOSES:
            opens = moment // _DAY_S * _DAY_S + _OPENS * 3600 + (0 if hour < _OPENS else _DAY_S)
            moment = opens + self.random.uniform(0, 3600)
        self.at(moment, action)

    def run_until(self, moment: float) -> None:
        """Everything that happens before this Unix second; what is later waits."""
        while self._waiting and self._waiting[0][0] < moment:
            self._now, _, action = heapq.heappop(self._waiting)
            action()
        self._now = moment


class Pictures:
    """Pictures of clothes to be sent as photos; each number is another file, some with the same pixels."""

    def __init__(self, random: Random) -> None:
        self._seed = random.random()

    @cached_property
    def _drawn(self) -> Sequence[bytes]:
        return [draw(GARMENTS[number % len(GARMENTS)], Random(f"{self._seed}-{number}")) for number in range(_DRAWN)]

    def file(self, number: int) -> bytes:
        """A JPEG of 480 x 480 pixels. Decoders ignore what follows the end of a picture."""
        return self._drawn[number % _DRAWN] + f"\0{number}".encode()

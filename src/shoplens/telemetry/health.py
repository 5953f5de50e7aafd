"""Tell whether this process can answer: engine, database and store, each with its reason when not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from shoplens.errors import ShoplensError

_TIMEOUT_S = 2.0

Probe = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """`faults` has one sentence for each part that is not well, by the part's name."""

    parts: tuple[str, ...]
    faults: dict[str, str]

    @property
    def ready(self) -> bool:
        """Whether every part is well."""
        return not self.faults


class CheckHealth:
    """Asks all parts at once; one that does not answer within two seconds counts as not well."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = dict(probes)

    async def __call__(self) -> Health:
        """Never raises."""
        sentences = await asyncio.gather(*(_fault(probe) for probe in self._probes.values()))
        faults = {name: text for name, text in zip(self._probes, sentences, strict=True) if text}
        return Health(parts=tuple(self._probes), faults=faults)


def in_thread(check: Callable[[], None]) -> Probe:
    """A probe from a check that blocks."""

    async def probe() -> None:
        await asyncio.to_thread(check)

    return probe


async def _fault(probe: Probe) -> str | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await probe()
    except TimeoutError:
        return f"There was no answer within {_TIMEOUT_S:g} s."
    except ShoplensError as error:
        return str(error)
    return None

"""Which bundle answers: its name and version."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Which bundle answered."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

"""Read the settings for a command: what its options say wins."""

from __future__ import annotations

from pathlib import Path

from shoplens.settings import Settings, read_settings


def settings_for(data_dir: Path | None, **options: object) -> Settings:
    """Options that were not given (None) do not override. Raises Misconfigured."""
    given = {"data_dir": data_dir, **options}
    return read_settings(**{name: value for name, value in given.items() if value is not None})

"""Options that many commands share, and the settings that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoplens.settings import Settings, read_settings

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the database, the photos and the models.")]
AsJson = Annotated[bool, typer.Option("--json", help="Output JSON.")]
RequestedBy = Annotated[str, typer.Option("--requested-by", help="Name recorded in trigger.log.")]


def settings_for(data_dir: Path | None, **options: object) -> Settings:
    """The settings, overridden by options that were given (are not None). Raises Misconfigured."""
    given = {"data_dir": data_dir, **options}
    return read_settings(**{name: value for name, value in given.items() if value is not None})

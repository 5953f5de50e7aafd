"""Options that many commands share, and the settings that result from them.

`shoplens --help` imports this, so the settings are imported by the command that reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shoplens.settings import Settings

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the database, the photos and the models.")]
AsJson = Annotated[bool, typer.Option("--json", help="Output JSON.")]
RequestedBy = Annotated[str, typer.Option("--requested-by", help="Name recorded in trigger.log.")]


def settings_for(data_dir: Path | None, **options: object) -> Settings:
    """The settings, overridden by options that were given (are not None). Raises Misconfigured."""
    from shoplens.settings import read_settings

    given = {"data_dir": data_dir, **options}
    return read_settings(**{name: value for name, value in given.items() if value is not None})

"""The command line: `shoplens …`. Heavy imports happen inside the commands, so that `--help` is quick."""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process."""
    from shoplens.cli.app import app

    app()

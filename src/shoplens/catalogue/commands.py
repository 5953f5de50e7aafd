"""`shoplens catalogue …`: products, their import and export, the tree of categories, and runs.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from shoplens.catalogue.tree_commands import tree_app

catalogue_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Categorise the products of a shop.")
catalogue_app.add_typer(tree_app, name="tree")

ChannelName = Annotated[
    str | None, typer.Option("--channel", help="Optional if only one channel has a catalogue side.")
]

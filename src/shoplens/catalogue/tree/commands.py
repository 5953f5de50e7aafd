"""`shoplens catalogue tree …`: show, search, import and export the tree of categories.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import show_table

tree_app = Commands(help="The tree of categories of a channel.")

ChannelName = Annotated[
    str | None, typer.Option("--channel", help="Optional if only one channel has a catalogue side.")
]
Language = Annotated[str | None, typer.Option("--language", help="Language of names; unset: the channel's.")]


@tree_app.command("show", examples=["shoplens catalogue tree show --depth 2"])
@handle_errors
def show(
    below: Annotated[str | None, typer.Argument(help="The id of a category; unset: the whole tree.")] = None,
    depth: Annotated[int, typer.Option(help="How many levels.", min=1, max=20)] = 20,
    channel: ChannelName = None,
    language: Language = None,
    data_dir: DataDir = None,
) -> None:
    """Print the live tree."""
    from shoplens.platform.catalogue import open_trees

    with open_trees(settings_for(data_dir), channel) as (trees, usual):
        tree, spoken = trees.live(), language or usual

    def lines(category: str | None, level: int) -> None:
        for each in tree.children(category) if level < depth else ():
            typer.echo(f"{'  ' * level}{tree.name(each, spoken)}  ({each})")
            lines(each, level + 1)

    lines(None if below is None else tree[below].id, 0)


@tree_app.command("search", examples=["shoplens catalogue tree search shirt"])
@handle_errors
def search(
    text: Annotated[str, typer.Argument(help="Beginnings of words, in any language.")],
    channel: ChannelName = None,
    language: Language = None,
    data_dir: DataDir = None,
) -> None:
    """Find categories by names, synonyms and paths."""
    from shoplens.platform.catalogue import open_trees

    with open_trees(settings_for(data_dir), channel) as (trees, usual):
        tree, spoken = trees.live(), language or usual
    rows = [(each.id, tree.path_text(each.id, spoken)) for each in tree.search(text, language=spoken)]
    show_table(("CATEGORY", "PATH"), rows, nothing="No category fits.")


@tree_app.command("versions", examples=["shoplens catalogue tree versions"])
@handle_errors
def versions(channel: ChannelName = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Who imported which tree, when and why; the newest first, which is live."""
    import orjson

    from shoplens.platform.catalogue import open_trees

    with open_trees(settings_for(data_dir), channel) as (trees, _):
        found = trees.versions()
    if as_json:
        typer.echo(orjson.dumps(found))
        return
    heads = ("VERSION", "IMPORTED", "CATEGORIES", "BY", "SOURCE", "NOTE")
    rows = [
        (str(each.version), each.created_at, each.categories, each.created_by, each.source, each.note)
        for each in found
    ]  # fmt: skip
    brought = ("0", None, None, None, "the model", "the tree that the model brought")
    show_table(heads, [*rows, brought], nothing="")


@tree_app.command(
    "import",
    examples=[
        "shoplens catalogue tree import tree.csv --dry-run",
        "shoplens catalogue tree import tree.csv --mapping moved.csv",
    ],
)
@handle_errors
def import_tree(
    file: Annotated[
        Path, typer.Argument(help="CSV (id, path, name_LANGUAGE, synonyms), or a taxonomy's text.", exists=True)
    ],
    mapping: Annotated[
        Path | None, typer.Option("--mapping", help="CSV (before, after) of categories that changed.", exists=True)
    ] = None,
    add_language: Annotated[
        str | None, typer.Option("--add-language", help="Only add the names of FILE in this language.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Why, for the history.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Replace the tree. Decided products go with their categories; the others need a person again."""
    from shoplens.accounts.entities import SYSTEM
    from shoplens.catalogue.tree.source import read_mapping, read_tree, with_names
    from shoplens.platform.catalogue import open_trees

    tree = read_tree(file.read_bytes(), language=add_language or "en")
    successors = {} if mapping is None else read_mapping(mapping.read_bytes())
    with open_trees(settings_for(data_dir), channel) as (trees, _):
        if add_language:
            tree = with_names(trees.live(), tree, add_language)
        if dry_run:
            change = trees.compare(tree, successors)
        else:
            change = trees.save(tree, successors, source=file.name, note=note, by=SYSTEM)
    verb = "is" if change.saved else "would be"
    typer.echo(
        f"Version {change.version} {verb} live: {change.categories} categories, {len(change.added)} added, "
        f"{len(change.removed)} removed, {len(change.moved)} moved."
    )
    typer.echo(f"Decided products: {change.carried} carried over, {change.uncertain} need a person again.")


@tree_app.command("export", examples=["shoplens catalogue tree export"])
@handle_errors
def export(
    version: Annotated[int | None, typer.Option("--version", help="Unset: the live one.", min=0)] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Write the tree as CSV to standard output, in the form that `import` reads."""
    from shoplens.catalogue.tree.source import tree_rows
    from shoplens.platform.catalogue import open_trees
    from shoplens.spreadsheets import csv_chunks

    with open_trees(settings_for(data_dir), channel) as (trees, _):
        tree = trees.live() if version is None else trees.get(version)
    for chunk in csv_chunks(*tree_rows(tree)):
        sys.stdout.write(chunk)

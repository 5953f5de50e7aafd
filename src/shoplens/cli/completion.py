"""What a shell completes: the scripts that it reads, and what they ask.

A script runs `shoplens` with the words of the line as arguments and `_SHOPLENS_COMPLETE` set. The answer has a line for
each word that fits, with a tab before its help. Commands take a tenth of a second; channels, models and runs half a
second, since they are in the settings or where these say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, LiteralString

import typer
from typer._click.shell_completion import CompletionItem, ShellComplete  # Typer offers no public names for them

from shoplens.cli.command import COMPLETION_VARIABLE
from shoplens.errors import ShoplensError

if TYPE_CHECKING:
    from shoplens.settings import Settings

_BASH: Final = """\
_shoplens() {
    local line words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <(_SHOPLENS_COMPLETE=bash "$1" "${words[@]}" 2>/dev/null)
}
complete -o default -F _shoplens shoplens"""

_ZSH: Final = """\
#compdef shoplens
_shoplens() {
    local line help
    local -a found
    while IFS= read -r line; do
        help=""
        [[ $line == *$'\\t'* ]] && help=":${line#*$'\\t'}"
        found+=("${${line%%$'\\t'*}//:/\\\\:}$help")
    done < <(_SHOPLENS_COMPLETE=zsh ${words[1]} "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    if (( $#found )); then
        _describe -V shoplens found
    else
        _files
    fi
}
if [[ $funcstack[1] == _shoplens ]]; then _shoplens "$@"; else compdef _shoplens shoplens; fi"""

_FISH: Final = """\
function __shoplens_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (_SHOPLENS_COMPLETE=fish $words[1] $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command shoplens --no-files --arguments '(__shoplens_complete)'"""

SCRIPTS: Final[Mapping[str, str]] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


RunKind = Literal["photos", "products"]
_NEWEST_RUNS: Final[Mapping[RunKind, LiteralString]] = {
    "photos": "SELECT id, channel, created_at FROM batch_runs ORDER BY id DESC LIMIT 20",
    "products": "SELECT id, channel, created_at FROM catalogue_runs ORDER BY id DESC LIMIT 20",
}
_RUNS: Final = 20
_WAIT_S: Final = 2
"""As short as libpq allows."""


class _Words(ShellComplete):
    """The words that may stand in place of the last one."""

    name = "words"

    def source_vars(self) -> dict[str, Any]:
        raise NotImplementedError

    def get_completion_args(self) -> tuple[list[str], str]:
        raise NotImplementedError

    def format_completion(self, item: CompletionItem) -> str:
        raise NotImplementedError


def item(word: str, words: str) -> CompletionItem:
    """A word that fits, with its help."""
    return CompletionItem(word, help=words)


def answer(root: Any, program: str, words: Sequence[str]) -> int:
    """Print what may stand in place of the last of `words`, which may be empty. The exit status."""
    *before, incomplete = [word for word in words if word != "="] or [""]  # bash makes a word of `=`
    if words and words[-1] == "=":
        before, incomplete = [*before, incomplete], ""
    for each in _Words(root, {}, program, COMPLETION_VARIABLE).get_completions(before, incomplete):
        typer.echo(f"{each.value}\t{each.help}" if each.help else each.value)
    return 0


def channels(given: Mapping[str, Any], incomplete: str) -> list[str]:
    """The channels of the settings; none where these cannot be read."""
    settings = _settings(given)
    return [] if settings is None else [name for name in settings.channels if name.startswith(incomplete)]


def models(given: Mapping[str, Any], incomplete: str) -> list[str]:
    """The installed models, and after an `@` their versions."""
    settings = _settings(given)
    if settings is None:
        return []
    folder, (name, at, version) = settings.effective_models_dir, incomplete.partition("@")
    with suppress(OSError):
        if at:
            return sorted(f"{name}@{each.name}" for each in (folder / name).iterdir() if each.name.startswith(version))
        return sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name.startswith(name))
    return []


def runs(given: Mapping[str, Any], incomplete: str, kinds: Sequence[RunKind]) -> list[tuple[str, str]]:
    """The newest runs of these kinds with their channel and time; none where the database cannot be read."""
    settings = _settings(given)
    if settings is None:
        return []
    try:
        newest = _newest_runs(settings.effective_database_url, [_NEWEST_RUNS[kind] for kind in kinds])
    except Exception:  # noqa: BLE001  whatever it is: a line that somebody types is no place to say so
        return []
    newest.sort(reverse=True)
    return [(run, f"{channel}, {at} UTC") for run, channel, at in newest[:_RUNS] if run.startswith(incomplete)]


def _newest_runs(url: str, queries: Sequence[LiteralString]) -> list[tuple[str, str, str]]:
    """Id, channel and time. Without SQLAlchemy, whose import takes as long as all the rest."""
    if url.startswith("sqlite:"):
        import sqlite3
        from urllib.parse import quote

        file = quote(url.removeprefix("sqlite:///").partition("?")[0])
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=_WAIT_S)) as database:
            return [(run, channel, at[:16]) for query in queries for run, channel, at in database.execute(query)]
    import psycopg

    plain = f"postgresql:{url.partition(':')[2]}"
    with psycopg.connect(plain, connect_timeout=_WAIT_S, options="-c timezone=UTC -c statement_timeout=1000") as server:
        rows = [row for query in queries for row in server.execute(query)]
    return [(run, channel, f"{at:%Y-%m-%d %H:%M}") for run, channel, at in rows]


def _settings(given: Mapping[str, Any]) -> Settings | None:
    """With what is given before the command."""
    from shoplens.setting_sources import CONFIG_FILE_VARIABLE
    from shoplens.settings import read_settings

    if given.get("config"):
        os.environ[CONFIG_FILE_VARIABLE] = str(given["config"])
    try:
        return read_settings(**({"data_dir": given["data_dir"]} if given.get("data_dir") else {}))
    except ShoplensError:
        return None

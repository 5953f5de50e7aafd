"""The help of every command, its examples, completion and the errors of a command line."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from shoplens.batch.entities import RunState
from shoplens.batch.run_repository import RunRepository
from shoplens.catalogue.entities import CatalogueRun
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.cli.app import app
from shoplens.cli.command import KINDS
from shoplens.cli.completion import SCRIPTS
from shoplens.cli.groups import first_sentence
from shoplens.db import Database
from shoplens.errors import ShoplensError
from tests.samples import id_at, make_run, moment

HERE = Path(sys.executable).parent
NEED_NOTHING = {
    "shoplens completion bash > ~/.local/share/bash-completion/completions/shoplens",
    "shoplens models list",
    "shoplens runs list",
    "shoplens labels list",
    "shoplens keys list",
    "shoplens users list",
    "shoplens webhooks list",
    "shoplens batch status --channel returns",
    "shoplens catalogue status",
    "shoplens monitoring show --range 7d",
    "shoplens moderation policy history --limit 5",
    "shoplens registry list",
    "shoplens retrain status returns",
    "shoplens db upgrade",
}
"""Examples that succeed in an empty data directory."""


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield (*words, name), command
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


ROOT: Any = get_command(app)
ALL = list(commands(ROOT))
GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "use-the-command-line.md"
EXAMPLES = [
    (words, line)
    for words, command in ALL
    for line in (getattr(command, "epilog", None) or "").splitlines()
]  # fmt: skip


def words_of(line: str) -> list[str]:
    """The arguments of `shoplens` in an example."""
    words = shlex.split(line.rpartition("| ")[2])
    assert "shoplens" == words[0], line
    return words[1 : words.index(">") if ">" in words else None]


def test_h_is_help_everywhere_within_eighty_columns_and_nothing_is_cut() -> None:
    """Of the program, of every group and of every command."""
    for words in [(), *(words for words, _ in ALL)]:
        done = CliRunner().invoke(app, [*words, "-h"], env={"COLUMNS": "80"})
        wide = [line for line in done.output.splitlines() if len(line) > 80]
        cut = re.findall(r"[a-z]\.\.\.$|…", done.output, re.MULTILINE)
        assert (words, 0, [], []) == (words, done.exit_code, wide, cut)


def test_the_help_has_a_heading_for_each_kind_of_work() -> None:
    """And each command once, with the sentence that the command itself has."""
    said = CliRunner().invoke(app, ["--help"]).output
    heads = ("Serve:", "Daily work:", "Models and training:", "Watch:", "Administration:")
    assert list(heads) == [line for line in said.splitlines() if line in heads]
    assert "More:" not in said
    names = [words[0] for words, _ in ALL if len(words) == 1]
    assert sorted(set(names)) == sorted(names)
    for each in ROOT.later:
        if each.group:
            assert each.sentence == first_sentence(ROOT.get_command(None, each.name).help), each.name


def test_every_command_has_one_to_three_examples() -> None:
    """Groups have none of their own."""
    for words, command in ALL:
        count = sum(1 for of, _ in EXAMPLES if of == words)
        assert (count == 0) if hasattr(command, "list_commands") else (1 <= count <= 3), words


@pytest.mark.parametrize(("words", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_is_a_command_line_of_its_command(
    words: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed with all its options and values."""
    monkeypatch.chdir(tmp_path)
    for name in ("tree.csv", "moved.csv"):  # files that have to exist
        (tmp_path / name).touch()
    arguments = words_of(line)
    context = ROOT.make_context("shoplens", list(arguments))
    while hasattr(context.command, "list_commands"):
        with context:
            rest = [*context._protected_args, *context.args]
            name, command, rest = context.command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    found = context.command_path.split()[1:]
    assert list(words) == [word for word in found if word in arguments or word == "run"], line


def test_examples_that_need_nothing_succeed(tmp_path: Path, models_dir: Path) -> None:
    """In an empty data directory."""
    environment = {"SHOPLENS_DATA_DIR": str(tmp_path / "data"), "SHOPLENS_MODELS_DIR": str(models_dir)}
    known = {line for _, line in EXAMPLES}
    assert known >= NEED_NOTHING
    for line in sorted(NEED_NOTHING):
        done = CliRunner().invoke(app, words_of(line), env=environment)
        assert 0 == done.exit_code, (line, done.output)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("batc",), "error: There is no command 'batc' (did you mean 'batch'?)."),
        (("batch", "rum"), "error: There is no command 'rum' (did you mean 'run'?)."),
        (("batch", "run", "--chanel", "x"), "has no option '--chanel' (did you mean '--channel'?)."),
        (("doctor", "--config", "x"), "hint: It stands before the command: `shoplens --config …`."),
        (("--json", "serve"), "error: `shoplens serve` prints no JSON; leave out --json."),
        (("models", "show"), "error: Missing argument"),
    ],
)
def test_a_wrong_command_line_is_explained_in_one_form(arguments: tuple[str, ...], sentence: str) -> None:
    """With status 2, on standard error."""
    done = CliRunner().invoke(app, arguments)
    assert (2, "", True) == (done.exit_code, done.stdout, sentence in done.stderr), done.stderr


def test_options_before_the_command_are_as_good_as_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory, JSON, and the file of settings."""
    monkeypatch.delenv("SHOPLENS_SHARED_DATA", raising=False)  # of these tests, and no setting
    (tmp_path / "shop.toml").write_text('[channels.hats]\nmodel = "clothing"\n[channels.hats.batch]\n')
    before = CliRunner().invoke(app, ["--data-dir", str(tmp_path / "a"), "--json", "runs", "list"])
    after = CliRunner().invoke(app, ["runs", "list", "--data-dir", str(tmp_path / "a"), "--json"])
    assert ("[]\n", "[]\n") == (before.stdout, after.stdout)
    assert (tmp_path / "a").is_dir()
    options = ["--data-dir", str(tmp_path / "a"), "--config", str(tmp_path / "shop.toml")]
    try:
        listed = CliRunner().invoke(app, [*options, "runs", "list", "--channel", "hats"])
    finally:
        os.environ.pop("SHOPLENS_CONFIG", None)
    assert 0 == listed.exit_code, listed.stderr
    quiet = CliRunner().invoke(app, ["--data-dir", str(tmp_path / "a"), "--quiet", "runs", "list"])
    assert ("", "") == (quiet.stdout, quiet.stderr)
    for option, level in (("--verbose", logging.INFO), ("--quiet", logging.WARNING)):
        CliRunner().invoke(app, ["--data-dir", str(tmp_path / "a"), option, "runs", "list"])
        assert level == logging.getLogger().level


def test_every_kind_of_error_has_a_status_of_its_own() -> None:
    """From 2 to 8, and no class is in two kinds."""
    classes = [kind for _, _, kinds in KINDS for kind in kinds]
    assert [2, 3, 4, 5, 6, 7, 8] == [status for status, _, _ in KINDS]
    assert len(classes) == len(set(classes))
    assert all(issubclass(kind, ShoplensError) for kind in classes)


def test_bash_completes_commands_options_channels_and_models(tmp_path: Path, models_dir: Path) -> None:
    """With the script that is printed, in a real shell."""
    script = tmp_path / "shoplens.bash"
    script.write_text(SCRIPTS["bash"])
    lines = (("ba",), ("runs", "w"), ("batch", "run", "--engine", "w"), ("classify", "--channel", "=", "ret"),
             ("classify", "--model", "opennsfw@"))  # fmt: skip
    tries = "".join(
        f"COMP_WORDS=(shoplens {' '.join(words)}); COMP_CWORD={len(words)}; _shoplens {HERE}/shoplens; "
        'echo "${COMPREPLY[*]}"\n'
        for words in lines
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    done = subprocess.run(
        ["bash", "--norc", "-c", f"source {script}\ncomplete -p shoplens\n{tries}"],
        env=environment | {"SHOPLENS_MODELS_DIR": str(models_dir)}, cwd=tmp_path,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded, *answers = done.stdout.splitlines()
    assert "complete -o default -F _shoplens shoplens" == loaded
    assert ["batch backup", "watch", "workers", "returns"] == [*map(sorted_words, answers[:4])]
    assert answers[4].startswith("opennsfw@")


def test_the_shell_completes_the_newest_runs(tmp_path: Path, database: Database, database_url: str) -> None:
    """Of photos alone where a command is for these; without a database there are none, and nothing is said."""

    def completed(*words: str, url: str = database_url) -> list[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
        done = subprocess.run(
            [HERE / "shoplens", *words],
            env=environment | {"_SHOPLENS_COMPLETE": "bash", "SHOPLENS_DATABASE_URL": url}, cwd=tmp_path,
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert "" == done.stderr
        return done.stdout.splitlines()

    photos = [make_run(number, state=RunState.FINISHED) for number in range(21)]
    products = CatalogueRun(id=id_at(moment(60)), channel="catalogue", created_at=moment(60), requested_by="test")
    with database.transaction() as tx:
        for each in photos:
            RunRepository(tx).add(each)
        CatalogueRunRepository(tx).add(products)
    found = completed("runs", "show", "")
    assert 20 == len(found)
    assert [f"{products.id}\tcatalogue, 2026-05-04 12:01 UTC", f"{photos[20].id}\treturns, 2026-05-04 12:00 UTC"] == (
        found[:2]
    )
    if not database_url.startswith("sqlite"):
        return
    last = photos[20].id
    assert [last] == [line.partition("\t")[0] for line in completed("batch", "report", last[:-1])]
    assert [] == completed("runs", "cancel", "", url=f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_the_guide_names_commands_and_options_that_exist() -> None:
    """Each command line of its blocks is parsed."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "shoplens " in line and "mkdir" not in line]
    assert len(lines) >= 8
    for line in lines:
        first, _, second = line.partition(" | ")
        words = words_of(first if first.startswith("shoplens") else second)
        while words and words[0].startswith("-"):
            words = words[1:]
        command = ROOT
        while hasattr(command, "list_commands"):
            name, command, words = command.resolve_command(ROOT.context_class(command), words)
        command.make_context(name, words)


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        (("fish", "--no-config", "-c"), "source {script}; complete -C 'shoplens runs w'"),
        (("zsh", "-f", "-n"), "{script}"),
    ],
    ids=["fish", "zsh"],
)
def test_other_shells_read_their_script(tmp_path: Path, shell: tuple[str, ...], line: str) -> None:
    """Where they are installed; fish completes with it."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    script = tmp_path / "completion"
    script.write_text(SCRIPTS[shell[0]])
    environment = os.environ | {"PATH": f"{HERE}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [*shell, line.format(script=script)], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert "" == done.stderr
    assert shell[0] == "zsh" or done.stdout.startswith("watch\t")


def sorted_words(line: str) -> str:
    """In the order of the alphabet, from the end."""
    return " ".join(sorted(line.split(), reverse=True))

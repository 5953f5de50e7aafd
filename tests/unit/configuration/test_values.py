"""What `shoplens config show` and the page Settings list: settings with edited thresholds, by section, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shoplens.accounts.entities import SYSTEM
from shoplens.cli.app import app
from shoplens.configuration.view import section_of, sections_of
from shoplens.db import upgrade
from shoplens.errors import Misconfigured
from shoplens.platform.configuration import build_thresholds, chosen_values, current_values
from shoplens.platform.parts import build_channels, build_database
from shoplens.setting_sources import SettingValue, SourceKind
from shoplens.settings import Settings, read_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a new data folder, from a file."""
    for name in [name for name in os.environ if name.startswith("SHOPLENS_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "shop.toml"
    file.write_text(f'data_dir = "{tmp_path / "data"}"\ndatabase_pool = 5\n[channels.look]\naccept_at = 0.4\n')
    monkeypatch.setenv("SHOPLENS_CONFIG", str(file))
    return read_settings()


def test_a_command_shows_what_was_edited_on_the_page(settings: Settings) -> None:
    """As tab-separated lines where another program reads; who edited it and when stands as the source."""
    before = CliRunner().invoke(app, ["config", "show", "channels.returns.accept_at", "database_pool"])
    file = os.environ["SHOPLENS_CONFIG"]
    assert f"database_pool\t5\tfile: {file}\nchannels.returns.accept_at\t0.8\tdefault\n" == before.stdout
    settings.make_data_dir()
    upgrade(settings.effective_database_url)
    database = build_database(settings)
    thresholds = build_thresholds(settings, build_channels(settings), database)
    thresholds.save("returns", {"accept_at": 0.9, "labels.hat.review_at": 0.3}, based_on=0, by=SYSTEM)
    database.close()
    after = CliRunner().invoke(app, ["config", "show", "channels.returns.accept_at", "channels.returns.labels"])
    lines = [line.split("\t") for line in after.stdout.splitlines()]
    assert ["channels.returns.accept_at", "0.9"] == lines[0][:2]
    assert lines[0][2].startswith("page: Shoplens, 2")
    assert ["channels.returns.labels.hat.review_at", "0.3"] == lines[-1][:2]
    values, doubt = current_values(settings)
    assert doubt is None
    assert {SourceKind.PAGE} == {each.source.kind for each in values if each.path[-1] in ("accept_at", "review_at")
                                 and each.path[1] == "returns"}  # fmt: skip


def test_a_database_that_is_away_keeps_no_setting_from_being_shown(settings: Settings) -> None:
    """The command says that edited thresholds are missing."""
    values, doubt = current_values(settings.model_copy(update={"database_url": "postgresql://nobody@localhost:1/none"}))
    assert "Thresholds that were edited on the page Settings are not shown" in str(doubt)
    assert any(each.name == "port" for each in values)


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(settings: Settings) -> None:
    """Also of a table."""
    values, _ = current_values(settings)
    with pytest.raises(Misconfigured, match=r"did you mean 'channels\.returns'"):
        chosen_values(values, ["channels.retruns"])


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("channels.returns.accept_at", "thresholds"),
        ("channels.reviews.labels.nsfw.review_at", "thresholds"),
        ("channels.reviews.moderation.keep_refused_days", "retention"),
        ("monitoring.days", "retention"),
        ("channels.returns.batch.schedule", "schedule"),
        ("batch.time_zone", "schedule"),
        ("channels.returns.title", "channels"),
        ("port", "server"),
    ],
)
def test_each_setting_has_its_section(settings: Settings, name: str, section: str) -> None:
    """And all of them stand on the page once."""
    values, _ = current_values(settings)
    by_name: dict[str, SettingValue] = {each.name: each for each in values}
    assert section == section_of(by_name[name])
    shown = [row.name for each in sections_of(values) for group in each.groups for row in group.rows]
    assert sorted(by_name) == sorted(shown)


def test_search_finds_words_in_name_value_and_source(settings: Settings) -> None:
    """All of them must be there."""
    values, _ = current_values(settings)
    find: Callable[[str], list[str]] = lambda words: [  # noqa: E731
        row.name for each in sections_of(values, words=words) for group in each.groups for row in group.rows
    ]
    assert ["channels.look.accept_at"] == find("ACCEPT 0.4 shop.toml")
    assert [] == find("accept zzz")

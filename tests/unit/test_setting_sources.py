"""Each setting with its value and where it comes from; secrets are never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoplens.setting_sources import Source, SourceKind, setting_values
from shoplens.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside reach the tests."""
    for name in os.environ:
        if name.startswith("SHOPLENS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def shown(settings: Settings) -> dict[str, tuple[str, str]]:
    """Value and source of each setting, as texts."""
    return {each.name: (each.text, each.source.words) for each in setting_values(settings, settings.origins)}


def test_each_value_has_the_source_that_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Option, variable of the value, variable of its table, file, default: in this order."""
    file = tmp_path / "shoplens.toml"
    file.write_text('port = 9000\nqueue_limit = 7\n[channels.returns]\naccept_at = 0.7\nlabel_names = {hat = "Hut"}\n')
    monkeypatch.setenv("SHOPLENS_PORT", "9001")
    monkeypatch.setenv("SHOPLENS_CHANNELS__LOOK__KEEP", "nothing")
    monkeypatch.setenv("SHOPLENS_CHANNELS", '{"window": {"model": "mine"}, "look": {"keep": "original"}}')
    values = shown(read_settings(host="::1"))
    assert ("::1", "option") == values["host"]
    assert ("9001", "environment: SHOPLENS_PORT") == values["port"]
    assert ("nothing", "environment: SHOPLENS_CHANNELS__LOOK__KEEP") == values["channels.look.keep"]
    assert ("mine", "environment: SHOPLENS_CHANNELS") == values["channels.window.model"]
    assert ("7", f"file: {file}") == values["queue_limit"]
    assert ("0.7", f"file: {file}") == values["channels.returns.accept_at"]
    assert f"file: {file}" == values["channels.returns.label_names"][1]
    assert ("0.4", "default") == values["channels.reviews.labels.nsfw.review_at"]
    assert ("unset", "default") == values["database_url"]


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords in addresses, and what is a secret as a whole."""
    monkeypatch.setenv("SHOPLENS_REDIS_URL", "rediss://:geheim@cache:6379/0")
    monkeypatch.setenv("SHOPLENS_STORAGE_URL", "s3://photos/shop?secret_access_key=geheim")
    settings = read_settings(
        database_url="postgresql://me:geheim@db/shop",
        oidc={"issuer": "https://login.example.org", "client_id": "shop", "client_secret": "geheim"},
    )
    values = shown(settings)
    assert "postgresql://me:***@db/shop" == values["database_url"][0]
    assert "rediss://:***@cache:6379/0" == values["redis_url"][0]
    assert "***" == values["oidc.client_secret"][0]
    assert "geheim" not in str(values)
    assert "geheim" not in settings.origins.as_json()


def test_a_process_that_another_one_started_knows_the_same_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets every setting as a variable, and must not take all of them for fixed by the operator."""
    (tmp_path / "shoplens.toml").write_text("[channels.window]\nmodel = 'mine'\naccept_at = 0.7\n")
    settings = read_settings()
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    again = read_settings(port=1)
    path = ("channels", "window", "accept_at")
    by_file = Source(kind=SourceKind.FILE, where=str(tmp_path / "shoplens.toml"))
    assert by_file == settings.origins.source_of(path) == again.origins.source_of(path)
    assert SourceKind.DEFAULT is again.origins.source_of(("channels", "returns", "accept_at")).kind
    assert SourceKind.OPTION is again.origins.source_of(("port",)).kind


def test_a_table_that_was_emptied_fixes_what_it_could_hold(tmp_path: Path) -> None:
    """`labels = {}` says that there are no thresholds for labels."""
    (tmp_path / "shoplens.toml").write_text("[channels.returns]\nlabels = {}\n")
    source = read_settings().origins.source_of(("channels", "returns", "labels", "hat", "review_at"))
    assert source.is_fixed

"""Settings: from the environment and a file to frozen values."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from shoplens.errors import Misconfigured
from shoplens.platform.parts import build_channels, require_labels
from shoplens.predictions.entities import Keep
from shoplens.setting_sources import settings_in_use
from shoplens.settings import Settings, default_data_dir, read_settings, unknown_variables


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside reach the tests."""
    for name in os.environ:
        if name.startswith("SHOPLENS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_default_is_embedded_and_closed() -> None:
    """SQLite and local files below one directory, on loopback, with the three channels."""
    settings = read_settings()
    assert settings.effective_database_url.startswith("sqlite:///")
    assert settings.effective_storage_url.startswith("file://")
    assert settings.binds_loopback
    assert not settings.allow_public
    assert {"look", "returns", "reviews", "catalogue"} == set(build_channels(settings))


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the file over the defaults."""
    (tmp_path / "shoplens.toml").write_text("port = 9000\nqueue_limit = 7\n")
    monkeypatch.setenv("SHOPLENS_PORT", "9001")
    settings = read_settings()
    assert (9001, 7) == (settings.port, settings.queue_limit)


def test_one_value_of_a_default_channel_can_be_changed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other facts stay as they are."""
    monkeypatch.setenv("SHOPLENS_CHANNELS__REVIEWS__LABELS__NSFW__REJECT_AT", "0.6")
    monkeypatch.setenv("SHOPLENS_CHANNELS__LOOK__KEEP", "nothing")
    channels = build_channels(read_settings())
    (rule,) = channels["reviews"].policy.rules
    assert (0.4, 0.6) == (rule.review_at, rule.reject_at)
    assert Keep.NOTHING is channels["look"].keep
    assert "efficientnet-lite0-int8" == channels["look"].model


@pytest.mark.parametrize("place", ["file", "environment", "argument"])
def test_the_thresholds_of_a_default_channel_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """For a model with other labels; everything else of the channel stays, also in a process with these settings."""
    if place == "file":
        (tmp_path / "shoplens.toml").write_text("[channels.reviews]\nlabels = {}\n")
    elif place == "environment":
        monkeypatch.setenv("SHOPLENS_CHANNELS__REVIEWS__LABELS", "{}")
    settings = read_settings(**({"channels": {"reviews": {"labels": {}}}} if place == "argument" else {}))
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    for each in (settings, read_settings()):
        assert ({}, "opennsfw") == (each.channels["reviews"].labels, each.channels["reviews"].model)
        assert 0.8 == each.channels["returns"].accept_at


def test_a_shop_can_add_a_channel_in_the_file(tmp_path: Path) -> None:
    """Beside the default ones."""
    (tmp_path / "shoplens.toml").write_text('[channels.window]\nmodel = "mine@2"\naccept_at = 0.7\n')
    channels = build_channels(read_settings())
    assert {"look", "returns", "reviews", "catalogue", "window"} == set(channels)
    assert 0.7 == channels["window"].policy.accept_at


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"port": 70_000}, "port"),
        ({"max_image_pixels": 0}, "max_image_pixels"),
        ({"max_image_bytes": 1_000, "max_queued_bytes": 999}, "max_queued_bytes"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"channels": {"look": {"model": "m", "typo": 1}}}, "channels.look.typo"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(overrides: dict[str, object], sentence: str) -> None:
    """One sentence for the person who has to correct it."""
    with pytest.raises(Misconfigured, match=sentence):
        read_settings(**overrides)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """Instead of being ignored."""
    (tmp_path / "shoplens.toml").write_text("port = = 1\n")
    with pytest.raises(Misconfigured, match="settings file"):
        read_settings()


def test_a_default_channel_that_does_not_exist_is_refused() -> None:
    """The sentence names those that do."""
    with pytest.raises(Misconfigured, match="look, returns, reviews"):
        build_channels(read_settings(default_channel="lok"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("shop", False)],
)
def test_loopback_is_recognised(host: str, loopback: bool) -> None:
    """A name that is not known to be local counts as public."""
    assert loopback is read_settings(host=host).binds_loopback


def test_settings_are_frozen() -> None:
    """What was read once stays."""
    settings = read_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
    assert isinstance(settings, Settings)


def test_another_process_reads_the_same_settings_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever came from arguments, from the environment and from a file, and what was left unset."""
    (tmp_path / "shoplens.toml").write_text(
        'log_level = "debug"\n[channels.window]\nmodel = "mine@2"\naccept_at = 0.7\n'
    )
    monkeypatch.setenv("SHOPLENS_CHANNELS__LOOK__KEEP", "nothing")
    monkeypatch.setenv("SHOPLENS_CHANNELS__RETURNS__BATCH__QUIET_S", "2.5")
    settings = read_settings(
        data_dir=Path("a folder/ü"), allowed_hosts=("*", "[::1]"), allow_public=True, port=0, threads=3, deadline_s=1.5
    )
    for name in [name for name in os.environ if name.startswith("SHOPLENS_")]:
        monkeypatch.delenv(name)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert settings == read_settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 9000", "prot: there is no such setting (did you mean 'port'?)."),
        ("[channels.returns.bath]", "channels.returns.bath: there is no such setting (did you mean 'batch'?)."),
        ("zzz = 1", "zzz: there is no such setting."),
    ],
)
def test_a_misspelled_name_in_the_file_is_refused_with_the_name_that_was_meant(
    tmp_path: Path, text: str, sentence: str
) -> None:
    """Where there is one."""
    (tmp_path / "shoplens.toml").write_text(text)
    with pytest.raises(Misconfigured, match=re.escape(sentence)):
        read_settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[channels.look]\nkeep_photos_days = 0", "channels.look.keep_photos_days: "),
        ("[channels.look]\nkeep_records_days = -1", "channels.look.keep_records_days: "),
        ("[channels.returns.batch]\nkeep_photos_days = -30", "channels.returns.batch.keep_photos_days: "),
        (
            "[channels.look]\nkeep_photos_days = 90\nkeep_records_days = 30",
            "channels.look: keep_photos_days is 90, but the record goes after 30 days and takes its photo along. "
            "Set keep_photos_days to at most keep_records_days, or leave it out",
        ),
        (
            '[channels.look]\nkeep = "nothing"\nkeep_photos_days = 90',
            "channels.look: keep_photos_days has no photos to delete",
        ),
        (
            "[channels.reviews.moderation]\n[channels.reviews.batch]\nkeep_photos_days = 90",
            "Set moderation.keep_refused_days, moderation.keep_held_days and moderation.keep_published_days",
        ),
    ],
)
def test_days_that_make_no_sense_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """Each with the setting and what to do."""
    (tmp_path / "shoplens.toml").write_text(text)
    with pytest.raises(Misconfigured, match=re.escape(sentence)):
        read_settings()


def test_a_settings_file_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was named on purpose."""
    monkeypatch.setenv("SHOPLENS_CONFIG", str(tmp_path / "shop.toml"))
    with pytest.raises(Misconfigured, match="there is no such file"):
        read_settings()


def test_variables_that_are_no_settings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested ones are checked when they are read; those of the deployment files are known."""
    monkeypatch.setenv("SHOPLENS_DATABSE_URL", "sqlite:///x.db")
    monkeypatch.setenv("SHOPLENS_CHANNELS__LOOK__KEEP", "nothing")
    monkeypatch.setenv("SHOPLENS_HOME", "/srv/shoplens")
    assert ["SHOPLENS_DATABSE_URL is not a setting (did you mean 'SHOPLENS_DATABASE_URL'?)"] == unknown_variables()


def test_what_the_settings_are_read_from_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file with its place, and the names of variables without their values."""
    (tmp_path / "shoplens.toml").write_text("port = 9000")
    monkeypatch.setenv("SHOPLENS_PORT", "9001")
    assert [str(tmp_path / "shoplens.toml"), "SHOPLENS_PORT"] == settings_in_use()


def test_a_threshold_for_a_label_that_the_model_has_not_is_refused() -> None:
    """It would never apply."""
    channel = build_channels(read_settings(channels={"reviews": {"labels": {"nfsw": {"reject_at": 0.8}}}}))["reviews"]
    with pytest.raises(Misconfigured, match=r"channels.reviews.labels.nfsw: .*did you mean 'nsfw'"):
        require_labels(channel, ("nsfw", "sfw"))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("shop.example", ("shop.example",)),
        ("shop.example, www.shop.example", ("shop.example", "www.shop.example")),
        ("[::1],localhost", ("[::1]", "localhost")),
        ('["shop.example", "*"]', ("shop.example", "*")),
        ("", ()),
    ],
)
def test_a_list_in_a_variable_has_commas_or_is_json(
    monkeypatch: pytest.MonkeyPatch, text: str, hosts: tuple[str, ...]
) -> None:
    """An address in brackets is no JSON."""
    monkeypatch.setenv("SHOPLENS_ALLOWED_HOSTS", text)
    assert hosts == read_settings().allowed_hosts


def test_a_list_that_is_neither_says_how_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name of the setting."""
    monkeypatch.setenv("SHOPLENS_ALLOWED_HOSTS", '["shop.example"')
    with pytest.raises(Misconfigured, match="allowed_hosts: write values with commas between them"):
        read_settings()


def test_a_table_in_a_variable_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it says how to set one value of it."""
    monkeypatch.setenv("SHOPLENS_CHANNELS", "look=mine")
    with pytest.raises(Misconfigured, match=r'"channels".* SHOPLENS_CHANNELS__LOOK__KEEP'):
        read_settings()


def test_data_lies_in_the_folder_of_the_user_unless_this_folder_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the settings makes neither."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    assert tmp_path / "user" / "shoplens" == read_settings().data_dir == default_data_dir()
    assert [] == list(tmp_path.iterdir())
    (tmp_path / "shoplens-data").mkdir()
    assert tmp_path / "shoplens-data" == read_settings().data_dir.absolute()


@pytest.mark.parametrize(
    "url", ["photos.example.org", "ftp://photos.example.org", "https://", "https://me:secret@here", "https://here/?a=1"]
)
def test_a_public_address_is_one_that_people_can_open(url: str) -> None:
    """It stands in reports, so it is checked at the start, and holds no password."""
    with pytest.raises(Misconfigured, match="public_url"):
        read_settings(public_url=url)
    assert "https://photos.example.org/shop" == read_settings(public_url="https://photos.example.org/shop/").public_url

"""`shoplens registry …`: from an installed model to a champion, back again, and to another machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.acceptance.test_models_cli import shoplens
from tests.commands import status_said
from tests.registry_bundles import bundle_maker


def ok(folder: Path, *arguments: str) -> str:
    """What a command that must succeed prints."""
    done = shoplens(folder, *arguments)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def refused(folder: Path, *arguments: str) -> str:
    """The sentence of a command that must not."""
    done = shoplens(folder, *arguments)
    assert status_said(done.stderr) == done.returncode, done.stdout
    return done.stderr


def test_a_model_is_published_promoted_rolled_back_and_carried_away(tmp_path: Path) -> None:
    """Every command of the group once, in the order of a life."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    make = bundle_maker(tmp_path / "made", "fruit")
    assert "Nothing is published" in shoplens(here, "registry", "list").stderr
    for version in ("1.0", "2.0"):
        said = ok(here, "registry", "publish", str(make(version).root), "--why", f"trained {version}")
        assert f"fruit@{version} is published" in said
    assert "no champion" in refused(here, "models", "show", "fruit")
    assert "The newest versions of fruit are: 1.0, 2.0." in refused(
        here, "registry", "promote", "fruit@7", "--why", "?"
    )
    assert "(did you mean 'fruit'?)" in refused(here, "registry", "promote", "friut@1.0", "--why", "?")
    assert "Name the version" in refused(here, "registry", "promote", "fruit", "--why", "?")
    ok(here, "registry", "promote", "fruit@1.0", "--why", "the first")
    ok(here, "registry", "promote", "fruit@2.0", "--challenger", "--why", "to compare")
    said = ok(here, "registry", "promote", "fruit@2.0", "--why", "better", "--figure", "F1=0.97")
    assert "fruit@2.0 is the champion now, after 1.0." in said
    assert "is not name=number" in refused(here, "registry", "promote", "fruit@1.0", "--why", "?", "--figure", "F1")
    promoted = json.loads(ok(here, "registry", "history", "fruit", "--json"))
    (day,) = {entry["at"][:10] for entry in promoted if (entry["alias"], entry["after"]) == ("champion", "2.0")}
    assert re.search(rf"fruit@2\.0 at \S+ \S+ UTC, since {day}", ok(here, "registry", "live", "fruit"))
    assert "had no champion at 2020-03-03 23:59 UTC" in ok(here, "registry", "live", "fruit", "--at", "2020-03-03")
    assert f"fruit@2.0 at {day} 23:59 UTC" in ok(here, "registry", "live", "fruit", "--at", day)
    assert "is no day or moment" in refused(here, "registry", "live", "fruit", "--at", "yesterday")
    assert "fruit@1.0 is the champion now" in ok(here, "registry", "rollback", "fruit", "--why", "complaints [/b] [x]")
    history = json.loads(ok(here, "registry", "history", "fruit", "--json"))
    moves = [(entry["before"], entry["after"]) for entry in history if entry["alias"] == "champion"]
    assert [(None, "1.0"), ("1.0", "2.0"), ("2.0", "1.0")] == moves
    assert {"F1": 0.97} in [entry["figures"] for entry in history]
    pinned = ok(here, "registry", "pin", "look", "fruit@2.0")
    assert '[channels.look]\nmodel = "fruit@2.0"' in pinned
    assert "There is no channel" in refused(here, "registry", "pin", "nowhere", "fruit@2.0")
    ok(here, "registry", "export", str(tmp_path / "models.tar"))
    ok(there, "registry", "import", str(tmp_path / "models.tar"), "--aliases")
    (model,) = json.loads(ok(there, "registry", "list", "fruit", "--json"))
    assert ("1.0", None) == (model["champion"], model["challenger"])
    assert "fruit has no champion any more; it was 1.0." in ok(there, "registry", "withdraw", "fruit", "--why", "old")
    assert "[/b]" in ok(here, "registry", "history", "fruit")
    assert "fruit" in ok(here, "registry", "list")
    (here / "data" / "registry").rename(tmp_path / "aside")
    (here / "data" / "registry").write_text("no folder")
    assert "(storage_unavailable)" in refused(here, "registry", "list")

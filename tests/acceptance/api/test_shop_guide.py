"""The guide for a shop's engineer works as written, with the demo shop's own calls."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image

from tests.acceptance.api.guides import HOW_TO, run_guide
from tests.acceptance.moderation_load import blurred, clear
from tests.conftest import RunningServer

GUIDE = (HOW_TO / "add-photos-to-your-shop.md").read_text(encoding="utf-8")
SHOP = (HOW_TO.parents[1] / "examples" / "shop" / "shop.py").read_text(encoding="utf-8")


def test_the_guide_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """A photo is sent, shown and reported; the doubtful one waits."""
    (tmp_path / "photo.jpg").write_bytes(clear(90_001))
    (tmp_path / "doubtful.jpg").write_bytes(blurred(90_002))
    printed = run_guide("add-photos-to-your-shop.md", server, tmp_path)
    sent = json.loads((tmp_path / "sent.json").read_text())["photos"]
    assert ["published", "held"] == [each["state"] for each in sent]
    assert {"id", "state", "sentence"} <= sent[0].keys()
    with Image.open(tmp_path / "shown.webp") as shown:
        assert ("WEBP", 640) == (shown.format, shown.width)
    assert f'"photo_id":"{sent[0]["id"]}"' in printed


def test_what_the_guide_names_of_the_demo_shop_is_there() -> None:
    """Functions, and the options of the command."""
    for name in re.findall(r"`(?:Shop|Shoplens)\.(\w+)`|`(is_signed)`", GUIDE):
        assert re.search(rf"def {name[0] or name[1]}\(", SHOP), name
    for option in ("--secret", "--key"):
        assert f'"{option}"' in SHOP
        assert option in GUIDE

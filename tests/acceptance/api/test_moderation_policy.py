"""Policies over HTTP: read, tried, applied, rolled back, refused; and the commands of the guide."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shoplens.moderation.entities import PhotoState, Signal
from shoplens.platform.server import Platform
from tests.conftest import RunningServer, running_server
from tests.unit.moderation.photos import ANNA, photo_of, stored

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "set-a-moderation-policy.md"
STRICTER = "[signals.nsfw]\nreview_at = 0.1\nreject_at = 0.85\n"
ADDRESS = "/moderation/policy"


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server whose policy nobody else uses."""
    with running_server(tmp_path_factory.mktemp("policy"), models_dir) as started:
        yield started


async def put(client: httpx.AsyncClient, source: str, *, based_on: int, note: str = "why") -> httpx.Response:
    """Save a policy."""
    return await client.put(ADDRESS, json={"source": source, "based_on": based_on, "note": note})


async def test_a_policy_is_read_applied_and_rolled_back(client: httpx.AsyncClient) -> None:
    """Version 0 is that of the settings; each change is a version with its reason."""
    zero = (await client.get(ADDRESS)).json()
    assert (0, "settings", "reviews") == (zero["version"], zero["created_by"], zero["channel"])
    assert "[signals.nsfw]\nreview_at = 0.4\nreject_at = 0.85\n" in zero["source"]
    assert "nsfw" in zero["signals"]
    saved = (await put(client, STRICTER, based_on=0, note="too many slipped through")).json()
    assert (1, "too many slipped through") == (saved["version"], saved["note"])
    assert saved == (await client.get(ADDRESS)).json()
    assert {"blur", "dark", "text"} <= set(saved["dropped"])
    assert "nsfw" not in saved["dropped"]
    back = await client.post(f"{ADDRESS}/rollback", json={"version": 0, "note": "no"})
    assert (200, zero["digest"]) == (back.status_code, back.json()["digest"])
    assert [] == back.json()["dropped"] == zero["dropped"]
    versions = (await client.get(f"{ADDRESS}/versions", params={"channel": "reviews"})).json()
    assert [2, 1, 0] == [each["version"] for each in versions]
    assert {"place": "signals.nsfw.review_at", "before": "0.4", "after": "0.1"} in versions[1]["changes"]


async def test_the_page_names_signals_that_a_policy_leaves_out(client: httpx.AsyncClient) -> None:
    """When it is tried, and once more when it was saved."""
    place = "/console/moderation/policy"
    form = {"channel": "reviews", "as": "toml", "source": STRICTER, "based_on": "0", "photos": "200", "note": "why"}
    tried = await client.post(f"{place}/try", data=form)
    saved = await client.post(place, data=form, follow_redirects=True)
    for page in (tried, saved):
        (warning,) = re.findall(r"<p data-dropped>(.*?)</p>", page.text)
        assert "<code>blur</code>" in warning
    assert "data-dropped" not in (await client.get(place)).text


async def test_an_intake_is_judged_by_the_policy_that_was_saved(platform: Platform, client: httpx.AsyncClient) -> None:
    """From the next photo on in this process."""
    before = platform.moderation.policy_of("reviews")
    saved = await put(client, STRICTER, based_on=0)
    assert saved.json()["digest"] == platform.moderation.policy_of("reviews").version != before.version


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        ({"source": "[signals.nswf]"}, 422, "policy_invalid", "did you mean 'nsfw'"),
        ({"source": "[signals.nsfw]\nreview_at = 0.9\nreject_at = 0.1"}, 422, "policy_invalid", "the bands overlap"),
        ({"source": "#" * 64_100}, 422, "policy_invalid", "at most 64"),
        ({"source": "#" * 70_000}, 413, "body_too_large", "exceeds the limit"),
        ({"note": " "}, 422, "request_invalid", "Say in a note why"),
        ({"based_on": 7}, 409, "policy_changed", "its newest version is 0"),
        ({"channel": "look"}, 422, "request_invalid", "has no moderation side"),
        ({"channel": "nope"}, 422, "request_invalid", "Channels with one: reviews"),
        ({"other": 1}, 422, "request_invalid", "other"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_nothing_changes(
    busy_client: httpx.AsyncClient, body: dict[str, Any], status: int, code: str, sentence: str
) -> None:
    """With a code and a sentence that says what and where."""
    good = {"source": STRICTER, "based_on": 0, "note": "why"}
    answer = await busy_client.put(ADDRESS, json={**good, **body})
    assert (status, code) == (answer.status_code, answer.json()["code"])
    assert sentence in answer.json()["detail"]
    assert 0 == (await busy_client.get(ADDRESS)).json()["version"]


async def test_a_version_that_does_not_exist_is_not_found(busy_client: httpx.AsyncClient) -> None:
    """The sentence names it."""
    answer = await busy_client.post(f"{ADDRESS}/rollback", json={"version": 9, "note": "why"})
    assert (404, "policy_version_not_found") == (answer.status_code, answer.json()["code"])
    answer = await busy_client.post(f"{ADDRESS}/rollback", json={"version": 10**30, "note": "why"})
    assert 422 == answer.status_code


async def test_a_dry_run_shows_what_would_move(platform: Platform, client: httpx.AsyncClient) -> None:
    """The stored scores of the newest photos, beside what people decided; nothing changes."""
    scores = [0.05, 0.15, 0.5, 0.95]
    stored(
        platform.database,
        *(
            photo_of(
                number,
                state=PhotoState.REFUSED if number == 1 else PhotoState.HELD,
                decided_by=ANNA.id if number == 1 else "policy",
                signals=(Signal(name="nsfw", score=score, version="opennsfw@1"),),
            )
            for number, score in enumerate(scores)
        ),
    )
    before = "[signals.nsfw]\nreview_at = 0.2\nreject_at = 0.9"
    assert 200 == (await put(client, before, based_on=0)).status_code
    answer = await client.post(f"{ADDRESS}/dry-run", json={"source": STRICTER, "photos": 100})
    result = answer.json()
    assert (4, {"published": 2, "held": 1, "refused": 1}) == (result["examined"], result["before"])
    assert {"published": 1, "held": 2, "refused": 1} == result["after"]
    (move,) = result["moves"]
    assert ("published", "held", 1) == (move["before"], move["after"], move["count"])
    assert ("refused", "The score of nsfw is 0.15; photos are held from 0.1.") == (
        move["examples"][0]["decided"],
        move["examples"][0]["after"],
    )
    assert (1, 0) == tuple(result[f"agreement_{when}"]["shown_wrongly"] for when in ("before", "after"))
    assert 1 == (await client.get(ADDRESS)).json()["version"]
    too_many = await client.post(f"{ADDRESS}/dry-run", json={"photos": 10_001})
    assert 422 == too_many.status_code


def test_the_guide_works_as_written(own_server: RunningServer, models_dir: Path, tmp_path: Path) -> None:
    """Its commands and its calls, in order, against a server; and its example is a policy."""
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    over_http = "\n".join(blocks[-1].splitlines()).replace("http://127.0.0.1:8000", own_server.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", over_http], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    assert 2 == httpx.get(own_server.url + ADDRESS).json()["version"]
    as_file = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks[0]],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SHOPLENS_DATA_DIR": str(own_server.data_dir),
            "SHOPLENS_MODELS_DIR": str(models_dir),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == as_file.returncode, as_file.stderr
    for words in ("No photo would change its state.", "It is as it was.", "Look at more of them", "of version 0."):
        assert words in as_file.stdout
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    saved = httpx.put(own_server.url + ADDRESS, json={"source": example, "based_on": 2, "note": "the example"})
    assert 200 == saved.status_code, saved.text
    assert "second_opinion_share = 0.05" in saved.json()["source"]

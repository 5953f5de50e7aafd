"""The queue over HTTP: the commands of the guide, who may what, conflicts, pictures, and a kill between decisions."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from shoplens.web.browser import COOKIE
from tests.acceptance.api.guides import run_guide
from tests.acceptance.moderation_shop import decisions_on, moderating_server, send_photos, states_of
from tests.conftest import RunningServer


@pytest.fixture(scope="module")
def moderating(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server whose reviews are all held."""
    root = tmp_path_factory.mktemp("moderating")
    with moderating_server(root, models_dir, "reviews", hide_after_reports=2) as started:
        yield started


def browser(server: RunningServer, number: int) -> httpx.Client:
    """A client that the server tells from others."""
    return httpx.Client(base_url=server.url, cookies={COOKIE: f"{number:032x}"}, trust_env=False, timeout=60)


def test_the_guide_works_as_written(moderating: RunningServer, tmp_path: Path) -> None:
    """Claim, look, decide, undo, skip, escalate, report."""
    send_photos(moderating.url, "reviews", 3)
    printed = run_guide("moderate-photos.md", moderating, tmp_path)
    decided, undone = (json.loads((tmp_path / f"{name}.json").read_text())["photo"] for name in ("decided", "undone"))
    assert (decided["state"], decided["reason"]) == ("refused", "nudity")
    assert (undone["state"], undone["reason"], undone["queue"]) == ("held", None, "held")
    assert json.loads((tmp_path / "escalated.json").read_text())["photo"]["queue"] == "escalated"
    assert decided["id"] in printed
    assert '"view":"grey"' in printed


def test_the_second_person_gets_409_with_who_and_when(moderating: RunningServer) -> None:
    """And a photo that somebody looks at cannot be decided by others."""
    send_photos(moderating.url, "reviews", 1, first=50)
    with browser(moderating, 1) as first, browser(moderating, 2) as second:
        (photo,) = first.post("/moderation/claims", json={"count": 1}).json()["photos"]
        address, body = f"/moderation/photos/{photo['id']}/decision", {"decision": "accept", "seen": photo["revision"]}
        claimed = second.post(address, json=body)
        assert (claimed.status_code, claimed.json()["code"]) == (409, "photo_claimed")
        assert first.post(address, json=body).status_code == 200
        late = second.post(address, json=body)
        assert (late.status_code, late.json()["code"]) == (409, "photo_changed")
        assert "someone accepted this photo at 20" in late.json()["detail"]


def test_reports_hide_a_published_photo_from_the_public_at_once(moderating: RunningServer) -> None:
    """After the number that the settings say."""
    (photo,) = send_photos(moderating.url, "reviews", 1, first=60)
    with browser(moderating, 3) as client:
        client.post(f"/moderation/photos/{photo}/decision", json={"decision": "accept"})
        assert client.get(f"/media/{photo}").status_code == 200
        assert client.post(f"/moderation/photos/{photo}/report", json={}).status_code == 202
        assert client.get(f"/media/{photo}").status_code == 200
        assert client.post(f"/moderation/photos/{photo}/report", json={"reason": "rude"}).status_code == 202
        assert client.get(f"/media/{photo}").status_code == 404
        assert client.post(f"/moderation/photos/{photo}/report", json={}).status_code == 404
        (first, *_) = client.get("/moderation/queue").json()["photos"]
        assert (first["id"], first["queue"], first["reports"]) == (photo, "reported", 2)


def test_a_selection_has_one_outcome_per_photo(moderating: RunningServer) -> None:
    """In the order in which they were sent; an unknown id does not keep the others."""
    ids = send_photos(moderating.url, "reviews", 2, first=70)
    photos = [{"id": each, "seen": 0} for each in (ids[0], "0" * 26, ids[1])]
    with browser(moderating, 4) as client:
        body = {"photos": photos, "decision": "reject", "reason": "unusable"}
        outcomes = client.post("/moderation/decisions", json=body).json()["outcomes"]
    assert [each["code"] for each in outcomes] == [None, "photo_not_found", None]
    assert states_of(moderating.url, ids) == ["refused", "refused"]


def test_moderators_see_a_held_photo_in_two_sizes_and_its_heat_map(moderating: RunningServer) -> None:
    """The heat map has the photo's shape, and opaque places."""
    (photo,) = send_photos(moderating.url, "reviews", 1, first=80)
    with browser(moderating, 5) as client:
        pictures = {
            name: client.get(f"/moderation/photos/{photo}/{address}")
            for name, address in (
                ("view", "image"), ("thumbnail", "image?size=thumbnail"), ("heat", "heatmap?signal=safe"),
            )
        }  # fmt: skip
        assert {answer.status_code for answer in pictures.values()} == {200}
        assert all("private" in answer.headers["cache-control"] for answer in pictures.values())
        opened = {name: Image.open(io.BytesIO(answer.content)) for name, answer in pictures.items()}
        assert {name: (image.size, image.mode) for name, image in opened.items()} == {
            "view": ((640, 480), "RGB"),
            "thumbnail": ((320, 240), "RGB"),
            "heat": ((640, 480), "RGBA"),
        }
        assert max(opened["heat"].getchannel("A").tobytes()) > 100
        unknown = client.get(f"/moderation/photos/{photo}/heatmap?signal=banana")
        assert (unknown.status_code, "has: safe, nsfw" in unknown.json()["detail"]) == (422, True)
        assert client.get(f"/moderation/photos/{photo}/heatmap?model=general").status_code == 422
        assert client.get(f"/moderation/photos/{'0' * 26}/image").status_code == 404


def test_no_answered_decision_is_lost_by_a_kill(tmp_path: Path, models_dir: Path) -> None:
    """Killed in the middle of decisions; then no photo is public without a decision, and none is decided twice."""
    answered: list[str] = []
    with moderating_server(tmp_path, models_dir, "reviews") as server:
        ids = send_photos(server.url, "reviews", 40)

        def decide(number: int) -> None:
            with browser(server, number) as client:
                try:
                    while photos := client.post("/moderation/claims", json={"count": 2}).json()["photos"]:
                        for each in photos:
                            body = {"decision": "accept", "seen": each["revision"]}
                            client.post(f"/moderation/photos/{each['id']}/decision", json=body).raise_for_status()
                            answered.append(each["id"])
                            if len(answered) == 12:
                                os.kill(server.process.pid, signal.SIGKILL)
                except (httpx.HTTPError, ValueError):
                    return

        threads = [threading.Thread(target=decide, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert 12 <= len(answered) < 40
    with moderating_server(tmp_path, models_dir, "reviews") as server:
        states = dict(zip(ids, states_of(server.url, ids), strict=True))
        decisions = dict(zip(ids, decisions_on(server.url, ids), strict=True))
    assert {states[each] for each in answered} == {"published"}
    assert all(decisions[each] == (["person"] if states[each] == "published" else []) for each in ids)

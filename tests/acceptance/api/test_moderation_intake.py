"""From upload to public photo over HTTP: states, idempotency, media, and the commands of the guide."""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from shoplens.cli.doctor import check_model
from shoplens.errors import EngineStopped, Misconfigured
from shoplens.moderation.decisions import NewDecision, record_decision
from shoplens.moderation.entities import DecisionKind, PhotoState
from shoplens.moderation.repository import PhotoRepository
from shoplens.moderation.tables import moderation_decisions, moderation_intakes, moderation_photos
from shoplens.platform.server import Platform
from shoplens.settings import Settings
from tests.acceptance.api.guides import run_guide
from tests.acceptance.moderation_photos import blurred, sharp
from tests.conftest import RunningServer, client_of, jpeg_of
from tests.unit.moderation.photos import ANNA, moment

ADDRESS = "/moderation/photos"


async def send(client: httpx.AsyncClient, *photos: bytes, key: str | None = None, **fields: str) -> httpx.Response:
    """Send these photos as a shop does."""
    files = [("file", (f"{at}.jpg", photo)) for at, photo in enumerate(photos)]
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(ADDRESS, files=files, data=fields, headers=headers)


async def taken(client: httpx.AsyncClient, *photos: bytes, **more: Any) -> list[dict[str, Any]]:
    """What became of each of these photos."""
    answer = await send(client, *photos, **more)
    assert 201 == answer.status_code, answer.text
    photos_out: list[dict[str, Any]] = answer.json()["photos"]
    return photos_out


def refuse(platform: Platform, photo_id: str) -> None:
    """As a moderator does."""
    with platform.database.transaction() as tx:
        photo = PhotoRepository(tx).get(photo_id, lock=True)
        new = NewDecision(
            to_state=PhotoState.REFUSED, kind=DecisionKind.PERSON, by=ANNA, now=moment(0), reason="nudity"
        )
        record_decision(tx, photo, new)


def rows(platform: Platform) -> dict[str, int]:
    """How many rows there are in each table."""
    tables = (moderation_intakes, moderation_photos, moderation_decisions)
    with platform.database.reading() as tx:
        return {table.name: tx.execute(select(func.count()).select_from(table)).scalar_one() for table in tables}


def files(platform: Platform) -> set[str]:
    """The names of all stored files of moderation."""
    return set(platform.images._store.list("moderation"))


# Taking in


async def test_photos_are_taken_in_each_with_its_own_outcome(client: httpx.AsyncClient, platform: Platform) -> None:
    """A good one is public, a blurred one waits for a person, and what is no photo is refused and not stored."""
    good, bad, held = await taken(client, sharp(1), b"<html>", blurred(2), customer="c-1", product="p-1")
    assert ("published", "Your photo is visible now.", f"/media/{good['id']}") == (
        good["state"],
        good["sentence"],
        good["media"],
    )
    assert ("held", None, None) == (held["state"], held["media"], held["reason"])
    assert (None, "refused", "image_unsupported", None) == (bad["id"], bad["state"], bad["reason"], bad["link"])
    assert {"moderation_intakes": 1, "moderation_photos": 2, "moderation_decisions": 2} == rows(platform)
    assert {f"moderation/{each['id'][-2:]}/{each['id']}/original.jpg" for each in (good, held)} == files(platform)
    stored = platform.moderation.photos.get(held["id"])
    assert "blur" in (stored.rule or "")
    names = {signal.name for signal in stored.signals}
    assert {"nsfw", "screenshot", "weapon", "pet", "blur", "dark", "text", "border", "strikes", "duplicate"} <= names


async def test_the_state_of_a_photo_can_be_asked_for_and_listed(client: httpx.AsyncClient, platform: Platform) -> None:
    """By id, product, customer and state, newest first, with a cursor."""
    first, second = await taken(client, sharp(1), sharp(2), product="p-1", customer="c-1", review="r-1")
    await taken(client, blurred(3), product="p-1", customer="c-2")
    one = (await client.get(first["link"])).json()
    assert {"customer": "c-1", "product": "p-1", "order": None, "review": "r-1"} == one["references"]
    page = (await client.get(ADDRESS, params={"product": "p-1", "state": "published", "limit": 1})).json()
    rest = (await client.get(ADDRESS, params={"product": "p-1", "state": "published", "before": page["older"]})).json()
    assert {first["id"], second["id"]} == {each["id"] for each in page["items"] + rest["items"]}
    assert None is rest["older"]
    assert ["held"] == [
        each["state"] for each in (await client.get(ADDRESS, params={"customer": "c-2"})).json()["items"]
    ]
    refuse(platform, first["id"])
    refused = (await client.get(first["link"])).json()
    assert ("refused", "nudity", None) == (refused["state"], refused["reason"], refused["media"])
    assert "Your photo cannot be shown. The photo shows nudity or is sexual." == refused["sentence"]
    unknown = await client.get(f"{ADDRESS}/{'0' * 26}")
    assert (404, "photo_not_found") == (unknown.status_code, unknown.json()["code"])


@pytest.mark.parametrize(
    ("photos", "fields", "key", "status", "code"),
    [
        (0, {}, None, 422, "image_missing"),
        (11, {}, None, 422, "request_invalid"),
        (1, {"custmer": "c"}, None, 422, "request_invalid"),
        (1, {"customer": "c" * 201}, None, 422, "request_invalid"),
        (1, {"customer": "c\x00"}, None, 422, "request_invalid"),
        (1, {"channel": "returns"}, None, 422, "request_invalid"),
        (1, {}, "k" * 256, 422, "request_invalid"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    busy_client: httpx.AsyncClient, photos: int, fields: dict[str, str], key: str | None, status: int, code: str
) -> None:
    """With a sentence and a code, before anything is looked at."""
    answer = await send(busy_client, *[b"x"] * photos, key=key, **fields)
    assert (status, code) == (answer.status_code, answer.json()["code"])


async def test_a_copy_of_a_refused_photo_is_refused(client: httpx.AsyncClient, platform: Platform) -> None:
    """Encoded again and mirrored, from another customer too."""
    (first,) = await taken(client, sharp(5), customer="c-1")
    refuse(platform, first["id"])
    picture = Image.open(io.BytesIO(sharp(5))).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((500, 375))
    (copy,) = await taken(client, jpeg_of(np.asarray(picture), quality=60), customer="c-2")
    assert "refused" == copy["state"]
    stored = platform.moderation.photos.get(copy["id"])
    assert first["id"] in next(each.detail or "" for each in stored.signals if each.name == "near_refused")


async def test_a_photo_that_a_customer_sends_twice_is_noticed(client: httpx.AsyncClient, platform: Platform) -> None:
    """As a signal with its distance; other customers do not count."""
    (first,) = await taken(client, sharp(6), customer="c-1")
    again, other = [(await taken(client, sharp(6), customer=name))[0]["id"] for name in ("c-1", "c-2")]
    found = {}
    for photo_id in (again, other):
        signals = platform.moderation.photos.get(photo_id).signals
        found[photo_id] = next(each for each in signals if each.name == "duplicate")
    assert (1.0, f"distance 0 to photo {first['id']}") == (found[again].score, found[again].detail)
    assert 0.0 == found[other].score


@pytest.mark.parametrize("groups", [{"vehicle": ["sports car", "spots car"]}, {"blur": ["alp"]}])
async def test_a_group_with_an_unknown_label_is_refused_at_the_start(
    make_platform: Callable[..., Platform], groups: dict[str, list[str]]
) -> None:
    """And one with the name of another signal."""
    with pytest.raises(Misconfigured, match=r"channels\.reviews\.moderation\.groups"):
        make_platform(channels={"reviews": {"moderation": {"groups": groups}}})


def test_doctor_checks_both_models_and_the_groups(make_settings: Callable[..., Settings]) -> None:
    """Before the server is started."""
    assert "for moderation also efficientnet-lite0-int8@" in check_model(make_settings(), "reviews")
    wrong = make_settings(channels={"reviews": {"moderation": {"groups": {"vehicle": ["spots car"]}}}})
    with pytest.raises(Misconfigured, match=r"groups\.vehicle"):
        check_model(wrong, "reviews")


# The engine fails


async def test_without_scores_a_photo_is_held(client: httpx.AsyncClient, platform: Platform) -> None:
    """Never lost, never shown; what cannot be decoded is refused all the same."""
    await platform.engine.close()
    held, bad = await taken(client, sharp(1), b"<html>")
    assert ("held", "refused") == (held["state"], bad["state"])
    stored = platform.moderation.photos.get(held["id"])
    assert EngineStopped.code in (stored.rule or "")
    assert "blur" in {each.name for each in stored.signals}
    assert 404 == (await client.get(f"/media/{held['id']}")).status_code


async def test_a_late_engine_holds_the_photo(make_platform: Callable[..., Platform]) -> None:
    """After half of the deadline."""
    platform = make_platform(deadline_s=0.002)
    async with client_of(platform) as client:
        (photo,) = await taken(client, sharp(1))
    assert "held" == photo["state"]
    assert re.search("deadline_exceeded|not_started", platform.moderation.photos.get(photo["id"]).rule or "")


async def test_without_a_store_nothing_is_taken_in(
    client: httpx.AsyncClient, platform: Platform, tmp_path: Path
) -> None:
    """503, no row and no decision; the same request works once the store does."""
    in_the_way = tmp_path / "data" / "blobs" / "moderation"
    in_the_way.write_bytes(b"a file where the folder should be")
    answer = await send(client, sharp(1), key="k-1")
    assert (503, True) == (answer.status_code, answer.json()["code"].startswith("storage_"))
    assert {0} == set(rows(platform).values())
    in_the_way.unlink()
    assert 201 == (await send(client, sharp(1), key="k-1")).status_code


# Sent again


async def test_a_request_that_is_sent_again_is_taken_in_once(client: httpx.AsyncClient, platform: Platform) -> None:
    """Also at the same time. The answer is the same, for what was no photo too."""
    answers = await asyncio.gather(*(send(client, sharp(1), b"<html>", key="k-1", customer="c-1") for _ in range(8)))
    assert [201] * 8 == [each.status_code for each in answers]
    assert 1 == len({each.text for each in answers})
    assert 7 == sum(each.headers.get("idempotent-replayed") == "true" for each in answers)
    assert {"moderation_intakes": 1, "moderation_photos": 1, "moderation_decisions": 1} == rows(platform)
    assert 1 == len(files(platform))


async def test_a_key_is_for_one_request(client: httpx.AsyncClient, platform: Platform) -> None:
    """Other photos or references with it are refused, and leave nothing."""
    await taken(client, sharp(1), key="k-1", customer="c-1")
    for photos, customer in (((sharp(2),), "c-1"), ((sharp(1),), "c-2"), ((sharp(1), sharp(1)), "c-1")):
        answer = await send(client, *photos, key="k-1", customer=customer)
        assert (409, "idempotency_key_reused") == (answer.status_code, answer.json()["code"])
    assert 1 == len(files(platform))
    (other,) = await taken(client, sharp(1), key="k-2", customer="c-1")
    assert "published" == other["state"]


async def test_the_answer_survives_a_restart(make_platform: Callable[..., Platform]) -> None:
    """The key is in the database."""
    async with client_of(make_platform()) as client:
        before = await send(client, sharp(1), key="k-1")
    async with client_of(make_platform()) as client:
        after = await send(client, sharp(1), key="k-1")
    assert (before.text, "true") == (after.text, after.headers["idempotent-replayed"])


async def test_of_two_processes_with_one_key_one_takes_the_photo_in(make_platform: Callable[..., Platform]) -> None:
    """The other one gives the same answer and leaves no files."""
    one, other = make_platform(), make_platform()
    async with client_of(one) as first, client_of(other) as second:
        answers = await asyncio.gather(*(send(each, sharp(1), key="k-1") for each in (first, second)))
    assert 1 == len({each.text for each in answers}), [each.text for each in answers]
    assert 1 == rows(one)["moderation_photos"] == len(files(one))


async def test_two_hundred_intakes_at_once_are_all_stored(make_platform: Callable[..., Platform]) -> None:
    """Each with its photo, its decision and its file; more than the engine's queue holds wait for their turn."""
    platform = make_platform(queue_limit=64, deadline_s=120)
    async with client_of(platform) as client:
        photos = [sharp(seed, width=320, height=240) for seed in range(20)]
        answers = await asyncio.gather(
            *(taken(client, photos[at % 20], customer=f"c-{at}", key=f"k-{at}") for at in range(200))
        )
    ids = {photo["id"] for (photo,) in answers}
    assert {"published"} == {photo["state"] for (photo,) in answers}
    assert 200 == len(ids)
    assert {"moderation_intakes": 200, "moderation_photos": 200, "moderation_decisions": 200} == rows(platform)
    assert 200 == len(files(platform))


# Media


async def test_media_are_copies_without_metadata_in_four_widths(client: httpx.AsyncClient) -> None:
    """JPEG, or WebP where it is accepted; upright, and never larger than the photo."""
    exif = Image.Exif()
    exif[0x010F] = "Secret camera"
    exif[0x0112] = 6
    picture = np.asarray(Image.open(io.BytesIO(sharp(3, width=1000, height=600))))
    (photo,) = await taken(client, jpeg_of(picture, exif=exif.tobytes()))
    for width, size in ((160, (160, 267)), (640, (600, 1000))):
        for accept, kind in (("image/avif,image/webp,*/*", "WEBP"), ("image/webp;q=0, */*", "JPEG"), ("*/*", "JPEG")):
            answer = await client.get(photo["media"], params={"w": width}, headers={"Accept": accept})
            shown = Image.open(io.BytesIO(answer.content))
            assert (kind, size) == (shown.format, shown.size)
            assert f"image/{kind.lower()}" == answer.headers["content-type"]
            assert b"Secret camera" not in answer.content
            assert {} == dict(shown.getexif())
            assert ("public, max-age=60", "Accept") == (answer.headers["cache-control"], answer.headers["vary"])
            assert "cross-origin" == answer.headers["cross-origin-resource-policy"]
    assert 422 == (await client.get(photo["media"], params={"w": 641})).status_code


async def test_a_browser_that_has_the_photo_gets_only_a_header(client: httpx.AsyncClient) -> None:
    """Each width and format has its own name."""
    (photo,) = await taken(client, sharp(3))
    tags = set()
    for width in (160, 320):
        for accept in ("image/webp", "image/jpeg"):
            answer = await client.get(photo["media"], params={"w": width}, headers={"Accept": accept})
            tags.add(tag := answer.headers["etag"])
            headers = {"Accept": accept, "If-None-Match": tag}
            again = await client.get(photo["media"], params={"w": width}, headers=headers)
            assert (304, b"", tag) == (again.status_code, again.content, again.headers["etag"])
    assert 4 == len(tags)


async def test_what_is_not_published_cannot_be_told_from_what_is_not_there(
    client: httpx.AsyncClient, platform: Platform
) -> None:
    """Held, refused a moment ago, unknown, or no id at all: the same answer, which nobody may keep."""
    published, held = await taken(client, sharp(1), blurred(2))
    tag = (await client.get(published["media"])).headers["etag"]
    refuse(platform, published["id"])
    seen = set()
    for name in (published["id"], held["id"], "0" * 26, "nothing"):
        answer = await client.get(f"/media/{name}", headers={"If-None-Match": tag})
        assert (404, "private, no-store") == (answer.status_code, answer.headers["cache-control"])
        seen.add(re.sub(r'"request_id":"\w+"', "", answer.text))
        assert {"x-request-id"} == {name for name in answer.headers if "id" in name}
    assert 1 == len(seen), seen


async def test_a_photo_whose_file_is_gone_is_not_found(client: httpx.AsyncClient, platform: Platform) -> None:
    """As if it had never been there."""
    (photo,) = await taken(client, sharp(1))
    for key in files(platform):
        platform.images._store.delete(key)
    assert 404 == (await client.get(photo["media"])).status_code


def test_the_guide_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """With this server's address in place of the usual one."""
    (tmp_path / "photo.jpg").write_bytes(sharp(int.from_bytes(os.urandom(3))))
    printed = run_guide("moderate-reviews.md", server, tmp_path)
    assert "Your photo is visible now." in printed
    assert (tmp_path / "small.jpg").read_bytes().startswith(b"\xff\xd8")
    assert (tmp_path / "preview.jpg").read_bytes().startswith(b"\xff\xd8")
    assert b"WEBP" in (tmp_path / "small.webp").read_bytes()[:16]

"""Moderation on the big system: two web servers and a worker over one PostgreSQL, one Redis and one S3, all real."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import func, select

from servers.postgres import fresh_database
from servers.process import free_port, stop
from servers.seaweed import S3Place
from servers.shoplens import start_shoplens, wait_for
from shoplens.db import Database, open_database, upgrade
from shoplens.moderation.entities import DecisionKind
from shoplens.moderation.tables import moderation_decisions, moderation_intakes, moderation_photos
from shoplens.web.browser import COOKIE
from tests.acceptance.moderation_load import PASSING, Trap, listening, picture_fault
from tests.acceptance.moderation_photos import blurred, sharp

T = TypeVar("T")

AT_ONCE: Final = 80
PATIENCE_S: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Two web servers without models, and what they share."""

    urls: tuple[str, str]
    database: Database
    place: S3Place

    def send(
        self, at: int, photos: Sequence[bytes], *, key: str | None = None, person: int | None = None
    ) -> httpx.Response:
        """Send photos to one of the servers as a shop does, and again while it has no room."""
        files = [("file", (f"{number}.jpg", photo)) for number, photo in enumerate(photos)]
        headers = {} if key is None else {"Idempotency-Key": key}
        headers |= {} if person is None else as_person(person)
        return patient(
            lambda: httpx.post(
                f"{self.urls[at % 2]}/moderation/photos", files=files, headers=headers, timeout=60, trust_env=False
            )
        )

    def count(self, table: Any) -> int:
        """How many rows a table has."""
        with self.database.reading() as tx:
            return int(tx.scalar(select(func.count()).select_from(table)) or 0)


def as_person(number: int) -> dict[str, str]:
    """The header that distinguishes one person's browser from another's in a system without accounts."""
    return {"Cookie": f"{COOKIE}={number:032x}"}


def patient(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, asked for again as long as there is no room."""
    give_up_at = time.monotonic() + PATIENCE_S
    while (answer := ask()).status_code in PASSING and time.monotonic() < give_up_at:
        time.sleep(float(answer.headers.get("retry-after", "0.2")))
    return answer


def at_the_same_moment(*works: Callable[[], T]) -> list[T]:
    """What each of them returns; they start together."""
    barrier = threading.Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, postgres_url: str, redis_url: str, s3_server: S3Place
) -> Iterator[Cluster]:
    """Started once; the tests share its tables."""
    root, place = tmp_path_factory.mktemp("cluster"), s3_server.fresh()
    with fresh_database(postgres_url) as database_url, ExitStack() as stack:
        upgrade(database_url)
        environment = {
            "SHOPLENS_MODELS_DIR": str(models_dir),
            "SHOPLENS_DATABASE_URL": database_url,
            "SHOPLENS_REDIS_URL": redis_url,
            "SHOPLENS_REDIS_PREFIX": f"cluster-{uuid4().hex}",
            "SHOPLENS_STORAGE_URL": f"{place.url}/photos",
            "SHOPLENS_WEBHOOK_NETWORKS": "127.0.0.0/8",
            **place.environment,
        }
        ports = {"worker": free_port(), "one": free_port(), "two": free_port()}
        started = {}
        for name, port in ports.items():
            own = {"SHOPLENS_DATA_DIR": str(root / name), "SHOPLENS_WORKER_PORT": str(port)}
            command = ("worker",) if name == "worker" else ("serve", "--port", str(port))
            started[name] = start_shoplens(*command, folder=root / name, environment=environment | own)
            stack.callback(stop, started[name])
        for name, port in ports.items():
            wait_for(f"http://127.0.0.1:{port}/health/ready", started[name], root / name)
        database = open_database(database_url)
        stack.callback(database.close)
        one, two = (f"http://127.0.0.1:{ports[name]}" for name in ("one", "two"))
        yield Cluster(urls=(one, two), database=database, place=place)


def test_a_photo_goes_the_whole_way(cluster: Cluster) -> None:
    """Taken in by one server, decided at the other one, public at both, kept in the S3; the shop hears of it."""
    with listening(Trap()) as (hooks, _, events):
        httpx.post(f"{cluster.urls[0]}/webhooks", json={"url": hooks}).raise_for_status()
        taken = cluster.send(0, [sharp(1), blurred(2)]).json()["photos"]
        assert ["published", "held"] == [each["state"] for each in taken]
        held = taken[1]["id"]
        assert [404, 404] == [httpx.get(f"{url}/media/{held}").status_code for url in cluster.urls]
        claimed = httpx.post(f"{cluster.urls[1]}/moderation/claims", json={"count": 1}, headers=as_person(1))
        assert [held] == [each["id"] for each in claimed.raise_for_status().json()["photos"]]
        decided = httpx.post(
            f"{cluster.urls[1]}/moderation/photos/{held}/decision", json={"decision": "accept"}, headers=as_person(1)
        )
        assert "published" == decided.raise_for_status().json()["photo"]["state"]
        for url in cluster.urls:
            assert None is picture_fault(httpx.get(f"{url}/media/{held}?w=160", timeout=30), width=160)
        assert any(held in path for path in list_of(cluster.place))
        give_up_at = time.monotonic() + PATIENCE_S
        while len(events) < 3 and time.monotonic() < give_up_at:
            time.sleep(0.02)
        httpx.delete(f"{cluster.urls[0]}/webhooks/{httpx.get(f'{cluster.urls[0]}/webhooks').json()[0]['id']}")
    heard = Counter((each["type"], each["data"]["id"]) for each in events)
    expected = Counter([("photo.published", taken[0]["id"]), ("photo.held", held), ("photo.published", held)])
    assert expected == heard


async def test_eighty_intakes_at_once_are_all_taken_in(cluster: Cluster) -> None:
    """Over both servers; each answered photo has its row, its decision and its file, and there are no others."""
    before = {table: cluster.count(table) for table in (moderation_intakes, moderation_photos)}
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(limits=limits, timeout=PATIENCE_S, trust_env=False) as client,
        asyncio.timeout(PATIENCE_S),
    ):

        async def send(number: int) -> httpx.Response:
            files = {"file": (f"{number}.jpg", sharp(1_000 + number))}
            while True:
                answer = await client.post(f"{cluster.urls[number % 2]}/moderation/photos", files=files)
                if answer.status_code not in PASSING:
                    return answer
                await asyncio.sleep(float(answer.headers.get("retry-after", "0.2")))

        answers = await asyncio.gather(*map(send, range(AT_ONCE)))
    assert {201: AT_ONCE} == Counter(each.status_code for each in answers)
    ids = {each.json()["photos"][0]["id"] for each in answers}
    assert AT_ONCE == len(ids)
    assert {each: count + AT_ONCE for each, count in before.items()} == {each: cluster.count(each) for each in before}
    with cluster.database.reading() as tx:
        decided = list(tx.scalars(select(moderation_decisions.c.photo_id)))
    assert {1} == {Counter(decided)[each] for each in ids}
    assert ids <= {path.split("/")[-2] for path in list_of(cluster.place)}


def test_one_key_at_both_servers_at_once_is_one_intake(cluster: Cluster) -> None:
    """Both get the same answer, and there are no files of a second photo."""
    before = len(list_of(cluster.place))
    for number in range(5):
        ask = [lambda at=at, number=number: cluster.send(at, [sharp(2_000 + number)], key=f"k-{number}", person=9)
               for at in (0, 1)]  # fmt: skip
        one, two = at_the_same_moment(*ask)
        assert (201, 201) == (one.status_code, two.status_code), (one.text, two.text)
        assert one.json() == two.json()
    with cluster.database.reading() as tx:
        keys = list(tx.scalars(select(moderation_intakes.c.idempotency_key)))
    assert {f"k-{number}": 1 for number in range(5)} == {key: n for key, n in Counter(keys).items() if key is not None}
    assert before + 5 == len(list_of(cluster.place))


def test_two_people_at_two_servers_never_decide_the_same_photo(cluster: Cluster) -> None:
    """At the same moment, one accepting and one rejecting: one decision counts, the other gets 409."""
    held = [each["id"] for each in cluster.send(0, [blurred(3_000 + number) for number in range(6)]).json()["photos"]]
    choices = ({"decision": "accept"}, {"decision": "reject", "reason": "nudity"})
    for photo_id in held:
        asks = [
            lambda at=at, photo_id=photo_id: patient(
                lambda: httpx.post(
                    f"{cluster.urls[at]}/moderation/photos/{photo_id}/decision",
                    json=choices[at],
                    headers=as_person(100 + at),
                    timeout=60,
                )
            )
            for at in (0, 1)
        ]
        answers = at_the_same_moment(*asks)
        assert [200, 409] == sorted(each.status_code for each in answers), [each.text for each in answers]
        won = next(each.json()["photo"]["state"] for each in answers if each.status_code == 200)
        assert [won] * 2 == [httpx.get(f"{url}/moderation/photos/{photo_id}").json()["state"] for url in cluster.urls]
    with cluster.database.reading() as tx:
        of_people = tx.scalars(
            select(moderation_decisions.c.photo_id).where(moderation_decisions.c.kind == DecisionKind.PERSON.value)
        )
        assert set(held) <= {photo_id for photo_id, count in Counter(of_people).items() if count == 1}


def list_of(place: S3Place) -> list[str]:
    """The keys of the originals in the S3."""
    return [
        each["path"]
        for page in place.store().list("photos/moderation")
        for each in page
        if "/original." in each["path"]
    ]

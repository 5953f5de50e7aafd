"""A connection to PostgreSQL that breaks after COMMIT and before its answer: whether the rows are there is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest

from shoplens.platform.server import Platform
from tests.acceptance.moderation_photos import sharp
from tests.conftest import client_of


class CuttingProxy:
    """Passes bytes between clients and PostgreSQL. Once armed, it passes the COMMIT of an intake, waits for its answer,
    and closes the connection instead of passing that.
    """

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._server = parts.hostname or "", parts.port or 5432
        self._url = parts
        self.armed = False
        self.cuts = 0

    async def start(self) -> str:
        """Listen; returns the URL of the database through this proxy."""
        self._listener = await asyncio.start_server(self._pass_both, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        account, _, _ = self._url.netloc.rpartition("@")
        return self._url._replace(netloc=f"{account}@127.0.0.1:{port}").geturl()

    async def stop(self) -> None:
        """Listen no more."""
        self._listener.close()
        await asyncio.sleep(0)

    async def _pass_both(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(*self._server)
        inserted = cut = False

        async def answers() -> None:
            while data := await server.read(65_536):
                if cut:
                    self.cuts += 1
                    break
                to_client.write(data)
                await to_client.drain()

        passing = asyncio.create_task(answers())
        passing.add_done_callback(lambda _: to_client.close())
        while data := await client.read(65_536):
            inserted = inserted or b"INSERT INTO moderation_photos" in data
            if self.armed and inserted and b"COMMIT" in data:
                self.armed, cut = False, True
            to_server.write(data)
            await to_server.drain()
        to_server.close()
        await passing


@pytest.fixture
async def proxy(postgres_tables: str) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """A proxy before an empty database, and the URL through it."""
    cutting = CuttingProxy(postgres_tables)
    yield cutting, await cutting.start()
    await cutting.stop()


async def test_an_intake_whose_commit_was_not_answered_keeps_its_files(
    proxy: tuple[CuttingProxy, str], make_platform: Callable[..., Platform]
) -> None:
    """The shop gets an error and sends the request again: the photo of the first time is there, with its file."""
    cutting, url = proxy
    platform = await asyncio.to_thread(make_platform, database_url=url)
    async with client_of(platform) as client:

        async def send() -> tuple[int, list[str]]:
            files = {"file": ("a.jpg", sharp(1))}
            answer = await client.post("/moderation/photos", files=files, headers={"Idempotency-Key": "one"})
            return answer.status_code, [each["id"] for each in answer.json().get("photos", ())]

        cutting.armed = True
        assert (503, []) == await send()
        assert 1 == cutting.cuts
        status, ids = await send()
        assert (201, 1) == (status, len(ids))
        assert 200 == (await client.get(f"/media/{ids[0]}")).status_code

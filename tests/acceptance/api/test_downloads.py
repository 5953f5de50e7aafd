"""Downloads that nobody reads: they keep no connection to the database and end with their client."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from shoplens.db import Database, open_database
from shoplens.platform.server import Platform
from shoplens.predictions.repository import PredictionRepository
from tests.conftest import RunningServer, client_of, running_server
from tests.samples import make_record

UNREAD = 40
ROWS = 30_000


@contextmanager
def unread_downloads(server: RunningServer, path: str) -> Iterator[None]:
    """Forty clients that ask for `path` and read nothing of it."""
    host, port = server.url.removeprefix("http://").split(":")
    with ExitStack() as connections:
        for _ in range(UNREAD):
            connection = connections.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.connect((host, int(port)))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        time.sleep(2)
        yield


@pytest.fixture
def filled_server(database_url: str, database: Database, tmp_path: Path, models_dir: Path) -> Iterator[RunningServer]:
    """A server whose CSV of all records is larger than what the kernel buffers."""
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([make_record(number) for number in range(ROWS)])
    with running_server(tmp_path / "data", models_dir, database_url=database_url) as server:
        yield server


def require_no_transaction(database: Database) -> None:
    """On PostgreSQL: when the buffers are full, no connection but the one that asks holds a transaction."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    give_up_at = time.monotonic() + 30
    while True:
        with database.reading() as tx:
            if tx.dialect.name != "postgresql":
                return
            held = tx.execute(text(f"{query} AND backend_type = 'client backend'")).scalar_one()
        if not held:
            return
        assert time.monotonic() < give_up_at, f"{held} connections still hold a transaction"
        time.sleep(0.2)


def test_photos_are_classified_while_forty_clients_read_nothing_of_their_csv(
    filled_server: RunningServer, database: Database, photo: bytes
) -> None:
    """Also after they left, and their leaving is no error of the server."""
    with httpx.Client(base_url=filled_server.url, timeout=10, trust_env=False) as client:
        with unread_downloads(filled_server, "/predictions.csv"):
            assert [200] * 5 == [client.post("/predict", content=photo).status_code for _ in range(5)]
            assert 200 == client.get("/console/records").status_code
            require_no_transaction(database)
        assert [200] * 5 == [client.post("/predict", content=photo).status_code for _ in range(5)]
        require_no_transaction(database)
        whole = client.get("/predictions.csv").text
    assert ROWS + 10 < len(whole.splitlines())
    downloads = [each for each in filled_server.events() if each.get("path") == "/predictions.csv"]
    assert UNREAD + 1 == len(downloads)
    assert {200} == {each["status"] for each in downloads}


@pytest.mark.parametrize("pool", [1, 4])
async def test_a_record_is_committed_while_every_other_connection_is_taken(
    postgres_tables: str, make_platform: Callable[..., Platform], photo: bytes, pool: int
) -> None:
    """Those of the writers, of predictions and of shoppers' photos, are their own."""
    platform = make_platform(database_url=postgres_tables, database_pool=pool)
    with ExitStack() as taken:
        for _ in range(max(1, pool - 2)):
            taken.enter_context(platform.database.reading())
        async with client_of(platform) as client:
            assert 200 == (await client.post("/predict", content=photo)).status_code
    stored = open_database(postgres_tables)
    with stored.reading() as tx:
        assert 1 == tx.execute(text("SELECT count(*) FROM predictions")).scalar_one()
    stored.close()

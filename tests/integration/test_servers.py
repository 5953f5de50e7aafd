"""The servers that other tests rely on are real: they keep what they are given and refuse who may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import obstore
import psycopg
import pytest
from obstore.exceptions import BaseError as StoreError
from redis import Redis

from tests.servers.postgres import running_postgres
from tests.servers.seaweed import S3Place, running_s3
from tests.servers.valkey import running_valkey


def test_valkey_answers(redis_url: str) -> None:
    """Redis' own client is answered."""
    with Redis.from_url(redis_url) as client:
        assert True is client.ping()


def test_valkey_keeps_a_stream_through_a_crash(tmp_path: Path) -> None:
    """With `persist` nothing that was acknowledged is lost, and the port can be kept."""
    with running_valkey(tmp_path, persist=True) as first, Redis(port=first.port) as client:
        client.xadd("jobs", {"photo": "1"})
        first.kill()
    with running_valkey(tmp_path, port=first.port, persist=True) as second, Redis(port=second.port) as client:
        assert 1 == client.xlen("jobs")


def test_postgresql_keeps_a_row(postgres_database: str) -> None:
    """A database of one's own, with the right to create tables."""
    with psycopg.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE shelf (name text)")
        connection.execute("INSERT INTO shelf VALUES ('shoe')")
        assert [("shoe",)] == connection.execute("SELECT name FROM shelf").fetchall()


def test_postgresql_keeps_what_was_committed_through_a_crash(tmp_path: Path) -> None:
    """It comes up again in the same folder, and wants the password."""
    with running_postgres(tmp_path) as first:
        with psycopg.connect(first.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE shelf (name text)")
        first.kill()
    with running_postgres(tmp_path, port=first.port) as second:
        with psycopg.connect(second.url) as connection:
            assert [] == connection.execute("SELECT name FROM shelf").fetchall()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(second.url.replace(second.password, "wrong"))


def test_s3_keeps_an_object(s3: S3Place) -> None:
    """Put and get under a prefix of one's own."""
    obstore.put(s3.store(), "shoe.jpg", b"pixels")
    assert b"pixels" == bytes(obstore.get(s3.store(), "shoe.jpg").bytes())
    assert [] == [entry for page in obstore.list(s3.fresh().store()) for entry in page]


def test_s3_refuses_a_wrong_secret(s3: S3Place) -> None:
    """Otherwise tests of credentials would prove nothing."""
    with pytest.raises(StoreError, match=r"403|denied|Forbidden|SignatureDoesNotMatch"):
        obstore.put(replace(s3, secret_key="wrong").store(), "shoe.jpg", b"pixels")


def test_s3_keeps_objects_through_a_crash(tmp_path: Path) -> None:
    """It comes up again in the same folder with the same keys."""
    with running_s3(tmp_path) as first:
        obstore.put(first.place.store(), "shoe.jpg", b"pixels")
        first.kill()
    with running_s3(tmp_path) as second:
        kept = replace(second.place, prefix=first.place.prefix).store()
        assert b"pixels" == bytes(obstore.get(kept, "shoe.jpg").bytes())

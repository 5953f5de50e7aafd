"""Fixtures over the real servers: each started once per process of the tests, and only when a test asks for it.

A variable of the environment names a server that runs already, as it does in CI: SHOPLENS_TEST_REDIS_URL,
SHOPLENS_TEST_POSTGRES_URL, and SHOPLENS_TEST_S3_ENDPOINT with _BUCKET, _ACCESS_KEY, _SECRET_KEY and _REGION.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from servers.postgres import fresh_database, running_postgres
from servers.seaweed import S3Place, running_s3
from servers.valkey import running_valkey


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey that all tests share: each takes keys with a prefix of its own."""
    if given := os.environ.get("SHOPLENS_TEST_REDIS_URL"):
        yield given
        return
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL that all tests share, as its administrator: each takes a database of its own."""
    if given := os.environ.get("SHOPLENS_TEST_POSTGRES_URL"):
        yield given
        return
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server.url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database of this test alone."""
    with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Place]:
    """A real S3 that all tests share."""
    if endpoint := os.environ.get("SHOPLENS_TEST_S3_ENDPOINT"):
        yield _given_s3(endpoint)
        return
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server.place


@pytest.fixture
def s3(s3_server: S3Place) -> S3Place:
    """A prefix of this test alone in a bucket of the real S3."""
    return s3_server.fresh()


def _given_s3(endpoint: str) -> S3Place:
    return S3Place(
        endpoint=endpoint,
        bucket=os.environ["SHOPLENS_TEST_S3_BUCKET"],
        access_key=os.environ["SHOPLENS_TEST_S3_ACCESS_KEY"],
        secret_key=os.environ["SHOPLENS_TEST_S3_SECRET_KEY"],
        region=os.environ.get("SHOPLENS_TEST_S3_REGION", "us-east-1"),
        prefix="",
    ).fresh()

"""No log line and no message holds a password of an address."""

from __future__ import annotations

import pytest

from shoplens.telemetry.secrets import shown_address, without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
        ("postgresql://shop:hunt/er@2@db/shop", "postgresql://shop:***@db/shop"),
        ("s3://key:hunter2@bucket/drop and s3://b/a@b.jpg", "s3://key:***@bucket/drop and s3://b/a@b.jpg"),
        ("s3://b/d?secret_access_key=hunter2&region=x", "s3://b/d?secret_access_key=***&region=x"),
        ("postgresql://db/shop?user=a&password=hunter2", "postgresql://db/shop?user=a&password=***"),
        ("http://127.0.0.1:8000/ is for a@b.example", "http://127.0.0.1:8000/ is for a@b.example"),
        ("file:///data/drop", "file:///data/drop"),
    ],
)
def test_passwords_in_urls_are_left_out(text: str, shown: str) -> None:
    """Of sources, stores, queues and databases, wherever they stand in a line."""
    assert shown == without_passwords(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:hunter2@shop/x", "s3://…@shop/x"),
        ("rediss://:hunter2@cache:6379/0", "rediss://…@cache:6379/0"),
        ("redis://cache/0?password=hunter2", "redis://cache/0?password=***"),
        ("redis://:hunt/er2@cache/0", "redis://:***@cache/0"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("/var/lib/photos@home", "/var/lib/photos@home"),
    ],
)
def test_messages_name_a_server_without_user_and_password(url: str, shown: str) -> None:
    """Also where the password has a character that it should not have."""
    assert shown == shown_address(url)

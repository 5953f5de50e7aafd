"""Hide the passwords of addresses: in lines of a log, and in messages that name a server."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_PASSWORDS: Final = re.compile(r"""(://[^\s"'@/:]*:)[^\s"'@]+(?:@[^\s"'@/]*)*@""")
"""A password in a URL, also one that holds / or @ although it should not."""
_SECRET_PARAMETERS: Final = re.compile(
    r"""([?&](?:[a-z_-]*password|[a-z_-]*secret[a-z_-]*|[a-z_-]*token|[a-z_-]*signature|[a-z_-]*access[_-]key[a-z_-]*)=)[^&\s"']+""",
    re.IGNORECASE,
)


def without_passwords(text: str) -> str:
    """`text` with `***` in place of the passwords in its URLs, such as those of sources, stores and databases."""
    if "://" not in text:
        return text
    return _SECRET_PARAMETERS.sub(r"\1***", _PASSWORDS.sub(r"\1***@", text))


def shown_address(url: str) -> str:
    """How messages name `url`: without its user, its password and its secret parameters."""
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    return without_passwords(urlunsplit(parts._replace(netloc=f"…@{host}")) if at else url)

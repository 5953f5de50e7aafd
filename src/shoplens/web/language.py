"""The language of a request: what the browser's person has chosen, else what the browser asks for, else the setting."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

from starlette.datastructures import Headers

from shoplens.messages import DEFAULT, FOLDER, LANGUAGES, language

COOKIE: Final = "shoplens_language"
"""Holds the tag that somebody has chosen."""
VARY: Final = "Accept-Language, Cookie"
PAGE_LANGUAGE: Final = "Shoplens-Language"
"""The header in which a script of a page says in what language it shows sentences of the answer."""
_MOST_CHARS: Final = 1_000
_MOST_RANGES: Final = 20


def speak(scope: MutableMapping[str, Any]) -> None:
    """Make texts in the language of the request from now on. Answers for programs are made without this, in English."""
    app = scope.get("app")
    default: str = getattr(app.state, "language", DEFAULT) if app is not None else DEFAULT
    language.set(language_of(Headers(scope=scope), default))


def speak_to_script(headers: Headers) -> None:
    """Make texts in the language of the page whose script sends the request; programs send no such header."""
    tag = headers.get(PAGE_LANGUAGE, DEFAULT)
    language.set(tag if tag in LANGUAGES else DEFAULT)


def language_of(headers: Headers, default: str) -> str:
    """The tag of the language for a request with such headers."""
    chosen = _cookie(headers.get("cookie", ""))
    if chosen in LANGUAGES:
        return chosen
    return next(_accepted(headers.get("accept-language", "")[:_MOST_CHARS]), default)


def script_texts_url(tag: str) -> str:
    """The address of the texts of scripts in that language, with the hash of its file."""
    return f"/console/texts/{tag}.js?v={texts_hash(tag)}"


@lru_cache(maxsize=len(LANGUAGES))
def texts_hash(tag: str) -> str:
    """Changes with the texts of that language."""
    return hashlib.sha256((FOLDER / f"{tag}.po").read_bytes()).hexdigest()[:12]


def _cookie(header: str) -> str:
    if COOKIE not in header:
        return ""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _accepted(header: str) -> Iterator[str]:
    """The languages we have of those that the header names (RFC 9110, 12.5.4), best first."""
    ranges = []
    for place, part in enumerate(header.split(",")[:_MOST_RANGES]):
        tag, _, parameter = part.strip().partition(";")
        try:
            quality = float(parameter.strip().removeprefix("q=")) if parameter else 1.0
        except ValueError:
            continue
        if 0 < quality <= 1:
            ranges.append((-quality, place, tag.strip().lower().partition("-")[0]))
    return (tag for _, _, tag in sorted(ranges) if tag in LANGUAGES)

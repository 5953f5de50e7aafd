"""A policy as TOML: read and checked, and written in one form. Comments are not kept."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shoplens.advice import meant
from shoplens.messages import marked
from shoplens.moderation.errors import PolicyInvalid
from shoplens.moderation.policy.entities import (
    HARMLESS,
    HASH_BITS,
    MOST_STRIKES,
    OWN_RULES,
    QUALITY_SIGNALS,
    Band,
    ModerationPolicy,
)

MAX_SOURCE_BYTES: Final = 64_000
OFF: Final = "off"
"""What stands for a rule that does not apply."""
_OFF_TEXT: Final = f'"{OFF}"'
_MOST_DAYS: Final = 3650
_MOST_REPORTS: Final = 1000
_TOO_LONG: Final = 10**15
_BAND_KEYS: Final = ("review_at", "reject_at")

# Table, key, field, least, most, and whether "off" is possible.
_WHOLE: Final = (
    ("memory", "refuse_distance", "refuse_distance", 0, HASH_BITS // 2, True),
    ("memory", "accept_distance", "accept_distance", 0, HASH_BITS // 2, True),
    ("strikes", "count", "strikes", 1, MOST_STRIKES, True),
    ("strikes", "days", "strike_days", 1, _MOST_DAYS, False),
    ("reports", "hide_after", "hide_after_reports", 1, _MOST_REPORTS, True),
)
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "memory": ("refuse_distance", "accept_distance"),
    "strikes": ("count", "days"),
    "reports": ("hide_after",),
    "people": ("second_opinion_share",),
}


TABLES: Final = ("signals", *_TABLES)
"""The tables of a policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value that two policies do not share, as TOML writes it; None where it is not set."""

    place: str
    before: str | None
    after: str | None


def parse_policy(source: str, *, signals: Collection[str] | None) -> ModerationPolicy:
    """The policy that `source` describes. What is left out has its default.

    `signals` are all that the channel has; None takes any.

    Raises PolicyInvalid with the place and what is wrong there.
    """
    byte_count = len(source.encode(errors="replace"))
    if byte_count > MAX_SOURCE_BYTES:
        raise PolicyInvalid(f"The policy has {byte_count / 1000:.0f} kB; at most {MAX_SOURCE_BYTES // 1000} are read.")
    try:
        tables = tomllib.loads(source.encode().decode())
    except UnicodeEncodeError as error:
        raise PolicyInvalid("This is not a policy: it contains half a surrogate pair.") from error
    except ValueError as error:  # also of int(), for thousands of digits
        raise PolicyInvalid(f"This is not TOML: {error}.") from error
    except RecursionError as error:
        raise PolicyInvalid("This is not a policy: its values are nested too deeply.") from error
    _require_known(tables, TABLES, "")
    values: dict[str, Any] = {}
    for name, keys in _TABLES.items():
        _require_known(_table(tables, name, name), keys, f"{name}.")
    for table, key, name, least, most, may_be_off in _WHOLE:
        if key in tables.get(table, {}):
            values[name] = _whole(tables[table][key], f"{table}.{key}", least, most, may_be_off=may_be_off)
    if "second_opinion_share" in tables.get("people", {}):
        share = tables["people"]["second_opinion_share"]
        values["second_opinion_share"] = _score(share, "people.second_opinion_share")
    bands = _table(tables, "signals", "signals")
    return ModerationPolicy(bands=tuple(_band(name, bands, signals) for name in sorted(bands)), **values)


def format_policy(policy: ModerationPolicy) -> str:
    """The policy with all of its values. `parse_policy` gives the same policy again."""
    tables = [
        f"[{name}]\n" + "".join(f"{key} = {text}\n" for key, text in values.items())
        for name, values in _texts(policy).items()
    ]
    return "\n".join(tables)


def differences(before: ModerationPolicy, after: ModerationPolicy) -> tuple[Change, ...]:
    """What changed from one policy to the other, by place."""
    old, new = _places(before), _places(after)
    places = sorted(old.keys() | new.keys())
    return tuple(
        Change(place=place, before=old.get(place), after=new.get(place))
        for place in places
        if old.get(place) != new.get(place)
    )


def to_fields(policy: ModerationPolicy) -> dict[str, str]:
    """Each value as a person types it in a form, by its place, such as `signals.nsfw.review_at`."""
    return {place: text.strip('"') for place, text in _places(policy).items()}


def from_fields(fields: Mapping[str, str]) -> str:
    """The TOML of a form. An empty field is not set, or, where a rule can be switched off, off.

    What is no number stays a text, so that `parse_policy` refuses it with its place.
    """
    may_be_off = {f"{table}.{key}" for table, key, *_, off in _WHOLE if off}
    tables: dict[str, list[str]] = {}
    for place, typed in fields.items():
        table, _, key = place.rpartition(".")
        text = typed.strip().replace(",", ".") or (OFF if place in may_be_off else "")
        if text:
            tables.setdefault(table, []).append(f"{key} = {_literal(text)}\n")
    return "\n".join(f"[{table}]\n{''.join(lines)}" for table, lines in tables.items())


def place_of(signal: str, key: str) -> str:
    """The place of a threshold."""
    return f"signals.{_key(signal)}.{key}"


def _literal(text: str) -> str:
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return str(int(text))
    try:
        return _number(float(text))
    except ValueError:
        return _quoted(text)


def _places(policy: ModerationPolicy) -> dict[str, str]:
    return {f"{table}.{key}": text for table, values in _texts(policy).items() for key, text in values.items()}


def _texts(policy: ModerationPolicy) -> dict[str, dict[str, str]]:
    """Each value as TOML writes it, by table and key."""
    tables: dict[str, dict[str, str]] = {}
    for band in sorted(policy.bands, key=lambda each: each.signal):
        thresholds = {key: getattr(band, key) for key in _BAND_KEYS}
        texts = {key: _number(value) for key, value in thresholds.items() if value is not None}
        tables[f"signals.{_key(band.signal)}"] = texts
    for table, key, name, *_ in _WHOLE:
        value = getattr(policy, name)
        tables.setdefault(table, {})[key] = _OFF_TEXT if value is None else str(value)
    tables["people"] = {"second_opinion_share": _number(policy.second_opinion_share)}
    return tables


def _band(name: str, bands: Mapping[str, Any], signals: Collection[str] | None) -> Band:
    place = f"signals.{name}"
    if name in OWN_RULES:
        raise PolicyInvalid(f"{place}: this signal has no thresholds; its rules are in [memory] and [strikes].")
    if signals is not None and name not in signals:
        if name in HARMLESS:
            raise PolicyInvalid(f"{place}: a high score of {name!r} speaks for a photo, so it cannot have thresholds.")
        known = ", ".join(sorted(set(signals) - OWN_RULES))
        raise PolicyInvalid(f"{place}: there is no signal {name!r}{meant(name, signals)}. Signals: {known}.")
    band = _table(bands, name, place)
    _require_known(band, _BAND_KEYS, f"{place}.")
    review_at, reject_at = (_score(band[key], f"{place}.{key}") if key in band else None for key in _BAND_KEYS)
    if reject_at is not None and name in QUALITY_SIGNALS:
        raise PolicyInvalid(
            f"{place}.reject_at: no photo is refused for its quality alone; use review_at, and a person decides."
        )
    if review_at is not None and reject_at is not None and review_at > reject_at:
        raise PolicyInvalid(
            f"{place}: the bands overlap: review_at ({review_at:g}) must not be above reject_at ({reject_at:g})."
        )
    return Band(signal=name, review_at=review_at, reject_at=reject_at)


def _table(tables: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise PolicyInvalid(f"{place}: write a table, as in [{place}], not {_kind(table)}.")
    return table


def _require_known(table: Mapping[str, Any], known: Collection[str], place: str) -> None:
    for name in table:
        if name not in known:
            where = marked("at the top level") if not place else marked(f"in [{place.removesuffix('.')}]")
            raise PolicyInvalid(
                f"{place}{name}: there is no such key{meant(name, known)}. Keys {where}: {', '.join(known)}."
            )


def _score(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyInvalid(f"{place}: write a number from 0 to 1, not {_kind(value)}.")
    if not 0 <= value <= 1:  # also refuses nan
        raise PolicyInvalid(f"{place}: {_shown(value)} does not lie between 0 and 1.")
    return float(value)


def _whole(value: object, place: str, least: int, most: int, *, may_be_off: bool) -> int | None:
    if may_be_off and value == OFF:
        return None
    wanted = (
        marked(f"a whole number from {least} to {most}, or {_OFF_TEXT}")
        if may_be_off
        else marked(f"a whole number from {least} to {most}")
    )
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyInvalid(f"{place}: write {wanted}, not {_kind(value)}.")
    if not least <= value <= most:
        raise PolicyInvalid(f"{place}: {_shown(value)} is out of range; write {wanted}.")
    return value


def _shown(value: float) -> str:
    """A number in a sentence. A whole number of thousands of digits has no text and is no float."""
    is_too_long = isinstance(value, int) and abs(value) >= _TOO_LONG
    return marked("this number") if is_too_long else str(value)


_KINDS: Final = (
    (bool, marked("true or false")),
    (str, marked("a text")),
    (int, marked("a whole number")),
    (float, marked("a number")),
    (dict, marked("a table")),
    (list, marked("a list")),
)


def _kind(value: object) -> str:
    return next((words for kind, words in _KINDS if isinstance(value, kind)), marked("a date"))


def _number(value: float) -> str:
    """A float as TOML and Python both write it: the shortest text that is read as the same number."""
    return repr(float(value))


def _key(name: str) -> str:
    """A key as TOML writes it: bare where that is possible."""
    if name and all(character.isascii() and (character.isalnum() or character in "-_") for character in name):
        return name
    return _quoted(name)


def _quoted(text: str) -> str:
    return '"' + "".join(map(_character, text)) + '"'


def _character(each: str) -> str:
    if each in '"\\':
        return f"\\{each}"
    return f"\\u{ord(each):04x}" if ord(each) < 32 or ord(each) == 127 else each

"""What PostgreSQL and psycopg say, as advice: error in, what a person can do out. Pure, and without the driver."""

from __future__ import annotations

from typing import Final

_SETTING: Final = "the setting database_url"

# Codes of SQLSTATE, or how they begin.
_BY_STATE: Final = (
    ("40P01", "undid a change because two processes waited for each other; try again"),
    ("40", "undid a change because another process changed the same; try again"),
    ("55P03", "is locked by another process; stop that process or try again"),
    ("57014", "did not answer a query in time; try again, and look at what else it is doing"),
    ("57P05", "ended a connection that was idle for too long; try again"),
    ("25P03", "ended a transaction that was idle for too long; try again"),
    ("57P0", "is being stopped or started; try again in a moment"),
    ("53300", "has no connection left; raise max_connections at the server or lower the setting database_pool"),
    ("53100", "cannot grow because the disk is full; free some space"),
    ("53", "has too little memory or disk; look into its log"),
    ("25006", f"is read-only, as a standby is; name the primary server in {_SETTING}"),
    ("28P01", f"refused the user or the password; correct them in {_SETTING}"),
    ("28", f"does not let this user in from this machine; look at {_SETTING} and at the server's pg_hba.conf"),
    ("3D000", f"does not exist; create it with `createdb`, or correct its name in {_SETTING}"),
    ("3F000", f"has no such schema; create it, or correct `search_path` in {_SETTING}"),
    ("42501", "does not give this user the right to do that; let it own the database, or grant it the schema"),
    ("42P01", "lacks a table; run `shoplens db upgrade`"),
    ("42703", "lacks a column; run `shoplens db upgrade`"),
    ("58", "reports an error of its disk; look into its log"),
    ("XX", "is damaged; look into its log, and restore it from a backup"),
    ("08", "broke the connection; try again"),
)
# While connecting, psycopg knows no code: parts of what libpq says.
_BY_WORDS: Final = (
    ("password authentication failed", f"refused the user or the password; correct them in {_SETTING}"),
    ("no password supplied", f"wants a password; put it into {_SETTING}, as in postgresql://user:password@host/name"),
    ("no pg_hba.conf entry", "does not let this user in from this machine; add a line to the server's pg_hba.conf"),
    ("too many connections", "has no connection left; raise max_connections or lower the setting database_pool"),
    ("remaining connection slots", "has no connection left; raise max_connections or lower the setting database_pool"),
    ("the database system is", "is being stopped or started; try again in a moment"),
    ("invalid response to SSL", f"is no PostgreSQL: something else answers there; correct host and port in {_SETTING}"),
    ("expected authentication", f"is no PostgreSQL: something else answers there; correct host and port in {_SETTING}"),
    ("does not support SSL", f"offers no encryption, but sslmode in {_SETTING} asks for it; change one of them"),
    ("certificate", f"shows a certificate that is not trusted; look at sslmode and sslrootcert in {_SETTING}"),
    ("timeout", f"did not answer in time; see that the server is up, and that {_SETTING} has the right host and port"),
    (
        "onnection refused",
        f"cannot be reached, nothing listens there; start it, or correct host and port in {_SETTING}",
    ),
    ("failed to resolve host", f"cannot be found, nobody knows its host; correct the host in {_SETTING}"),
    ("could not translate host", f"cannot be found, nobody knows its host; correct the host in {_SETTING}"),
    ("No such file", f"cannot be reached, nothing listens there; start it, or name its host in {_SETTING}"),
    ("unreachable", f"cannot be reached from this machine; look at the network and at the host in {_SETTING}"),
    ("No route to host", f"cannot be reached from this machine; look at the network and at the host in {_SETTING}"),
    ("invalid connection option", f"cannot be asked so: {_SETTING} has an option that psycopg does not know"),
)
_MISSING: Final = (
    ("database", f"does not exist; create it with `createdb`, or correct its name in {_SETTING}"),
    ("role", f"refused the user or the password; correct them in {_SETTING}"),
)
_CONNECTING: Final = "connection failed"
_LOST: Final = (
    "closed the connection",
    "connection is closed",
    "connection is lost",
    "connection not open",
    "SSL error",
)


def postgres_advice(error: BaseException) -> str:
    """What to do about `error`, to follow the name of the database; empty where nothing better is known than it says.

    Never quotes more than the server does, which does not know the password.
    """
    state = getattr(error, "sqlstate", None) or ""
    for prefix, advice in _BY_STATE:
        if state.startswith(prefix):
            return advice
    said = str(error)
    for words, advice in _BY_WORDS:
        if words in said:
            return advice
    return _missing(said) or _broken(said)


def _missing(said: str) -> str:
    if "does not exist" not in said:
        return ""
    return next((advice for kind, advice in _MISSING if f'{kind} "' in said), "")


def _broken(said: str) -> str:
    if not any(words in said for words in _LOST):
        return ""
    if _CONNECTING in said:
        return f"is no PostgreSQL, or is just being started; look at host and port in {_SETTING}"
    return "broke the connection; it may be restarting, try again"

"""The second factor: codes of an app that change every 30 seconds (RFC 6238), each taken once, and recovery codes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Person, Principal
from shoplens.accounts.errors import CodeWrong
from shoplens.accounts.people import require_no_more
from shoplens.accounts.repository import PersonRepository, RecoveryRepository
from shoplens.accounts.sessions import SessionService, hash_of, principal_for
from shoplens.db import Database
from shoplens.errors import Conflict

STEP_S: Final = 30
RECOVERY_CODES: Final = 10
_NEIGHBOURS: Final = (0, -1, 1)
"""Steps that are accepted beside the current one: clocks differ, and typing takes time."""
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_ISSUER: Final = "Shoplens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A secret that an app has to learn: as text, and as the URI that the app reads from a QR code."""

    secret: str
    uri: str


def accepted_step(secret: str, code: str, *, now: datetime, used: int | None) -> int | None:
    """The time step whose code this is; None for a wrong one, and for one not after the step that was `used` last."""
    import pyotp

    totp = pyotp.TOTP(secret)
    current = int(now.timestamp()) // STEP_S
    for step in (current + each for each in _NEIGHBOURS):
        if secrets.compare_digest(totp.generate_otp(step).encode(), code.encode()) and (used is None or step > used):
            return step
    return None


def clean_code(code: str) -> str:
    """Without the spaces and dashes with which people write codes."""
    return "".join(code.split()).replace("-", "").lower()[:64]


class SecondFactorService:
    """Methods block. Each change is committed when its call returns."""

    def __init__(
        self, database: Database, sessions: SessionService, audit: AuditLog, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._audit = audit
        self._clock = clock

    def begin(self, person_id: str) -> Enrolment:
        """A new secret, which counts once a code of it was given. Raises Conflict where there is a second factor.

        One that was begun before and not confirmed is void: somebody else may have seen it since.
        """
        import pyotp

        with self._database.transaction() as tx:
            person = PersonRepository(tx).get(person_id, lock=True)
            if person.totp_confirmed_at is not None:
                raise Conflict("You have a second factor already. Remove it first.")
            secret = pyotp.random_base32()
            PersonRepository(tx).save(replace(person, totp_secret=secret))
        return _enrolment(person, secret)

    def begun(self, person_id: str) -> Enrolment:
        """The one that waits for its first code. Raises Conflict where there is none."""
        with self._database.reading() as tx:
            person = PersonRepository(tx).get(person_id)
        if person.totp_secret is None or person.totp_confirmed_at is not None:
            raise Conflict("There is no second factor to confirm. Open the page again.")
        return _enrolment(person, person.totp_secret)

    def confirm(self, person_id: str, code: str) -> tuple[str, ...]:
        """From now on a code is asked for. The recovery codes, which are not shown again.

        Raises CodeWrong, and Conflict where nothing was begun or all is done.
        """
        with self._database.transaction() as tx:
            person = PersonRepository(tx).get(person_id, lock=True)
            if person.totp_secret is None or person.totp_confirmed_at is not None:
                raise Conflict("There is no second factor to confirm. Open the page again.")
            now = self._clock()
            step = accepted_step(person.totp_secret, clean_code(code), now=now, used=person.totp_step)
            if step is None:
                raise CodeWrong("The code is wrong. Check the clock of your phone, and type the current code.")
            PersonRepository(tx).save(replace(person, totp_confirmed_at=now, totp_step=step))
            codes = _new_codes(tx, person_id)
            self._audit.record(tx, principal_for(person), "second_factor.added", target=person.name)
        self._sessions.changed()
        return codes

    def renew_codes(self, person_id: str) -> tuple[str, ...]:
        """Other recovery codes, which are not shown again; the earlier ones are void.

        The caller has checked who wants it. Raises Conflict where there is no second factor.
        """
        with self._database.transaction() as tx:
            person = PersonRepository(tx).get(person_id, lock=True)
            if person.totp_confirmed_at is None:
                raise Conflict("You have no second factor, so there are no recovery codes. Add one first.")
            codes = _new_codes(tx, person_id)
            self._audit.record(tx, principal_for(person), "recovery_codes.renewed", target=person.name)
        return codes

    def take(self, tx: Connection, person: Person, code: str) -> Person | None:
        """The person after this code was taken; None for a wrong or used one. `person` was read with a lock."""
        code = clean_code(code)
        if person.totp_secret is None:
            return None
        step = accepted_step(person.totp_secret, code, now=self._clock(), used=person.totp_step)
        if step is not None:
            return replace(person, totp_step=step)
        return person if RecoveryRepository(tx).use(person.id, hash_of(code)) else None

    def recovery_codes_left(self, person_id: str) -> int:
        """How many of the recovery codes were not used."""
        with self._database.reading() as tx:
            return RecoveryRepository(tx).left(person_id)

    def remove(self, person_id: str, *, by: Principal) -> None:
        """Ask for no code any more, and forget the recovery codes. The caller has checked who wants it.

        Raises PermissionDenied for a person who may do more than `by`.
        """
        with self._database.transaction() as tx:
            person = PersonRepository(tx).get(person_id, lock=True)
            require_no_more(by, person.role)
            PersonRepository(tx).save(replace(person, totp_secret=None, totp_confirmed_at=None, totp_step=None))
            RecoveryRepository(tx).replace(person_id, ())
            self._audit.record(tx, by, "second_factor.removed", target=person.name)
        self._sessions.changed()


def qr_image(uri: str) -> str:
    """The QR code of `uri` as a picture, itself in a URI."""
    import segno

    return str(segno.make(uri, error="m").svg_data_uri(scale=5, border=3, dark="#000", light="#fff"))


def _enrolment(person: Person, secret: str) -> Enrolment:
    import pyotp

    return Enrolment(secret=secret, uri=pyotp.TOTP(secret).provisioning_uri(name=person.name, issuer_name=_ISSUER))


def _new_codes(tx: Connection, person_id: str) -> tuple[str, ...]:
    codes = tuple(_recovery_code() for _ in range(RECOVERY_CODES))
    RecoveryRepository(tx).replace(person_id, [hash_of(clean_code(each)) for each in codes])
    return codes


def _recovery_code() -> str:
    """80 random bits or more, in groups: `hk7m-2xqz-…`."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(20))
    return "-".join(letters[start : start + 5] for start in range(0, 20, 5))

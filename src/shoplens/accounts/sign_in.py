"""Sign in with name, password and second factor: the same answer and about the same time whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM, Person, SessionKind
from shoplens.accounts.errors import PasswordWrong, SecondFactorRequired, SignInRefused
from shoplens.accounts.passwords import PasswordHasher
from shoplens.accounts.people import clean_name
from shoplens.accounts.repository import PersonRepository, SessionRepository
from shoplens.accounts.sessions import Client, SessionService, SignedIn, principal_for
from shoplens.accounts.throttle import Throttle, lock_s, too_many
from shoplens.accounts.totp import SecondFactorService
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.telemetry.logs import get_logger

_REFUSED: Final = "The name or the password is wrong."
_log = get_logger(__name__)


class SignInService:
    """Methods block. Each failure is counted, by address and by name; too many raise TooManySignIns."""

    def __init__(
        self,
        database: Database,
        sessions: SessionService,
        second_factor: SecondFactorService,
        *,
        hasher: PasswordHasher,
        throttle: Throttle,
        audit: AuditLog,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._second_factor = second_factor
        self._hasher = hasher
        self._throttle = throttle
        self._audit = audit
        self._clock = clock

    def sign_in(
        self,
        name: str,
        password: str,
        *,
        client: Client,
        kind: SessionKind = SessionKind.COOKIE,
        code: str | None = None,
    ) -> SignedIn:
        """A session for this name and password.

        Where the person has a second factor, a cookie without `code` waits for it (`confirm`), and a bearer token is
        refused with SecondFactorRequired. Raises SignInRefused, TooManySignIns, and TooManyTries while too many others
        sign in.
        """
        person = self._known(name, password, client)
        if person.totp_confirmed_at is not None and not code:
            if kind is SessionKind.TOKEN:
                raise SecondFactorRequired("The second factor is missing: send its code as the form field `otp`.")
            return self._opened(person, kind, client, waits=True)
        return self._opened(person, kind, client, code=code)

    def confirm(self, token: str | None, code: str, *, client: Client) -> SignedIn:
        """The session that follows one which waited for the second factor; the token of that one is void.

        Raises SignInRefused for a wrong code or where nothing waits, and TooManySignIns.
        """
        session, person = self._sessions.require(token)
        if not session.needs_totp:
            raise SignInRefused("You are signed in already.")
        self._require_unlocked(person, client)
        signed_in = self._opened(person, session.kind, client, code=code)
        with self._database.transaction() as tx:
            SessionRepository(tx).delete(session.token_hash)
        return signed_in

    def check_password(self, person_id: str, password: str, *, client: Client) -> None:
        """For what needs the password again. Raises PasswordWrong and TooManySignIns."""
        with self._database.reading() as tx:
            person = PersonRepository(tx).get(person_id)
        self._require_unlocked(person, client)
        if not self._hasher.verify(password, person.password_hash):
            self._count_failure(person, person.name, client)
            raise PasswordWrong("The password is wrong.")

    def renew(self, token: str | None, *, client: Client) -> SignedIn:
        """Another session with another token in place of this one, such as after a change of rights.

        Raises SignInRefused.
        """
        session, person = self._sessions.require(token)
        with self._database.transaction() as tx:
            SessionRepository(tx).delete(session.token_hash)
            opened = self._sessions.open(tx, person, session.kind, client, needs_totp=session.needs_totp)
        self._sessions.changed()
        return opened

    def open_for(self, person: Person, *, client: Client, kind: SessionKind = SessionKind.COOKIE) -> SignedIn:
        """A session for somebody whose identity the caller has checked otherwise. Raises SignInRefused if disabled."""
        return self._opened(person, kind, client)

    def _known(self, name: str, password: str, client: Client) -> Person:
        """Who has this name and this password. Raises SignInRefused and TooManySignIns."""
        try:
            name = clean_name(name)
        except RequestInvalid:
            name = ""
        self._throttle.require(name=name, address=client.address)
        with self._database.reading() as tx:
            person = PersonRepository(tx).by_name(name)
        if person is not None:
            self._require_unlocked(person, client)
        is_active = person is not None and person.disabled_at is None
        is_right = self._hasher.verify(password, person.password_hash if person is not None and is_active else None)
        if person is None or not is_right:
            self._count_failure(person, name, client)
            raise SignInRefused(_REFUSED)
        return person

    def _opened(
        self, person: Person, kind: SessionKind, client: Client, *, waits: bool = False, code: str | None = None
    ) -> SignedIn:
        """The session, after the code was taken where the person needs one. Raises SignInRefused."""
        with self._database.transaction() as tx:
            now_there: Person | None = PersonRepository(tx).get(person.id, lock=True)
            assert now_there is not None
            needs_code = now_there.totp_confirmed_at is not None and not waits and code is not None
            if needs_code:
                now_there = self._second_factor.take(tx, now_there, code or "")
            if now_there is not None and now_there.disabled_at is None:
                if not waits:
                    now_there = replace(now_there, failed_sign_ins=0, locked_until=None, last_sign_in_at=self._clock())
                    PersonRepository(tx).save(now_there)
                opened = self._sessions.open(tx, now_there, kind, client, needs_totp=waits)
                if not waits:
                    details = {"kind": kind.value, "user_agent": opened.session.user_agent}
                    self._audit.record(
                        tx,
                        principal_for(now_there),
                        "session.opened",
                        target=person.name,
                        details=details,
                        address=client.address,
                    )
                return opened
        self._count_failure(person, person.name, client)
        raise SignInRefused("The code is wrong, or was used already. Type the current one." if needs_code else _REFUSED)

    def _require_unlocked(self, person: Person, client: Client) -> None:
        self._throttle.require(name=person.name, address=client.address)
        if person.locked_until is not None and (left := person.locked_until - self._clock()) > timedelta():
            raise too_many(left.total_seconds())

    def _count_failure(self, person: Person | None, name: str, client: Client) -> None:
        self._throttle.failed(name=name if person is None else None, address=client.address)
        if person is None:  # the name is not logged: it may be a password, typed into the wrong field
            _log.info("sign_in.failed", person=None, address=client.address)
            return
        with self._database.transaction() as tx:
            now_there = PersonRepository(tx).get(person.id, lock=True)
            failures = now_there.failed_sign_ins + 1
            locked_s = lock_s(failures)
            until = self._clock() + timedelta(seconds=locked_s) if locked_s else now_there.locked_until
            PersonRepository(tx).save(replace(now_there, failed_sign_ins=failures, locked_until=until))
            if locked_s:
                details = {"failures": failures, "locked_s": locked_s}
                self._audit.record(
                    tx, SYSTEM, "sign_in.locked", target=person.name, details=details, address=client.address
                )
        log = _log.warning if locked_s else _log.info
        log("sign_in.failed", person=person.name, address=client.address, failures=failures, locked_s=locked_s)

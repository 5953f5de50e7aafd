"""Who a person at an OpenID provider is here: known by subject, by a verified e-mail address, or new."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM, Person, Role
from shoplens.accounts.errors import OpenIdRefused
from shoplens.accounts.openid import Attempt, OpenIdProvider
from shoplens.accounts.people import clean_name
from shoplens.accounts.repository import PersonRepository
from shoplens.accounts.sessions import Client, SessionService, SignedIn
from shoplens.accounts.sign_in import SignInService
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import RequestInvalid
from shoplens.telemetry.logs import get_logger

_MOST_NUMBERED = 100
_log = get_logger(__name__)


class OpenIdSignIn:
    """Methods block, also for the provider's answers."""

    def __init__(
        self,
        provider: OpenIdProvider,
        database: Database,
        sessions: SessionService,
        sign_ins: SignInService,
        audit: AuditLog,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self.provider = provider
        self._database = database
        self._sessions = sessions
        self._sign_ins = sign_ins
        self._audit = audit
        self._clock = clock

    @property
    def session_lasts(self) -> timedelta:
        """How long a session lasts at most."""
        return self._sessions.limits.absolute

    def finish(self, attempt: Attempt, *, code: str, redirect_uri: str, client: Client) -> SignedIn:
        """A session for the person that the provider names. The second factor is the provider's matter.

        Raises OpenIdRefused for somebody who may not sign in, SignInRefused for a disabled person, and
        ProviderUnavailable.
        """
        claims = self.provider.finish(attempt, code=code, redirect_uri=redirect_uri)
        return self._sign_ins.open_for(self.person_of(claims), client=client)

    def end(self, token: str) -> None:
        """End the session that the browser had before."""
        self._sessions.end(token)

    def person_of(self, claims: Mapping[str, Any]) -> Person:
        """The person of these checked claims, with the role that they say; added where that is allowed.

        Raises OpenIdRefused.
        """
        config = self.provider.config
        email = _verified_email(claims)
        if config.domains and (email or "").rpartition("@")[2].lower() not in config.domains:
            raise OpenIdRefused("Only people with a verified e-mail address of this shop may sign in.")
        role = self._role_of(claims)
        with self._database.transaction() as tx:
            people = PersonRepository(tx)
            person = people.by_subject(config.issuer, str(claims["sub"]))
            person = person or self._linked(tx, claims, email) or self._added(tx, claims, email, role)
            if config.role_claim is not None and role is not person.role:
                person = self._with_role(tx, person, role)
        self._sessions.changed()
        return person

    def _role_of(self, claims: Mapping[str, Any]) -> Role:
        """The most powerful role that the claim names, else the default one. Raises OpenIdRefused if there is none."""
        config = self.provider.config
        said = claims.get(config.role_claim, ()) if config.role_claim else ()
        values = {said} if isinstance(said, str) else {str(value) for value in said or ()}
        named = {config.roles[value] for value in values if value in config.roles}
        role = next((each for each in Role if each in named), config.default_role)
        if role is None:
            raise OpenIdRefused("You have no role in Shoplens. Ask an admin of the sign-in provider for one.")
        return role

    def _linked(self, tx: Connection, claims: Mapping[str, Any], email: str | None) -> Person | None:
        """Somebody whom an admin added with this address, from now on known by their subject."""
        if email is None:
            return None
        found = PersonRepository(tx).without_subject(email)
        if found is None:
            return None
        linked = replace(found, issuer=self.provider.config.issuer, subject=str(claims["sub"]))
        PersonRepository(tx).save(linked)
        self._audit.record(tx, SYSTEM, "person.linked", target=linked.name, details={"issuer": linked.issuer})
        return linked

    def _added(self, tx: Connection, claims: Mapping[str, Any], email: str | None, role: Role) -> Person:
        config, now = self.provider.config, self._clock()
        people = PersonRepository(tx)
        if not config.create or not people.any():
            raise OpenIdRefused(
                "There is no account for you here. Ask an admin of Shoplens to add your e-mail address."
            )
        name = next((each for each in _names(claims, email) if people.by_name(each) is None), None)
        if name is None:
            raise OpenIdRefused("Your name is taken here. Ask an admin of Shoplens to add your e-mail address.")
        person = Person(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            name=name,
            role=role,
            email=email,
            issuer=config.issuer,
            subject=str(claims["sub"]),
        )
        people.add(person)
        details = {"role": role.value, "issuer": config.issuer}
        self._audit.record(tx, SYSTEM, "person.added", target=name, details=details)
        return person

    def _with_role(self, tx: Connection, person: Person, role: Role) -> Person:
        """The role as the provider says, unless nobody would be an admin then."""
        people = PersonRepository(tx)
        if people.active_admins() == [person.id]:
            _log.warning("openid.last_admin_stays", person=person.name, role=role.value)
            return person
        changed = replace(people.get(person.id, lock=True), role=role)
        people.save(changed)
        details = {"role": role.value, "before": person.role.value}
        self._audit.record(tx, SYSTEM, "person.role_changed", target=person.name, details=details)
        return changed


def _verified_email(claims: Mapping[str, Any]) -> str | None:
    email = claims.get("email")
    return email if isinstance(email, str) and email and claims.get("email_verified") is True else None


def _names(claims: Mapping[str, Any], email: str | None) -> Iterator[str]:
    """Sign-in names that suit, the best first. A name that somebody has is never taken over."""
    for value in (claims.get("preferred_username"), email, claims.get("sub")):
        try:
            name = clean_name(str(value or ""))
        except RequestInvalid:
            continue
        yield name
        yield from (f"{name}-{number}" for number in range(2, _MOST_NUMBERED))

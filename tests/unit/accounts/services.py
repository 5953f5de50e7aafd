"""The services of accounts over one database, with a clock that tests turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyotp
from limits.storage import MemoryStorage

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM, Person, Role
from shoplens.accounts.passwords import PasswordHasher
from shoplens.accounts.people import PeopleService
from shoplens.accounts.sessions import Client, SessionLimits, SessionService, SignedIn
from shoplens.accounts.sign_in import SignInService
from shoplens.accounts.throttle import Throttle
from shoplens.accounts.totp import SecondFactorService
from shoplens.db import Database

PASSWORD = "seven green bottles"
OTHER_PASSWORD = "eight yellow lamps"
HERE = Client(address="192.0.2.7", user_agent="Firefox")


class Services:
    """What `build_accounts` builds, with short limits."""

    def __init__(self, database: Database) -> None:
        self.now = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
        limits = SessionLimits(idle=timedelta(hours=12), absolute=timedelta(days=7), token=timedelta(hours=8))
        hasher = PasswordHasher()
        audit = AuditLog(database, clock=lambda: self.now)
        self.sessions = SessionService(database, audit, limits=limits, clock=lambda: self.now)
        self.second_factor = SecondFactorService(database, self.sessions, audit, clock=lambda: self.now)
        self.people = PeopleService(
            database, self.sessions, hasher, audit, link_lasts=timedelta(hours=24), clock=lambda: self.now
        )
        self.throttle = Throttle(MemoryStorage)
        self.sign_ins = SignInService(
            database,
            self.sessions,
            self.second_factor,
            hasher=hasher,
            throttle=self.throttle,
            audit=audit,
            clock=lambda: self.now,
        )

    def wait(self, **how_long: float) -> None:
        """Turn the clock."""
        self.now += timedelta(**how_long)

    def add(self, name: str = "anna", role: Role = Role.CLERK) -> Person:
        """Somebody with the password `PASSWORD`. The first person must be an admin, so there may be one before them."""
        if role is not Role.ADMIN and not self.people.any_people():
            self.people.add("owner", Role.ADMIN, by=SYSTEM)
        return self.people.add(name, role, by=SYSTEM, password=PASSWORD)

    def sign_in(self, name: str = "anna", password: str = PASSWORD, client: Client = HERE) -> SignedIn:
        """With a browser."""
        return self.sign_ins.sign_in(name, password, client=client)

    def enrol(self, person: Person) -> tuple[pyotp.TOTP, tuple[str, ...]]:
        """A second factor: what makes its codes, and the recovery codes. The clock is at the next code then."""
        totp = pyotp.TOTP(self.second_factor.begin(person.id).secret)
        codes = self.second_factor.confirm(person.id, totp.at(self.now))
        self.wait(seconds=30)
        return totp, codes

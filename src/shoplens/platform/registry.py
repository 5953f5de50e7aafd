"""Build the use cases on the registry from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from shoplens.accounts.audit import AuditLog
from shoplens.db import Database
from shoplens.platform.parts import build_database, open_registry, trust_of, utc_now
from shoplens.registry.publishing import RegistryService
from shoplens.settings import Settings


def build_registry(settings: Settings, database: Database | None, audit: AuditLog | None) -> RegistryService:
    """The use cases; without a database they leave no audit entry and send no event. Raises Misconfigured."""
    return RegistryService(
        open_registry(settings),
        models_dir=settings.effective_models_dir,
        trust=trust_of(settings),
        database=database,
        audit=audit,
        clock=utc_now,
    )


@contextmanager
def open_registry_service(settings: Settings) -> Iterator[RegistryService]:
    """For a command: with the database where there is one. Raises Misconfigured and DatabaseUnavailable."""
    settings.make_data_dir()
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        yield build_registry(settings, None, None)
        return
    with closing(build_database(settings, pool=1)) as database:
        yield build_registry(settings, database, AuditLog(database, clock=utc_now))

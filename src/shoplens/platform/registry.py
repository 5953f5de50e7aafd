"""Build the use cases on the registry from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from shoplens.accounts.audit import AuditLog
from shoplens.db import Database
from shoplens.errors import Misconfigured
from shoplens.platform.parts import build_database, open_registry, trust_of, utc_now
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.registry.publishing import RegistryService
from shoplens.registry.registry import Registry
from shoplens.settings import Settings
from shoplens.storage import open_store


def build_registry(settings: Settings, database: Database, audit: AuditLog) -> RegistryService:
    """The use cases for a server; without any place for a registry, over one that is empty. Raises Misconfigured."""
    registry = open_registry(settings) or ObjectRegistry(open_store("memory://"), "no registry", clock=utc_now)
    return RegistryService(registry, trust=trust_of(settings), database=database, audit=audit, clock=utc_now)


def require_registry(settings: Settings) -> Registry:
    """The registry. Raises Misconfigured where there is none, and StorageUnavailable."""
    registry = open_registry(settings)
    if registry is None:
        raise Misconfigured(
            f"There is no registry: models_url is not set, and {settings.data_dir.absolute()} cannot be written."
        )
    return registry


@contextmanager
def open_registry_service(settings: Settings) -> Iterator[RegistryService]:
    """For a command: with the database where there is one. Raises Misconfigured and DatabaseUnavailable."""
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        yield RegistryService(
            require_registry(settings), trust=trust_of(settings), database=None, audit=None, clock=utc_now
        )
        return
    with closing(build_database(settings, pool=1)) as database:
        yield RegistryService(
            require_registry(settings),
            trust=trust_of(settings),
            database=database,
            audit=AuditLog(database, clock=utc_now),
            clock=utc_now,
        )

"""Build what follows from decisions: appeals, customers, retention and label sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from shoplens.accounts.audit import AuditLog
from shoplens.batch.label_source import answered_items
from shoplens.catalogue.label_source import CategoryLabels
from shoplens.db import Database
from shoplens.labels.service import LabelService, feedback_labels
from shoplens.moderation.consequences.appeals import AppealService
from shoplens.moderation.consequences.customers import CustomerService
from shoplens.moderation.consequences.label_source import DecisionLabels
from shoplens.moderation.consequences.retention import Retention, RetentionService
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.service import Moderation
from shoplens.platform.catalogue import live_trees
from shoplens.platform.moderation import refusal_reasons
from shoplens.platform.parts import build_database, utc_now
from shoplens.settings import Settings
from shoplens.storage import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """The use cases on what follows from decisions."""

    appeals: AppealService
    customers: CustomerService
    retention: RetentionService
    labels: LabelService


def build_consequences(
    settings: Settings, moderation: Moderation, *, database: Database, store: Store, audit: AuditLog
) -> Consequences:
    """For all channels with a moderation side. Nothing is deleted until retention is started."""
    labels = build_labels(settings, database, store)
    return Consequences(
        appeals=AppealService(
            database,
            reasons=lambda name: moderation.queue.rules(name).reasons,
            kept_days={
                name: each.moderation.keep_refused_days
                for name, each in settings.channels.items()
                if each.moderation is not None
            },
            clock=utc_now,
        ),
        customers=build_customers(
            database,
            store,
            audit,
            labels,
            policies=lambda: {name: moderation.policy_of(name) for name in moderation.channels},
        ),
        retention=build_retention(settings, database, store),
        labels=labels,
    )


def build_customers(
    database: Database,
    store: Store,
    audit: AuditLog,
    labels: LabelService,
    *,
    policies: Callable[[], Mapping[str, ModerationPolicy]],
) -> CustomerService:
    """`policies` gives those that apply now, by channel."""
    return CustomerService(database, PhotoFiles(store), policies=policies, labels=labels, audit=audit, clock=utc_now)


def build_retention(settings: Settings, database: Database, store: Store) -> RetentionService:
    """With the days of all channels that have a moderation side."""
    channels = {
        name: Retention(
            refused_days=each.moderation.keep_refused_days,
            held_days=each.moderation.keep_held_days,
            published_days=each.moderation.keep_published_days,
        )
        for name, each in settings.channels.items()
        if each.moderation is not None
    }
    return RetentionService(database, store, PhotoFiles(store), channels=channels, clock=utc_now)


def build_labels(settings: Settings, database: Database, store: Store) -> LabelService:
    """From decisions on shoppers' photos and on products, from feedback on predictions, and from reviews of runs."""
    moderated = {name: each.moderation for name, each in settings.channels.items() if each.moderation is not None}
    decisions = DecisionLabels(
        database,
        reasons=lambda name: refusal_reasons(moderated[name]) if name in moderated else (),
        accepted=lambda name: moderated[name].accepted_label if name in moderated else None,
    )
    categories = CategoryLabels(database, tree_of=live_trees(settings, database))
    sources = (decisions, feedback_labels(database), answered_items(database), categories)
    return LabelService(database, store, sources=sources, clock=utc_now)


@contextmanager
def open_labels(settings: Settings) -> Iterator[LabelService]:
    """For a command. Raises DatabaseUnavailable and StorageUnavailable."""
    with closing(build_database(settings)) as database:
        yield build_labels(settings, database, open_store(settings.effective_storage_url, setting="storage_url"))


@contextmanager
def open_customers(settings: Settings) -> Iterator[CustomerService]:
    """For a command: without policies, so without strikes. Raises DatabaseUnavailable and StorageUnavailable."""
    with closing(build_database(settings)) as database:
        store = open_store(settings.effective_storage_url, setting="storage_url")
        labels = build_labels(settings, database, store)
        yield build_customers(database, store, AuditLog(database, clock=utc_now), labels, policies=dict)


@contextmanager
def open_retention(settings: Settings) -> Iterator[RetentionService]:
    """For a command. Raises DatabaseUnavailable and StorageUnavailable."""
    with closing(build_database(settings)) as database:
        yield build_retention(settings, database, open_store(settings.effective_storage_url, setting="storage_url"))

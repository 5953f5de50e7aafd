"""Build webhooks from the settings."""

from __future__ import annotations

from typing import Final

from shoplens.db import Database
from shoplens.monitoring.alerts.notices import FIRING_EVENT, RESOLVED_EVENT
from shoplens.platform.parts import utc_now
from shoplens.registry.publishing import PROMOTED_EVENT
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics
from shoplens.webhooks.sender import WebhookSender
from shoplens.webhooks.service import TEST_EVENT, WebhookService
from shoplens.webhooks.targets import Targets

EVENT_TYPES: Final = (
    "photo.published",
    "photo.refused",
    "photo.held",
    "photo.erased",
    "appeal.decided",
    PROMOTED_EVENT,
    FIRING_EVENT,
    RESOLVED_EVENT,
)
"""Every type that a feature emits."""


def build_webhooks(settings: Settings, database: Database) -> WebhookService:
    """What looks after endpoints and deliveries."""
    targets = Targets(settings.webhook_networks)
    return WebhookService(database, targets=targets, event_types=(*EVENT_TYPES, TEST_EVENT), clock=utc_now)


def build_sender(settings: Settings, database: Database, metrics: Metrics) -> WebhookSender:
    """What sends events; it does nothing until it is started."""
    return WebhookSender(database, targets=Targets(settings.webhook_networks), clock=utc_now, metrics=metrics)

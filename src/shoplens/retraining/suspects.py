"""Labels in question, for people: look again, and say that the label is right or take the other one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.db import Database
from shoplens.messages import marked
from shoplens.retraining.entities import Suspect
from shoplens.retraining.errors import LabelNotChangeable
from shoplens.retraining.repository import SuspectRepository
from shoplens.retraining.samples import OWN

Relabel = Callable[[Suspect, Principal], None]
"""Gives a sample the label that is suggested, where its label was given: as feedback, or as a decision on a product."""


class SuspectService:
    """All methods block. `relabel` has a way to change labels for each source of labels that can be changed here."""

    def __init__(
        self, database: Database, audit: AuditLog, *, relabel: Mapping[str, Relabel], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._audit = audit
        self._relabel = relabel
        self._clock = clock

    def count(self) -> dict[str, int]:
        """Labels that nobody answered, by channel."""
        with self._database.reading() as tx:
            return SuspectRepository(tx).count_open()

    def open(self, channel: str, *, limit: int) -> list[Suspect]:
        """Those of a channel, the most suspicious first."""
        with self._database.reading() as tx:
            return SuspectRepository(tx).open(channel, limit=limit)

    def get(self, suspect_id: str) -> Suspect:
        """Raises SuspectNotFound."""
        with self._database.reading() as tx:
            return SuspectRepository(tx).get(suspect_id)

    def keep(self, suspect_id: str, *, by: Principal) -> Suspect:
        """The label is right: it is not asked again. Raises SuspectNotFound."""
        return self._settled(self.get(suspect_id), "kept", by)

    def take(self, suspect_id: str, *, by: Principal) -> Suspect:
        """The suggested label is right. The next label set has it.

        Raises SuspectNotFound, LabelNotChangeable, and what the place raises where the label was given.
        """
        suspect = self.get(suspect_id)
        relabel = self._relabel.get(suspect.source)
        if relabel is None:
            where = marked("in the shop's own files") if suspect.source in OWN else marked("on the page of the photo")
            raise LabelNotChangeable(f"The label of this sample is changed {where}, not here.")
        if suspect.outcome is None:
            relabel(suspect, by)
        return self._settled(suspect, "changed", by)

    def _settled(self, suspect: Suspect, outcome: str, by: Principal) -> Suspect:
        if suspect.outcome is not None:
            return suspect
        settled = replace(suspect, outcome=outcome, decided_at=self._clock(), decided_by=by.name)
        with self._database.transaction() as tx:
            SuspectRepository(tx).settle(settled)
            details = {"label": suspect.label, "suggested": suspect.suggested, "outcome": outcome}
            self._audit.record(tx, by, "label.looked_at", target=suspect.sample_id, details=details)
        return settled

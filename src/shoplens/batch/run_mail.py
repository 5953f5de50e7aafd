"""The mail about a finished run: figures, links, the report. It is written with the end of the run, so exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection

from shoplens.batch.entities import BatchRun, Clock, ItemState
from shoplens.batch.presenting import duration
from shoplens.batch.report import ReportFacts, gather
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import BlobNotFound, StorageUnavailable
from shoplens.mail.entities import Attachment, MailKind, Message, Section
from shoplens.mail.outbox import post
from shoplens.messages import DEFAULT, gettext, known, localised, ngettext, speaking, whole_number
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger

LARGEST_REPORT: Final = 1_000_000
"""In bytes; a larger one is not attached."""
_MOST_CATEGORIES: Final = 12
_MOST_REASONS: Final = 5

Posted = Callable[[Connection], None]
"""Writes the mail in the transaction that ends the run."""
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMailing:
    """From whom and to whom the mails about the runs of a channel go; runs over products use it, too.

    `public_url` is where people reach the server; without it the mail has no links. `language_tag` is that of the mail.
    """

    sender: str
    recipients: Sequence[str]
    title: str
    public_url: str | None
    clock: Clock
    language_tag: str = DEFAULT

    def posted(self, run_id: str, message: Message) -> Posted:
        """What writes the mail: one per run and recipient."""
        now = self.clock()

        def write(tx: Connection) -> None:
            post(
                tx,
                message,
                kind=MailKind.REPORT,
                about=f"run:{run_id}",
                sender=self.sender,
                recipients=self.recipients,
                now=now,
            )

        return write


def prepared(prepare: Callable[[], Posted] | None, run_id: str) -> Posted:
    """What writes the mail of a run; nothing where nobody wants one, or where it cannot be made. Blocks."""
    if prepare is not None:
        try:
            return prepare()
        except Exception:  # noqa: BLE001  the results are there; the run ends without its mail
            _log.exception("run.mail_failed", run=run_id)
    return lambda _: None


class RunMail:
    """Call it with a run whose items are done, and the key of its report. Blocks; raises DatabaseUnavailable."""

    def __init__(self, database: Database, store: Store, mailing: RunMailing) -> None:
        self._database = database
        self._store = store
        self._mailing = mailing

    def __call__(self, run_id: str, report_key: str | None) -> Posted:
        """What writes the mail."""
        with self._database.reading() as tx:
            facts = gather(tx, RunRepository(tx).get(run_id), now=self._mailing.clock())
        with speaking(self._mailing.language_tag):
            message = Message(
                subject=f"{known(self._mailing.title)}: {_headline(facts)}",
                sections=tuple(self._sections(facts)),
                attachment=self._attachment(facts.run, report_key),
            )
        return self._mailing.posted(run_id, message)

    def _sections(self, facts: ReportFacts) -> list[Section]:
        sections = [
            Section(
                heading=gettext("%(channel)s: the run is done", channel=known(self._mailing.title)),
                lines=(_headline(facts) + ".",),
                figures=_figures(facts),
                links=self._links(facts.run),
            )
        ]
        if facts.mix:
            named = [(each.label, localised(f"{each.count:,} ({each.share:.1%})")) for each in facts.mix if each.count]
            unusual = [each.label for each in facts.mix if each.unusual]
            labels = ", ".join(unusual[:_MOST_CATEGORIES])
            lines = (gettext("Unusual compared with earlier runs: %(labels)s.", labels=labels),) if unusual else ()
            figures = tuple(named[:_MOST_CATEGORIES])
            sections.append(Section(heading=gettext("Categories"), lines=lines, figures=figures))
        if facts.reasons:
            reasons = [(each.code.replace("_", " ").capitalize(), whole_number(each.count)) for each in facts.reasons]
            sections.append(Section(heading=gettext("Quarantined"), figures=tuple(reasons[:_MOST_REASONS])))
        return sections

    def _links(self, run: BatchRun) -> tuple[tuple[str, str], ...]:
        home = self._mailing.public_url
        if home is None:
            return ()
        page = f"{home}/console/batch/{quote(run.channel)}/{run.id}"
        return (gettext("The run"), page), (gettext("The report"), f"{home}/batch/runs/{run.id}/report")

    def _attachment(self, run: BatchRun, report_key: str | None) -> Attachment | None:
        """The report that was stored, if it is small; a store that is away leaves out the report, not the mail."""
        if report_key is None:
            return None
        try:
            html = self._store.get(report_key)
        except (BlobNotFound, StorageUnavailable):
            return None
        day = (run.started_at or run.created_at).astimezone(UTC)
        return Attachment(name=f"{run.channel}-{day:%Y-%m-%d}.html", html=html) if len(html) <= LARGEST_REPORT else None


def _headline(facts: ReportFacts) -> str:
    """The figures that a subject has room for."""
    counts = facts.counts
    words = [ngettext("%(number)s photo", "%(number)s photos", facts.accounting.in_run)]
    if waiting := counts[ItemState.NEEDS_REVIEW]:
        words.append(gettext("%(waiting)s need a person", waiting=whole_number(waiting)))
    if quarantined := counts[ItemState.QUARANTINED]:
        words.append(gettext("%(quarantined)s in quarantine", quarantined=whole_number(quarantined)))
    return ", ".join(words)


def _figures(facts: ReportFacts) -> tuple[tuple[str, str], ...]:
    run, counts = facts.run, facts.counts
    took_s = (facts.ended_at - run.started_at).total_seconds() if facts.ended_at and run.started_at else None
    rows = [
        (gettext("Received"), counts.received),
        (gettext("Done"), counts[ItemState.DONE]),
        (gettext("Needs review"), counts[ItemState.NEEDS_REVIEW]),
        (gettext("Quarantined"), counts[ItemState.QUARANTINED]),
        (gettext("Duplicates"), counts[ItemState.DUPLICATE]),
    ]
    figures = [(name, whole_number(number)) for name, number in rows]
    if took_s is not None and took_s > 0:  # clocks may jump
        figures.append((gettext("Duration"), duration(took_s)))
    if facts.per_minute is not None:
        figures.append((gettext("Photos per minute"), localised(f"{facts.per_minute:,.0f}")))
    if run.model is not None:
        figures.append((gettext("Model"), str(run.model)))
    return tuple(figures)

"""The mail about a finished run over products: figures, categories, links. It is written with the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from shoplens.batch.presenting import duration
from shoplens.batch.run_mail import Posted, RunMailing
from shoplens.catalogue.entities import CatalogueRun
from shoplens.catalogue.repository import AnswerCount, ProductRepository
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.db import Database
from shoplens.mail.entities import Message, Section
from shoplens.messages import gettext, known, localised, ngettext, speaking, whole_number

_MOST_CATEGORIES: Final = 12
_MOST_FAULTS: Final = 5


class CatalogueRunMail:
    """Call it with a run whose products are done. Blocks; raises DatabaseUnavailable.

    `paths` gives what says the path of a category in the live tree.
    """

    def __init__(self, database: Database, mailing: RunMailing, paths: Callable[[], Callable[[str], str]]) -> None:
        self._database = database
        self._mailing = mailing
        self._paths = paths

    def __call__(self, run_id: str) -> Posted:
        """What writes the mail."""
        with self._database.reading() as tx:
            run = CatalogueRunRepository(tx).get(run_id)
            products = ProductRepository(tx)
            answers, faults = products.answers_of_run(run), products.faults_of_run(run)
        with speaking(self._mailing.language_tag):
            return self._mailing.posted(run_id, self._message(run, answers, faults))

    def _message(self, run: CatalogueRun, answers: list[AnswerCount], faults: list[tuple[str, int]]) -> Message:
        title = known(self._mailing.title)
        doubtful = sum(each.doubtful for each in answers)
        headline = _headline(run, doubtful)
        sections = [
            Section(
                heading=gettext("%(channel)s: the run is done", channel=title),
                lines=(f"{headline}.",),
                figures=_figures(run, doubtful, self._mailing.clock()),
                links=self._links(run),
            )
        ]
        if named := [each for each in answers if each.category is not None]:
            sections.append(
                Section(heading=gettext("Suggested categories"), figures=self._categories(named, run.suggested))
            )
        if faults:
            rows = tuple(
                (code.replace("_", " ").capitalize(), whole_number(count)) for code, count in faults[:_MOST_FAULTS]
            )
            sections.append(Section(heading=gettext("Photos or texts that could not be used"), figures=rows))
        return Message(subject=f"{title}: {headline}", sections=tuple(sections))

    def _categories(self, answers: list[AnswerCount], suggested: int) -> tuple[tuple[str, str], ...]:
        path = self._paths()
        return tuple(
            (path(str(each.category)), localised(f"{each.products:,} ({each.products / max(1, suggested):.1%})"))
            for each in answers[:_MOST_CATEGORIES]
        )

    def _links(self, run: CatalogueRun) -> tuple[tuple[str, str], ...]:
        home = self._mailing.public_url
        if home is None:
            return ()
        pages, query = f"{home}/console/catalogue", urlencode({"channel": run.channel})
        return (gettext("The runs"), f"{pages}/runs?{query}"), (
            gettext("Products to look at"),
            f"{pages}/review?{query}",
        )


def _headline(run: CatalogueRun, doubtful: int) -> str:
    """The figures that a subject has room for."""
    done = run.suggested + run.failed
    words = [ngettext("%(number)s product", "%(number)s products", done)]
    if doubtful:
        words.append(gettext("%(waiting)s need a person", waiting=whole_number(doubtful)))
    if run.failed:
        words.append(gettext("%(failed)s without a suggestion", failed=whole_number(run.failed)))
    return ", ".join(words)


def _figures(run: CatalogueRun, doubtful: int, now: datetime) -> tuple[tuple[str, str], ...]:
    done = run.suggested + run.failed
    rows = [
        (gettext("Products"), done),
        (gettext("Suggested"), run.suggested),
        (gettext("Needs review"), doubtful),
        (gettext("Without a suggestion"), run.failed),
    ]
    figures = [(name, whole_number(number)) for name, number in rows]
    took_s = 0.0 if run.started_at is None else (now - run.started_at).total_seconds()
    if took_s > 0:  # clocks may jump
        figures.append((gettext("Duration"), duration(took_s)))
        figures.append((gettext("Products per minute"), localised(f"{60 * done / took_s:,.0f}")))
    if run.model is not None:
        figures.append((gettext("Model"), run.model))
    if run.tree is not None:
        figures.append((gettext("Version of the categories"), str(run.tree)))
    return tuple(figures)

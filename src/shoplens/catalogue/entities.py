"""Products, their photos, the category tree and its versions, imports, and what people decided. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from shoplens.images.picture import ImageFacts


class ProductState(StrEnum):
    """How far a product is."""

    NEW = "new"
    """Stored, and no model has answered yet."""
    SUGGESTED = "suggested"
    ACCEPTED = "accepted"
    """A person, the import, or the bulk acceptance above a confidence agreed with the suggestion, or set it first."""
    CORRECTED = "corrected"
    """A person chose another category than the suggested one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryScore:
    """One category and the probability that the product belongs to it or below it."""

    category: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product of one channel. `reference` is the shop's own id and unique within the channel.

    `category` is what was decided, None before that; `given` is what the shop itself gave last. `suggestions` are the
    best leaves, best first; `answer` is the deepest category whose probability is high enough. `score` is that of the
    best suggestion. `kind` is what the model saw (`photo`, `text`, `both`), `model` is `name@version`, `tree` the
    version of the tree that the ids belong to. `run_id` is the last run that looked at it, `failure` why no model could
    answer. `revision` rises with each change. `check_share` is set for a suggestion that needed no person while random
    checks were made: the chance with which a person checks it nevertheless; `check_drawn` says whether one does.
    """

    id: str
    channel: str
    reference: str
    created_at: datetime
    changed_at: datetime
    designation: str
    description: str
    state: ProductState
    category: str | None = None
    given: str | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    answer: str | None = None
    score: float | None = None
    suggestions: tuple[CategoryScore, ...] = ()
    needs_review: bool = False
    kind: str | None = None
    model: str | None = None
    tree: int | None = None
    suggested_at: datetime | None = None
    import_id: str | None = None
    run_id: str | None = None
    failure_code: str | None = None
    failure: str | None = None
    revision: int = 0
    check_share: float | None = None
    check_drawn: bool | None = None

    @property
    def decided(self) -> bool:
        """Whether a person, or an import, has set the category."""
        return self.state in (ProductState.ACCEPTED, ProductState.CORRECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductPhoto:
    """One photo of a product in the store, at its place in the product's order."""

    id: str
    product_id: str
    position: int
    name: str
    image: ImageFacts
    image_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One node of the tree. `path` leads from the root to it; `names` are by language, `synonyms` in any language."""

    id: str
    path: tuple[str, ...]
    names: Mapping[str, str]
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeVersion:
    """One version of a channel's tree. The newest is live. `digest` is the SHA-256 over its categories."""

    id: str
    channel: str
    version: int
    created_at: datetime
    created_by: str
    source: str
    note: str
    categories: int
    digest: str


class CategoryDecisionKind(StrEnum):
    """What a person, or a rule that a person set, did with a product's category."""

    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryDecision:
    """One change of a product's category, kept as long as the product. `suggested` and `score` are the model's answer.

    `before`, `state_before` and `review_before` are what undoing it brings back. `bulk_id` joins what one bulk
    acceptance decided.
    """

    product_id: str
    channel: str
    created_at: datetime
    by: str
    by_name: str
    kind: CategoryDecisionKind
    category: str | None
    before: str | None
    suggested: str | None
    score: float | None
    model: str | None
    tree: int | None
    state_before: ProductState = ProductState.SUGGESTED
    review_before: bool = False
    bulk_id: str | None = None
    undone_at: datetime | None = None

    @property
    def bulk(self) -> bool:
        """Whether it was made with many others at once."""
        return self.bulk_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """One import of products. `faults` counts the rows that could not be used; each is listed with its reason.

    `options` say where the files are and how to read them. `pid` and `process` name the process that works on it, and
    `beat_at` is when that wrote last.
    """

    id: str
    channel: str
    created_at: datetime
    created_by: str
    source: str
    rows: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    faults: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    pid: int | None = None
    process: str | None = None
    beat_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None

    @property
    def total(self) -> int | None:
        """How many rows the file has, as far as it is known."""
        found = self.options.get("total")
        return found if isinstance(found, int) else None

    @property
    def unnamed_photos(self) -> int:
        """How many photos were sent in ZIP files for no row; known when the import has ended."""
        return int(self.options.get("unnamed", {}).get("count", 0))

    @property
    def first_unnamed(self) -> tuple[str, ...]:
        """The first of them by name."""
        return tuple(self.options.get("unnamed", {}).get("names", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkJob:
    """One acceptance of many suggestions, or, with `undoes`, the taking back of the acceptance with that id.

    `wanted` is the filter of the products, `planned` how many matched, `done` how many were accepted or taken back.
    `cursor` is the last product that it looked at. `active` is 1 until it has ended. `pid`, `process` and `beat_at` are
    as those of an import.
    """

    id: str
    channel: str
    created_at: datetime
    by: str
    by_name: str
    wanted: Mapping[str, Any]
    undoes: str | None = None
    planned: int = 0
    done: int = 0
    cursor: str = ""
    active: int | None = 1
    pid: int | None = None
    process: str | None = None
    beat_at: datetime | None = None
    finished_at: datetime | None = None
    cancelled_by: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFault:
    """One row that an import could not use. `line` is the line in the file, 1 for the first."""

    import_id: str
    line: int
    code: str
    reason: str
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueRun:
    """One run over the products of a channel: those without a suggestion, or, with `again`, all that are not decided.

    It keeps the `model` (`name@version`) and the version of the `tree` with which it began. `owner`, `host`, `pid` and
    `process` name the process that works on it; that process raises `heartbeat`.
    """

    id: str
    channel: str
    created_at: datetime
    requested_by: str
    again: bool = False
    active: int | None = 1
    planned: int = 0
    suggested: int = 0
    failed: int = 0
    model: str | None = None
    tree: int | None = None
    owner: str | None = None
    host: str | None = None
    pid: int | None = None
    process: str | None = None
    heartbeat: int = 0
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = None
    cancelled_by: str | None = None
    failure: str | None = None

"""The JSON API of the registry: models, versions, aliases and their history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, Field

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import RequestInvalid
from shoplens.registry.entities import MAX_WHY, Alias, Aliases, HistoryEntry, Reason, RegisteredVersion
from shoplens.registry.publishing import RegisteredModel, RegistryService
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema

_MAX_HISTORY = 1_000

READERS: Final = [guarded(Permission.MODELS_READ)]
ModelsAdmin = Annotated[Principal, Depends(requires(Permission.MODELS_ADMIN))]


class HistoryEntryOut(Schema):
    """One change of an alias: from the version `before` to `after`, null where there was or is no version."""

    at: datetime
    by: str
    alias: Alias
    before: str | None
    after: str | None
    why: str
    figures: dict[str, float] = Field(description="Measurements on which the decision was based.")


class HistoryPageOut(Schema):
    """A page of a history; `next` is the value for `before`, null on the last page."""

    items: list[HistoryEntryOut]
    next: str | None


class RegisteredModelOut(Schema):
    """A model in the registry, and the change by which its champion became it."""

    name: str = Field(examples=["clothing-2"])
    champion: str | None = Field(description="The version that answers.", examples=["1.4.0"])
    challenger: str | None = Field(description="The version that is compared with the champion.")
    versions: int
    live: HistoryEntryOut | None

    @classmethod
    def of(cls, model: RegisteredModel) -> Self:
        """Its aliases."""
        return cls(
            name=model.name,
            champion=model.aliases.champion,
            challenger=model.aliases.challenger,
            versions=len(model.versions),
            live=HistoryEntryOut.model_validate(model.live) if model.live else None,
        )


class RegisteredVersionOut(Schema):
    """A published version, which never changes."""

    version: str
    digest: str
    created_at: datetime | None = Field(description="Null for a version that was pushed without a record.")
    by: str
    note: str
    figures: dict[str, float]
    size_bytes: int
    signed_by: str | None

    @classmethod
    def of(cls, version: RegisteredVersion) -> Self:
        """The same fields, and the version for the reference."""
        return cls(
            version=version.ref.version,
            digest=version.digest,
            created_at=version.created_at,
            by=version.by,
            note=version.note,
            figures=version.figures,
            size_bytes=version.size_bytes,
            signed_by=version.signed_by,
        )


class RegisteredDetailsOut(Schema):
    """A model with its versions by rising number. `etag` changes with its aliases."""

    name: str
    champion: str | None
    challenger: str | None
    previous: str | None = Field(description="The version to which a roll-back leads.")
    live: HistoryEntryOut | None
    etag: str | None
    versions: list[RegisteredVersionOut]


class PublishIn(BodySchema):
    """An installed version that is published."""

    version: str = Field(max_length=64, examples=["1.4.0"])
    why: str = Field(max_length=MAX_WHY, description="The registry keeps it.", examples=["Trained on more shoes"])


class LiveOut(Schema):
    """What was champion at a moment; `version` is null and `since` too where there was none."""

    version: str | None
    since: HistoryEntryOut | None


class AliasChangeIn(BodySchema):
    """A change of an alias: to a version, back to the earlier one, or to none."""

    action: Literal["promote", "rollback", "withdraw"] = "promote"
    version: str | None = Field(default=None, max_length=64, description="For `promote`.", examples=["1.4.0"])
    why: str = Field(max_length=MAX_WHY, description="The history keeps it.", examples=["Better on shoes"])
    figures: dict[str, float] = Field(
        default_factory=dict,
        max_length=50,
        description="Unset: those of the version.",
        examples=[{"weighted F1": 0.97}],
    )
    etag: str | None = Field(
        default=None, max_length=500, description="That of the model as it was read, empty for null: the change is "
        "refused (409) where somebody else was faster. Unset: whatever is there is changed.",
    )  # fmt: skip


def registry_router(registry: RegistryService) -> APIRouter:
    """Routes for programs that publish and watch models."""
    router = api_router(prefix="/registry", tags=["models"])

    @router.get("", operation_id="list_registered_models", summary="The models of the registry", dependencies=READERS)
    def models() -> list[RegisteredModelOut]:
        """With what is live, since when and why."""
        return [RegisteredModelOut.of(model) for model in registry.all()]

    @router.get("/{name}", operation_id="get_registered_model", dependencies=READERS, summary="One model")
    def model(name: str) -> RegisteredDetailsOut:
        """By rising number. Nothing is downloaded."""
        found = registry.model(name)
        return RegisteredDetailsOut(
            name=found.name,
            champion=found.aliases.champion,
            challenger=found.aliases.challenger,
            previous=found.previous,
            live=HistoryEntryOut.model_validate(found.live) if found.live else None,
            etag=found.aliases.etag,
            versions=[RegisteredVersionOut.of(version) for version in found.versions],
        )

    @router.get(
        "/{name}/history",
        operation_id="list_alias_changes",
        summary="Who changed which alias, and why",
        dependencies=READERS,
    )
    def history(
        name: str,
        limit: Annotated[int, Query(ge=1, le=_MAX_HISTORY, description="Changes; one may have two entries.")] = 100,
        before: Annotated[str | None, Query(max_length=200, description="The cursor `next` of a page.")] = None,
    ) -> HistoryPageOut:
        """Newest first."""
        page = registry.changes(name, before=before, limit=limit)
        return HistoryPageOut(items=[HistoryEntryOut.model_validate(each) for each in page.entries], next=page.next)

    @router.get("/{name}/live", operation_id="get_live_version", dependencies=READERS, summary="What was live when")
    def live(name: str, at: AwareDatetime | None = None) -> LiveOut:
        """Now, if no moment is given. `since` says since when and why."""
        entry = registry.live(name, at)
        since = HistoryEntryOut.model_validate(entry) if entry and entry.after else None
        return LiveOut(version=entry.after if entry else None, since=since)

    @router.post(
        "/{name}/versions", status_code=201, operation_id="publish_version", summary="Publish an installed version"
    )
    def publish(name: str, body: PublishIn, principal: ModelsAdmin) -> RegisteredVersionOut:
        """It is installed on the machine of the server (`shoplens models import`), and goes live when it is promoted.

        Publishing the same bundle again changes nothing.
        """
        return RegisteredVersionOut.of(publish_version(registry, name, body.version, principal, why=body.why))

    @router.post("/{name}/aliases/{alias}", operation_id="change_alias", summary="Promote, roll back or withdraw")
    def change(name: str, alias: Alias, body: AliasChangeIn, principal: ModelsAdmin) -> HistoryEntryOut:
        """Servers, workers and runs that begin afterwards follow the champion."""
        return HistoryEntryOut.model_validate(change_alias(registry, name, alias, body, principal))

    return router


def publish_version(
    registry: RegistryService, name: str, version: str, principal: Principal, *, why: str
) -> RegisteredVersion:
    """The version that a body or a form names. Raises RequestInvalid, ModelNotFound, and as RegistryService."""
    Reason(by=principal.name, why=why)
    return registry.publish_installed(ModelRef(name=name, version=version), principal, why=why)


def change_alias(
    registry: RegistryService, name: str, alias: Alias, body: AliasChangeIn, principal: Principal
) -> HistoryEntry:
    """The change that a body or a form asks for. Raises RequestInvalid, and as RegistryService."""
    expected = None if body.etag is None else Aliases(etag=body.etag or None)
    if body.action == "rollback":
        if alias != "champion" or body.version is not None:
            raise RequestInvalid("Only the champion is rolled back, to the version that was champion before.")
        return registry.roll_back(name, principal, why=body.why, expected=expected)
    if (body.version is None) != (body.action == "withdraw"):
        raise RequestInvalid("Name the version to promote, and none to withdraw the alias.")
    return registry.set_alias(
        name, alias, body.version, principal, why=body.why, figures=body.figures, expected=expected
    )

"""The JSON API of policies: the one that applies, its versions, another one, back to an earlier one, and a dry run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.moderation.entities import PhotoState
from shoplens.moderation.policy.dry_run import MAX_PHOTOS, DryRun, Move, MovedPhoto
from shoplens.moderation.policy.service import MAX_HISTORY, AppliedPolicy, HistoryEntry
from shoplens.moderation.service import Moderation
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema

_EXAMPLE: str = "[signals.nsfw]\nreview_at = 0.2\nreject_at = 0.85\n"

ChannelName = Annotated[
    str | None, Query(description="Optional if only one channel has a moderation side.", examples=["reviews"])
]
Admin = Annotated[Principal, Depends(requires(Permission.MODERATION_ADMIN))]


class PolicyOut(Schema):
    """One version of a channel's policy. Version 0 is that of the settings."""

    channel: str = Field(examples=["reviews"])
    version: int = Field(examples=[3])
    digest: str = Field(description="The `policy_version` of the photos that it decided.", examples=["9f86d081884c"])
    source: str = Field(description="The rules as TOML, with all values.", examples=[_EXAMPLE])
    created_at: datetime | None
    created_by: str = Field(examples=["anna"])
    note: str | None = Field(examples=["Too many good photos were held."])


class CurrentPolicyOut(PolicyOut):
    """The version that applies, and what its thresholds can be set for."""

    signals: list[str] = Field(examples=[["blur", "nsfw"]])
    unknown_signals: list[str] = Field(description="Those of the policy that are not computed: each holds all photos.")
    dropped: list[str] = Field(
        description="Those that the version before had thresholds for and this one has none for: no photo is held or "
        "refused for them any more.",
        examples=[["blur"]],
    )

    @classmethod
    def of(cls, moderation: Moderation, applied: AppliedPolicy) -> Self:
        """With the signals of its channel."""
        signals = list(moderation.policies.signals(applied.channel))
        unknown = list(moderation.policies.unknown_signals(applied.channel, applied.policy))
        plain = {name: getattr(applied, name) for name in PolicyOut.model_fields}
        dropped = list(moderation.policies.dropped(applied))
        return cls(**plain, signals=signals, unknown_signals=unknown, dropped=dropped)


class ChangeOut(Schema):
    """One value that a version changed, as TOML writes it."""

    place: str = Field(examples=["signals.nsfw.review_at"])
    before: str | None = Field(examples=["0.2"])
    after: str | None = Field(examples=["0.1"])


class PolicyVersionOut(PolicyOut):
    """A version with what it changed against the one before."""

    changes: list[ChangeOut]

    @classmethod
    def of(cls, entry: HistoryEntry) -> Self:
        """The entry as JSON."""
        plain = {name: getattr(entry.applied, name) for name in PolicyOut.model_fields}
        return cls(**plain, changes=[ChangeOut.model_validate(each) for each in entry.changes])


class PolicyBody(BodySchema):
    """Another policy. `based_on` is the version that you changed; if it is no longer the newest: 409."""

    channel: str | None = None
    source: str = Field(description="The rules as TOML.", examples=[_EXAMPLE])
    based_on: int = Field(ge=0, examples=[3])
    note: str = Field(description="Why, for the history.", examples=["Too many good photos were held."])


class RollBackBody(BodySchema):
    """Back to `version`, as a new one."""

    channel: str | None = None
    version: int = Field(ge=0, lt=1 << 31, examples=[2])
    note: str = Field(description="Why, for the history.", examples=["The change held too much."])
    based_on: int | None = Field(default=None, ge=0, description="Refuse with 409 if this is no longer the newest.")


class DryRunBody(BodySchema):
    """A policy to try on photos that are there."""

    channel: str | None = None
    source: str | None = Field(
        default=None, description="The rules as TOML; null: those in use, to see how the scores are spread."
    )
    photos: int = Field(default=1_000, ge=1, le=MAX_PHOTOS, description="How many of the newest photos to try it on.")


class MovedPhotoOut(Schema):
    """A photo that would get another state, with the sentences of both policies."""

    id: str
    before: str = Field(examples=["The score of nsfw is 0.24; photos are held from 0.2."])
    after: str = Field(examples=["All scores are below their thresholds; the nearest is nsfw with 0.24 below 0.3."])
    signal: str | None = Field(description="The signal that decided by the stricter of both.", examples=["nsfw"])
    decided: PhotoState | None = Field(description="What a person decided, if somebody did.")

    @classmethod
    def of(cls, moved: MovedPhoto) -> Self:
        """The photo as JSON."""
        return cls(
            id=moved.photo.id,
            before=moved.before.rule,
            after=moved.after.rule,
            signal=moved.after.signal or moved.before.signal,
            decided=moved.decided,
        )


class MoveOut(Schema):
    """The photos that would go from one state to another. `examples` are the newest of them."""

    before: PhotoState
    after: PhotoState
    count: int
    examples: list[MovedPhotoOut]

    @classmethod
    def of(cls, move: Move) -> Self:
        """The move as JSON."""
        examples = [MovedPhotoOut.of(each) for each in move.examples]
        return cls(before=move.before, after=move.after, count=move.count, examples=examples)


class AgreementOut(Schema):
    """A policy beside the decisions of people on the same photos."""

    shown_wrongly: int = Field(description="It shows them, and people refused them.")
    refused_wrongly: int = Field(description="It refuses them, and people accepted them.")
    held: int = Field(description="It leaves them to people once more.")
    right: int


class HistogramOut(Schema):
    """How the scores of a signal are spread over equal parts from 0 to 1."""

    signal: str
    counts: list[int]
    missing: int = Field(description="Photos that do not have this signal.")


class DryRunOut(Schema):
    """What the policy would do, beside what the one in use does with the same photos."""

    examined: int
    complete: bool = Field(description="False if the time ran out before all photos that were asked for.")
    before: dict[PhotoState, int]
    after: dict[PhotoState, int]
    moves: list[MoveOut]
    decided_by_people: int
    agreement_before: AgreementOut
    agreement_after: AgreementOut
    histograms: list[HistogramOut]
    dropped: list[str] = Field(
        description="Signals that the policy in use has thresholds for and this one has none for.", examples=[["blur"]]
    )

    @classmethod
    def of(cls, result: DryRun) -> Self:
        """The result as JSON."""
        return cls(
            examined=result.examined,
            complete=result.complete,
            before=dict(result.before),
            after=dict(result.after),
            moves=[MoveOut.of(each) for each in result.moves],
            decided_by_people=result.decided_by_people,
            agreement_before=AgreementOut.model_validate(result.agreement_before),
            agreement_after=AgreementOut.model_validate(result.agreement_after),
            histograms=[HistogramOut.model_validate(each) for each in result.histograms],
            dropped=list(result.dropped),
        )


def policy_router(moderation: Moderation) -> APIRouter:
    """Reading and dry runs ask for moderation:review, changes for moderation:admin."""
    router = api_router(tags=["moderation"])
    reading = [guarded(Permission.MODERATION_REVIEW)]

    @router.get("/moderation/policy", summary="The policy that applies", dependencies=reading)
    def get(channel: ChannelName = None) -> CurrentPolicyOut:
        """Its TOML is what `PUT` takes."""
        name = moderation.channel(channel).name
        return CurrentPolicyOut.of(moderation, moderation.policies.applied(name))

    @router.put("/moderation/policy", summary="Apply another policy")
    def put(body: PolicyBody, principal: Admin) -> CurrentPolicyOut:
        """It is checked before it applies: 422 says what makes no sense and where. All processes use it within 2 s."""
        name = moderation.channel(body.channel).name
        saved = moderation.policies.save(name, body.source, based_on=body.based_on, note=body.note, by=principal)
        return CurrentPolicyOut.of(moderation, saved)

    @router.get("/moderation/policy/versions", summary="The versions of the policy", dependencies=reading)
    def versions(
        channel: ChannelName = None, limit: Annotated[int, Query(ge=1, le=MAX_HISTORY)] = 50
    ) -> list[PolicyVersionOut]:
        """Who changed what, when and why; the newest first."""
        name = moderation.channel(channel).name
        return [PolicyVersionOut.of(each) for each in moderation.policies.history(name, limit=limit)]

    @router.post("/moderation/policy/rollback", summary="Back to an earlier policy")
    def roll_back(body: RollBackBody, principal: Admin) -> CurrentPolicyOut:
        """The earlier rules become a new version; version 0 is that of the settings."""
        name = moderation.channel(body.channel).name
        back = moderation.policies.roll_back(
            name, body.version, note=body.note, by=principal, based_on=body.based_on
        )  # fmt: skip
        return CurrentPolicyOut.of(moderation, back)

    @router.post(
        "/moderation/policy/dry-run",
        operation_id="dry_run_moderation_policy",
        summary="Try a policy on photos that are there",
        dependencies=reading,
    )
    def dry_run(body: DryRunBody) -> DryRunOut:
        """Nothing changes. The stored signals of the newest photos are judged by the policy in use and by this one."""
        name = moderation.channel(body.channel).name
        return DryRunOut.of(moderation.dry_run(name, body.source, photos=body.photos))

    return router

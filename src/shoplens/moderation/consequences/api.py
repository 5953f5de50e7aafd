"""The JSON API of what follows from decisions: statements of reasons, appeals, strikes, and erasing a customer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.responses import PlainTextResponse, Response

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.moderation.consequences.appeals import MAX_MESSAGE, MAX_PAGE, AppealService
from shoplens.moderation.consequences.customers import Customer, CustomerService, StrikeRule
from shoplens.moderation.consequences.statements import REDRESS, Statement
from shoplens.moderation.entities import Appeal, Erasure, ModerationPhoto, PhotoState
from shoplens.moderation.queue.api import PhotoId, known_id
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response


class AppealIn(BodySchema):
    """Why the shopper disagrees."""

    message: str = Field(
        min_length=1, max_length=MAX_MESSAGE, examples=["This is my dog in the jacket that I bought. Nothing else."]
    )


class AppealOut(Schema):
    """An appeal and what became of it. It does not say who decided."""

    id: str
    photo_id: PhotoId
    at: datetime
    message: str
    decided_at: datetime | None
    outcome: PhotoState | None = Field(description="`published`: the appeal was right; `refused`: it stays so.")
    answer: str | None = Field(description="For the shopper, where the person wrote one.")


class OpenAppealOut(Schema):
    """An appeal that waits, for people who decide."""

    id: str
    photo_id: PhotoId
    at: datetime
    message: str
    channel: str
    customer: str | None
    reason: str | None
    refused_at: datetime

    @classmethod
    def of(cls, appeal: Appeal, photo: ModerationPhoto) -> Self:
        """The appeal with what it is about."""
        return cls(
            id=appeal.id,
            photo_id=photo.id,
            at=appeal.at,
            message=appeal.message,
            channel=photo.channel,
            customer=photo.ref.customer,
            reason=photo.reason,
            refused_at=photo.decided_at,
        )


class StatementOut(Schema):
    """The statement of reasons of a refused photo, with the content of article 17 of the Digital Services Act."""

    photo_id: PhotoId
    customer: str | None
    product: str | None
    order: str | None
    review: str | None
    sent_at: datetime
    decided_at: datetime
    restriction: str = Field(description="What was decided.", examples=["The photo is not published."])
    reason: str | None = Field(description="A code of the shop's list.", examples=["not_the_product"])
    ground: str = Field(description="The reason as a sentence.", examples=["The photo does not show the product."])
    detected_automatically: bool = Field(description="A program pointed at the photo first.")
    decided_automatically: bool = Field(description="No person took part in the decision.")
    policy_version: str
    can_appeal: bool
    appeal_until: datetime | None = Field(description="The photo itself is deleted then; null: no such date.")
    appeal: AppealOut | None
    redress: str = Field(examples=[REDRESS])
    text: str = Field(description="All of it in plain text, to send to the shopper.")

    @classmethod
    def of(cls, statement: Statement) -> Self:
        """The same statement."""
        ref = statement.ref
        return cls(
            photo_id=statement.photo_id,
            customer=ref.customer,
            product=ref.product,
            order=ref.order,
            review=ref.review,
            sent_at=statement.sent_at,
            decided_at=statement.decided_at,
            restriction="The photo is not published.",
            reason=statement.reason,
            ground=statement.ground,
            detected_automatically=statement.detected_automatically,
            decided_automatically=statement.decided_automatically,
            policy_version=statement.policy_version,
            can_appeal=statement.can_appeal,
            appeal_until=statement.appeal_until,
            appeal=None if statement.appeal is None else AppealOut.model_validate(statement.appeal),
            redress=REDRESS,
            text=statement.text(),
        )


class StrikeOut(Schema):
    """A refusal that stands, and until when it counts."""

    photo_id: PhotoId
    channel: str
    at: datetime
    reason: str | None
    expires_at: datetime


class StrikeRuleOut(Schema):
    """A channel's rule, and whether it holds all new photos of this customer now."""

    channel: str
    limit: int | None = Field(description="So many strikes hold new photos; null: never.")
    days: int
    holds: bool
    until: datetime | None = Field(description="When too few strikes are left.")
    sentence: str = Field(
        examples=["3 of 3 refused photos within 30 days: new photos are held for a person until 2026-06-01 10:00 UTC."]
    )
    strikes: list[StrikeOut]

    @classmethod
    def of(cls, rule: StrikeRule) -> Self:
        """The rule with its strikes, newest first."""
        strikes = [
            StrikeOut(
                photo_id=each.refusal.photo_id,
                channel=each.refusal.channel,
                at=each.refusal.at,
                reason=each.refusal.reason,
                expires_at=each.expires_at,
            )
            for each in rule.strikes
        ]
        return cls(
            channel=rule.channel, limit=rule.limit, days=rule.days, holds=rule.holds, until=rule.until,
            sentence=rule.sentence, strikes=strikes,
        )  # fmt: skip


class ErasureOut(Schema):
    """The receipt of an erased customer. The reference itself is not kept."""

    id: str
    at: datetime
    finished_at: datetime | None = Field(description="Null while something is left: erase again to go on.")
    customer_digest: str = Field(description="The SHA-256 of the reference.")
    photos: int
    files: int
    hashes: int
    events: int = Field(description="Events of webhooks that named the customer.")
    label_sets: int = Field(description="Label sets that were written again without the photos.")
    by: str


class CustomerOut(Schema):
    """What is known of a customer: photos by state, the rules on strikes, and receipts of earlier erasures."""

    customer: str
    photos: dict[PhotoState, int]
    rules: list[StrikeRuleOut]
    erasures: list[ErasureOut]

    @classmethod
    def of(cls, customer: Customer) -> Self:
        """The same customer."""
        return cls(
            customer=customer.reference,
            photos=dict(customer.photos),
            rules=[StrikeRuleOut.of(each) for each in customer.rules],
            erasures=[ErasureOut.model_validate(each) for each in customer.erasures],
        )


def appeals_router(appeals: AppealService) -> APIRouter:
    """Statements and appeals."""
    router = api_router(prefix="/moderation", tags=["moderation"])
    submit = [guarded(Permission.MODERATION_SUBMIT)]

    @router.get(
        "/photos/{photo_id}/statement",
        response_model=StatementOut,
        dependencies=submit,
        summary="Why a photo was refused",
    )
    def statement(photo_id: str) -> Response:
        """409 `photo_not_refused` for every other photo."""
        return json_response(StatementOut.of(appeals.statement(known_id(photo_id))))

    @router.get(
        "/photos/{photo_id}/statement.txt",
        response_class=PlainTextResponse,
        dependencies=submit,
        operation_id="export_photo_statement",
        summary="The same as plain text",
    )
    def statement_text(photo_id: str) -> PlainTextResponse:
        """To send to the shopper as it is."""
        return PlainTextResponse(appeals.statement(known_id(photo_id)).text())

    @router.post(
        "/photos/{photo_id}/appeal",
        status_code=201,
        response_model=AppealOut,
        dependencies=submit,
        summary="Appeal against a refusal",
    )
    def appeal(photo_id: str, body: AppealIn) -> Response:
        """Once per photo. Another person than the first looks at it again; the event `appeal.decided` tells the end."""
        return json_response(AppealOut.model_validate(appeals.appeal(known_id(photo_id), body.message)), status=201)

    @router.get(
        "/photos/{photo_id}/appeal",
        response_model=AppealOut,
        dependencies=submit,
        operation_id="get_photo_appeal",
        summary="The appeal on a photo",
    )
    def of_photo(photo_id: str) -> Response:
        """And what became of it."""
        return json_response(AppealOut.model_validate(appeals.of(known_id(photo_id))))

    @router.get(
        "/appeals", dependencies=[guarded(Permission.MODERATION_REVIEW)], summary="Appeals that wait, oldest first"
    )
    def waiting(limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50) -> list[OpenAppealOut]:
        """Decide on one as on any photo that waits."""
        return [OpenAppealOut.of(*each) for each in appeals.open(limit=limit)]

    return router


def customers_router(customers: CustomerService) -> APIRouter:
    """Strikes, and erasing a customer. A reference may have slashes in it."""
    router = api_router(prefix="/moderation/customers", tags=["moderation"])

    @router.get(
        "/{reference:path}",
        response_model=CustomerOut,
        dependencies=[guarded(Permission.MODERATION_REVIEW)],
        operation_id="get_moderation_customer",
        summary="A customer's photos and strikes",
    )
    def one(reference: str) -> Response:
        """Also for a reference that no photo has: then there is nothing."""
        return json_response(CustomerOut.of(customers.get(reference)))

    @router.delete(
        "/{reference:path}",
        response_model=ErasureOut,
        operation_id="delete_moderation_customer",
        summary="Erase a customer",
    )
    def erase(reference: str, by: Annotated[Principal, Depends(requires(Permission.MODERATION_ADMIN))]) -> Response:
        """All photos, files, hashes, decisions, appeals, reports and events of this reference; returns the receipt.

        Safe to repeat: an erasure that was interrupted goes on.
        """
        receipt: Erasure = customers.erase(reference, by=by)
        return json_response(ErasureOut.model_validate(receipt))

    return router

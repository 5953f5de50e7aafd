"""What the JSON schemas of all features share.

Each schema both describes and serialises: it is filled by attribute names from the value that it shows, so that a field
has one name everywhere.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response


def _in_utc(moment: datetime) -> datetime:
    """Raises ValueError where that lies beyond the calendar: in the first or last hours of it, with an offset."""
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("In UTC this time is not within the years 1 to 9999. Write another one.") from None


Moment = Annotated[datetime, AfterValidator(_in_utc)]
"""A time in a query, in UTC; one without a zone is meant to be UTC."""
ZonedMoment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time in a body, in UTC; it must name its zone."""


class Schema(BaseModel):
    """Base of all response bodies. They may grow: clients must ignore fields that they do not know."""

    model_config = ConfigDict(from_attributes=True)


class BodySchema(BaseModel):
    """Base of all request bodies: fields that are not described are refused, since they would change nothing."""

    model_config = ConfigDict(extra="forbid")


class ModelOut(Schema):
    """The bundle that made a prediction."""

    name: str = Field(examples=["efficientnet-lite0-int8"])
    version: str = Field(examples=["1.0.0"])


def json_response(body: BaseModel, *, status: int = 200) -> Response:
    """`body` as JSON, without the second validation that FastAPI's `response_model` costs."""
    return Response(body.__pydantic_serializer__.to_json(body), status, media_type="application/json")

"""GET /retention: what is due by each limit of days, as JSON."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.configuration.view import Configuration
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema


class DueOut(Schema):
    """What one setting says of what is there now."""

    channel: str = Field(examples=["returns"])
    what: str = Field(
        description="`photos` and `records` of single classifications, `run_photos` of finished runs, or a state of "
        "photos of moderation.",
        examples=["photos"],
    )
    days: int
    due: int = Field(description="What is deleted in the next turn.")
    waiting: int = Field(description="What is older, too, but stays until a person has decided on it.")
    next_at: datetime | None = Field(description="When the oldest of the others is due.")
    more: bool = Field(description="There is more than was counted.")


def retention_router(configuration: Configuration) -> APIRouter:
    """One route, for those who may see the settings."""
    router = api_router(tags=["operations"])

    @router.get(
        "/retention",
        operation_id="list_retention",
        summary="What retention deletes next",
        dependencies=[guarded(Permission.SETTINGS_READ)],
    )
    def due() -> list[DueOut]:
        """A row for each setting with a limit of days; none where everything is kept."""
        return [DueOut.model_validate(each) for each in configuration.due() if each.days is not None]

    return router

"""POST /feedback and GET /feedback.csv: what people say of predictions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from shoplens.platform.server import Platform
from shoplens.predictions.api_records import csv_response
from shoplens.web.schemas import FeedbackIn, FeedbackOut, feedback_json


def feedback_router(platform: Platform) -> APIRouter:
    """Both routes."""
    router = APIRouter(tags=["feedback"])

    @router.post("/feedback", status_code=201, response_model=FeedbackOut, summary="Say that a prediction is wrong")
    def give(said: FeedbackIn) -> dict[str, Any]:
        """The remark is stored when this answers 201."""
        feedback = platform.feedback(said.prediction_id, verdict=said.verdict, label=said.label, comment=said.comment)
        return feedback_json(feedback)

    @router.get("/feedback.csv", response_class=StreamingResponse, summary="All feedback as CSV")
    def export() -> StreamingResponse:
        """Image path, prediction and what was said, safe to open in a spreadsheet."""
        return csv_response(platform.export.feedback(), "feedback.csv")

    return router

"""The page Accuracy of monitoring."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.monitoring.accuracy.charts import threshold_chart
from shoplens.monitoring.accuracy.service import AccuracyService
from shoplens.web.rendering import page
from shoplens.web.routing import page_router

GOALS: Final = (0.005, 0.01, 0.02, 0.05, 0.1)


def accuracy_pages(accuracy: AccuracyService) -> APIRouter:
    """GET /console/monitoring/accuracy: one channel at a time."""
    router = page_router(dependencies=[guarded(Permission.MONITORING_READ)])

    @router.get("/console/monitoring/accuracy")
    def share_right(
        channel: Annotated[str, Query(max_length=200)] = "", goal: Annotated[float, Query(gt=0, le=0.5)] = 0.01
    ) -> HTMLResponse:
        chosen = accuracy.channel(channel or None)
        report = accuracy.of(chosen.name)
        choice = report.choose(goal)
        now = None if report.accept_at is None else report.accept_at
        current = next((point for point in report.points if now is not None and abs(point.at - now) < 0.005), None)
        return page(
            "accuracy.html",
            channel=chosen,
            channels=list(accuracy.channels.values()),
            report=report,
            found=report.production,
            choice=choice,
            current=current,
            chart=threshold_chart(report, choice.point),
            goal=goal,
            goals=GOALS,
        )

    return router

"""GET /models: the installed bundles and how they are served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from shoplens.platform.server import Platform
from shoplens.registry.service import ModelView
from shoplens.web.schemas import ServedModelOut


def models_router(platform: Platform) -> APIRouter:
    """All routes on models."""
    router = APIRouter(tags=["models"])

    @router.get("/models", response_model=list[ServedModelOut], summary="The installed models")
    def all_models() -> list[dict[str, Any]]:
        """Those that answer now come first."""
        return [_json(view) for view in platform.models.all()]

    return router


def _json(view: ModelView) -> dict[str, Any]:
    bundle, served = view.bundle, view.served
    return {
        "name": bundle.ref.name,
        "version": bundle.ref.version,
        "title": bundle.card.title,
        "task": bundle.card.task,
        "licence": bundle.card.licence,
        "labels": len(bundle.labels),
        "served": served is not None,
        "channels": list(view.channels),
        "provider": served.provider if served else None,
        "batching": served.batching if served else None,
        "digest": bundle.digest,
    }

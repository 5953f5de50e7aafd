"""GET /models: the installed bundles and how they are served."""

from __future__ import annotations

from typing import Self

from fastapi import APIRouter
from pydantic import Field

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.registry.service import ModelService, ModelView
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema


class ServedModelOut(Schema):
    """An installed bundle, and how it is served."""

    name: str
    version: str
    title: str
    task: str
    licence: str
    labels: int
    served: bool
    channels: list[str]
    provider: str | None = Field(examples=["cpu"])
    batching: str | None = Field(examples=["single calls on 2 threads"])
    digest: str
    signed_by: str | None = Field(description="The public key of its signature; null for a model that is not signed.")

    @classmethod
    def of(cls, view: ModelView) -> Self:
        """The bundle of `view`; `provider` and `batching` are None where no channel uses it."""
        bundle, served = view.bundle, view.served
        return cls(
            name=bundle.ref.name,
            version=bundle.ref.version,
            title=bundle.card.title,
            task=bundle.card.task,
            licence=bundle.card.licence,
            labels=len(bundle.labels),
            served=served is not None,
            channels=list(view.channels),
            provider=served.provider if served else None,
            batching=served.batching if served else None,
            digest=bundle.digest,
            signed_by=bundle.signed_by,
        )


def models_router(models: ModelService) -> APIRouter:
    """The route on models."""
    router = api_router(tags=["models"], dependencies=[guarded(Permission.MODELS_READ)])

    @router.get("/models", summary="The installed models")
    def all_models() -> list[ServedModelOut]:
        """Those that channels use come first."""
        return [ServedModelOut.of(view) for view in models.all()]

    return router

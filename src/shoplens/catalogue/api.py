"""The JSON API of products: create or replace, read, list, delete, and decide on their categories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded, principal_of
from shoplens.accounts.entities import Permission
from shoplens.catalogue.entities import CategoryDecision, CategoryDecisionKind, Product, ProductPhoto, ProductState
from shoplens.catalogue.products import MAX_PAGE
from shoplens.catalogue.repository import ProductFilter, ProductOrder
from shoplens.catalogue.service import Catalogue
from shoplens.errors import RequestInvalid
from shoplens.predictions.api import photo_answer
from shoplens.predictions.image_store import ImageSize
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response

PathOf = Callable[[str], str]


class CategoryScoreOut(Schema):
    """A category with its path and the probability that the product belongs to it."""

    category: str = Field(examples=["apparel-tops-shirts"])
    path: str = Field(examples=["Apparel > Tops > Shirts"], description="The id, where the live tree lacks it.")
    score: float = Field(examples=[0.93])


class ProductPhotoOut(Schema):
    """A photo of a product; `position` is its place, 0 for the first."""

    position: int
    name: str
    width: int
    height: int

    @classmethod
    def of(cls, photo: ProductPhoto) -> Self:
        """What the API shows of it."""
        return cls(position=photo.position, name=photo.name, width=photo.image.width, height=photo.image.height)


class ProductOut(Schema):
    """A product. `category` is what was decided; `suggestions` are what the model thinks, best first.

    `answer` is the deepest category that is sure enough. `score` is that of the best suggestion. Send `revision` back
    with a decision, so that it is refused if the product changed since.
    """

    id: str
    reference: str
    channel: str
    created_at: datetime
    changed_at: datetime
    designation: str
    description: str
    state: ProductState
    category: str | None
    category_path: str | None
    decided_at: datetime | None
    decided_by: str | None
    answer: str | None
    answer_path: str | None
    score: float | None
    suggestions: list[CategoryScoreOut]
    needs_review: bool
    kind: str | None
    model: str | None
    tree: int | None
    suggested_at: datetime | None
    failure_code: str | None
    failure: str | None
    revision: int
    photos: list[ProductPhotoOut]

    @classmethod
    def of(cls, product: Product, photos: tuple[ProductPhoto, ...], paths: PathOf) -> Self:
        """The product with its photos and the paths of its categories."""
        own = ("photos", "suggestions", "category_path", "answer_path")
        shown = {name: getattr(product, name) for name in ProductOut.model_fields if name not in own}
        return cls(
            **shown,
            photos=[ProductPhotoOut.of(each) for each in photos],
            suggestions=[
                CategoryScoreOut(category=each.category, path=paths(each.category), score=each.score)
                for each in product.suggestions
            ],
            category_path=None if product.category is None else paths(product.category),
            answer_path=None if product.answer is None else paths(product.answer),
        )


class ProductPageOut(Schema):
    """A page of products; `next` is the value for `after`, null on the last page."""

    items: list[ProductOut]
    next: str | None


class CategoryDecisionOut(Schema):
    """One decision on the category of a product."""

    created_at: datetime
    by_name: str
    kind: CategoryDecisionKind
    category: str | None
    before: str | None
    suggested: str | None
    score: float | None
    model: str | None
    tree: int | None
    bulk: bool


class ProductDetailOut(ProductOut):
    """A product with everything that was decided on it, first word first."""

    decisions: list[CategoryDecisionOut]

    @classmethod
    def with_decisions(
        cls, product: Product, photos: tuple[ProductPhoto, ...], decisions: list[CategoryDecision], paths: PathOf
    ) -> Self:
        """The product, its photos and its decisions."""
        shown = ProductOut.of(product, photos, paths).model_dump()
        return cls(**shown, decisions=[CategoryDecisionOut.model_validate(each) for each in decisions])


class CategoryDecisionIn(BodySchema):
    """A decision. `accept` takes the best suggestion, or one of them by `category`; `correct` needs a `category`.

    `undo` takes back what you decided last on this product.
    """

    action: Literal["accept", "correct", "undo"] = "accept"
    category: str | None = Field(default=None, max_length=300, description="The id of a category of the live tree.")
    revision: int | None = Field(
        default=None, description="That of the product as you saw it: 409 `product_changed` if it changed since."
    )


ChannelName = Annotated[
    str | None, Query(max_length=100, description="Optional if only one channel has a catalogue side.")
]
ProductId = Annotated[str, Path(max_length=200, description="The product's id or reference.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedProducts:
    """The filter in the query of a request: what only the live tree knows is still missing."""

    channel: str | None
    category: str | None
    others: dict[str, Any]

    def filter(self, catalogue: Catalogue) -> ProductFilter:
        """Raises NoCatalogue and CategoryNotFound."""
        name = catalogue.channel(self.channel).name
        categories = None if self.category is None else catalogue.products.below(name, self.category)
        return ProductFilter(channel=name, categories=categories, **self.others)


def _score_range(
    min_score: Annotated[float | None, Query(ge=0, le=1)] = None,
    max_score: Annotated[float | None, Query(ge=0, le=1, description="Scores below this.")] = None,
) -> tuple[float | None, float | None]:
    return min_score, max_score


def asked_products(
    *,
    channel: ChannelName = None,
    state: Annotated[ProductState | None, Query()] = None,
    category: Annotated[
        str | None, Query(max_length=300, description="The id of a category; also finds all below it.")
    ] = None,
    needs_review: Annotated[bool | None, Query()] = None,
    text: Annotated[
        str | None, Query(max_length=500, description="Words of reference, designation and description.")
    ] = None,
    kind: Annotated[Literal["photo", "text", "both"] | None, Query(description="What the model saw.")] = None,
    model: Annotated[str | None, Query(max_length=200, description="`name@version`.")] = None,
    scores: Annotated[tuple[float | None, float | None], Depends(_score_range)],
) -> AskedProducts:
    """The filter in the query of a request."""
    others = {
        "state": state,
        "needs_review": needs_review,
        "text": text,
        "kind": kind,
        "model": model,
        "min_score": scores[0],
        "max_score": scores[1],
    }
    return AskedProducts(channel=channel, category=category, others=others)


Asked = Annotated[AskedProducts, Depends(asked_products)]


def products_router(catalogue: Catalogue) -> APIRouter:
    """/catalogue/products: the products of a channel."""
    router = api_router(prefix="/catalogue", tags=["catalogue"])
    reading = [guarded(Permission.CATALOGUE_READ)]
    writing = [guarded(Permission.CATALOGUE_WRITE)]

    @router.get("/products", dependencies=reading, response_model=ProductPageOut, summary="A page of products")
    def page(
        asked: Asked,
        order: Annotated[ProductOrder, Query(description="`score`: the least sure first.")] = ProductOrder.ID,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Response:
        """Page by the cursor `next` of the response."""
        wanted = asked.filter(catalogue)
        found = catalogue.products.page(wanted, order=order, limit=limit, after=after)
        paths = catalogue.paths(wanted.channel)
        items = [ProductOut.of(each, found.photos.get(each.id, ()), paths) for each in found.products]
        return json_response(ProductPageOut(items=items, next=found.next))

    @router.get("/products/{product_id}", dependencies=reading, response_model=ProductDetailOut, summary="One product")
    def one(product_id: ProductId, channel: ChannelName = None) -> Response:
        """A product with its photos and everything that was decided on it."""
        name = catalogue.channel(channel).name
        product, photos = catalogue.products.get(name, product_id)
        history = catalogue.decisions.history(name, product.id)
        return json_response(ProductDetailOut.with_decisions(product, photos, history, catalogue.paths(name)))

    @router.delete("/products/{product_id}", dependencies=writing, status_code=204, summary="Delete a product")
    def delete(product_id: ProductId, channel: ChannelName = None) -> Response:
        """The product, its photos and what was decided on it are deleted."""
        catalogue.products.delete(catalogue.channel(channel).name, product_id)
        return Response(status_code=204)

    @router.get(
        "/products/{product_id}/photos/{position}",
        dependencies=reading,
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}},
        summary="A photo of a product",
    )
    def photo(
        request: Request,
        product_id: ProductId,
        position: Annotated[int, Path(ge=0, le=100)],
        channel: ChannelName = None,
        size: ImageSize = ImageSize.VIEW,
    ) -> Response:
        """`thumbnail` and `view` are JPEG without metadata, `original` is as it was sent."""
        found = catalogue.products.open_photo(catalogue.channel(channel).name, product_id, position, size)
        return photo_answer(request, found)

    @router.get(
        "/products/{product_id}/photos/{position}/heatmap",
        dependencies=reading,
        operation_id="get_catalogue_product_heatmap",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "A PNG to lay over the photo."}},
        summary="What the model saw in a photo",
    )
    def heatmap(
        product_id: ProductId,
        position: Annotated[int, Path(ge=0, le=100)],
        category: Annotated[str, Query(max_length=300, description="For which category, with all below it.")],
        channel: ChannelName = None,
    ) -> Response:
        """Where the photo speaks for a category. 422 for a model without such a map, or without a label for it."""
        data = catalogue.heat_maps.of(catalogue.channel(channel).name, product_id, position, category)
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=600"})

    @router.post(
        "/products/{product_id}/category",
        dependencies=writing,
        response_model=ProductDetailOut,
        summary="Decide on the category of a product",
    )
    def decide(
        request: Request, product_id: ProductId, body: CategoryDecisionIn, channel: ChannelName = None
    ) -> Response:
        """The decision is stored when this returns. The last word counts; every word is kept."""
        name, by = catalogue.channel(channel).name, principal_of(request)
        if body.action == "undo":
            product = catalogue.decisions.undo(name, product_id, by=by)
        else:
            if body.action == "correct" and body.category is None:
                raise RequestInvalid("To correct a category, name the right one in `category`.")
            product = catalogue.decisions.decide(
                name, product_id, by=by, category=body.category, revision=body.revision
            )
        _, photos = catalogue.products.get(name, product.id)
        return json_response(
            ProductDetailOut.with_decisions(
                product, photos, catalogue.decisions.history(name, product.id), catalogue.paths(name)
            )
        )

    return router

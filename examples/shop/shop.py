"""An online shop in one file: a product page with reviews, whose photos Shoplens moderates.

    python examples/shop/shop.py --shoplens http://127.0.0.1:8000 --key slk_… --secret whsec_…

Read `Shoplens` for the calls that a shop makes, and `Shop.take_event` for the one that it gets. Everything else is an
ordinary shop. Reviews are kept in memory, where a real shop has its database.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

HERE: Final = Path(__file__).parent
PRODUCT: Final = "shirt-harbour"
POLICY: Final = "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
MOST_PHOTOS: Final = 10
AWAY: Final = "Photos cannot be sent at the moment. Your text is still here; please try again in a minute."
SAID: Final = {
    "report": "Thank you. A person will look at this photo.",
    "appeal": "Thank you. Another person will look at your photo again.",
    "twice": "This was sent before. You will see here what came of it.",
}


@dataclass(kw_only=True)
class Photo:
    """A photo as the shop knows it. `id` is None for a file that Shoplens could not read: nothing is kept of it.

    `appeal` says how the shopper's appeal stands, once there is one.
    """

    id: str | None
    state: str
    sentence: str
    appeal: str | None = None


@dataclass(kw_only=True)
class Review:
    """What a shopper wrote. `key` is that of the form, so a form that is sent twice is one review."""

    key: str
    customer: str
    name: str
    stars: int
    text: str
    photos: list[Photo] = field(default_factory=list)


class Shoplens:
    """What a shop asks of Shoplens. Every method raises httpx.HTTPError where it does not answer."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False)

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    async def submit(self, files: Sequence[UploadFile], *, key: str, **references: str) -> httpx.Response:
        """Send the photos of one review. The same key again is answered with what became of them the first time."""
        photos = [("file", (each.filename or "photo", await each.read())) for each in files]
        return await self._http.post(
            "/moderation/photos", files=photos, data=references, headers={"Idempotency-Key": key}
        )

    async def photo(self, photo_id: str) -> Mapping[str, Any]:
        """What is true of a photo now."""
        answer = await self._http.get(f"/moderation/photos/{photo_id}")
        found: Mapping[str, Any] = answer.raise_for_status().json()
        return found

    async def report(self, photo_id: str, reason: str) -> httpx.Response:
        """Say that a published photo should be looked at."""
        return await self._http.post(f"/moderation/photos/{photo_id}/report", json={"reason": reason or None})

    async def statement(self, photo_id: str) -> httpx.Response:
        """Why a photo was refused, by whom and when, as text for the shopper."""
        return await self._http.get(f"/moderation/photos/{photo_id}/statement.txt")

    async def appeal(self, photo_id: str, message: str) -> httpx.Response:
        """Ask for a second look at a refused photo."""
        return await self._http.post(f"/moderation/photos/{photo_id}/appeal", json={"message": message})

    async def media(self, path: str, *, accept: str) -> httpx.Response:
        """The picture, if it is published."""
        return await self._http.get(path, headers={"Accept": accept})


class Shop:
    """The pages of the shop, and the address to which Shoplens sends its events."""

    def __init__(self, shoplens: Shoplens, *, secret: str) -> None:
        self._shoplens = shoplens
        self._secret = secret
        self._reviews: dict[str, Review] = {}
        self._cache: dict[str, Response] = {}
        self._pages = Environment(loader=FileSystemLoader(HERE), autoescape=True)

    async def product(self, request: Request) -> Response:
        """The product page."""
        return self._page(request, said=SAID.get(request.query_params.get("said", "")))

    async def add_review(self, request: Request) -> Response:
        """Take a review; its photos are decided before the answer, or held until a person has decided."""
        async with request.form(max_files=20, max_fields=10) as form:
            review = Review(
                key=_text(form, "key", 64) or secrets.token_hex(16),
                customer=_customer(request),
                name=_text(form, "name", 60) or "A customer",
                stars="12345".find(_text(form, "stars", 1) or "5") + 1 or 5,
                text=_text(form, "text", 2_000),
            )
            files = [each for each in form.getlist("photos") if isinstance(each, UploadFile) and each.filename]
            if review.key not in self._reviews:
                too_many = f"Choose up to {MOST_PHOTOS} photos; these are {len(files)}."
                fault = too_many if len(files) > MOST_PHOTOS else await self._send_photos(review, files)
                if fault is not None:
                    return self._page(request, fault=fault, draft=review, status=503 if fault == AWAY else 422)
                self._reviews[review.key] = review
        return RedirectResponse("/#reviews", 303)

    async def picture(self, request: Request) -> Response:
        """A published photo. Through the shop, so Shoplens needs no public address; the cache stands for your CDN."""
        photo = self._find(request.path_params["id"])
        if photo is None or photo.state != "published":
            raise HTTPException(404)
        width = request.query_params.get("w")
        path = f"/media/{photo.id}" + (f"?w={width}" if width else "")
        kind = "image/webp" if "image/webp" in request.headers.get("accept", "") else "image/jpeg"
        if (kept := self._cache.get(f"{path} {kind}")) is not None:
            return kept
        found = await self._shoplens.media(path, accept=kind)
        if found.status_code != 200:
            raise HTTPException(404)
        names = ("content-type", "cache-control", "etag", "vary")
        answer = Response(found.content, headers={each: found.headers[each] for each in names if each in found.headers})
        if len(self._cache) < 200:
            self._cache[f"{path} {kind}"] = answer
        return answer

    async def take_event(self, request: Request) -> Response:
        """An event says that something changed: forget the pictures, then ask what is true now.

        So it does not matter that an event may come twice, or after a later one. An error makes Shoplens send it again.
        """
        body = await request.body()
        if not is_signed(request.headers, body, self._secret):
            raise HTTPException(401)
        event = json.loads(body)
        about = event["data"]
        for path in about.get("media", ()):
            for kind in ("image/webp", "image/jpeg"):
                self._cache.pop(f"{path} {kind}", None)
        photo = self._find(about.get("id", ""))
        if photo is not None and photo.id is not None:
            photo.state = "held"  # until it is known better
            now = await self._shoplens.photo(photo.id)
            photo.state, photo.sentence = now["state"], now["sentence"]
            if event["type"] == "appeal.decided":
                photo.appeal = about["answer"] or "Another person has looked at it again, with the same result."
        return Response(status_code=204)

    async def report(self, request: Request) -> Response:
        """Anybody may report a photo that they see."""
        photo = self._find(request.path_params["id"])
        if photo is None or photo.id is None or photo.state != "published":
            raise HTTPException(404)
        async with request.form() as form:
            (await self._shoplens.report(photo.id, _text(form, "reason", 500))).raise_for_status()
        return RedirectResponse("/?said=report", 303)

    async def statement(self, request: Request) -> Response:
        """Only who sent a photo reads why it was refused."""
        photo = self._find(request.path_params["id"], of=_customer(request))
        if photo is None or photo.id is None or photo.state != "refused":
            raise HTTPException(404)
        return PlainTextResponse((await self._shoplens.statement(photo.id)).raise_for_status().text)

    async def appeal(self, request: Request) -> Response:
        """Only who sent a photo may ask for a second look, once."""
        photo = self._find(request.path_params["id"], of=_customer(request))
        if photo is None or photo.id is None or photo.state != "refused":
            raise HTTPException(404)
        async with request.form() as form:
            answer = await self._shoplens.appeal(photo.id, _text(form, "message", 1_000))
        if answer.status_code != 409:
            answer.raise_for_status()
        photo.appeal = photo.appeal or "Another person looks at it again."
        return RedirectResponse(f"/?said={'twice' if answer.status_code == 409 else 'appeal'}", 303)

    async def _send_photos(self, review: Review, files: Sequence[UploadFile]) -> str | None:
        """Add what became of the photos to the review; a sentence where none could be sent."""
        if not files:
            return None
        try:
            answer = await self._shoplens.submit(
                files, key=review.key, customer=review.customer, product=PRODUCT, review=review.key
            )
        except httpx.HTTPError:
            return AWAY
        match answer.status_code:
            case 201:
                review.photos = [
                    Photo(id=each["id"], state=each["state"], sentence=each["sentence"])
                    for each in answer.json()["photos"]
                ]
                return None
            case 409:  # the first try was taken in after all, with other photos
                return "The photos are not those of the first try. Please send the review once more."
            case 400 | 413 | 422:
                return str(answer.json()["detail"])
        return AWAY

    def _find(self, photo_id: str, *, of: str | None = None) -> Photo | None:
        photos = (photo for each in self._reviews.values() if of in {None, each.customer} for photo in each.photos)
        return next((photo for photo in photos if photo.id == photo_id), None)

    def _page(
        self, request: Request, *, said: str | None = None, fault: str | None = None,
        draft: Review | None = None, status: int = 200,
    ) -> Response:  # fmt: skip
        reviews = list(reversed(self._reviews.values()))
        published = [photo for each in reviews for photo in each.photos if photo.state == "published"]
        text = self._pages.get_template("product.html").render(
            reviews=reviews, published=published, me=_customer(request), said=said, fault=fault, draft=draft,
            key=draft.key if draft and fault == AWAY else secrets.token_hex(16),
            average=round(sum(each.stars for each in reviews) / max(1, len(reviews)), 1),
        )  # fmt: skip
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        answer = HTMLResponse(text, status, headers=headers)
        if "shopper" not in request.cookies:
            answer.set_cookie("shopper", request.state.shopper, max_age=31_536_000, httponly=True, samesite="lax")
        return answer


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether Shoplens sent this within five minutes; https://www.standardwebhooks.com describes it."""
    sent_at = headers.get("webhook-timestamp", "")
    signed = b".".join([headers.get("webhook-id", "").encode(), sent_at.encode(), body])
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    given = headers.get("webhook-signature", "").encode().split()
    is_fresh = sent_at.isdecimal() and abs(time.time() - int(sent_at)) < 300
    return bool(secret) and is_fresh and any(hmac.compare_digest(each, expected) for each in given)


def _text(form: FormData, name: str, most: int) -> str:
    value = form.get(name)
    return value.strip()[:most] if isinstance(value, str) else ""


def _customer(request: Request) -> str:
    """What Shoplens knows a shopper by: never the cookie itself."""
    if not hasattr(request.state, "shopper"):
        request.state.shopper = request.cookies.get("shopper") or secrets.token_urlsafe(16)
    return hashlib.sha256(request.state.shopper.encode()).hexdigest()[:16]


async def _away(_: Request, __: Exception) -> Response:
    """Shoplens does not answer. It sends an event again that gets this."""
    return PlainTextResponse("This is not possible at the moment. Please try again in a minute.", 503)


def create_shop(shoplens: Shoplens, *, secret: str) -> Starlette:
    """The shop as an ASGI application."""
    shop = Shop(shoplens, secret=secret)
    return Starlette(
        routes=[
            Route("/", shop.product),
            Route("/reviews", shop.add_review, methods=["POST"]),
            Route("/photos/{id}", shop.picture),
            Route("/photos/{id}/report", shop.report, methods=["POST"]),
            Route("/photos/{id}/statement", shop.statement),
            Route("/photos/{id}/appeal", shop.appeal, methods=["POST"]),
            Route("/hooks/photos", shop.take_event, methods=["POST"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        exception_handlers={httpx.HTTPError: _away},
    )


def main() -> None:
    """Serve the shop."""
    parser = argparse.ArgumentParser(description="A demo shop whose review photos Shoplens moderates.")
    parser.add_argument("--shoplens", default="http://127.0.0.1:8000", help="where Shoplens is")
    parser.add_argument("--key", default=os.environ.get("SHOP_KEY"), help="an API key with the scope moderation:submit")
    parser.add_argument(
        "--secret", default=os.environ.get("SHOP_SECRET", ""), help="the secret of the webhook endpoint"
    )
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args()
    app = create_shop(Shoplens(given.shoplens, given.key), secret=given.secret)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()

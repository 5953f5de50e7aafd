"""The page /docs: the API as its OpenAPI document describes it, with a curl line for each operation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse

from shoplens.accounts.access import guarded, principal_of
from shoplens.accounts.entities import Permission, PrincipalKind
from shoplens.messages import marked
from shoplens.web.rendering import page
from shoplens.web.routing import page_router

Document = Mapping[str, Any]

GROUPS: Final[Mapping[str, str]] = {
    "predictions": marked("Classify a photo"),
    "records": marked("Records"),
    "feedback": marked("Feedback"),
    "batch": marked("Returns: import, runs and review"),
    "moderation": marked("Reviews: moderate photos"),
    "media": marked("Published photos"),
    "catalogue": marked("Catalogue: categories for products"),
    "labels": marked("Labels for training"),
    "models": marked("Models and registry"),
    "monitoring": marked("Monitoring"),
    "webhooks": marked("Webhooks"),
    "people": marked("People"),
    "accounts": marked("Sign-in, keys and audit"),
    "operations": marked("Operation of the server"),
}
"""What the operations of each tag are for, the jobs of a shop first."""

_REFERENCE = "#/components/schemas/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiField:
    """A parameter of an operation, or a field of a schema. `where` is query, path or header; "" in a schema."""

    name: str
    where: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOperation:
    """What a client can ask. `bodies` and `answers` are pairs: a media type or status, and what it holds.

    `example` is a body of JSON to begin with, "" where the operation takes none; `file_field` is the field of a form
    for files, "" without one.
    """

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[ApiField, ...]
    bodies: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str], ...]
    curl: str
    example: str
    file_field: str


def api_pages(document: Callable[[], Document]) -> APIRouter:
    """GET /docs and /openapi.json. `document` makes the OpenAPI document when it is first asked for."""
    router = page_router(dependencies=[guarded(Permission.DOCS_READ)])

    @router.get("/docs")
    def docs(request: Request) -> HTMLResponse:
        described = document()
        base = f"{request.url.scheme}://{request.headers.get('host', '')}"
        groups: dict[str, list[ApiOperation]] = {}
        has_accounts = principal_of(request).kind is not PrincipalKind.LOCAL
        for tag, operation in _operations(described, base, has_accounts=has_accounts):
            groups.setdefault(tag, []).append(operation)
        ordered = {tag: groups[tag] for tag in sorted(groups, key=_place)}
        return page(
            "docs.html",
            groups=ordered,
            group_words=GROUPS,
            schemas=_schemas(described),
            has_accounts=has_accounts,
        )

    @router.get("/openapi.json")
    def openapi() -> JSONResponse:
        return JSONResponse(document())

    return router


def _place(tag: str) -> int:
    """Where a group stands; others come last."""
    return [*GROUPS, tag].index(tag)


def _operations(document: Document, base: str, *, has_accounts: bool) -> Iterator[tuple[str, ApiOperation]]:
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            content = described.get("requestBody", {}).get("content", {})
            line = _curl(method.upper(), f"{base}{path}", content, document)
            if has_accounts and described.get("security") != []:
                line = f'{line} -H "Authorization: Bearer $TOKEN"'
            yield (
                described.get("tags", ["other"])[0],
                ApiOperation(
                    id=described["operationId"],
                    method=method.upper(),
                    path=path,
                    summary=described.get("summary", ""),
                    description=described.get("description", ""),
                    parameters=tuple(_parameter(each) for each in described.get("parameters", ())),
                    bodies=tuple((media, type_of(body.get("schema", {}))) for media, body in content.items()),
                    answers=tuple((status, _answer(answer)) for status, answer in described["responses"].items()),
                    curl=line,
                    example=_json_example(content, document),
                    file_field=_file_field(content),
                ),
            )


def _parameter(described: Mapping[str, Any]) -> ApiField:
    return ApiField(
        name=described["name"],
        where=described["in"],
        type=type_of(described.get("schema", {})),
        required=described.get("required", False),
        description=described.get("description", ""),
    )


def _answer(described: Mapping[str, Any]) -> str:
    types = {type_of(body["schema"]): None for body in described.get("content", {}).values() if body.get("schema")}
    return ": ".join(filter(None, [described.get("description", ""), " or ".join(filter(None, types))]))


def _schemas(document: Document) -> dict[str, tuple[ApiField, ...]]:
    """The fields of each schema that is an object."""
    found = {}
    for name, schema in sorted(document["components"]["schemas"].items()):
        required = schema.get("required", ())
        found[name] = tuple(
            ApiField(
                name=field,
                where="",
                type=type_of(described),
                required=field in required,
                description=described.get("description", ""),
            )
            for field, described in schema.get("properties", {}).items()
        )
    return {name: fields for name, fields in found.items() if fields}


def type_of(schema: Mapping[str, Any]) -> str:
    """A schema in a few words: "list of LabelOut", "number or null", "one of: csv, jsonl"."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_REFERENCE)
    if choices := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(type_of(each) for each in choices))
    if "enum" in schema or "const" in schema:
        return "one of: " + ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {})) or 'anything'}"
    if schema.get("type") == "object":
        return _object(schema)
    return {"binary": "file", "date-time": "time"}.get(schema.get("format", ""), str(schema.get("type", "")))


def _object(schema: Mapping[str, Any]) -> str:
    if properties := schema.get("properties"):
        return "fields: " + ", ".join(f"{name} ({type_of(each)})" for name, each in properties.items())
    values = schema.get("additionalProperties")
    return f"object of {type_of(values)}" if isinstance(values, dict) else "object"


def _curl(method: str, address: str, content: Mapping[str, Any], document: Document) -> str:
    """A line that works when its placeholders are replaced."""
    if "multipart/form-data" in content:
        return f"curl -F file=@photo.jpg '{address}'"
    if "application/x-www-form-urlencoded" in content:
        return f"curl -d username=NAME --data-urlencode password=PASSWORD '{address}'"
    if "application/json" in content:
        body = _json_example(content, document, indent=None).replace("'", "'\\''")
        return f"curl -X {method} -H 'Content-Type: application/json' -d '{body}' '{address}'"
    return f"curl '{address}'" if method == "GET" else f"curl -X {method} '{address}'"


def _json_example(content: Mapping[str, Any], document: Document, *, indent: int | None = 2) -> str:
    if "application/json" not in content:
        return ""
    name = str(content["application/json"]["schema"].get("$ref", "")).removeprefix(_REFERENCE)
    return json.dumps(_example(document["components"]["schemas"].get(name, {})), ensure_ascii=False, indent=indent)


def _file_field(content: Mapping[str, Any]) -> str:
    """The first field of a form that takes files, one or several."""
    fields = content.get("multipart/form-data", {}).get("schema", {}).get("properties", {})
    return next((name for name, field in fields.items() if "binary" in json.dumps(field)), "")


def _example(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The required fields and those that have an example."""
    fields = schema.get("properties", {})
    return {
        name: next(iter(field.get("examples", ["…"])))
        for name, field in fields.items()
        if name in schema.get("required", ()) or field.get("examples")
    }

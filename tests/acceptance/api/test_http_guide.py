"""Every command of the guide to the HTTP API works as written, and the guides name every operation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx

from tests.acceptance.api.guides import HOW_TO, run_guide
from tests.conftest import RunningServer, colourful, jpeg_of

GUIDE = (HOW_TO / "http-api.md").read_text(encoding="utf-8")


def test_the_guide_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """With this server's address in place of the usual one."""
    (tmp_path / "photo.jpg").write_bytes(jpeg_of(colourful(1)))
    printed = run_guide("http-api.md", server, tmp_path)
    answer = json.loads((tmp_path / "answer.json").read_text())
    table = GUIDE.partition("| field | what |")[2].partition("\n\n")[0]
    fields = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert fields == answer.keys()
    assert (tmp_path / "thumbnail.jpg").read_bytes().startswith(b"\xff\xd8")
    assert answer["id"] in (tmp_path / "feedback.csv").read_text()
    assert (tmp_path / "predictions.csv").read_text().startswith("id,")
    for text in ('"code":"image_unsupported"', '"status":"live"', "shoplens_queue_length", '"operationId"'):
        assert text in printed


def test_every_operation_is_in_a_guide(server: RunningServer) -> None:
    """By its name or by its address, in one of the guides."""
    guides = "\n".join(guide.read_text(encoding="utf-8") for guide in HOW_TO.glob("*.md"))
    for written, path in (("$RUN", "/batch/runs/{run_id}"), ("$ITEM", "{item_id}"), ("items/ID", "items/{item_id}")):
        guides = guides.replace(written, path)
    missing = [
        f"{method} {path}"
        for path, methods in httpx.get(f"{server.url}/openapi.json").json()["paths"].items()
        for method, operation in methods.items()
        if f"`{operation['operationId']}`" not in guides and not re.search(re.escape(path) + r"(?![/\w])", guides)
    ]
    assert [] == missing


def test_what_the_guide_says_of_sending_again_is_so(server: RunningServer) -> None:
    """Two records of one photo; a refused photo is refused again."""
    photo = jpeg_of(colourful(77))
    first, second = (httpx.post(f"{server.url}/predict", content=photo).json() for _ in range(2))
    assert first["id"] != second["id"]
    assert first["image"]["sha256"] == second["image"]["sha256"]
    assert [415, 415] == [httpx.post(f"{server.url}/predict", content=b"<html>").status_code for _ in range(2)]

"""What browsers see of errors and of the API: pages; programs get problem+json from the same addresses."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conftest import RunningServer

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
UNKNOWN_ID = "01k9hzv3m5x4q8d0j7w2r6t9ab"
REFUSED = [
    ("GET", "/nothing", {}, 404, "not_found"),
    ("GET", "/static/nothing.css", {}, 404, "not_found"),
    ("GET", "/predict", {}, 405, "method_not_allowed"),
    ("DELETE", "/", {}, 405, "method_not_allowed"),
    ("GET", f"/predictions/{UNKNOWN_ID}", {}, 404, "prediction_not_found"),
    ("GET", f"/predictions/{UNKNOWN_ID}/image", {}, 404, "prediction_not_found"),
    ("GET", "/predictions?limit=0", {}, 422, "request_invalid"),
    ("GET", "/predictions?label=" + "a" * 9_000, {}, 414, "address_too_long"),
    ("POST", "/predict", {"origin": "http://evil.example"}, 403, "request_forbidden"),
    ("GET", "/", {"host": "evil.example"}, 403, "request_forbidden"),
]


@pytest.mark.parametrize(("method", "path", "headers", "status", "code"), REFUSED)
def test_browsers_get_a_page_and_programs_get_json(
    server: RunningServer, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    """With the same status and code."""
    page = httpx.request(method, server.url + path, headers=headers | BROWSER)
    problem = httpx.request(method, server.url + path, headers=headers | {"accept": "application/json"})
    anything = httpx.request(method, server.url + path, headers=headers)
    assert [status] * 3 == [page.status_code, problem.status_code, anything.status_code]
    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert code in page.text
    assert page.headers["x-request-id"] in page.text
    for each in (problem, anything):
        assert ("application/problem+json", code) == (each.headers["content-type"], each.json()["code"])
    vary = {each.headers["vary"] for each in (page, problem, anything)}
    assert {"Accept, Accept-Language, Cookie, Shoplens-Language"} == vary


@pytest.mark.parametrize("path", ["/nothing", "/console/nothing", "/console/batch/nothing", "/console/records/nothing"])
def test_a_page_that_is_not_there_has_the_menu(server: RunningServer, path: str) -> None:
    """Of the pages that the person may use."""
    page = httpx.get(server.url + path, headers=BROWSER)
    assert 404 == page.status_code
    assert '<a href="/console/batch/returns"' in page.text


def test_a_wrong_method_names_the_right_ones(server: RunningServer) -> None:
    """Also beside a page."""
    assert "POST" == httpx.get(f"{server.url}/predict", headers=BROWSER).headers["allow"]


def test_the_api_page_shows_every_operation_and_schema(server: RunningServer) -> None:
    """Without anything that our policy forbids, and linked from every page."""
    page = httpx.get(f"{server.url}/docs", headers=BROWSER)
    document = httpx.get(f"{server.url}/openapi.json").json()
    ids = set(re.findall(r'id="([^"]+)"', page.text))
    operations = {each["operationId"] for path in document["paths"].values() for each in path.values()}
    assert operations
    assert operations <= ids
    assert {name for name, schema in document["components"]["schemas"].items() if schema.get("properties")} <= ids
    assert not re.search(r"<script(?![^>]*src=)|<style| on[a-z]+=|style=", page.text)
    assert 'href="/docs"' in httpx.get(f"{server.url}/", headers=BROWSER).text


def test_the_curl_lines_of_the_api_page_are_understood(server: RunningServer, photo: bytes, tmp_path: Path) -> None:
    """Each is answered by its route; the one that classifies works as it stands."""
    (tmp_path / "photo.jpg").write_bytes(photo)
    page = httpx.get(f"{server.url}/docs", headers=BROWSER).text
    lines = [html.unescape(line) for line in re.findall(r"<pre[^>]*><code>(curl [^<]+)</code></pre>", page)]
    assert len(lines) > 15
    for line in lines:
        command = ["curl", "-s", "--noproxy", "*", "-g", "-m", "20", "-o", "answer", "-w", "%{http_code}"]
        output = subprocess.run(
            [*command, *shlex.split(line)[1:]], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        usual = (
            {"401"}
            if "/auth/token" in line or "/me/recovery-codes" in line
            else {"200", "201", "202", "404", "409", "422"}
        )
        assert output.stdout in usual, (line, output.stdout)
        if line.endswith("/predict'"):
            assert "200" == output.stdout

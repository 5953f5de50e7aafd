"""The documented API is the real one: fuzzed from its own OpenAPI document, on a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import RunningServer

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    """The OpenAPI document of a real server."""
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return found


def test_operations_have_names_that_a_person_would_give(document: dict[str, Any]) -> None:
    """Generated clients have a method of each name."""
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert sorted(set(names)) == sorted(names)
    assert [] == [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)]
    assert [] == [name for name in names if name.endswith(("_get", "_post", "_put", "_delete"))]
    assert {"classify_photo", "list_predictions", "get_prediction_image", "export_feedback", "create_batch_run",
            "retry_batch_item", "get_metrics"} <= set(names)  # fmt: skip


def test_bodies_are_named_and_answers_may_grow(document: dict[str, Any]) -> None:
    """Unknown fields of a request are refused; clients must ignore those of an answer."""
    schemas = document["components"]["schemas"]
    json_body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"$ref": "#/components/schemas/PhotoIn"} == json_body
    assert [{"required": ["image"]}, {"required": ["url"]}] == schemas["PhotoIn"]["oneOf"]
    assert [] == [name for name in schemas if "__" in name], "two classes of one name are told apart by their modules"
    bodies = {name for name in schemas if name.endswith("In")}
    answers = {name for name in schemas if name.endswith("Out")}
    assert {"PhotoIn", "FeedbackIn"} <= bodies
    assert {"PredictionOut", "ProblemOut"} <= answers
    assert set() == {name for name in bodies if schemas[name].get("additionalProperties") is not False}
    assert set() == {name for name in answers if "additionalProperties" in schemas[name]}


def test_no_request_gets_an_answer_that_is_not_documented(server: RunningServer, tmp_path: Path) -> None:
    """Valid and invalid ones: never a 500, always a documented status, type and shape."""
    # A request may ask for an answer within a millisecond; 504 is then the right one.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "504"]\n'
    )
    fuzzer = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            fuzzer,
            "run",
            f"{server.url}/openapi.json",
            "--checks",
            CHECKS,
            "--max-examples",
            os.environ.get("SHOPLENS_TEST_EXAMPLES", "4"),
            "--exclude-operation-id",
            "create_person",  # with the first person every request needs an account
            "--seed",
            "1",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert 0 == done.returncode, done.stdout[-6_000:]

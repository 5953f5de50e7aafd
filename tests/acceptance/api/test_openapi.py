"""The documented API is the real one: fuzzed from its own OpenAPI document, on a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import RunningServer

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


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
            os.environ.get("SHOPLENS_TEST_EXAMPLES", "15"),
            "--seed",
            "1",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert 0 == done.returncode, done.stdout[-6_000:]

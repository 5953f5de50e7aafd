"""What a load test makes of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from load import answers
from load.answers import Judgement, judge

PREDICTION = {"id": "01k9", "labels": [{"label": "dress", "score": 0.9}]}


def judged(status: int, body: object, **headers: str) -> Judgement:
    """Where a prediction is expected."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge(status, named, data, wanted=200, check=answers.prediction)


def test_a_right_answer_is_what_the_check_found() -> None:
    """The journey continues with it."""
    assert Judgement(found="01k9") == judged(200, PREDICTION)


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_with_a_time_is_no_failure(status: int) -> None:
    """Whatever the body says, and however the header's name is written."""
    assert Judgement(wait_s=2.0) == judged(status, b"later", retry_after="2")


def test_nobody_waits_longer_than_the_longest_time() -> None:
    """A load test shall end."""
    assert Judgement(wait_s=answers.LONGEST_WAIT_S) == judged(503, b"", Retry_After="86400")


@pytest.mark.parametrize("given", [{}, {"Retry_After": "Sat, 21 Nov 2026 10:00:00 GMT"}, {"Retry_After": "-1"}])
def test_a_refusal_without_a_time_is_a_failure(given: dict[str, str]) -> None:
    """Clients could not know when to come again."""
    assert Judgement(fault="503 no_worker") == judged(503, {"code": "no_worker"}, **given)


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [(500, b"<html>", "500"), (504, {"code": "deadline_exceeded"}, "504 deadline_exceeded"), (201, PREDICTION, "201")],
)
def test_another_status_is_a_failure_named_by_its_code(status: int, body: object, fault: str) -> None:
    """So that equal ones are counted together."""
    assert Judgement(fault=fault) == judged(status, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", {"id": "01k9"}, {"id": "01k9", "labels": []}, {"id": "", "labels": PREDICTION["labels"]},
     {"id": "01k9", "labels": [{"label": "dress", "score": 9}]}],
)  # fmt: skip
def test_the_right_status_with_a_wrong_body_is_a_failure(body: object) -> None:
    """Fast nonsense is not throughput."""
    assert (judged(200, body).fault or "").startswith("200, but the body is wrong: ")


@pytest.mark.parametrize(
    ("check", "right", "found"),
    [
        (answers.feedback, b'{"id": "f"}', "f"),
        (answers.records, b'{"items": [], "older": null}', {"items": [], "older": None}),
        (answers.runs, b'{"runs": [{"id": "b"}, {"id": "a"}]}', ["b", "a"]),
        (answers.taken_photos, b'{"photos": [{"item": {"id": "i"}, "code": null}]}', ["i"]),
        (answers.models, b'[{"name": "m", "served": true}, {"name": "n", "served": false}]', ["m"]),
        (answers.ready, b'{"status": "ready"}', None),
        (answers.metrics, b"# HELP\nshoplens_workers 1\n", None),
        (answers.page, b"<html></html>\n", None),
        (answers.picture, b"\xff\xd8\xff\xe0", None),
    ],
)
def test_each_check_takes_what_the_server_says(check: answers.Check, right: bytes, found: Any) -> None:
    """And returns what the next step needs."""
    assert found == check(right)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (answers.taken_photos, b'{"photos": [{"item": null, "code": "image_too_large"}]}'),
        (answers.taken_photos, b'{"photos": []}'),
        (answers.models, b'[{"name": "n", "served": false}]'),
        (answers.ready, b'{"status": "not ready"}'),
        (answers.metrics, b"python_info 1\n"),
        (answers.page, b"<html><p>half"),
        (answers.picture, b"<html>"),
    ],
)
def test_each_check_refuses_what_looks_right_only_by_its_status(check: answers.Check, wrong: bytes) -> None:
    """As a ValueError, which a judgement tells."""
    with pytest.raises(ValueError, match=r"."):
        check(wrong)

"""The one table from error class to HTTP status."""

from __future__ import annotations

import inspect
from http import HTTPStatus

import orjson
import pytest

from shoplens import errors
from shoplens.errors import DatabaseUnavailable, ImageCorrupt, QueueFull, SampleError, ShoplensError
from shoplens.web.problems import STATUS, problem_of, status_of

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, ShoplensError)]


@pytest.mark.parametrize("error", [each for each in CLASSES if each is not ShoplensError])
def test_no_error_falls_through_to_the_root(error: type[ShoplensError]) -> None:
    """Each class, or an ancestor below the root, stands in the table."""
    assert any(ancestor in STATUS for ancestor in error.__mro__ if ancestor is not ShoplensError)


@pytest.mark.parametrize("error", [each for each in CLASSES if issubclass(each, SampleError | errors.RequestInvalid)])
def test_what_a_client_sends_is_never_answered_with_a_500(error: type[ShoplensError]) -> None:
    """It is the client's to correct."""
    assert 400 <= status_of(error) < 500


def test_a_full_queue_says_when_to_come_back() -> None:
    """In whole seconds in the header, exactly in the body."""
    response = problem_of(QueueFull("full", retry_after_s=1.2), request_id="r")
    body = orjson.loads(response.body)
    assert (429, "2", 1.2) == (response.status_code, response.headers["retry-after"], body["retry_after_s"])


def test_what_is_away_for_now_says_when_to_come_back() -> None:
    """503 with Retry-After."""
    response = problem_of(DatabaseUnavailable("away"), request_id=None)
    assert 503 == response.status_code
    assert int(response.headers["retry-after"]) > 0


def test_a_problem_has_a_code_for_programs_and_a_sentence_for_people() -> None:
    """As RFC 9457 has it."""
    response = problem_of(ImageCorrupt("It is cut off."), request_id="r1")
    assert "application/problem+json" == response.headers["content-type"]
    assert {
        "type": "urn:shoplens:error:image_corrupt",
        "title": HTTPStatus(422).phrase,
        "status": 422,
        "detail": "It is cut off.",
        "code": "image_corrupt",
        "request_id": "r1",
    } == orjson.loads(response.body)

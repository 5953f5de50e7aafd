"""A value that an option does not take is answered with those that it takes, and the one that was probably meant."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from shoplens.cli.app import app


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("users", "add", "anna", "--role", "moderater"),
            "'--role': 'moderater' is not one of 'admin', 'moderator', 'clerk', 'merchandiser', 'viewer' "
            "(did you mean 'moderator'?).",
        ),
        (
            ("users", "add", "anna", "--role", "boss"),
            "'--role': 'boss' is not one of 'admin', 'moderator', 'clerk', 'merchandiser', 'viewer'.",
        ),
        (("keys", "create", "form", "--scope", "predict", "--days", "99999999"), "less than or equal to 3650"),
    ],
    ids=["mistyped", "unlike", "number"],
)
def test_a_wrong_choice_is_explained(arguments: tuple[str, ...], sentence: str) -> None:
    """Without the words of the validator."""
    result = CliRunner().invoke(app, arguments)
    assert 2 == result.exit_code
    assert sentence in result.output
    assert "Value error" not in result.output

"""The table of roles in the documentation says what the code does."""

from __future__ import annotations

from pathlib import Path

from shoplens.accounts.admin_pages import PERMISSION_WORDS
from shoplens.accounts.entities import PERMISSIONS, Permission, Role

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "accounts.md"


def role_table() -> str:
    """One row for each permission, one column for each role."""
    rows = ["| permission, scope | what it allows | " + " | ".join(Role) + " |", "|---|---|" + "---|" * len(Role)]
    for permission in Permission:
        marks = " | ".join("yes" if permission in PERMISSIONS[role] else "" for role in Role)
        rows.append(f"| `{permission.value}` | {PERMISSION_WORDS[permission]} | {marks} |".replace("|  |", "| |"))
    return "\n".join(row.replace("|  |", "| |").replace("|  |", "| |") for row in rows)


def test_the_table_of_roles_is_the_one_of_the_code() -> None:
    """A change of a role needs a change of the page."""
    assert role_table() in PAGE.read_text(encoding="utf-8"), f"docs/explanation/accounts.md needs:\n{role_table()}"

"""The checks of the project's own files find what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import hygiene, links


@pytest.mark.parametrize("folder", ["work", "root", "opt"])
def test_a_path_of_one_machine_is_found(folder: str) -> None:
    """Absolute paths under the usual roots are somebody's own."""
    assert ["line 1: a path of one machine"] == list(hygiene.line_faults(f"see /{folder}/here for more"))


@pytest.mark.parametrize("text", ["network/work/x", "docs/root/a", "https://example.org/work/x", "a/b/home/c/d"])
def test_a_path_below_something_else_is_no_fault(text: str) -> None:
    """Only absolute paths are meant."""
    assert [] == list(hygiene.line_faults(text))


@pytest.mark.parametrize("host", [("py", "pi.org"), ("files.python", "hosted.org")])
def test_a_registry_address_is_found(host: tuple[str, str]) -> None:
    """Where packages come from is a matter of the machine that installs them."""
    assert ["line 1: the address of a package registry"] == list(hygiene.line_faults("".join(host)))


def test_an_address_in_a_lock_file_is_found() -> None:
    """Also one that no list of registries knows."""
    lines = "a==1 \\\n    --hash=sha256:00\n--extra-index-url x\nb @ https://example.org/b.whl\n"
    assert ["line 3: an address in a lock file", "line 4: an address in a lock file"] == list(
        hygiene.lock_faults(lines)
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a \n", "line 1: whitespace at the end"),
        ("a\r\n", "line 1: whitespace at the end"),
        ("<" * 7 + " ours\n", "line 1: mark of an unfinished merge"),
    ],
)
def test_a_faulty_line_is_found(text: str, fault: str) -> None:
    """One fault, with its line."""
    assert [fault] == list(hygiene.line_faults(text))


@pytest.mark.parametrize(("text", "fault"), [("a", "no newline at the end"), ("a\n\n", "empty lines at the end")])
def test_a_faulty_end_is_found(text: str, fault: str) -> None:
    """A text ends with one newline."""
    assert [fault] == list(hygiene.end_faults(text))


def test_a_link_in_a_code_block_is_not_followed() -> None:
    """Brackets and parentheses in code are code."""
    assert "before\n\nafter\n" == links.prose("before\n```py\na[b](c)\n```\nafter\n")


def test_a_heading_is_reached_as_on_the_web() -> None:
    """Lower case, hyphens for spaces, no punctuation."""
    assert {"what-it-is-and-is-not", "shoplens-serve"} == links.anchors(
        "# What it is, and is not\n## `shoplens serve`\n"
    )


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three links, of which one leads somewhere."""
    monkeypatch.setattr(links, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](#here) [b](gone.md) [c](page.md#there)\n", encoding="utf-8")
    assert [
        "page.md: gone.md is not there",
        "page.md: page.md#there names no heading",
    ] == list(links.broken_links(page))

"""Follow every link between the project's own pages: the file is there, and so is the heading."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from tools.project import ROOT, project_files

LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE: Final = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"`[^`\n]*`")
HEADING: Final = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ELSEWHERE: Final = ("http://", "https://", "mailto:")


def prose(text: str) -> str:
    """The text without its code, where brackets are no links."""
    return CODE.sub("", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The fragments that the headings of a page can be reached by, as GitHub makes them."""
    titles = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    """The broken links of one page."""
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if target.startswith(ELSEWHERE):
            continue
        name, _, fragment = unquote(target).partition("#")
        goal = (page.parent / name).resolve() if name else page
        if not goal.exists():
            yield f"{page.relative_to(ROOT)}: {target} is not there"
        elif fragment and goal.suffix == ".md" and fragment not in anchors(goal.read_text(encoding="utf-8")):
            yield f"{page.relative_to(ROOT)}: {target} names no heading"


def main() -> int:
    """Print every broken link; 1 if there are any."""
    pages = [path for path in project_files() if path.suffix == ".md"]
    found = [fault for page in pages for fault in broken_links(page)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

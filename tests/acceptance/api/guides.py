"""Run the commands of a guide against a server of the tests."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from tests.conftest import RunningServer

HOW_TO: Final = Path(__file__).parents[3] / "docs" / "how-to"


def run_guide(name: str, server: RunningServer, folder: Path) -> str:
    """What the commands of a guide print, run as one script in `folder`, with this server's address in place of the
    usual one. Fails with the first command that does.
    """
    blocks = re.findall(r"```sh\n(.*?)```", (HOW_TO / name).read_text(encoding="utf-8"), re.DOTALL)
    script = "\n".join(blocks).replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout

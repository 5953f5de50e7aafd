"""A process that takes in one shopper's photo and dies at a given point, as if it were killed there.

Run: python -m tests.acceptance.dying_intake POINT DATA_DIR MODELS_DIR
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.intake import service as intake
from shoplens.platform.server import build_platform
from shoplens.settings import read_settings
from tests.acceptance.moderation_photos import sharp
from tests.conftest import client_of

POINTS = ("before its files", "after its files", "within the transaction", "after the commit")


def dying(call: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
    """`call`, with the end of this process before or after it."""

    def run(*arguments: Any, **named: Any) -> Any:
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return run


async def main(point: str, data_dir: Path, models_dir: Path) -> None:
    """Does not return."""
    platform = build_platform(read_settings(data_dir=data_dir, models_dir=models_dir))
    writer = platform.moderation.intake._writer
    match point:
        case "before its files" | "after its files":
            PhotoFiles.save = dying(PhotoFiles.save, first=point.startswith("before"))  # type: ignore[method-assign]
        case "within the transaction":
            vars(intake)["add_decided"] = dying(vars(intake)["add_decided"], first=False)
        case _:
            submit = writer.submit
            writer.submit = dying(lambda *a, **b: submit(*a, **b).result(), first=False)  # type: ignore[method-assign]
    async with client_of(platform) as client:
        await client.post(
            "/moderation/photos", files={"file": ("a.jpg", sharp(1))}, headers={"Idempotency-Key": "the key"}
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))

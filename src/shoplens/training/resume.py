"""Let an interrupted training go on: a folder and what is trained in, the place of its checkpoints out.

train.json     what is trained here; another training refuses to go on from it
checkpoints/   what the recipe keeps after every epoch
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shoplens.errors import Conflict, Misconfigured

_FACTS: Final = "train.json"
_CHECKPOINTS: Final = "checkpoints"


def begin(work_dir: Path, facts: Mapping[str, Any], *, fresh: bool) -> Path:
    """The folder for checkpoints, empty or of an earlier training with the same `facts` (JSON values).

    With `fresh` an earlier training is forgotten. Raises Conflict where the earlier one was another, Misconfigured
    where nothing can be written.
    """
    try:
        if fresh:
            forget(work_dir)
        checkpoints = work_dir / _CHECKPOINTS
        checkpoints.mkdir(parents=True, exist_ok=True)
        _claim(work_dir / _FACTS, dict(facts))
    except OSError as error:
        raise Misconfigured(f"The working folder {work_dir} cannot be used: {error.strerror}.") from error
    return checkpoints


def forget(work_dir: Path) -> None:
    """Remove what `begin` made and recipes kept; what else lies in the folder stays."""
    shutil.rmtree(work_dir / _CHECKPOINTS, ignore_errors=True)
    (work_dir / _FACTS).unlink(missing_ok=True)
    try:
        work_dir.rmdir()
    except OSError:  # it is not empty, or was never there
        return


def _claim(file: Path, facts: dict[str, Any]) -> None:
    earlier = _read(file)
    if earlier is None:
        draft = file.with_name(f"{file.name}.{os.getpid()}.part")
        draft.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", "utf-8")
        draft.replace(file)
    elif earlier != facts:
        changed = sorted(key for key in {*earlier, *facts} if earlier.get(key) != facts.get(key))
        raise Conflict(
            f"{file.parent} holds an unfinished training that differs in: {', '.join(changed)}. Go on with the same "
            "data and options, choose another --work-dir, or start anew with --fresh."
        )


def _read(file: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None

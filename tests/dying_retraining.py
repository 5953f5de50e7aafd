"""Retrain a colour model in child processes that are killed one after the other, each a little later; then finish."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from shoplens.db import open_database
from tests.retraining_shop import ColourShop, Stages
from tests.unit.training.colours import COLOURS

STAGES = ("Collecting", "Reading the shop", "Fetching", "Training", "Writing the bundle", "Comparing", "Publishing")
WRITES = ("before publish", "after publish", "before set_alias", "after set_alias")


def die() -> None:
    """As a machine that loses its power."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying(method: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """The same, and the process dies at its beginning or at its end."""

    def call(*args: Any, **more: Any) -> Any:
        if before:
            die()
        result = method(*args, **more)
        die()
        return result

    return call


def retrain(url: str, folder: Path, point: str) -> None:
    """In a child: dies at `point`."""
    shop = ColourShop(open_database(url), folder)
    when, _, name = point.partition(" ")
    if point in WRITES:
        setattr(shop.registry, name, dying(getattr(shop.registry, name), before=when == "before"))
    shop.retrain(
        rules=shop.with_promotion("at_once"),
        stages=Stages(lambda stage: die() if stage.startswith(point) else None),
    )


def main(url: str, folder: Path) -> dict[str, Any]:
    """What became of it."""
    shop = ColourShop(open_database(url), folder)
    ids = shop.said(range(48), shift=1)
    shop.first()
    for place, colour in enumerate(sorted(COLOURS)):
        shop.corrected(ids[place::3], colour)
    shop.database.close()
    killed, listed = [], []
    for point in (*STAGES, *WRITES):
        child = os.fork()
        if not child:
            try:
                retrain(url, folder, point)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            killed.append(point)
        database = open_database(url)
        view, _ = ColourShop(database, folder).service.all()
        listed.append("interrupted" if view.interrupted else view.run.state.value)
        database.close()
    shop = ColourShop(open_database(url), folder)
    ended = shop.retrain(rules=shop.with_promotion("at_once"))
    versions = shop.registry.versions("colours")
    for each in versions:  # complete and as published
        assert shop.finder.version("colours", each.ref.version, digest=each.digest).digest == each.digest
    return {
        "points": [*STAGES, *WRITES],
        "killed": killed,
        "listed": listed,
        "runs": len(shop.service.all()),
        "state": ended.state.value,
        "stage": ended.stage.value,
        "versions": [each.ref.version for each in versions],
        "champions": [
            (each.before, each.after) for each in shop.registry.history("colours") if each.alias == "champion"
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(orjson.dumps(main(sys.argv[1], Path(sys.argv[2]))).decode() + "\n")

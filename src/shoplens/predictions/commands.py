"""`shoplens classify`: classify photos, folders and lists of photos, or a text with its photos, on this machine."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import orjson
import typer

from shoplens.cli.classified import Outcome, ResultFormat, json_row, open_results, print_bars
from shoplens.cli.command import EXIT_FAILED, EXIT_INTERRUPTED, say_error, settings_for
from shoplens.cli.output import for_people, note, progress_console, redraw, shows_progress
from shoplens.cli.process import keep_freed_memory
from shoplens.errors import ImageMissing, RequestInvalid, ShoplensError
from shoplens.platform.parts import load_bundle, load_channel
from shoplens.serving.photos import PhotoClassifier
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean

_NOTHING: Final = 'Name photos or folders, or a text: --text "Red cotton shirt".'
_STANDARD_INPUT: Final = Path("-")
_REDRAW_EVERY_S: Final = 0.2
_LABELS: Final = 5


def classify_photos(
    photos: list[Path],
    *,
    channel: str | None,
    model: str | None,
    top_k: int | None,
    wanted: ResultFormat | None,
    output: Path | None,
    data_dir: Path | None,
) -> None:
    """Print one result per photo, in the order given. Exits with status 1 when a photo could not be classified.

    Only a few photos are held at a time, and no list of the results. Raises RequestInvalid and ImageMissing without any
    photo, before a model is loaded.
    """
    if not photos:
        raise RequestInvalid(_NOTHING)
    faults: dict[Path, ShoplensError] = {}
    paths = _files(photos, faults)
    first = list(islice(paths, 2))
    if not first:
        raise ImageMissing(f"There are no files in {', '.join(map(str, photos))}.")
    classifier = _opened(channel, model, data_dir)
    known = None if _STANDARD_INPUT in photos or not shows_progress() else sum(1 for _ in _files(photos, {}))
    order: deque[Path] = deque()

    def handed_over() -> Iterator[Path]:
        for path in chain(first, paths):
            order.append(path)
            yield path

    outcomes = classifier.classify_many(handed_over(), top_k=top_k or _LABELS)
    with ExitStack() as stack:
        results = stack.enter_context(open_results(wanted, output, top_k=top_k, one=len(first) == 1))
        progress = _Progress(known)
        try:
            for outcome in outcomes:
                path = order.popleft()
                found = faults.pop(path, outcome)
                progress.clear()
                results.add(path, found)
                progress.count(found)
        except KeyboardInterrupt:
            progress.clear()
            kept = f"{output} has the results until then." if output else "The results until then are above."
            say_error(f"Interrupted after {progress.done:,} photos. {kept}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
    progress.summary()
    if progress.failed:
        raise typer.Exit(EXIT_FAILED)


def classify_text(
    text: str,
    photos: list[Path],
    *,
    channel: str | None,
    model: str | None,
    top_k: int | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Print the result of one sample: a text, and photos of the same thing. Raises as `PhotoClassifier.classify`."""
    title, _, description = text.strip().partition("\n")
    cleaned = f"{clean(title, TITLE_CHARACTERS)}\n{clean(description, DESCRIPTION_CHARACTERS)}".strip()
    paths = list(_files(photos, {}))
    if not cleaned and not paths:
        raise RequestInvalid(_NOTHING)
    outcome = _opened(channel, model, data_dir).classify(paths, text=cleaned, top_k=top_k or _LABELS)
    if as_json:
        row = json_row(None, outcome)
        typer.echo(orjson.dumps({"text": cleaned, "paths": [str(each) for each in paths], **row}))
    else:
        print_bars(", ".join([cleaned.partition("\n")[0], *map(str, paths)]), outcome)


class _Progress:
    """Counts outcomes, shows how far it is on a terminal, and sums up at the end."""

    def __init__(self, known: int | None) -> None:
        self.done = 0
        self.failed = 0
        self._known = known
        self._decided: Counter[str] = Counter()
        self._began_s = time.monotonic()
        self._drawn_s = 0.0
        self._shown = shows_progress()
        self._drawn = False

    def clear(self) -> None:
        """Make room for a result on the same terminal."""
        if self._drawn and for_people():
            redraw("")
            self._drawn = False

    def count(self, outcome: Outcome) -> None:
        self.done += 1
        self.failed += isinstance(outcome, ShoplensError)
        decision = getattr(outcome, "decision", None)
        if decision is not None:
            self._decided[decision.outcome.value] += 1
        now_s = time.monotonic()
        if self._shown and self._known != 1 and now_s - self._drawn_s > _REDRAW_EVERY_S:
            self._drawn_s, self._drawn = now_s, True
            redraw(self._line(now_s))

    def summary(self) -> None:
        """Say what came of many photos, and always that some failed."""
        if self._drawn:
            redraw("")
        took_s = time.monotonic() - self._began_s
        failed = f"{self.failed:,} of {self.done:,} photos could not be classified." if self.failed else ""
        if self.done == 1:
            return
        decided = "".join(f", {count:,} {name}" for name, count in self._decided.most_common())
        speed = f"{self.done:,} photos in {took_s:.1f} s, {self.done / max(took_s, 1e-3):.1f} per second{decided}."
        note(f"{speed} {failed}".rstrip())

    def _line(self, now_s: float) -> str:
        speed = self.done / max(now_s - self._began_s, 1e-3)
        if self._known is None:
            return f"{self.done:,} photos, {speed:.1f} per second"
        from humanize import naturaldelta

        left = naturaldelta((self._known - self.done) / speed)
        return f"{self.done:,} of {self._known:,} photos, {speed:.1f} per second, {left} left"


def _opened(channel: str | None, model: str | None, data_dir: Path | None) -> PhotoClassifier[Any]:
    """The model of a channel; a model that was named has no policy."""
    keep_freed_memory()
    settings = settings_for(data_dir)
    with progress_console().status("Loading the model"):
        return load_bundle(model, settings=settings) if model else load_channel(channel, settings=settings)


def _files(photos: Iterable[Path], faults: dict[Path, ShoplensError]) -> Iterator[Path]:
    """The files that are meant, lazily: of folders all below them by name except hidden ones, of `-` the names in
    standard input, of a pattern those that fit it.

    A folder that cannot be read is a path of its own, whose fault is in `faults`.
    """
    for path in photos:
        if path == _STANDARD_INPUT:
            yield from (Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip())
        elif path.is_dir():
            yield from _below(path, faults)
        elif not path.exists() and glob.has_magic(str(path)):
            yield from map(Path, sorted(glob.glob(str(path), recursive=True)) or [str(path)])  # noqa: PTH207 - absolute ones, too
        else:
            yield path


def _below(folder: Path, faults: dict[Path, ShoplensError]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        faults[folder] = ImageMissing(f"The folder {folder} cannot be read: {error.strerror}.")
        yield folder
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(folder / entry.name, faults)
        elif not entry.name.startswith(".") and entry.is_file():
            yield folder / entry.name

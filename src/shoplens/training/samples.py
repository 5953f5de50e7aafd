"""Labelled pictures as training sees them: a folder, CSV or NumPy archive in, a Dataset out; pixels on demand."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shoplens.bundles.manifest import labels_from
from shoplens.errors import BundleError, DatasetInvalid, ImageMissing, ImageTooLarge, SampleError
from shoplens.images.decoder import decode
from shoplens.images.hashing import perceptual_hash, sha256_hex
from shoplens.images.picture import Limits, Picture
from shoplens.images.thumbnails import reduce_once
from shoplens.training.listing import Entry, clean_label, list_csv, list_folder, refuse_clashes
from shoplens.training.small_arrays import Arrays, read_archive

Progress = Callable[[int, int], None]

_HASH_SIDE: Final = 128


class Origin(Protocol):
    """Where the picture of a sample lies."""

    def data(self) -> bytes:
        """The encoded photo, as a customer would send it."""
        ...

    def picture(self, short_side: int | None) -> Picture:
        """The decoded picture."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One labelled picture. `name` is unique within its source, `label` an index into the dataset's classes, `sha256`
    of the content; `phash` is empty for small pictures from an archive. `width` and `height` in pixels, seen upright.
    """

    name: str
    label: int
    sha256: str
    phash: str
    width: int
    height: int
    origin: Origin

    def picture(self, short_side: int | None = None) -> Picture:
        """The picture, decoded as in serving. Raises DatasetInvalid where its file was changed since it was checked."""
        return self.origin.picture(short_side)

    def data(self) -> bytes:
        """The encoded photo, for the serving code. Raises DatasetInvalid as `picture` does."""
        return self.origin.data()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that cannot be used: the code and the sentence of the error that it gave."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """`samples` are what can be learned from, `unreadable` what was listed and is not. `test` is the part that the
    source itself holds apart; only archives do. `sha256` names the content of the whole source.
    """

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    unreadable: tuple[Fault, ...] = ()
    test: tuple[Sample, ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFile:
    """A photo on disk, of known content."""

    path: Path
    sha256: str
    limits: Limits

    def data(self) -> bytes:
        """See Origin."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise DatasetInvalid(f"{self.path} was readable before and is not now: {error.strerror}.") from error
        if sha256_hex(data) != self.sha256:
            raise DatasetInvalid(f"{self.path} was changed since it was checked; start again.")
        return data

    def picture(self, short_side: int | None) -> Picture:
        """See Origin."""
        return decode(self.data(), limits=self.limits, short_side=short_side)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SmallPicture:
    """One picture of an archive: a view into the array that holds all of them."""

    pixels: NDArray[np.uint8]

    def data(self) -> bytes:
        """As PNG, which loses nothing."""
        with io.BytesIO() as file:
            Image.fromarray(self.pixels).save(file, "PNG", compress_level=1)
            return file.getvalue()

    def picture(self, short_side: int | None) -> Picture:
        """Grey is repeated for red, green and blue; small pictures are never scaled."""
        grey = self.pixels.ndim == 2
        pixels = np.repeat(self.pixels[:, :, None], 3, axis=2) if grey else self.pixels
        return Picture(pixels=pixels, format="png", width=pixels.shape[1], height=pixels.shape[0])


def read_dataset(
    source: Path,
    *,
    labels: Path | None = None,
    classes: tuple[str, ...] | None = None,
    threads: int = 1,
    limits: Limits | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> Dataset:
    """All of `source`: a folder per class, a CSV (path,label) or a NumPy archive.

    `labels` is a file with the names of an archive's classes; `classes` those that must be used, where another source
    has already set them. Every photo is opened once, on `threads` threads. Raises DatasetInvalid where there is
    nothing to learn from; a photo that cannot be read is only a Fault.
    """
    if labels is not None and source.suffix.lower() != ".npz":
        raise DatasetInvalid("Names of classes come from the folders or the CSV; --labels is for NumPy archives only.")
    if source.is_file() and source.suffix.lower() == ".npz":
        return _from_archive(source, labels, classes)
    entries = _listed(source)
    found = _from_photos(entries, classes, threads=threads, limits=limits or Limits(), on_progress=on_progress)
    if not found.samples:
        first = found.unreadable[0]
        raise DatasetInvalid(f"None of the {len(entries)} photos of {source} can be read; {first.name}: {first.reason}")
    return replace(found, sha256=_content_digest(source, found))


def lines_digest(lines: Sequence[tuple[str, str]]) -> str:
    """SHA-256 over (name, sha256), sorted by name and written as the program `sha256sum` writes them."""
    ordered = sorted(lines, key=lambda line: line[0].encode())
    return sha256_hex("".join(f"{sha256}  {name}\n" for name, sha256 in ordered).encode())


def _listed(source: Path) -> list[Entry]:
    if source.is_dir():
        entries = list_folder(source)
    elif not source.is_file():
        raise DatasetInvalid(f"There is nothing at {source}.")
    elif source.suffix.lower() == ".csv":
        entries = list_csv(source)
    else:
        raise DatasetInvalid(f"{source.name} is neither a folder, nor a .csv, nor a .npz.")
    if not entries:
        raise DatasetInvalid(f"{source} lists no photos.")
    return entries


def _content_digest(source: Path, dataset: Dataset) -> str:
    """Of the readable photos, and of the CSV, which has their labels."""
    lines = [(sample.name, sample.sha256) for sample in dataset.samples]
    if source.is_file():
        lines.append((source.name, sha256_hex(source.read_bytes())))
    return lines_digest(lines)


def _from_photos(
    entries: Sequence[Entry], classes: tuple[str, ...] | None, *, threads: int, limits: Limits, on_progress: Progress
) -> Dataset:
    found = _classes(sorted({entry.label for entry in entries}), classes)
    index = {name: number for number, name in enumerate(found)}
    samples: list[Sample] = []
    faults: list[Fault] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="check") as pool:
        outcomes = pool.map(lambda entry: _examined(entry, index[entry.label], limits), entries)
        for done, outcome in enumerate(outcomes, start=1):
            if isinstance(outcome, Sample):
                samples.append(outcome)
            else:
                faults.append(outcome)
            on_progress(done, len(entries))
    return Dataset(classes=found, samples=tuple(samples), unreadable=tuple(faults))


def _classes(found: Sequence[str], given: tuple[str, ...] | None) -> tuple[str, ...]:
    refuse_clashes(found)
    if given is None:
        return tuple(found)
    strange = sorted(set(found) - set(given))
    if strange:
        raise DatasetInvalid(
            f"These labels are not among those of the training data: {', '.join(map(repr, strange[:10]))}. "
            f"It has: {', '.join(map(repr, given[:20]))}."
        )
    return given


def _examined(entry: Entry, label: int, limits: Limits) -> Sample | Fault:
    try:
        data = _read(entry.path, limits)
        picture = decode(data, limits=limits, short_side=_HASH_SIDE)
    except SampleError as error:
        return Fault(name=entry.name, code=error.code, reason=str(error))
    sha256 = sha256_hex(data)
    return Sample(
        name=entry.name,
        label=label,
        sha256=sha256,
        phash=perceptual_hash(reduce_once(picture)),
        width=picture.width,
        height=picture.height,
        origin=PhotoFile(path=entry.path, sha256=sha256, limits=limits),
    )


def _read(path: Path, limits: Limits) -> bytes:
    """Raises ImageMissing where there is no file, ImageTooLarge before a huge one is read."""
    try:
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise ImageTooLarge(f"The file has {size / 1e6:.1f} MB, more than {limits.max_bytes / 1e6:g} MB.")
        return path.read_bytes()
    except OSError as error:
        raise ImageMissing(f"The file cannot be read: {error.strerror}.") from error


def _from_archive(file: Path, labels: Path | None, classes: tuple[str, ...] | None) -> Dataset:
    archive = read_archive(file)
    parts = [archive.train] + ([archive.test] if archive.test else [])
    count = 1 + max((int(part.labels.max()) for part in parts if len(part.labels)), default=-1)
    names = _archive_names(archive.names, labels, classes, count)
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    train = Dataset(classes=names, samples=tuple(_small(archive.train, "train")), sha256=sha256)
    return replace(train, test=tuple(_small(archive.test, "test"))) if archive.test else train


def _archive_names(
    held: tuple[str, ...] | None, labels: Path | None, classes: tuple[str, ...] | None, count: int
) -> tuple[str, ...]:
    """The names of the classes: those that are set already, else from the file, the archive, or their numbers."""
    try:
        given = tuple(label.name for label in labels_from(str(labels))) if labels else held
    except BundleError as error:
        raise DatasetInvalid(str(error)) from error
    names = classes or tuple(clean_label(name) for name in given or map(str, range(count)))
    refuse_clashes(names)
    if len(set(names)) != len(names) or len(names) < count:
        raise DatasetInvalid(f"There are {len(set(names))} different names for {count} classes.")
    return names


def _small(arrays: Arrays, part: str) -> Iterator[Sample]:
    height, width = arrays.pictures.shape[1:3]
    shape = repr(arrays.pictures.shape[1:]).encode()
    for index, (pixels, label) in enumerate(zip(arrays.pictures, arrays.labels.tolist(), strict=True)):
        yield Sample(
            name=f"{part}/{index}",
            label=label,
            sha256=hashlib.sha256(shape + pixels.tobytes()).hexdigest(),
            phash="",
            width=width,
            height=height,
            origin=SmallPicture(pixels=pixels),
        )

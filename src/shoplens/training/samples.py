"""Labelled pictures: read and check a folder, CSV or NumPy archive. Pixels stay on disk until they are needed."""

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
from shoplens.errors import BundleError, ImageMissing, ImageTooLarge, SampleError
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits, Picture
from shoplens.images.thumbnails import halved, perceptual_hash
from shoplens.training.errors import DatasetInvalid
from shoplens.training.sources import (
    Arrays,
    Entry,
    clean_label,
    list_csv,
    list_folder,
    read_archive,
    refuse_similar_labels,
)

_HASH_SIDE: Final = 128


class Origin(Protocol):
    """Where the picture of a sample is stored."""

    def data(self) -> bytes:
        """The encoded photo, as a client would send it."""
        ...

    def picture(self, short_side: int | None) -> Picture:
        """The decoded picture."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One labelled picture. `name` is unique within its source, `label` is an index into the dataset's classes,
    `sha256` that of the content. `phash` is empty for pictures of an archive. `width` and `height` are in pixels, with
    the EXIF orientation applied.
    """

    name: str
    label: int
    sha256: str
    phash: str
    width: int
    height: int
    origin: Origin

    def picture(self, short_side: int | None = None) -> Picture:
        """The picture, decoded as in serving. Raises DatasetInvalid if its file has changed since it was read."""
        return self.origin.picture(short_side)

    def data(self) -> bytes:
        """The encoded photo, for the serving code. Raises DatasetInvalid as `picture` does."""
        return self.origin.data()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableFile:
    """A file that cannot be used, with the code and the message of the error."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """`samples` can be learned from, `unreadable` files are listed and cannot. `test` is the test part of the source
    itself; only archives have one. `sha256` is the hash of the content of the whole source.
    """

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    unreadable: tuple[UnreadableFile, ...] = ()
    test: tuple[Sample, ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFile:
    """A photo on disk with known content."""

    path: Path
    sha256: str
    limits: Limits

    def data(self) -> bytes:
        """The bytes of the file. Raises DatasetInvalid if they are not those of `sha256`."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise DatasetInvalid(f"{self.path} can no longer be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DatasetInvalid(f"{self.path} has changed since it was checked. Run the training again.")
        return data

    def picture(self, short_side: int | None) -> Picture:
        """The photo, decoded by the server's decoder."""
        return decode(self.data(), limits=self.limits, short_side=short_side)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayPicture:
    """One picture of an archive: a view into the array that holds all of them."""

    pixels: NDArray[np.uint8]

    def data(self) -> bytes:
        """The picture as PNG, which is lossless."""
        with io.BytesIO() as file:
            Image.fromarray(self.pixels).save(file, "PNG", compress_level=1)
            return file.getvalue()

    def picture(self, short_side: int | None) -> Picture:
        """The picture in RGB. Small pictures are never scaled."""
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
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Dataset:
    """Read `source`: a folder per class, a CSV (path,label) or a NumPy archive.

    `labels` is a file with the class names of an archive; `classes` are the classes of another source that this one
    must share. Every photo is decoded once, on `threads` threads. Raises DatasetInvalid if there is nothing to learn
    from; a single photo that cannot be read becomes an UnreadableFile.
    """
    suffix = source.suffix.lower()
    if labels is not None and suffix != ".npz":
        raise DatasetInvalid("--labels is for NumPy archives only; folders and CSVs contain the names of the classes.")
    if source.is_dir():
        entries = list_folder(source)
    elif not source.is_file():
        raise DatasetInvalid(f"There is nothing at {source}.")
    elif suffix == ".npz":
        return _read_arrays(source, labels, classes)
    elif suffix == ".csv":
        entries = list_csv(source)
    else:
        raise DatasetInvalid(f"{source.name} is neither a folder, nor a .csv, nor a .npz.")
    if not entries:
        raise DatasetInvalid(f"{source} lists no photos.")
    dataset = _read_photos(entries, classes, threads=threads, limits=limits or Limits(), on_progress=on_progress)
    if not dataset.samples:
        first = dataset.unreadable[0]
        raise DatasetInvalid(f"None of the {len(entries)} photos of {source} can be read. {first.name}: {first.reason}")
    content = [(sample.name, sample.sha256) for sample in dataset.samples]
    if source.is_file():
        content.append((source.name, hashlib.sha256(source.read_bytes()).hexdigest()))  # the labels are in the CSV
    return replace(dataset, sha256=lines_digest(content))


def lines_digest(lines: Sequence[tuple[str, str]]) -> str:
    """SHA-256 over (name, sha256), sorted by name and formatted as the program `sha256sum` formats them."""
    ordered = sorted(lines, key=lambda line: line[0].encode())
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in ordered).encode()).hexdigest()


def _read_photos(
    entries: Sequence[Entry],
    classes: tuple[str, ...] | None,
    *,
    threads: int,
    limits: Limits,
    on_progress: Callable[[int, int], None],
) -> Dataset:
    found = tuple(sorted({entry.label for entry in entries}))
    refuse_similar_labels(found)
    classes = found if classes is None else classes
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise DatasetInvalid(
            f"These labels are not among those of the training data: {', '.join(map(repr, unknown[:10]))}. "
            f"It has: {', '.join(map(repr, classes[:20]))}."
        )
    number = {name: index for index, name in enumerate(classes)}
    samples: list[Sample] = []
    unreadable: list[UnreadableFile] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="check") as pool:
        outcomes = pool.map(lambda entry: _read_photo(entry, number[entry.label], limits), entries)
        for done, outcome in enumerate(outcomes, start=1):
            if isinstance(outcome, Sample):
                samples.append(outcome)
            else:
                unreadable.append(outcome)
            on_progress(done, len(entries))
    return Dataset(classes=classes, samples=tuple(samples), unreadable=tuple(unreadable))


def _read_photo(entry: Entry, label: int, limits: Limits) -> Sample | UnreadableFile:
    try:
        size = entry.path.stat().st_size
        if size > limits.max_bytes:
            raise ImageTooLarge(f"The file has {size / 1e6:.1f} MB, more than {limits.max_bytes / 1e6:g} MB.")
        data = entry.path.read_bytes()
        picture = decode(data, limits=limits, short_side=_HASH_SIDE)
    except OSError as error:
        reason = f"The file cannot be read: {error.strerror}."
        return UnreadableFile(name=entry.name, code=ImageMissing.code, reason=reason)
    except SampleError as error:
        return UnreadableFile(name=entry.name, code=error.code, reason=str(error))
    sha256 = hashlib.sha256(data).hexdigest()
    return Sample(
        name=entry.name,
        label=label,
        sha256=sha256,
        phash=perceptual_hash(halved(picture.pixels)),
        width=picture.width,
        height=picture.height,
        origin=PhotoFile(path=entry.path, sha256=sha256, limits=limits),
    )


def _read_arrays(file: Path, labels: Path | None, classes: tuple[str, ...] | None) -> Dataset:
    """The samples of an archive. The class names are `classes`, else from `labels`, the archive, or the numbers."""
    archive = read_archive(file)
    parts = [archive.train] + ([archive.test] if archive.test else [])
    count = 1 + max((int(part.labels.max()) for part in parts if len(part.labels)), default=-1)
    try:
        named = tuple(label.name for label in labels_from(str(labels))) if labels else archive.names
    except BundleError as error:
        raise DatasetInvalid(str(error)) from error
    names = classes or tuple(clean_label(name) for name in named or map(str, range(count)))
    refuse_similar_labels(names)
    if len(set(names)) != len(names) or len(names) < count:
        raise DatasetInvalid(f"There are {len(set(names))} different names for {count} classes.")
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Dataset(
        classes=names,
        samples=tuple(_array_samples(archive.train, "train")),
        test=tuple(_array_samples(archive.test, "test")) if archive.test else (),
        sha256=sha256,
    )


def _array_samples(arrays: Arrays, part: str) -> Iterator[Sample]:
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
            origin=ArrayPicture(pixels=pixels),
        )

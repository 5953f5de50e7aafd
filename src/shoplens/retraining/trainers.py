"""How a model is trained from samples, and what it answers on a test set: the port, and what does it for photos."""

from __future__ import annotations

import csv
import os
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.errors import BlobNotFound, ImageChanged, Misconfigured
from shoplens.images.picture import Limits
from shoplens.retraining.errors import NothingToLearn
from shoplens.retraining.gate import Answers
from shoplens.retraining.samples import LabelledSample
from shoplens.retraining.test_set import TestSample
from shoplens.storage import Store, require_unchanged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shoplens.training.progress import Callback
    from shoplens.training.samples import Sample
    from shoplens.training.train import TrainConfig

_THUMBNAIL: Final = ".thumbnail.jpg"
_LEAST_PER_CLASS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The bundle that is to be trained: its name, version and texts of its card. `folder` keeps what is half done."""

    name: str
    version: str
    recipe: str
    data_name: str
    date: datetime
    folder: Path

    @property
    def bundle(self) -> Path:
        """Where the bundle is when it is complete."""
        return self.folder / "bundles" / self.name / self.version

    def config(self, *, threads: int, limits: Limits) -> TrainConfig:
        """How it is trained: what is half done stays in `folder`."""
        from shoplens.training.card import CardTexts
        from shoplens.training.train import TrainConfig

        return TrainConfig(
            name=self.name,
            version=self.version,
            recipe=self.recipe,
            texts=CardTexts(
                title=self.name,
                licence="Not stated.",
                data_name=self.data_name,
                date=self.date.date().isoformat(),
            ),
            into=self.folder / "bundles",
            work_dir=self.folder / "training",
            threads=threads,
            limits=limits,
        )


class Trainer(Protocol):
    """Trains one kind of models. All methods block and may be called again after an interruption."""

    def known(self, champion: Bundle) -> list[str]:
        """The labels of a bundle, as label sets have them."""
        ...

    def current(self, labels: Sequence[str]) -> list[str]:
        """What labels of base data and of earlier test sets are called today."""
        ...

    def read(self, place: str, source: str) -> list[LabelledSample]:
        """The labelled files at `place`, as samples of this `source`. Raises DatasetInvalid."""
        ...

    def fetch(self, samples: Sequence[LabelledSample], folder: Path) -> tuple[list[LabelledSample], dict[str, int]]:
        """The samples whose data could be fetched into `folder`, and how many could not, by reason."""
        ...

    def check(self, samples: Sequence[LabelledSample], known: Collection[str]) -> None:
        """Raises NothingToLearn if a model of these samples could not replace one with the labels `known`."""
        ...

    def fit(
        self,
        candidate: Candidate,
        samples: Sequence[LabelledSample],
        tests: Sequence[tuple[TestSample, LabelledSample]],
        callback: Callback,
    ) -> Bundle:
        """Train and write the bundle; one that is complete already is opened. Resumes where it was interrupted.

        Raises DatasetInvalid, ExtraMissing and TrainingDiverged.
        """
        ...

    def answers(self, bundle: Bundle, tests: Sequence[tuple[TestSample, LabelledSample]]) -> Answers:
        """What a bundle answers on a test set. Raises TrainingDiverged if it cannot."""
        ...

    def present(
        self,
        champion: Bundle,
        training: Sequence[LabelledSample],
        tests: Sequence[tuple[TestSample, LabelledSample]],
    ) -> Answers:
        """What is answered on a test set today, where `champion` is installed and people gave the labels `training`."""
        ...

    def features(self, samples: Sequence[LabelledSample]) -> Any:
        """(n, features), an array or a sparse matrix, made without the labels of these samples."""
        ...


class PhotoTrainer:
    """For models that take photos. `threads` decode and classify."""

    def __init__(self, store: Store, *, threads: int, limits: Limits) -> None:
        self._store = store
        self._threads = threads
        self._limits = limits

    def known(self, champion: Bundle) -> list[str]:
        """People say the names of labels."""
        return [label.name for label in champion.labels]

    def current(self, labels: Sequence[str]) -> list[str]:
        """The same: labels of photos keep their names."""
        return list(labels)

    def read(self, place: str, source: str) -> list[LabelledSample]:
        """As `shoplens train` reads a folder or a CSV. Raises DatasetInvalid, and Misconfigured for an archive."""
        from shoplens.training.samples import PhotoFile, read_dataset

        if place.lower().endswith(".npz"):
            raise Misconfigured(f"{place} is an archive of arrays; name a folder per class, or a CSV (path,label).")
        dataset = read_dataset(Path(place), threads=self._threads, limits=self._limits)
        found = []
        for sample in dataset.samples:
            assert isinstance(sample.origin, PhotoFile)
            found.append(
                LabelledSample(
                    source=source,
                    sample_id=sample.name,
                    label=dataset.classes[sample.label],
                    sha256=sample.sha256,
                    phash=sample.phash,
                    path=sample.origin.path,
                )
            )
        return found

    def fetch(self, samples: Sequence[LabelledSample], folder: Path) -> tuple[list[LabelledSample], dict[str, int]]:
        """Photos of the store become files; those of base data are linked, or copied where they cannot be."""
        from concurrent.futures import ThreadPoolExecutor
        from dataclasses import replace

        missing: dict[str, int] = {}
        (folder / "photos").mkdir(parents=True, exist_ok=True)
        fetched = []
        with ThreadPoolExecutor(8, thread_name_prefix="fetch") as pool:
            for sample, outcome in zip(samples, pool.map(lambda each: self._file(each, folder), samples), strict=True):
                if isinstance(outcome, Path):
                    fetched.append(replace(sample, path=outcome))
                else:
                    missing[outcome] = missing.get(outcome, 0) + 1
        return fetched, missing

    def _file(self, sample: LabelledSample, folder: Path) -> Path | str:
        """The file of a sample below `folder`, or why there is none."""
        name = sample.path.name if sample.path else sample.image_key or ""
        suffix = Path(name).suffix.lower()
        path = folder / "photos" / f"{sample.sha256}{suffix if suffix[1:].isalnum() else '.jpg'}"
        if path.exists():
            return path
        if sample.path is not None:
            draft = path.with_name(f"{path.name}.{os.getpid()}.part")
            try:
                draft.unlink(missing_ok=True)
                os.link(sample.path.resolve(), draft)
            except OSError:
                shutil.copyfile(sample.path, draft)
            draft.replace(path)
            return path
        if sample.image_key is None:
            return "photo was not stored, or deleted by retention"
        try:
            data = self._store.get(sample.image_key)
            if not sample.image_key.endswith(_THUMBNAIL):
                require_unchanged(data, sample.sha256)
        except BlobNotFound:
            return "photo is gone"
        except ImageChanged:
            return "photo has changed"
        draft = path.with_name(f"{path.name}.{os.getpid()}.{sample.sample_id[-8:]}.part")
        draft.write_bytes(data)
        draft.replace(path)
        return path

    def check(self, samples: Sequence[LabelledSample], known: Collection[str]) -> None:
        """Every label of the present model needs samples: the new one would never answer it."""
        counts: dict[str, int] = {}
        for sample in samples:
            counts[sample.label] = counts.get(sample.label, 0) + 1
        few = sorted(label for label in {*known, *counts} if counts.get(label, 0) < _LEAST_PER_CLASS)
        if few:
            named = ", ".join(few[:10]) + (f" and {len(few) - 10} more" if len(few) > 10 else "")
            raise NothingToLearn(
                f"There are fewer than {_LEAST_PER_CLASS} photos to train on of: {named}. A new model would not know "
                "them. Name more labelled photos with --base, or as `retraining.base` of the channel."
            )

    def fit(
        self,
        candidate: Candidate,
        samples: Sequence[LabelledSample],
        tests: Sequence[tuple[TestSample, LabelledSample]],
        callback: Callback,
    ) -> Bundle:
        """By `shoplens train`, with the test set as its test part: what looks like it is dropped from training."""
        from shoplens.training.train import Sources, train

        if candidate.bundle.is_dir():
            return open_bundle(candidate.bundle)
        classes = {sample.label for sample in samples}
        source = _write_csv(candidate.folder / "train.csv", samples)
        measured = [fetched for _, fetched in tests if fetched.label in classes]
        config = candidate.config(threads=self._threads, limits=self._limits)
        sources = Sources(source=source, test=_write_csv(candidate.folder / "test.csv", measured))
        return train(sources, config, callback=callback).bundle

    def answers(self, bundle: Bundle, tests: Sequence[tuple[TestSample, LabelledSample]]) -> Answers:
        """Through the serving code. The time is that of the processor, so other work on the machine counts little."""
        from shoplens.training.evaluate import predict

        samples = self._samples([fetched for _, fetched in tests])
        found = predict(bundle, samples, threads=self._threads, limits=self._limits, clock=time.process_time)
        names = [label.name for label in bundle.labels]
        best = found.scores.argmax(axis=1).tolist()
        return Answers(
            model=str(bundle.ref),
            labels=[names[column] for column in best],
            scores=found.scores.max(axis=1).tolist(),
            ms_per_sample=1e3 * found.seconds / max(1, len(tests)),
            size_bytes=bundle.size_bytes,
        )

    def present(
        self,
        champion: Bundle,
        training: Sequence[LabelledSample],
        tests: Sequence[tuple[TestSample, LabelledSample]],
    ) -> Answers:
        """The champion's answers."""
        del training
        return self.answers(champion, tests)

    def features(self, samples: Sequence[LabelledSample]) -> NDArray[np.float32]:
        """The embeddings of the frozen built-in network, which was trained on none of these labels."""
        from shoplens.bundles.builtin.efficientnet import lite0_network
        from shoplens.bundles.builtin.onnx_graph import float_model
        from shoplens.training.recipes.head import embed

        return embed(float_model(lite0_network()), self._samples(samples))

    def _samples(self, fetched: Sequence[LabelledSample]) -> list[Sample]:
        from shoplens.training.samples import PhotoFile, Sample

        samples = []
        for each in fetched:
            assert each.path is not None
            origin = PhotoFile(path=each.path, sha256=_content(each.path), limits=self._limits)
            samples.append(
                Sample(name=each.name, label=0, sha256=each.sha256, phash=each.phash, width=1, height=1, origin=origin)
            )
        return samples


def _write_csv(file: Path, samples: Sequence[LabelledSample]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("path", "label"))
        for sample in samples:
            assert sample.path is not None
            rows.writerow((sample.path.relative_to(file.parent).as_posix(), sample.label))
    return file


def _content(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

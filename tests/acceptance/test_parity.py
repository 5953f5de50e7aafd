"""The same photo, the same answer: by HTTP, by command line, by Python, and by the bare model."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from shoplens import load_bundle
from shoplens.bundles.store import resolve_bundle
from shoplens.platform.server import build_platform
from shoplens.settings import read_settings
from tests.conftest import client_of, colourful, jpeg_of

FLOAT, INT8 = "efficientnet-lite0", "efficientnet-lite0-int8"


def bare_model(models_dir: Path, photos: list[bytes]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The five best classes of each photo by the float graph alone: Pillow, bicubic, centre crop, no Shoplens code."""
    bundle = resolve_bundle(FLOAT, models_dir)
    session = onnxruntime.InferenceSession(str(bundle.model_path))
    rows = []
    for photo in photos:
        picture = Image.open(io.BytesIO(photo)).convert("RGB")
        ratio = 256 / min(picture.size)
        picture = picture.resize(
            (round(picture.width * ratio), round(picture.height * ratio)), Image.Resampling.BICUBIC
        )
        left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
        pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)))
        (scores, *_) = session.run([bundle.manifest.output], {bundle.manifest.input: pixels[np.newaxis]})
        rows.append(np.argsort(-scores.reshape(-1))[:5])
    return np.stack(rows)


@pytest.fixture(scope="module")
def samples(shared_data: Path) -> tuple[list[bytes], list[int]]:
    """The sample photos and their class indices."""
    classes = (shared_data / "imagenet-samples" / "synsets.txt").read_text().split()
    files = sorted((shared_data / "imagenet-samples").glob("*.JPEG"))
    return [file.read_bytes() for file in files], [classes.index(file.name.partition("_")[0]) for file in files]


@pytest.fixture(scope="module")
def bare(samples: tuple[list[bytes], list[int]], models_dir: Path) -> np.ndarray[Any, np.dtype[np.intp]]:
    """What the float graph alone finds in the sample photos."""
    return bare_model(models_dir, samples[0])


@pytest.mark.parametrize(("model", "allowed"), [(FLOAT, 0.0), (INT8, 0.01)])
async def test_accuracy_over_http_is_that_of_the_bare_float_model(
    samples: tuple[list[bytes], list[int]],
    bare: np.ndarray[Any, np.dtype[np.intp]],
    models_dir: Path,
    tmp_path: Path,
    model: str,
    allowed: float,
) -> None:
    """On all sample photos, top-1 and top-5; the int8 model may lose a point: how it rounds is the processor's."""
    photos, truth = samples
    bundle = resolve_bundle(model, models_dir)
    names = [label.name for label in bundle.labels]
    channels = {"look": {"model": model, "keep": "nothing"}, "reviews": {"model": model, "labels": {}}}
    platform = build_platform(read_settings(data_dir=tmp_path, models_dir=models_dir, channels=channels))
    found = []
    async with client_of(platform) as client:
        for photo in photos:
            answer = (await client.post("/predict?top_k=5", content=photo)).json()
            found.append([names.index(each["label"]) for each in answer["labels"]])
    await platform.close()
    for best in (1, 5):
        served = np.mean([right in row[:best] for right, row in zip(truth, found, strict=True)])
        alone = np.mean([right in row[:best] for right, row in zip(truth, bare, strict=True)])
        assert served >= alone - allowed, f"top-{best}: {served:.4f} served, {alone:.4f} alone"


async def test_http_command_line_and_python_agree_to_the_last_digit(
    turned_photo: Path, models_dir: Path, http_labels: list[dict[str, Any]]
) -> None:
    """One decoder, one encoder, one classifier behind all three."""
    environment = {"SHOPLENS_MODELS_DIR": str(models_dir), "PATH": "/usr/bin:/bin"}
    done = await anyio.run_process(
        [
            sys.executable,
            "-m",
            "shoplens",
            "classify",
            str(turned_photo),
            "--json",
            "--data-dir",
            str(turned_photo.parent),
        ],
        env=environment,
    )
    by_command = json.loads(done.stdout)["labels"]
    prediction = load_bundle(INT8, settings=read_settings(models_dir=models_dir)).classify(turned_photo)
    by_python = [{"label": each.label, "score": each.score} for each in prediction.labels[:5]]
    assert http_labels == by_command == by_python


@pytest.fixture
def turned_photo(tmp_path: Path) -> Path:
    """A photo large enough for scaled decoding, turned by EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg_of(colourful(4, width=1_400, height=900), exif=exif.tobytes()))
    return path


@pytest.fixture
async def http_labels(turned_photo: Path, models_dir: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """What POST /predict says of it."""
    photo = turned_photo.read_bytes()  # noqa: ASYNC240 - a small file, and nothing else runs
    platform = build_platform(read_settings(data_dir=tmp_path / "data", models_dir=models_dir))
    async with client_of(platform) as client:
        answer = await client.post("/predict", files={"file": photo})
    await platform.close()
    labels: list[dict[str, Any]] = answer.json()["labels"]
    return labels


async def test_a_hundred_distinct_photos_at_once_get_their_own_answers(busy_client: httpx.AsyncClient) -> None:
    """Through the whole application, rows included."""
    photos = [jpeg_of(colourful(seed)) for seed in range(100)]
    alone = [(await busy_client.post("/predict", content=photo)).json() for photo in photos]
    together = await asyncio.gather(*(busy_client.post("/predict", content=photo) for photo in photos))
    assert [each["labels"] for each in alone] == [each.json()["labels"] for each in together]
    assert [each["image"]["sha256"] for each in alone] == [each.json()["image"]["sha256"] for each in together]
    rows = [(await busy_client.get(f"/predictions/{each.json()['id']}")).json() for each in together]
    assert [each["image"]["sha256"] for each in alone] == [row["image"]["sha256"] for row in rows]

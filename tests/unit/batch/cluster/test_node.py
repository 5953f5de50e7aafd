"""What a node does with photos, without Ray: reading, decoding, encoding, the model, and what goes wrong."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from shoplens.batch.cluster import node
from shoplens.batch.cluster.node import ModelStage, NodeStore, PixelStage, StoreAway, outcome_of, rows_of
from shoplens.batch.cluster.nodes import NodeFacts, faults
from shoplens.batch.cluster.plan import (
    ClusterOutcome,
    ClusterPhoto,
    Plan,
    SandboxLimits,
    SharedStore,
    blocks_of,
    own_version,
)
from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.store import pack_bundle
from shoplens.errors import (
    BundleTampered,
    DeadlineExceeded,
    ImageCorrupt,
    ImageGone,
    ImageUnsupported,
    Misconfigured,
    ShoplensError,
    StorageUnavailable,
)
from shoplens.images.decoder import decode
from shoplens.images.hashing import facts_of, sha256_hex
from shoplens.images.picture import ImageFacts, Limits
from shoplens.images.preprocess import preprocess
from shoplens.serving.classifier import Classifier
from shoplens.serving.engine import ClassifyResult
from shoplens.storage import open_store
from tests.acceptance.batch_shop import tiny_photo
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A model of three fruits."""
    return write_bundle(tmp_path / "fruit", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model())


@pytest.fixture
def plan(tmp_path: Path, bundle: Bundle) -> Plan:
    """For a folder with the driver's marker."""
    store = SharedStore(url=str(tmp_path / "blobs"), marker_key="health/nights/here", marker=b"here")
    open_store(store.url).put(store.marker_key, store.marker)
    return Plan(
        version=own_version(),
        store=store,
        limits=Limits(),
        sandbox=SandboxLimits(memory_bytes=10**9, cpu_s=10, wall_s=20),
        model=bundle.ref,
        digest=bundle.digest,
        spec=bundle.manifest.image,
        provider="cpu",
        top_k=5,
        timeout_s=20.0,
    )


def brought(plan: Plan, *contents: bytes) -> tuple[ClusterPhoto, ...]:
    """Photos in the store."""
    store = open_store(plan.store.url)
    for number, data in enumerate(contents):
        store.put(f"returns/{number}.jpg", data)
    return tuple(
        ClusterPhoto(id=f"item-{number}", key=f"returns/{number}.jpg", sha256=sha256_hex(data))
        for number, data in enumerate(contents)
    )


def outcomes(plan: Plan, bundle: Bundle, photos: tuple[ClusterPhoto, ...], **more: Any) -> list[ClusterOutcome]:
    """Through both stages."""
    encoded = PixelStage(plan, **more)(photos)
    packed = pack_bundle(bundle.root, bundle.root.parent / "packed").read_bytes()
    return [outcome_of(row) for row in rows_of(ModelStage(plan, packed)(encoded)["row"])]


def test_the_answer_is_that_of_a_single_call(plan: Plan, bundle: Bundle) -> None:
    """Labels, scores to the last bit, and facts; in the order in which the photos came."""
    contents = [tiny_photo(number) for number in range(12)]
    classifier = Classifier(bundle)
    for found, data in zip(outcomes(plan, bundle, brought(plan, *contents)), contents, strict=True):
        picture = decode(data, limits=Limits(), short_side=plan.spec.resize)
        assert isinstance(found.outcome, ClassifyResult)
        assert classifier.classify([classifier.preprocess(picture)], top_k=5) == [found.outcome.prediction]
        assert facts_of(data, picture) == found.outcome.image


def test_each_photo_fails_by_itself(plan: Plan, bundle: Bundle) -> None:
    """Damaged, no photo, gone; what can be seen of a damaged one comes along, and the others are answered."""
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    whole = bytes(simplejpeg.encode_jpeg(noise))
    photos = brought(plan, tiny_photo(1), whole[: len(whole) * 3 // 4], b"<html>", tiny_photo(2))
    gone = ClusterPhoto(id="gone", key="returns/never.jpg", sha256="0" * 64)
    found = outcomes(plan, bundle, (*photos, gone))
    assert [ClassifyResult, ImageCorrupt, ImageUnsupported, ClassifyResult, ImageGone] == [
        type(each.outcome) for each in found
    ]
    assert [False, True, False, False, False] == [each.salvaged is not None for each in found]
    assert not any(each.away for each in found)


def test_a_fault_of_the_program_is_one_photos_own(plan: Plan, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are those of a night in one process."""
    real = preprocess

    def odd(picture: Any, spec: Any) -> Any:
        if picture.width == 32:
            raise ZeroDivisionError
        return real(picture, spec)

    photos = brought(plan, tiny_photo(1))
    stage = PixelStage(plan)
    monkeypatch.setattr(node, "preprocess", odd)
    (found,) = [outcome_of(row) for row in rows_of(stage(photos)["row"])]
    assert isinstance(found.outcome, ShoplensError)
    assert "This photo could not be processed because of a fault in the program." == str(found.outcome)


def test_a_photo_that_takes_too_long_does_not_hold_up_the_next(
    plan: Plan, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is left behind."""
    ended, first = threading.Event(), [True]
    real = decode

    def slow(data: bytes, **more: Any) -> Any:
        if first and first.pop():
            ended.wait(20)
        return real(data, **more)

    monkeypatch.setattr(node, "decode", slow)
    found = outcomes(replace(plan, timeout_s=0.3), bundle, brought(plan, tiny_photo(1), tiny_photo(2)))
    ended.set()
    assert [DeadlineExceeded, ClassifyResult] == [type(each.outcome) for each in found]


def test_a_node_that_sees_another_folder_says_nothing_of_photos(plan: Plan, bundle: Bundle, tmp_path: Path) -> None:
    """Its photos are away, not gone; so is everything behind a store that does not open."""
    photos = brought(plan, tiny_photo(1))
    for url in (str(tmp_path / "other"), "ftp://somewhere"):
        elsewhere = NodeStore(replace(plan.store, url=url))
        (found,) = outcomes(plan, bundle, photos, store=elsewhere)
        assert (True, StorageUnavailable) == (found.away, type(found.outcome))
        with pytest.raises(StoreAway):
            elsewhere.look()


def test_another_bundle_or_another_release_is_refused(plan: Plan, bundle: Bundle) -> None:
    """What a node was not sent must not answer."""
    packed = pack_bundle(bundle.root, bundle.root.parent / "packed").read_bytes()
    with pytest.raises(BundleTampered):
        ModelStage(replace(plan, digest="0" * 64), packed)
    with pytest.raises(ShoplensError):
        ModelStage(plan, packed.replace(b"Useless", b"Perfect"))
    with pytest.raises(Misconfigured, match=r"the night has 0\.0\.1"):
        PixelStage(replace(plan, version="0.0.1"))


def test_nodes_that_do_not_fit_are_named() -> None:
    """Versions of Python and Shoplens, and the store; one that fits is not."""
    import platform

    fits = NodeFacts(name="a", python=platform.python_version(), shoplens=own_version(), store=None)
    told = list(
        faults([
            fits,
            replace(fits, name="b", shoplens=None),
            replace(fits, name="c", shoplens="0.0.1"),
            replace(fits, name="d", python="3.9.1"),
            replace(fits, name="e", store="It is elsewhere."),
        ])
    )  # fmt: skip
    assert ["b", "c", "d", "e"] == [sentence.partition("node ")[2][0] for sentence in told]
    assert "not installed" in told[0]
    assert "has Shoplens 0.0.1" in told[1]
    assert "has Python 3.9.1" in told[2]


def test_an_empty_block_has_the_form_of_all_others(plan: Plan) -> None:
    """Tickets that come too late have nothing to do."""
    columns = PixelStage(plan)(())
    assert (0, 4, 0) == (len(columns["tensor"]), columns["tensor"].ndim, len(columns["row"]))
    assert columns["tensor"].dtype == PixelStage(plan)(brought(plan, tiny_photo(1)))["tensor"].dtype
    assert np.float32 == columns["tensor"].dtype


def test_blocks_are_large_but_leave_no_task_without_one() -> None:
    """Few photos are divided among the tasks, many come in full blocks."""
    photos = [ClusterPhoto(id=str(number), key=None, sha256="") for number in range(70)]
    assert [32, 32, 6] == [len(block) for block in blocks_of(photos, largest=32, tasks=2)]
    assert [5, 5] == [len(block) for block in blocks_of(photos[:10], largest=32, tasks=2)]
    assert [] == blocks_of([], largest=32, tasks=2)


def test_facts_are_of_the_photo_as_it_is_seen(plan: Plan, bundle: Bundle) -> None:
    """They travel with the row until it is answered."""
    (found,) = outcomes(plan, bundle, brought(plan, tiny_photo(3)))
    assert isinstance(found.outcome, ClassifyResult)
    assert isinstance(found.outcome.image, ImageFacts)
    assert (32, 24) == (found.outcome.image.width, found.outcome.image.height)

"""The page of a model with an evaluation shows its metrics; other pages do not."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shoplens.bundles.bundle import write_bundle
from shoplens.bundles.manifest import ClassResult, Label, ModelRef
from shoplens.bundles.signing import make_key, sign_bundle
from shoplens.platform.server import Platform
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from tests.conftest import client_of
from tests.samples import make_record, make_remark
from tests.unit.bundles.conftest import CARD, MANIFEST, small_model
from tests.unit.bundles.test_evaluation import EVALUATION, PART

NAMES = ("apple", "<b>pear</b>", 'plum "blue" 🫐')


async def test_the_evaluation_is_shown_and_escaped(
    make_platform: Callable[..., Platform], models_dir: Path, tmp_path: Path
) -> None:
    """Per class, what is taken for what, what each threshold would decide; and what people said leads to records."""
    models = shutil.copytree(models_dir, tmp_path / "models")
    classes = tuple(ClassResult(label=name, samples=3, precision=1.0, recall=0.9, f1=0.947) for name in NAMES)
    write_bundle(
        models / "fruit" / "1.2.0",
        manifest=MANIFEST,
        labels=tuple(Label(id=name, name=name) for name in NAMES),
        card=CARD,
        model=small_model(),
        evaluation=replace(EVALUATION, parts=(replace(PART, classes=classes),)),
    )
    platform = make_platform(models_dir=models)
    answered = [
        make_record(number, label="apple", model=ModelRef(name="fruit", version="1.2.0")) for number in range(3)
    ]
    with platform.database.transaction() as tx:
        PredictionRepository(tx).add_many(answered)
        for each, label in zip(answered, (NAMES[1], NAMES[1], "apple"), strict=True):
            FeedbackRepository(tx).add(make_remark(each.id, label=label, id=each.id))
    async with client_of(platform) as client:
        fruit = (await client.get("/console/models/fruit")).text
        cells = re.findall(r'href="(/console/records[?]truth=[^"]+)" title="(\d+) ', fruit)
        lists = [(await client.get(html.unescape(address))).text for address, _ in cells]
        other = (await client.get("/console/models/opennsfw")).text
    for text in ("Metrics per class", "94.7%", "&lt;b&gt;pear&lt;/b&gt;", "🫐", "Confusion matrix", "accept_at"):
        assert text in fruit
    assert re.search(r'<td class="wrong heat-7"><span title="1 photo: [^"]+">25%</span></td>', fruit)
    assert re.search(r'<td class="right heat-9"><span title="3 photos: [^"]+">100%</span></td>', fruit)
    assert ["2", "1"] == [count for _, count in cells]
    assert all("Labelled by people" in each and "Remove this filter" in each for each in lists)
    assert [2, 1] == [each.count('class="cell-label"') for each in lists]
    assert "How sure the model is" in fruit
    assert "data-thresholds=" in fruit
    assert " style=" not in fruit
    for text in ("Metrics per class", "Confusion matrix", "Choosing a threshold"):
        assert text not in other


async def test_the_signer_of_a_model_is_shown(
    make_platform: Callable[..., Platform], models_dir: Path, tmp_path: Path
) -> None:
    """On its page and in the list for programs; others have none."""
    models = shutil.copytree(models_dir, tmp_path / "models")
    labels = tuple(Label(id=name, name=name) for name in NAMES)
    fruit = write_bundle(models / "fruit" / "1.2.0", manifest=MANIFEST, labels=labels, card=CARD, model=small_model())
    make_key(tmp_path / "shop.pem")
    public = sign_bundle(fruit, tmp_path / "shop.pem")
    async with client_of(make_platform(models_dir=models)) as client:
        page = (await client.get("/console/models/fruit")).text
        listed = {model["name"]: model["signed_by"] for model in (await client.get("/models")).json()}
    assert public in html.unescape(page)
    assert {"fruit": public} == {name: key for name, key in listed.items() if key is not None}

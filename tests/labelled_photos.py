"""Photos that people labelled: stored, with a prediction and a correction each, as a shop has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import count

from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.images.decoder import decode
from shoplens.images.picture import ImageFacts, Limits
from shoplens.images.thumbnails import halved, perceptual_hash
from shoplens.predictions.entities import FeedbackValue, Keep
from shoplens.predictions.feedback import NewFeedback, give
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import Store, image_key
from tests.samples import make_record, moment

_numbers = count(1)


def people_label(database: Database, store: Store, channel: str, photos: Iterable[tuple[bytes, str]]) -> list[str]:
    """Store the photos with the labels that people gave them; the ids of the predictions."""
    ids = []
    for data, label in photos:
        number = next(_numbers)
        sha256 = hashlib.sha256(data).hexdigest()
        picture = decode(data, limits=Limits(), short_side=128)
        facts = ImageFacts(
            format="jpeg", width=picture.width, height=picture.height, byte_count=len(data), sha256=sha256,
            phash=perceptual_hash(halved(picture.pixels)),
        )  # fmt: skip
        key = image_key(sha256, "jpg")
        store.put(key, data)
        record = make_record(
            number, label=label, channel=channel, image=facts, image_key=key, keep=Keep.ORIGINAL,
            model=ModelRef(name="some-model", version="1.0.0"),
        )  # fmt: skip
        with database.transaction() as tx:
            PredictionRepository(tx).add_many([record])
            new = NewFeedback(prediction_id=record.id, verdict=FeedbackValue.WRONG, label=label)
            give(tx, new, now=moment(number))
        ids.append(record.id)
    return ids

"""Small bundles to publish, and how one is damaged in a store."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from shoplens.bundles.bundle import Bundle, open_bundle, write_bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.storage import Store
from shoplens.testing.registry_contract import Make
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model


def bundle_maker(folder: Path, name: str) -> Make:
    """Makes each bundle once, in a models directory per weight; a second call gives the same."""

    def make(version: str, weight: float = 1.0) -> Bundle:
        root = folder / f"models-{weight:g}" / name / version
        if not root.exists():
            manifest = replace(MANIFEST, name=name, version=version)
            write_bundle(root, manifest=manifest, labels=LABELS, card=CARD, model=small_model(weight=weight))
        return open_bundle(root)

    return make


def damage(store: Store, ref: ModelRef) -> None:
    """Change a byte of the largest file of a published bundle."""
    contents = [key for key in store.list(f"{ref.name}/{ref.version}") if re.fullmatch("[0-9a-f]{64}", key[-64:])]
    key = max(contents, key=lambda each: len(store.get(each)))
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put_pieces(key, [bytes(data)])

"""A signature says who made a bundle; where one is required, nothing else is loaded or installed."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shoplens.bundles.builtin import prepare_builtin, require_own_build
from shoplens.bundles.bundle import Bundle, open_bundle, write_bundle
from shoplens.bundles.signing import SIGNATURE, Trust, build_trust, make_key, sign_bundle
from shoplens.bundles.store import SharedBundles, install_bundle, pack_bundle, resolve_bundle, unpack_bundle
from shoplens.errors import BundleError, BundleTampered, BundleUntrusted, Misconfigured
from shoplens.storage import open_store
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A file with a private key."""
    make_key(tmp_path / "shop.pem")
    return tmp_path / "shop.pem"


def requiring(*keys: str) -> Trust:
    """Only signatures by these keys."""
    return build_trust(keys, required=True)


def test_a_signed_bundle_is_the_same_bundle_with_a_signer(bundle: Bundle, key: Path) -> None:
    """Its digest is unchanged, and it opens as before."""
    public = sign_bundle(bundle, key)
    signed = open_bundle(bundle.root)
    assert public == signed.signed_by
    assert replace(bundle, signed_by=public) == signed
    requiring(public).check(signed)


def test_signing_again_replaces_the_signature(bundle: Bundle, key: Path, tmp_path: Path) -> None:
    """A key can be changed."""
    sign_bundle(bundle, key)
    make_key(tmp_path / "new.pem")
    assert sign_bundle(bundle, tmp_path / "new.pem") == open_bundle(bundle.root).signed_by


def test_a_key_file_is_for_its_owner_and_never_overwritten(key: Path) -> None:
    """Mode 0600."""
    assert 0o600 == stat.S_IMODE(key.stat().st_mode)
    with pytest.raises(Misconfigured, match="File exists"):
        make_key(key)


def test_nothing_unsigned_or_by_others_is_accepted_where_a_signature_is_required(
    bundle: Bundle, key: Path, tmp_path: Path
) -> None:
    """By name, by folder, as a packed file, from the shared store; nothing of it is installed."""
    trust = requiring(make_key(tmp_path / "ours.pem"))
    models, target = bundle.root.parents[1], tmp_path / "elsewhere"
    shared = SharedBundles(open_store((tmp_path / "store").as_uri(), setting="models_url"), "the store")
    for sentence in ("is not signed", "which is not one of trusted_keys"):
        packed = pack_bundle(bundle.root, tmp_path / "fruit.shoplens")
        shared.push(open_bundle(bundle.root))
        attempts: tuple[Callable[[], object], ...] = (
            lambda: resolve_bundle("fruit", models, trust=trust),
            lambda: resolve_bundle(str(bundle.root), models, trust=trust),
            lambda: install_bundle(bundle.root, target, trust),
            partial(unpack_bundle, packed, target, trust),
            lambda: resolve_bundle("fruit", target, shared, trust),
        )
        for attempt in attempts:
            with pytest.raises(BundleUntrusted, match=sentence):
                attempt()
        assert [] == list(target.rglob("bundle.json"))
        sign_bundle(bundle, key)


def test_a_trusted_bundle_keeps_its_signature_on_every_way(bundle: Bundle, key: Path, tmp_path: Path) -> None:
    """Packed, copied, pushed and pulled; also one that was pushed or installed before it was signed."""
    shared = SharedBundles(open_store((tmp_path / "store").as_uri(), setting="models_url"), "the store")
    install_bundle(bundle.root, tmp_path / "early")
    assert shared.push(bundle)
    trust = requiring(sign_bundle(bundle, key))
    signed = open_bundle(bundle.root)
    assert not shared.push(signed)
    packed = pack_bundle(bundle.root, tmp_path / "fruit.shoplens")
    arrived = [
        unpack_bundle(packed, tmp_path / "unpacked", trust),
        install_bundle(bundle.root, tmp_path / "early", trust),
        resolve_bundle("fruit", tmp_path / "pulled", shared, trust),
    ]
    assert {signed.signed_by} == {each.signed_by for each in arrived}
    assert {signed.digest} == {each.digest for each in arrived}


def damage(root: Path, how: str, other: Path) -> None:
    """Change a signed bundle."""
    file = root / SIGNATURE
    content = json.loads(file.read_text())
    match how:
        case "label":
            (root / "labels.json").write_text((root / "labels.json").read_text().replace("apple", "grape"))
            return
        case "all of it":  # a bundle that is right in itself, under the signature of another
            for name in ("bundle.json", "labels.json", "card.json", "model.onnx", "checksums.json"):
                shutil.copy(other / name, root / name)
            return
        case "link":
            file.rename(root.parent / "elsewhere.json")
            file.symlink_to(root.parent / "elsewhere.json")
            return
        case "empty":
            content = {}
        case "bit":
            text = content["signature"]
            content["signature"] = ("A" if text[0] != "A" else "B") + text[1:]
        case "key":
            content["key"] = "ed25519:" + "A" * 43 + "="
        case "base64":
            content["signature"] = "~~~~"
        case "more":
            content["note"] = "trust me"
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("how", ["label", "all of it", "link", "empty", "bit", "key", "base64", "more"])
def test_what_was_changed_after_it_was_signed_is_refused(bundle: Bundle, key: Path, tmp_path: Path, how: str) -> None:
    """Always, whether a signature is required or not."""
    sign_bundle(bundle, key)
    manifest = replace(MANIFEST, version="9")
    other = write_bundle(tmp_path / "other", manifest=manifest, labels=LABELS, card=CARD, model=small_model())
    damage(bundle.root, how, other.root)
    with pytest.raises(BundleTampered):
        open_bundle(bundle.root)


def test_a_signature_cannot_be_listed_as_a_file_of_the_bundle(bundle: Bundle) -> None:
    """It would cover itself."""
    sums = json.loads((bundle.root / "checksums.json").read_text())
    sums[SIGNATURE] = sums["card.json"]
    (bundle.root / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(BundleError, match=SIGNATURE):
        open_bundle(bundle.root)


@pytest.mark.parametrize("text", ["", "shop", "ed25519:", "ed25519:AAAA", "ed25519:~", "rsa:" + "A" * 43 + "="])
def test_a_public_key_that_is_none_is_named(text: str) -> None:
    """When the settings are read."""
    with pytest.raises(Misconfigured, match="trusted_keys: "):
        build_trust((text,), required=False)


def test_a_private_key_that_cannot_be_used_is_named(bundle: Bundle, tmp_path: Path) -> None:
    """Missing, no key, a key of another kind."""
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "other.pem").write_bytes(other)
    (tmp_path / "text.pem").write_text("secret")
    for name, sentence in (("none.pem", "cannot be read"), ("text.pem", "no private key"), ("other.pem", "Ed25519")):
        with pytest.raises(Misconfigured, match=sentence):
            sign_bundle(bundle, tmp_path / name)
    assert open_bundle(bundle.root).signed_by is None


@pytest.mark.parametrize("name", ["fashion-mnist", "efficientnet-lite0-int8", "clothing", "opennsfw"])
def test_a_built_in_model_is_trusted_as_the_program_that_builds_it(name: str, models_dir: Path) -> None:
    """It needs no signature where one is required."""
    assert name == resolve_bundle(name, models_dir, trust=requiring()).ref.name


def test_another_model_under_the_name_of_a_built_in_one_is_not(tmp_path: Path) -> None:
    """It is right in itself; somebody who can write to the folder of the models may have put it there."""
    real = prepare_builtin("fashion-mnist", tmp_path / "real")
    card = replace(real.card, title="Not the real one")
    root = tmp_path / "models" / "fashion-mnist" / real.ref.version
    model = real.model_path.read_bytes()
    write_bundle(root, manifest=real.manifest, labels=real.labels, card=card, model=model)
    assert "fashion-mnist" == resolve_bundle("fashion-mnist", tmp_path / "models").ref.name
    with pytest.raises(BundleUntrusted, match=r"card\.json .* Remove the folder"):
        resolve_bundle("fashion-mnist", tmp_path / "models", trust=requiring())
    require_own_build(real)

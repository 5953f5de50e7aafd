"""Who made a bundle: Ed25519 signatures (RFC 8032) of its list of files.

`checksums.json` has the SHA-256 of every file, so a signature of it covers the bundle, its name and its version.
`signature.json` beside it has the signature and the public key; it is the only file that the list does not have.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from shoplens.errors import BundleTampered, BundleUntrusted, Misconfigured

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from shoplens.bundles.bundle import Bundle

SIGNATURE: Final = "signature.json"
_PREFIX: Final = "ed25519:"
_CONTEXT: Final = b"shoplens bundle 1\n"
"""Before what is signed, so that no signature of another kind of file is one of a bundle."""
_MAX_BYTES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """`signature.json`: the public key as in the settings, and the signature in Base64."""

    algorithm: Literal["ed25519"]
    key: Annotated[str, Field(max_length=100)]
    signature: Annotated[str, Field(max_length=200)]


_SIGNATURE: Final = TypeAdapter(Signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The public keys whose signatures are trusted, and whether a bundle must have one of them."""

    keys: frozenset[str] = frozenset()
    required: bool = False

    def check(self, bundle: Bundle) -> None:
        """Raises BundleUntrusted if a signature is required, and `bundle` has none by one of the keys."""
        if not self.required or bundle.signed_by in self.keys:
            return
        if bundle.signed_by is None:
            raise BundleUntrusted(
                f"The model {bundle.ref} is not signed, and require_signed_models is set. Sign it where it was made: "
                f"shoplens models sign {bundle.ref} --key FILE"
            )
        raise BundleUntrusted(
            f"The model {bundle.ref} is signed by {bundle.signed_by}, which is not one of trusted_keys. Add the key if "
            "you know whose it is."
        )


def build_trust(keys: tuple[str, ...], *, required: bool) -> Trust:
    """The trust that the settings ask for. Raises Misconfigured for a text that is no public key."""
    for key in keys:
        try:
            _public_key(key)
        except ValueError as error:
            raise Misconfigured(
                f"trusted_keys: {key!r} is no public key. `shoplens models keygen` prints one: "
                f"{_PREFIX} and 44 characters."
            ) from error
    return Trust(keys=frozenset(keys), required=required)


def make_key(file: Path) -> str:
    """Write a new private key to `file`, which only this user may read, and return its public key.

    Raises Misconfigured if the file exists or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as target:
            target.write(data)
    except OSError as error:
        raise Misconfigured(f"The key cannot be written to {file}: {error.strerror}.") from error
    return _text_of(key.public_key())


def sign_bundle(bundle: Bundle, key_file: Path) -> str:
    """Sign `bundle`, in place of an earlier signature. Returns the public key. Raises Misconfigured."""
    key = _private_key(key_file)
    listed = (bundle.root / "checksums.json").read_bytes()
    public = _text_of(key.public_key())
    text = base64.b64encode(key.sign(_CONTEXT + listed)).decode()
    signature = Signature(algorithm="ed25519", key=public, signature=text)
    write_signature(bundle.root, _SIGNATURE.dump_json(signature, indent=1) + b"\n")
    return public


def write_signature(root: Path, data: bytes) -> None:
    """Put a signature into the bundle at `root`, all at once. Raises Misconfigured."""
    draft = root.parent / f".{root.name}-{SIGNATURE}.{os.getpid()}"
    try:
        draft.write_bytes(data)
        draft.replace(root / SIGNATURE)
    except OSError as error:
        raise Misconfigured(f"The signature cannot be written to {root}: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)


def signer_of(signature: bytes, listed: bytes) -> str:
    """The public key that signed the list of files `listed`. Raises BundleTampered if `signature` does not fit."""
    from cryptography.exceptions import InvalidSignature

    try:
        if len(signature) > _MAX_BYTES:
            raise ValueError("it is too large")
        value = _SIGNATURE.validate_json(signature, strict=True, extra="forbid")
        _public_key(value.key).verify(base64.b64decode(value.signature, validate=True), _CONTEXT + listed)
    except InvalidSignature as error:
        raise BundleTampered(
            f"The signature in {SIGNATURE} is not of this bundle: it was changed after it was signed."
        ) from error
    except (ValidationError, ValueError) as error:
        raise BundleTampered(f"{SIGNATURE} is no signature. Sign the model again, or remove the file.") from error
    return value.key


def _public_key(text: str) -> Ed25519PublicKey:
    """Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not text.startswith(_PREFIX):
        raise ValueError(f"it does not start with {_PREFIX}")
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix(_PREFIX), validate=True))


def _private_key(file: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise Misconfigured(f"The key {file} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Misconfigured(
            f"{file} is no private key without a passphrase; `shoplens models keygen` makes one."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(f"{file} is a key of another kind than Ed25519: `shoplens models keygen` makes one.")
    return key


def _text_of(key: Ed25519PublicKey) -> str:
    return _PREFIX + base64.b64encode(key.public_bytes_raw()).decode()

"""Bytes to picture: the one decoder, its limits, fingerprints and thumbnails."""

from shoplens.imaging.decoder import decode
from shoplens.imaging.fingerprint import perceptual_hash, sha256_hex
from shoplens.imaging.heif import HeicSupport, heic_support
from shoplens.imaging.isolation import IsolatedDecoder
from shoplens.imaging.picture import Limits, Picture
from shoplens.imaging.salvage import salvage
from shoplens.imaging.thumbnails import thumbnail

__all__ = [
    "HeicSupport",
    "IsolatedDecoder",
    "Limits",
    "Picture",
    "decode",
    "heic_support",
    "perceptual_hash",
    "salvage",
    "sha256_hex",
    "thumbnail",
]

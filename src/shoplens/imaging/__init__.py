"""Bytes to picture: the one decoder, its limits, fingerprints and thumbnails."""

from shoplens.imaging.decoder import decode
from shoplens.imaging.fingerprint import perceptual_hash, sha256_hex
from shoplens.imaging.picture import Limits, Picture
from shoplens.imaging.thumbnails import thumbnail

__all__ = ["Limits", "Picture", "decode", "perceptual_hash", "sha256_hex", "thumbnail"]

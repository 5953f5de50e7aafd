"""Tell what a body of bytes is by its content: the first step of imaging, before anything is parsed."""

from __future__ import annotations

from typing import Final

from shoplens.errors import ImageMissing, ImageUnsupported
from shoplens.images import isobmff

_READ: Final = "a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC photo"

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)

# Only for the sentence that a person reads: what was sent instead of a photo. Lower case, as the text is compared.
_NOT_READ: Final = (
    (b"%pdf", "a PDF document"),
    (b"%!ps", "a PostScript document"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<", "markup text"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8bps", "a Photoshop file"),
    (b"ii+\x00", "a BigTIFF picture"),
    (b"mm\x00+", "a BigTIFF picture"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cjxl ", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cjp  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"riff", "a sound or video file"),
)


def sniff(data: bytes) -> str:
    """Return the format's name: jpeg, png, webp, gif, bmp, tiff, avif or heic.

    Raises ImageMissing for no bytes and ImageUnsupported for anything else.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return isobmff.picture_format(data) or _refuse(data)


def _refuse(data: bytes) -> str:
    if not data:
        raise ImageMissing("No photo was sent: the file is empty. Choose a photo and send it again.")
    raise ImageUnsupported(f"This is {_what_it_is(data[:512])}. Send {_READ}.")


def _what_it_is(start: bytes) -> str:
    if start[4:8] == b"ftyp":
        return "a video or another media file"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower()
    if text.startswith(b"<") and b"<svg" in text:
        return "an SVG drawing"
    return next((name for signature, name in _NOT_READ if text.startswith(signature)), "not a picture that we know")

"""What the tests of imaging share: one pool of isolated processes, and HEIC files where they can be made."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxedDecoder]:
    """Processes for HEIC and AVIF, started once for the whole run."""
    with SandboxedDecoder(processes=1) as decoder:
        yield decoder


@pytest.fixture(scope="session")
def limits() -> Limits:
    """The default limits."""
    return Limits()


@pytest.fixture(scope="session")
def heic() -> Callable[..., bytes]:
    """A function that encodes a picture as HEIC."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")

    pillow_heif.register_heif_opener()

    def encode(image: Image.Image, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "HEIF", quality=90, **options)
        return buffer.getvalue()

    return encode

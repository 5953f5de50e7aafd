"""Shoplens: image classification that a shop runs itself.

    from shoplens import load_bundle, load_channel

    classifier = load_bundle("efficientnet-lite0-int8")
    print(classifier.classify("photo.jpg").top)
    print(load_channel("reviews").classify("photo.jpg").decision)

Importing this costs nothing; models and decoders are imported when they are first asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime reads this when it is imported: nothing about a machine is gathered for anybody, or kept in a file.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from shoplens.errors import ShoplensError as ShoplensError
    from shoplens.platform.parts import load_bundle as load_bundle
    from shoplens.platform.parts import load_channel as load_channel

__version__ = "0.1.0"
__all__ = ["ShoplensError", "__version__", "load_bundle", "load_channel"]


def __getattr__(name: str) -> Any:
    if name == "ShoplensError":
        from shoplens.errors import ShoplensError

        return ShoplensError
    if name in {"load_bundle", "load_channel"}:
        from shoplens.platform import parts

        return getattr(parts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Shoplens: image classification that a shop runs itself.

    from shoplens import load_bundle

    classifier = load_bundle("efficientnet-lite0-int8")
    print(classifier.classify("photo.jpg").top)

Importing this costs nothing; models and decoders are imported when they are first asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime reads this when it is imported: nothing about a machine is gathered for anybody, or kept in a file.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from shoplens.platform.parts import load_bundle as load_bundle

__version__ = "0.1.0"
__all__ = ["__version__", "load_bundle"]


def __getattr__(name: str) -> Any:
    if name == "load_bundle":
        from shoplens.platform.parts import load_bundle

        return load_bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Models as verifiable directories: open, verify, pack, import, and the built-in ones."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shoplens.bundles.archive import install_bundle, pack_bundle, unpack_bundle
from shoplens.bundles.builtin import builtin_names, prepare_builtin, verify_builtin
from shoplens.bundles.bundle import Bundle, open_bundle, verify_bundle, write_bundle
from shoplens.bundles.evaluation import Evaluation
from shoplens.bundles.manifest import Card, Label, Manifest, Metric
from shoplens.bundles.naming import imagenet_labels, labels_from
from shoplens.bundles.shared import SharedBundles
from shoplens.bundles.store import installed_bundles, resolve_bundle

if TYPE_CHECKING:
    from shoplens.bundles.importing import Preprocessing, import_onnx


def __getattr__(name: str) -> Any:
    """`import_onnx` and `Preprocessing` on first use: they need onnx, which serving never loads."""
    if name in ("Preprocessing", "import_onnx"):
        return getattr(import_module("shoplens.bundles.importing"), name)
    raise AttributeError(name)


__all__ = [
    "Bundle",
    "Card",
    "Evaluation",
    "Label",
    "Manifest",
    "Metric",
    "Preprocessing",
    "SharedBundles",
    "builtin_names",
    "imagenet_labels",
    "import_onnx",
    "install_bundle",
    "installed_bundles",
    "labels_from",
    "open_bundle",
    "pack_bundle",
    "prepare_builtin",
    "resolve_bundle",
    "unpack_bundle",
    "verify_builtin",
    "verify_bundle",
    "write_bundle",
]

"""Models as verifiable directories: open, verify, pack, import, and the built-in ones."""

from shoplens.bundles.archive import install_bundle, pack_bundle, unpack_bundle
from shoplens.bundles.builtin import builtin_names, prepare_builtin, verify_builtin
from shoplens.bundles.bundle import Bundle, open_bundle, verify_bundle, write_bundle
from shoplens.bundles.manifest import Card, Label, Manifest, Metric
from shoplens.bundles.store import installed_bundles, resolve_bundle

__all__ = [
    "Bundle",
    "Card",
    "Label",
    "Manifest",
    "Metric",
    "builtin_names",
    "install_bundle",
    "installed_bundles",
    "open_bundle",
    "pack_bundle",
    "prepare_builtin",
    "resolve_bundle",
    "unpack_bundle",
    "verify_builtin",
    "verify_bundle",
    "write_bundle",
]

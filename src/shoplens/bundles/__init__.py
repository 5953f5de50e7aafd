"""Models as verifiable directories: open, verify, pack, import, and the built-in ones."""

from shoplens.bundles.builtin import builtin_names, prepare_builtin
from shoplens.bundles.bundle import Bundle, open_bundle, write_bundle
from shoplens.bundles.manifest import Card, Label, Manifest, Metric
from shoplens.bundles.store import installed_bundles, resolve_bundle

__all__ = [
    "Bundle",
    "Card",
    "Label",
    "Manifest",
    "Metric",
    "builtin_names",
    "installed_bundles",
    "open_bundle",
    "prepare_builtin",
    "resolve_bundle",
    "write_bundle",
]

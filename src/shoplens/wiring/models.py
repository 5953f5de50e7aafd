"""Find bundles as the settings say: in the models directory, and in the store that many machines share."""

from __future__ import annotations

from shoplens.bundles import Bundle, SharedBundles, resolve_bundle
from shoplens.settings import Settings
from shoplens.storage import open_store


def find_bundle(name_or_path: str, settings: Settings) -> Bundle:
    """The bundle by name, `name@version` or folder, verified; fetched where `models_dir` lacks it.

    Raises ModelNotFound, BundleError, StorageUnavailable and Misconfigured.
    """
    return resolve_bundle(name_or_path, settings.effective_models_dir, open_shared(settings))


def open_shared(settings: Settings, *, hurry: bool = False) -> SharedBundles | None:
    """None where no such store is set. Raises Misconfigured and StorageUnavailable."""
    if settings.models_url is None:
        return None
    return SharedBundles(open_store(settings.models_url, setting="models_url", hurry=hurry), settings.models_url)

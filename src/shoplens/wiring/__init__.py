"""Build everything once from the settings: the only place that picks implementations."""

from shoplens.wiring.local import Progress, build_engine, build_isolation, build_limits, build_live
from shoplens.wiring.models import find_bundle, open_shared
from shoplens.wiring.platform import (
    Platform,
    WebLimits,
    build_database,
    build_platform,
    build_standing,
    load_bundle,
)

__all__ = [
    "Platform",
    "Progress",
    "WebLimits",
    "build_database",
    "build_engine",
    "build_isolation",
    "build_limits",
    "build_live",
    "build_platform",
    "build_standing",
    "find_bundle",
    "load_bundle",
    "open_shared",
]

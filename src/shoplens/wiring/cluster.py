"""Build the crew of a night on a Ray cluster from the settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from shoplens.bundles import Bundle
from shoplens.domain.channel import Channel
from shoplens.errors import Misconfigured, ShoplensError
from shoplens.inference.cluster.cluster import joined
from shoplens.inference.cluster.plan import Isolation, Plan, SharedStore, own_version
from shoplens.inference.cores import usable_cores
from shoplens.services.classify import STORED_LABELS
from shoplens.services.returns.cluster import ClusterCrew, Joined, share_marker
from shoplens.settings import Settings
from shoplens.storage import Store
from shoplens.wiring.local import build_limits
from shoplens.wiring.models import find_bundle

_MARKERS: Final = "health/nights"


def build_cluster_crew(settings: Settings, channel: Channel, store: Store, *, address: str | None) -> ClusterCrew:
    """Join the cluster at `address`, or start one here. Blocks.

    Raises ExtraMissing, Misconfigured, ClusterUnavailable, StorageUnavailable, ModelNotFound and BundleError.
    """
    return ClusterCrew(_joined(settings, channel, store, address))


@contextmanager
def _joined(settings: Settings, channel: Channel, store: Store, address: str | None) -> Iterator[Joined]:
    url = shared_url(settings.effective_storage_url)
    bundle = find_bundle(channel.model, settings)
    name = os.urandom(8).hex()
    key = share_marker(store, folder=_MARKERS, name=name)
    plan = _plan(settings, bundle, SharedStore(url=url, marker_key=key, marker=name.encode()))
    try:
        with joined(plan, bundle, address=address, local_cpus=settings.workers or usable_cores()) as cluster:
            yield Joined(cluster=cluster, model=bundle.ref, photos=cluster.size.photos)
    finally:
        with suppress(ShoplensError):
            store.delete(key)


def shared_url(url: str) -> str:
    """Where nodes find the photos, whatever folder they work in. Raises Misconfigured for what nobody else can see."""
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        raise Misconfigured("Photos in memory:// are seen by one process only; set storage_url to a folder or s3://.")
    return url if len(scheme) > 1 else Path(url).absolute().as_uri()


def _plan(settings: Settings, bundle: Bundle, store: SharedStore) -> Plan:
    return Plan(
        version=own_version(),
        store=store,
        limits=build_limits(settings),
        isolation=Isolation(
            memory_bytes=settings.isolated_decoder_megabytes * 1_000_000,
            cpu_seconds=settings.isolated_decoder_seconds,
            wall_seconds=2 * settings.isolated_decoder_seconds,
        ),
        model=bundle.ref,
        digest=bundle.digest,
        spec=bundle.manifest.image,
        provider="cuda" if settings.provider == "cuda" else "cpu",
        top_k=STORED_LABELS,
        timeout_s=settings.returns.stall_after_s,
    )

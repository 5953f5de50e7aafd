"""A real Ray cluster of three nodes on this machine. Its processes die when they read a photo with a certain word."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

POISON = b"KILLS-ITS-PROCESS"
_NODE_CODE = f"""
import os, pathlib, sys, threading, time
def die():
    with pathlib.Path(__file__).with_name("deaths").open("a") as deaths:
        deaths.write(".")
    os.kill(os.getpid(), 9)
def watch():
    while not hasattr(sys.modules.get("shoplens.batch.ray"), "RayExecutor"):
        time.sleep(0.01)
    actor = sys.modules["shoplens.batch.ray"].PhotoActor
    read = actor._read
    def read_or_die(self, *arguments):
        photo = read(self, *arguments)
        return die() if {POISON!r} in photo else photo
    actor._read = read_or_die
threading.Thread(target=watch, daemon=True).start()
"""


@dataclass
class RayCluster:
    """`address` is the address of the head. `deaths` holds a dot for each process that a photo killed."""

    cluster: Any
    address: str
    deaths: Path

    def kill_a_node(self) -> None:
        """Kill a node that is not the head, with all its processes."""
        self.cluster.remove_node(self.cluster.worker_nodes.copy().pop(), allow_graceful=False)


@contextmanager
def ray_cluster(folder: Path) -> Iterator[RayCluster]:
    """Three nodes with one processor each. Their folder has a short path, because sockets need one."""
    (folder / "sitecustomize.py").write_text(_NODE_CODE)
    short = tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True)
    with short as own, pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TMPDIR", own)
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.setenv("RAY_raylet_start_wait_time_s", "120")
        environment.setenv("PYTHONPATH", str(folder), prepend=os.pathsep if "PYTHONPATH" in os.environ else None)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100_000_000}
        cluster: Any = Cluster(initialize_head=True, connect=False, head_node_args=node)
        try:
            for _ in range(2):
                cluster.add_node(wait=False, **node)
            cluster.wait_for_nodes(240)
            yield RayCluster(cluster, cluster.address, folder / "deaths")
        finally:
            cluster.shutdown()

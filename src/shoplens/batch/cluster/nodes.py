"""Ask every node, before the work begins, whether it has the same versions and sees the same photos."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shoplens.batch.cluster.plan import Plan, SharedStore, own_version
from shoplens.errors import ClusterUnavailable, Misconfigured

_ANSWERS_WITHIN_S: Final = 60.0
_SAME: Final = "bring both to the same one."


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What one node says. `shoplens` is None where it is not installed; `store` says why photos cannot be read."""

    name: str
    python: str
    shoplens: str | None
    store: str | None


def check_nodes(ray: Any, plan: Plan) -> None:
    """Raises Misconfigured with what is wrong with the first node that does not fit, ClusterUnavailable."""
    if plan.provider == "cuda" and ray.cluster_resources().get("GPU", 0) < 1:
        raise Misconfigured("The setting provider is `cuda`, but no node of the Ray cluster has a GPU.")
    for fault in faults(_ask(ray, plan.store)):
        raise Misconfigured(fault)


def faults(found: Sequence[NodeFacts]) -> Iterator[str]:
    """What does not fit, one sentence each."""
    own = f"Shoplens {own_version()}"
    for node in found:
        if node.shoplens is None:
            yield f"Shoplens is not installed on the node {node.name}: install {own} there, with the extra `ray`."
        elif node.shoplens != own_version():
            yield f"The node {node.name} has Shoplens {node.shoplens}, this machine has {own}: {_SAME}"
        elif node.python != _python():
            yield f"The node {node.name} has Python {node.python}, this machine has {_python()}: {_SAME}"
        elif node.store is not None:
            yield f"The node {node.name} cannot read photos: {node.store}"


def _ask(ray: Any, store: SharedStore) -> list[NodeFacts]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(_look(store))
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    try:
        answers = ray.get(asked, timeout=_ANSWERS_WITHIN_S)
    except ray.exceptions.RayError as error:
        text = " ".join(str(error).split())[-300:]
        raise ClusterUnavailable(
            f"A node of the Ray cluster does not answer: {text or type(error).__name__}"
        ) from error
    return [NodeFacts(**answer) for answer in answers]


def _look(store: SharedStore) -> Callable[[], dict[str, str | None]]:
    """A function that Ray sends to nodes as it is, so that it can tell of one where Shoplens is not installed."""
    url, key, marker = store.url, store.marker_key, store.marker

    def look() -> dict[str, str | None]:
        import platform
        import socket

        facts: dict[str, str | None] = {
            "name": socket.gethostname(), "python": platform.python_version(), "shoplens": None, "store": None,
        }  # fmt: skip
        try:
            from shoplens.batch.cluster.node import NodeStore, StoreAway
            from shoplens.batch.cluster.plan import SharedStore, own_version
        except ImportError:
            return facts
        facts["shoplens"] = own_version()
        try:
            NodeStore(SharedStore(url=url, marker_key=key, marker=marker)).look()
        except StoreAway as away:
            facts["store"] = str(away)
        return facts

    return look


def _python() -> str:
    return platform.python_version()

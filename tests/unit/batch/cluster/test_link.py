"""Joining a cluster fails with one sentence, and what killed drivers left behind goes."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from shoplens.batch.cluster import link
from shoplens.errors import ClusterUnavailable, ExtraMissing, Misconfigured


def test_a_missing_extra_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExtraMissing, match=r"shoplens\[ray\]"):
        link.import_ray(local=False)


@pytest.mark.parametrize("address", ["here", "ray://here", "http://here:1", "here:port", "a b:1"])
def test_what_is_no_address_is_not_tried(address: str) -> None:
    """The sentence shows what one looks like."""
    with pytest.raises(Misconfigured, match="host:6379"):
        link._reach(address)


def test_an_address_where_nobody_answers_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would try for long."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(link, "_REACH_S", 0.2)
        with pytest.raises(ClusterUnavailable, match=f"Nothing answers at 127.0.0.1:{port}: timed out"):
            link._reach(f"127.0.0.1:{port}")
    with pytest.raises(ClusterUnavailable, match=f"Nothing answers at 127.0.0.1:{port}"):
        link._reach(f"127.0.0.1:{port}")


def test_what_is_no_ray_cluster_is_told_at_once() -> None:
    """A web server, say."""

    def greet() -> None:
        caller, _ = server.accept()
        with caller:
            caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        web = threading.Thread(target=greet)
        web.start()
        with pytest.raises(ClusterUnavailable, match="is no Ray cluster"):
            link._reach(f"127.0.0.1:{server.getsockname()[1]}")
        web.join()


def test_an_address_of_the_client_needs_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the night is run on a node."""
    monkeypatch.setattr(link, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissing, match=r"ray\[client\].*--address auto"):
        link._reach("ray://127.0.0.1:10001")


def test_other_versions_and_other_faults_are_told_apart() -> None:
    """On one line each, whatever Ray writes."""
    other = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.11.7\n")
    told = link._told(other, "head:6379")
    assert isinstance(told, Misconfigured)
    assert "Ray: 2.50.0 Python: 3.11.7" in str(told)
    nobody = link._told(ConnectionError("Could not find any running\nRay instance."), "auto")
    assert isinstance(nobody, ClusterUnavailable)
    assert (True, False) == ("ray start --head" in str(nobody), "\n" in str(nobody))


def test_what_a_killed_driver_left_goes_and_what_is_in_use_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock tells them apart, which no killed process keeps."""
    with tempfile.TemporaryDirectory(prefix="r") as name:
        monkeypatch.setattr(tempfile, "gettempdir", lambda: name)
        monkeypatch.setattr(link, "_LONGEST_FOLDER", 1_000)
        left = Path(name) / f"{link._PREFIX}left"
        left.mkdir()
        (left / link._LOCK).touch()
        with link._session_folder() as first, link._session_folder() as second:
            assert {first.name, second.name} == {path.name for path in Path(name).iterdir()}
        assert [] == list(Path(name).iterdir())

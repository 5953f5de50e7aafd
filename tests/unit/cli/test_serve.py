"""The socket that the server listens on."""

from __future__ import annotations

import socket
import sys

import pytest

from shoplens.cli.serve import listen
from shoplens.errors import Misconfigured
from shoplens.settings import read_settings


@pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")
def test_the_kernel_ends_connections_whose_client_is_gone_or_reads_nothing() -> None:
    """After a minute; an accepted connection has what the listening socket was given."""
    with listen(read_settings(port=0)) as listener, socket.create_connection(listener.getsockname()):
        accepted = listener.accept()[0]
        with accepted:
            assert 1 == accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 256 * 1024
            assert 60_000 == accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def test_a_port_in_use_is_named() -> None:
    """Before models are loaded."""
    with listen(read_settings(port=0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}"):
            listen(read_settings(port=port))

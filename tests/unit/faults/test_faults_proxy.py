"""The proxy of the fault suite, between a client and a server that answers what it gets."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from faults.proxy import Proxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1000):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Proxy(server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()


def connect(proxy: Proxy) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", proxy.port))
    found.settimeout(0.3)
    assert answer(found, b"hello") == b"hello"
    return found


def answer(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(1000)


def test_it_passes_on_and_can_be_slow(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.slow(0.05)
        began_s = time.monotonic()
        assert answer(connection, b"again") == b"again"
        assert time.monotonic() - began_s > 0.1  # there and back


def test_what_is_cut_is_reset_and_new_connections_work(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)
        connect(proxy).close()


def test_what_is_held_arrives_later(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.hold()
        with pytest.raises(TimeoutError):
            answer(connection, b"later")
        proxy.go_on()
        assert connection.recv(1000) == b"later"


def test_what_is_forgotten_hangs_for_ever_and_new_connections_work(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert proxy.forget() == 1
        with pytest.raises(TimeoutError):
            answer(connection, b"never")
        with connect(proxy) as other:
            assert answer(other, b"new") == b"new"
        with pytest.raises(TimeoutError):
            connection.recv(1000)

"""A TCP proxy whose connections can be slowed, cut, held and forgotten. It runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

_CHUNK = 1 << 16
_BACKLOG = 256
_RESET = struct.pack("ii", 1, 0)  # instead of an orderly end


class _Connection:
    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.forgotten = False  # as by a firewall that lost its table: nothing passes, and nobody is told


class Proxy:
    """Listens on a free port of loopback and passes everything on to `target_port`. All verbs from any thread."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._connections: set[_Connection] = set()
        self._latency_s = 0.0
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._passing = asyncio.Event()
        self._passing.set()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=_BACKLOG))
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def slow(self, latency_s: float) -> None:
        """From now on each piece of data takes so long; 0: none."""
        self._latency_s = latency_s

    def cut(self) -> int:
        """Resets all connections; answers how many. New ones are taken."""
        return self._do(self._cut())

    def hold(self) -> None:
        """Nothing passes until `go_on`; nothing is lost."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._passing.set)

    def forget(self) -> int:
        """Connections that there are stay open and never pass anything again; new ones do. Answers how many."""
        return self._do(self._forget())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _cut(self) -> int:
        cut = [connection for connection in self._connections if not connection.forgotten]
        for connection in cut:
            for writer in connection.writers:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
        return len(cut)

    async def _forget(self) -> int:
        for connection in self._connections:
            connection.forgotten = True
        return len(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection((writer, back))
        self._connections.add(connection)
        try:
            await asyncio.gather(self._pump(connection, reader, back), self._pump(connection, there, writer))
        finally:
            self._connections.discard(connection)
            for each in connection.writers:
                each.transport.abort()

    async def _pump(self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if self._latency_s:
                    await asyncio.sleep(self._latency_s)
                await self._passing.wait()
                if not connection.forgotten:
                    sink.write(data)
                    await sink.drain()
        if not connection.forgotten:  # an end is as little told as anything else
            sink.close()

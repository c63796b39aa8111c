"""A network that can be slow, silent or cut: a proxy in front of some servers."""

import asyncio
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE = 20.0
PIECE = 65_536


class Network:
    """Passes on what comes to its port, from a thread of its own, to each of `servers` in turn.

    One that takes no connection is passed over.

    A server is the path of a Unix socket, or a URL.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        self.port = 0
        self.delay = 0.0
        """Seconds by which each piece is late, both ways."""
        self._servers, self._count = itertools.cycle(servers), len(servers)
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._soon(self._listen()).result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._soon(self._end()).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def cut(self) -> None:
        """Break off all connections there are; new ones are taken."""
        self._soon(self._cut()).result(PATIENCE)

    def fall_silent(self) -> None:
        """Let nothing through, and break nothing off, until `speak`."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def speak(self) -> None:
        """Let through what waits."""
        self._loop.call_soon_threadsafe(self._open.set)

    def _soon(self, what: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        assert self._listener
        self._listener.close()
        self._open.set()
        await self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self._connect()
        ends = {writer, server_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the next server that takes the connection."""
        for _ in range(self._count - 1):
            with suppress(OSError):
                return await _connect(next(self._servers))
        return await _connect(next(self._servers))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            await self._open.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


async def _connect(server: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if server.startswith("/"):
        return await asyncio.open_unix_connection(server)
    address = urlsplit(server)
    return await asyncio.open_connection(address.hostname, address.port)

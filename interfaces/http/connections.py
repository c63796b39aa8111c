"""Connections whose clients are slow or endless with the head of a request are closed before they cost much."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 * 1024
HEAD_SECONDS = 60.0
"""Within which a client must have said what it wants, once it connected or began to."""


class BoundedHead(HttpToolsProtocol):
    """uvicorn's protocol, whose parser takes a request line and headers of any size, at any pace."""

    _in_head = True
    _heads = 0
    _size = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        was_in_head, heads = self._in_head, self._heads
        if self._in_head and self._late is None:
            self._wait_for_head()
        super().data_received(data)
        if was_in_head and self._in_head and heads == self._heads:
            self._size += len(data)
            if self._size > LARGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        self._in_head, self._size = False, 0
        self._heads += 1
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

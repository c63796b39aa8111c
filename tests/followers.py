"""A follower of server-sent events, as a test needs one: what came, in order, and how it ended."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx2

PATIENCE = 30.0
"""Seconds that a test waits for what must come."""


class Message(NamedTuple):
    """A server-sent event; `id` is what a follower that resumes sends as Last-Event-ID."""

    id: str
    type: str
    data: Any


class Follower:
    """Follows an address on a thread of its own until the stream ends or is closed."""

    def __init__(self, url: str, last_id: str | int | None = None) -> None:
        self.status = 0
        self.media_type = ""
        self.comments = 0
        self.comment_first = False
        self.messages: list[Message] = []
        self.ended = False
        """Whether the server ended the answer as it should, and not the connection."""
        self.over = False
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._closing = False
        headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": str(last_id)})
        self._thread = threading.Thread(target=self._follow, args=(url, headers), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ids(self) -> list[int]:
        return [int(message.id) for message in self.messages]

    def wait(self, condition: Callable[["Follower"], object], seconds: float = PATIENCE) -> bool:
        """Whether `condition` came to hold within `seconds`, looking whenever something came."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(condition(self)), seconds)

    def wait_for(self, count: int, seconds: float = PATIENCE) -> list[Message]:
        """The first `count` messages. Fails when they do not come in time."""
        assert self.wait(lambda _: len(self.messages) >= count, seconds), f"{len(self.messages)} of {count} messages"
        return self.messages[:count]

    def wait_for_end(self, seconds: float = PATIENCE) -> list[Message]:
        """All messages, once the server has ended the stream. Fails when it does not, or just breaks off."""
        assert self.wait(lambda _: self.over, seconds), f"not ended after {len(self.messages)} messages"
        assert self.ended, f"broken off after {len(self.messages)} messages"
        return self.messages

    def begun(self) -> Self:
        """This follower, once the server has answered it."""
        assert self.wait(lambda _: self.comments or self.over)
        return self

    def close(self) -> None:
        """Hang up."""
        with self._changed:
            self._closing = True
            if self._socket is not None and not self.over:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)

    def _follow(self, url: str, headers: dict[str, str]) -> None:
        with suppress(httpx2.TransportError):
            with httpx2.stream("GET", url, headers=headers, timeout=httpx2.Timeout(PATIENCE, read=None)) as answer:
                with self._changed:
                    self._socket = answer.extensions["network_stream"].get_extra_info("socket")
                    if self._closing:
                        return
                self.status = answer.status_code
                self.media_type = answer.headers.get("content-type", "")
                self._read(answer)
            self.ended = True
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def _read(self, answer: httpx2.Response) -> None:
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                with self._changed:
                    self.comments += 1
                    self.comment_first = self.comment_first or not self.messages
                    self._changed.notify_all()
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields.get("id"):
                message = Message(fields["id"], fields["event"], json.loads(fields["data"]))
                fields = {}
                with self._changed:
                    self.messages.append(message)
                    self._changed.notify_all()

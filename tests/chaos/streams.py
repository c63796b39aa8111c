"""Server-sent events, read through whatever happens: resumed by Last-Event-ID at another server each time."""

import random
import socket
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import NamedTuple

from msgspec import Struct
from msgspec.json import Decoder

from tests.chaos.client import BROKEN, Doors, connect
from tests.chaos.witness import Witness

SILENCE_SECONDS = 20.0
"""A server says something every fifteen."""
PAUSE = 0.05
PATIENCE = 120.0
ENDS = {"job.completed", "job.failed", "job.cancelled"}


class Place(Struct):
    """Where an event stands."""

    job_id: str
    version: int
    position: str


read_place = Decoder(Place).decode


class Message(NamedTuple):
    id: int
    type: str
    place: Place


def messages(
    url: str, path: str, last: int | None, connected: Callable[[socket.socket], None] = lambda _: None
) -> Iterator[Message | None]:
    """What a server sends until it ends the stream; None first, once it has answered with one. A 204 says nothing.

    `connected` is given the connection. Raises OSError and HTTPException when it breaks off or refuses.
    """
    with closing(connect(url, SILENCE_SECONDS)) as connection:
        headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
        connection.request("GET", path, headers=headers)
        connected(connection.sock)
        with connection.getresponse() as response:
            if response.status == 204:
                return
            if response.status != 200:
                raise OSError(f"{response.status} {response.read()!r}")
            yield None
            yield from _read(response)


def _read(response: Iterable[bytes]) -> Iterator[Message]:
    fields: dict[bytes, bytes] = {}
    for line in response:
        if line == b"\n":
            if b"id" in fields:
                yield Message(int(fields[b"id"]), fields[b"event"].decode(), read_place(fields[b"data"]))
            fields = {}
        else:
            name, _, value = line.rstrip(b"\n").partition(b": ")
            fields[name] = value


def follow_job(doors: Doors, id: str, dice: random.Random, enough: Callable[[], bool]) -> list[int] | None:
    """The versions of a job's events as they came, to its end; None when it was enough before."""
    versions: list[int] = []
    last: str | None = None
    while not enough():
        url = doors.one(dice)
        try:
            answered = False
            for message in messages(url, f"/v1/jobs/{id}/events", versions[-1] if versions else None):
                answered = True
                if message is not None:
                    versions.append(message.id)
                    last = message.type
            if last in ENDS or not answered:
                return versions
        except BROKEN:
            doors.failed(url)
    return None


class LogFollower:
    """Follows the whole log on a thread of its own; what it saw is kept as columns."""

    def __init__(self, doors: Doors, witness: Witness, seed: int) -> None:
        self.positions = array("q")
        self.versions = array("q")
        self.hops = 0
        self._socket: socket.socket | None = None
        self._doors = doors
        self._witness = witness
        self._dice = random.Random(seed)
        self._enough = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait_until(self, position: int) -> bool:
        """Whether it came that far, in time."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.positions) and self.positions[-1] >= position, PATIENCE)

    def close(self) -> None:
        self._enough.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(SILENCE_SECONDS + 5)

    def _connected(self, connection: socket.socket) -> None:
        self._socket = connection

    def _follow(self) -> None:
        while not self._enough.is_set():
            url = self._doors.one(self._dice)
            last = self.positions[-1] if self.positions else None
            try:
                for message in messages(url, "/v1/events", last, self._connected):
                    if message is not None:
                        self._see(message)
                    if self._enough.is_set():
                        return
            except BROKEN:
                self._doors.failed(url)
            self.hops += 1
            self._enough.wait(PAUSE)

    def _see(self, message: Message) -> None:
        if str(message.id) != message.place.position:
            self._witness.violation(f"the event at {message.place.position} was sent with the id {message.id}")
        with self._changed:
            self.positions.append(message.id)
            self.versions.append(message.place.version)
            self._changed.notify_all()

"""A client that asks again, at another server each time, until it is answered."""

import http.client
import random
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from msgspec.json import decode, encode

from tests.chaos.witness import Witness

TIMEOUT = 5.0
PATIENCE = 120.0
PAUSE = 0.05
LEFT_OUT_SECONDS = 1.0
BROKEN = (OSError, http.client.HTTPException)


class Doors:
    """The servers as a load balancer knows them: one that failed is left out for a while, unless all did."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self._failed = dict.fromkeys(self.urls, 0.0)

    def one(self, dice: random.Random) -> str:
        well = [url for url in self.urls if time.monotonic() - self._failed[url] > LEFT_OUT_SECONDS]
        return dice.choice(well or self.urls)

    def failed(self, url: str) -> None:
        self._failed[url] = time.monotonic()


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return decode(self.body)


class Client:
    """Has a connection to each server, and is used by one thread."""

    def __init__(self, doors: Doors, witness: Witness, seed: int, stop: threading.Event) -> None:
        self._doors = doors
        self._witness = witness
        self._stop = stop
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self.dice = random.Random(seed)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The first answer that is none of a service that is away or stopping. Fails after two minutes without one."""
        until = time.monotonic() + PATIENCE
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else encode(body)
        said = ""
        while time.monotonic() < until:
            url = self._doors.one(self.dice)
            try:
                answer = self._ask(url, method, path, content, named)
                if answer.status < 500:
                    return answer
                said = f"{answer.status} {answer.body.decode()}"
                if answer.status != 503:
                    self._witness.violation(f"{method} {path}: {said}")
            except BROKEN as error:
                said = repr(error)
            self._doors.failed(url)
            self._witness.again()
            self._stop.wait(PAUSE)
        raise TimeoutError(f"{method} {path} is not answered; the last was {said}")

    def once(self, method: str, path: str, body: Any) -> Answer | None:
        """The answer of one server that is asked once; None where it gave none, or is away or stopping."""
        url = self._doors.one(self.dice)
        with closing(connect(url, TIMEOUT)) as connection:
            try:
                answer = _answer(connection, method, path, encode(body), {})
            except BROKEN:
                answer = None
        if answer is not None and answer.status != 503:
            return answer
        self._doors.failed(url)
        self._stop.wait(PAUSE)
        return None

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _ask(self, url: str, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Answer:
        kept = self._connections.pop(url, None)
        for connection in (kept, None):
            fresh = connection is None
            connection = connection or connect(url, TIMEOUT)
            try:
                answer = _answer(connection, method, path, content, headers)
            except TimeoutError:
                connection.close()
                raise
            except BROKEN:
                connection.close()
                if fresh:
                    raise
                continue  # it was kept open for longer than the server does
            self._connections[url] = connection
            return answer
        raise AssertionError("unreachable")


def _answer(
    connection: http.client.HTTPConnection, method: str, path: str, content: bytes | None, headers: dict[str, str]
) -> Answer:
    connection.request(method, path, content, headers)
    with connection.getresponse() as response:
        return Answer(response.status, response.headers, response.read())


def connect(url: str, timeout: float) -> http.client.HTTPConnection:
    address = urlsplit(url)
    assert address.hostname
    return http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)

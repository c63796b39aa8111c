"""News of queues that have work: told after the commit, heard on every node, and looked for anyway."""

import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg
import structlog
from msgspec import MsgspecError
from msgspec.json import decode, encode
from psycopg import Connection

from application.errors import Unavailable
from infrastructure.postgres.database import Database

log = structlog.get_logger()
CHANNEL = "jobledger_work"
LONGEST_PAYLOAD = 7_900
"""Bytes; Postgres takes 8 000."""
ANY_QUEUE = "*"
RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.5


class Notifier:
    """Tells the other nodes which queues got work, one message for all that gathered while the last one was sent.

    NOTIFY takes a lock of the whole cluster at commit, so it is never part of an append.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queues: set[str] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def announce(self, queues: set[str]) -> None:
        """Tell, soon, that `queues` have work. Never blocks and never fails: whoever waits also looks for itself."""
        with self._changed:
            self._queues |= queues
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queues or self._stopping)
                if self._stopping:
                    return
                queues, self._queues = self._queues, set()
            with suppress(Unavailable, psycopg.Error), self._database.connection() as connection:
                connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, _payload(queues)))


class Listener:
    """Hears which queues got work and calls `heard` with them, on its own thread, until closed.

    Keeps one connection, past any pooler, and makes a new one whenever it breaks.
    """

    def __init__(self, database: Database, heard: Callable[[set[str]], None]) -> None:
        self._database = database
        self._heard = heard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._database.connect() as connection:
                    self._listen(connection)
            except (Unavailable, psycopg.Error) as error:
                log.warning("listener.lost", error=str(error))
                self._stopping.wait(RETRY_SECONDS)

    def _listen(self, connection: Connection) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        self._heard({ANY_QUEUE})  # whatever came while nobody listened
        while not self._stopping.is_set():
            for notification in connection.notifies(timeout=LOOK_SECONDS):
                self._heard(_queues(notification.payload))


def _payload(queues: set[str]) -> str:
    payload = encode(sorted(queues))
    return payload.decode() if len(payload) <= LONGEST_PAYLOAD else f'["{ANY_QUEUE}"]'


def _queues(payload: str) -> set[str]:
    try:
        return decode(payload, type=set[str])
    except MsgspecError:
        return {ANY_QUEUE}

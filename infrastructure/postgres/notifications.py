"""News between nodes: told by NOTIFY after the commit, heard by one LISTEN connection on each."""

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import filterfalse

import psycopg
import structlog
from msgspec import MsgspecError
from msgspec.json import decode, encode
from psycopg import Connection

from application.errors import Unavailable
from application.news import ANY, JOBS, is_of_job
from infrastructure.postgres.database import Database

log = structlog.get_logger()
CHANNEL = "jobledger"
MOST_TOPICS = 150
"""In one message; Postgres takes 8 000 bytes, and the longest topic of ours has about 50, rarely more."""
LONGEST_PAYLOAD = 7_900
MOST_MESSAGES = 8
"""At a time; what does not fit is told as JOBS, or as ANY."""
# News is not durable, so its commit waits for no disk.
NOTIFY = """
SELECT pg_notify(%s, payload)
FROM unnest(%s::text[]) AS x (payload), set_config('synchronous_commit', 'off', true)
"""
QUIET_SECONDS = 0.005
"""After each message, for more to gather: the first news goes out at once, a stream of it 200 times a second."""
RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.5


class Notifier:
    """Tells the other nodes what happened, all at once that gathered while the last news was sent.

    NOTIFY takes a lock of the whole cluster at commit, so it is never part of an append.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._topics: set[str] = set()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def tell(self, topics: Collection[str]) -> None:
        """Tell, soon. Never blocks and never fails: whoever waits for news also looks for itself."""
        with self._changed:
            self._topics.update(topics)
            self._changed.notify()

    def close(self) -> None:
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._topics or self._closing.is_set())
                if self._closing.is_set():
                    return
                topics, self._topics = self._topics, set()
            with suppress(Unavailable, psycopg.Error), self._database.connection() as connection:
                connection.execute(NOTIFY, (CHANNEL, _payloads(topics)))
            self._closing.wait(QUIET_SECONDS)


class Listener:
    """Hears what other nodes tell and calls `heard` with the topics, on its own thread, until closed.

    Keeps one connection, past any pooler, and makes a new one whenever it breaks; an outage is logged once.
    """

    def __init__(self, database: Database, heard: Callable[[Collection[str]], None]) -> None:
        self._database = database
        self._heard = heard
        self._stopping = threading.Event()
        self._lost = False
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
                if not self._lost:
                    log.warning("listener.lost", error=str(error))
                self._lost = True
                self._stopping.wait(RETRY_SECONDS)

    def _listen(self, connection: Connection) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        if self._lost:
            log.info("listener.resumed")
        self._lost = False
        self._heard({ANY})  # whatever came while nobody listened
        while not self._stopping.is_set():
            for notification in connection.notifies(timeout=LOOK_SECONDS):
                self._heard(_topics(notification.payload))


def _payloads(topics: set[str]) -> list[str]:
    if JOBS in topics or len(topics) > MOST_TOPICS * MOST_MESSAGES:
        topics = {JOBS, *filterfalse(is_of_job, topics)}
    if ANY in topics or len(topics) > MOST_TOPICS * MOST_MESSAGES:
        return [f'["{ANY}"]']
    ordered = sorted(topics)
    payloads = [encode(ordered[n : n + MOST_TOPICS]).decode() for n in range(0, len(ordered), MOST_TOPICS)]
    return payloads if all(len(p.encode()) <= LONGEST_PAYLOAD for p in payloads) else [f'["{ANY}"]']


def _topics(payload: str) -> Collection[str]:
    try:
        return decode(payload, type=set[str])
    except MsgspecError:
        return {ANY}

"""The events table: appending without a table lock, reading without passing over an open transaction, checkpoints."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Event as Flag
from typing import Any, LiteralString, cast
from uuid import UUID

import psycopg
from eventsourcing.persistence import (
    ApplicationRecorder,
    DataError,
    IntegrityError,
    Notification,
    OperationalError,
    PersistenceError,
    ProgrammingError,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from msgspec import Struct
from psycopg import Connection

from application.errors import Unavailable
from domain.audit import GENESIS, chain
from infrastructure.postgres.columns import Column, byteas, int8s, moments, texts, uuids
from infrastructure.postgres.database import Database

MOST_EVENTS = 65_535
"""Events one transaction can hold: an ordinal has sixteen bits."""

BASE: LiteralString = "((SELECT pg_current_xact_id()::text::bigint + epoch_offset FROM log_epoch) << 16)"
"""What the positions of this transaction's events begin with: whatever was moved at or above it has a later place."""
POSITION_BASE = f"SELECT {BASE}, clock_timestamp()"
APPEND_AT = """
INSERT INTO events (originator_id, originator_version, topic, state, hash, notification_id, recorded_at)
SELECT id, version, topic, state, hash, {base} | ordinal, at
FROM unnest(%b::uuid[], %b::int8[], %b::text[], %b::bytea[], %b::bytea[], %b::timestamptz[])
  WITH ORDINALITY AS x (id, version, topic, state, hash, at, ordinal)
"""
APPEND = APPEND_AT.format(base="%b")
LAST_HASHES = """
SELECT DISTINCT ON (originator_id) originator_id, originator_version, hash
FROM events
WHERE originator_id = ANY(%b::uuid[])
ORDER BY originator_id, originator_version DESC
"""
ADVANCE = """
INSERT INTO checkpoints (follower, log, position) VALUES (%b, %b, %b)
ON CONFLICT (follower, log) DO UPDATE SET position = EXCLUDED.position WHERE checkpoints.position < EXCLUDED.position
"""
CHECKPOINT = "SELECT position FROM checkpoints WHERE follower = %b AND log = %b"
POLL_SECONDS = 0.2


class NewEvents(Struct):
    """The columns of events about to be appended, in the order in which they take their positions."""

    ids: list[UUID] = []
    versions: list[int] = []
    topics: list[str] = []
    states: list[bytes] = []
    hashes: list[bytes] = []
    at: list[datetime] = []

    def add(self, id: UUID, version: int, topic: str, state: bytes, previous: bytes, at: datetime) -> bytes:
        """Chain an event to the one before it; returns its hash."""
        hash = chain(previous, id, version, topic, state)
        self.ids.append(id)
        self.versions.append(version)
        self.topics.append(topic)
        self.states.append(state)
        self.hashes.append(hash)
        self.at.append(at)
        return hash

    def columns(self) -> tuple[Column, ...]:
        """As APPEND takes them. Raises ProgrammingError when they are too many for one transaction."""
        if len(self.ids) > MOST_EVENTS:
            raise ProgrammingError(f"{len(self.ids)} events in one transaction; at most {MOST_EVENTS} fit")
        return (
            uuids(self.ids),
            int8s(self.versions),
            texts(self.topics),
            byteas(self.states),
            byteas(self.hashes),
            moments(self.at),
        )

    def insert(self, connection: Connection, base: int) -> None:
        """Append them in the open transaction whose POSITION_BASE is `base`."""
        connection.execute(APPEND, (base, *self.columns()), binary=True)


class EventRecorder(ApplicationRecorder):
    """The library's view of the log. Commands are recorded by the ledger, in one transaction with their views."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """Append in one transaction; returns the positions. Raises IntegrityError when a version is taken."""
        if not stored_events:
            return []
        with transaction(self.database) as connection:
            base, now = connection.execute(POSITION_BASE).fetchone() or (0, None)
            ids = list({e.originator_id for e in stored_events})
            last = {id: (v, h) for id, v, h in connection.execute(LAST_HASHES, (ids,), binary=True)}
            events = NewEvents()
            for stored in stored_events:
                id = cast("UUID", stored.originator_id)
                version, previous = last.get(id, (0, GENESIS))
                if stored.originator_version != version + 1:
                    raise IntegrityError(f"version {stored.originator_version} does not follow {version} of {id}")
                last[id] = (version + 1, events.add(id, version + 1, stored.topic, stored.state, previous, now))
            events.insert(connection, base)
            return [base | ordinal for ordinal in range(1, len(stored_events) + 1)]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """One job's events by version; never waits for the safe position."""
        order = "DESC" if desc else "ASC"
        query = f"""
            SELECT originator_id, originator_version, topic, state FROM events
            WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s
            ORDER BY originator_version {order} LIMIT %s
        """  # noqa: S608  the order is one of two words of ours
        bounds = (originator_id, gt or 0, lte if lte is not None else 2**62, limit)
        with transaction(self.database) as connection:
            return [StoredEvent(*row) for row in connection.execute(query, bounds, binary=True)]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events in the order of the whole log, below the safe position only."""
        query = """
            SELECT originator_id, originator_version, topic, state, notification_id FROM events
            WHERE notification_id > %s AND notification_id <= %s AND notification_id < safe_position()
              AND (%s::text[] IS NULL OR topic = ANY(%s::text[]))
            ORDER BY notification_id LIMIT %s
        """
        after = -1 if start is None else start - inclusive_of_start
        wanted = list(topics) or None
        bounds = (after, stop if stop is not None else 2**62, wanted, wanted, limit)
        with transaction(self.database) as connection:
            return [
                Notification(originator_id=id, originator_version=version, topic=topic, state=state, id=position)
                for id, version, topic, state, position in connection.execute(query, bounds, binary=True)
            ]

    def max_notification_id(self) -> int | None:
        """The highest position below the safe one, or None while there is none."""
        query = """
            SELECT notification_id FROM events WHERE notification_id < safe_position()
            ORDER BY notification_id DESC LIMIT 1
        """
        with transaction(self.database) as connection:
            row = connection.execute(query, binary=True).fetchone()
            return row[0] if row else None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> "LogSubscription":
        return LogSubscription(self, gt, topics)


class LogSubscription(Subscription[EventRecorder]):
    """Follows the log by polling, so that it needs no connection of its own and cannot wait for ever unheard."""

    def __init__(self, recorder: EventRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        self._read: list[Notification] = []
        self._stopping = Flag()

    def stop(self) -> None:
        super().stop()
        self._stopping.set()

    def __next__(self) -> Notification:
        while not self._stopping.is_set():
            if self._read:
                notification = self._read.pop()
                self._last_notification_id = notification.id
                return notification
            after = self._last_notification_id or 0
            page = self._recorder.select_notifications(after, 500, topics=self._topics, inclusive_of_start=False)
            self._read = list(reversed(page))
            if not self._read:
                self._stopping.wait(POLL_SECONDS)
        raise StopIteration


class CheckpointRecorder(TrackingRecorder):
    """How far a follower has got in the logs it follows; the library's tracking id is our position."""

    def __init__(self, database: Database, follower: str) -> None:
        self.database = database
        self._follower = follower

    def insert_tracking(self, tracking: Tracking) -> None:
        """Advance in a transaction of its own. Raises IntegrityError unless the position is ahead."""
        with transaction(self.database) as connection:
            self.advance(connection, tracking)

    def advance(self, connection: Connection, tracking: Tracking) -> None:
        """Advance in the open transaction that holds what came of the events up to there. Raises IntegrityError."""
        place = (self._follower, tracking.application_name, tracking.notification_id)
        if connection.execute(ADVANCE, place, binary=True).rowcount == 0:
            raise IntegrityError(
                f"{self._follower} is at or beyond {tracking.notification_id} of {tracking.application_name} already"
            )

    def max_tracking_id(self, application_name: str) -> int | None:
        with transaction(self.database) as connection:
            row = connection.execute(CHECKPOINT, (self._follower, application_name), binary=True).fetchone()
            return row[0] if row else None


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """A transaction whose errors are the library's."""
    try:
        with database.connection() as connection, connection.transaction():
            yield connection
    except psycopg.IntegrityError as error:
        raise IntegrityError(error) from error
    except psycopg.DataError as error:
        raise DataError(error) from error
    except (psycopg.OperationalError, Unavailable) as error:
        raise OperationalError(error) from error
    except psycopg.Error as error:
        raise PersistenceError(error) from error

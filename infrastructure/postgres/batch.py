"""A batch: commands on locked jobs, recorded with their views and leases in one transaction."""

import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg
from msgspec import Struct, field
from psycopg import Connection, Cursor

from application.errors import Conflicted
from application.jobs import absent
from application.ledger import Answered, Expired, IdempotencyKey, Quota, Ready
from application.news import JOBS, SOON, job_topic, queue_topic
from domain.events import Event, Progressed
from domain.ids import job_ids
from domain.job import Job, evolve
from infrastructure.postgres.archives import archives_of
from infrastructure.postgres.columns import uuids
from infrastructure.postgres.contents import name_contents
from infrastructure.postgres.idempotency import KeysOfBatch
from infrastructure.postgres.jobs import LOCK, insert_jobs, move_jobs
from infrastructure.postgres.leases import EXPIRED, HEARD, STILL_EXPIRED, move_leases
from infrastructure.postgres.mapper import written
from infrastructure.postgres.quotas import QuotasOfBatch
from infrastructure.postgres.ready import Found, ReadyJobs
from infrastructure.postgres.recorder import NewEvents
from infrastructure.postgres.streams import Stream, StreamCache, Streams, load_streams, read_streams

# The database's clock, in microseconds since 1970.
CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# The transaction, the log's epoch, and the clock.
PLACE = f"""
SELECT pg_current_xact_id()::text::bigint, (SELECT epoch_offset FROM log_epoch), {CLOCK}
"""  # noqa: S608  the parts are ours
BEGIN = f"BEGIN; {PLACE}"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
XACT_STATUS = "SELECT pg_xact_status(%s::text::xid8)"
RECORDED = "SELECT hash, notification_id FROM events WHERE originator_id = %s AND originator_version = %s"
MOST_NAMED = 300
"""Jobs of a batch that are told of by name."""
NEAR = timedelta(seconds=2)
"""What is due within this is told of at once; alarms find the rest by themselves, once a second."""


class Place(NamedTuple):
    """A transaction, what the positions of its events begin with, and its moment."""

    transaction: int
    base: int
    now: datetime


class Locked(Struct):
    """What a batch locked when it began: the streams of jobs, keys, quotas, and jobs found for a claim."""

    streams: Streams = {}
    keys: KeysOfBatch = field(default_factory=KeysOfBatch)
    quotas: QuotasOfBatch = field(default_factory=QuotasOfBatch)
    claim: tuple[Ready, int] | None = None
    found: Found | None = None


class PostgresBatch:
    """One transaction: see the port, `application.ledger.Batch`."""

    def __init__(
        self, connection: Connection, ready_jobs: ReadyJobs, place: Place, locked: Locked, begun: float
    ) -> None:
        """`begun`: when it was, before the moment of its place, by the monotonic clock."""
        self._begun = begun
        self._connection = connection
        self._ready_jobs = ready_jobs
        self.transaction, self._base, self.now = place
        self._streams = locked.streams
        self._keys = locked.keys
        self._quotas = locked.quotas
        self._claim = locked.claim
        self._found = locked.found
        self._events = NewEvents()
        self._touched: list[Stream] = []
        self._moves: set[type[Event] | None] = set()
        self._named: set[str] = set()
        self._expired: set[UUID] | None = None
        self._heard: dict[UUID, datetime] | None = None

    @classmethod
    def begun(
        cls,
        ready_jobs: ReadyJobs,
        cache: StreamCache,
        job_ids: list[UUID],
        keys: Collection[IdempotencyKey],
        claim: tuple[Ready, int] | None,
        quotas: Collection[Quota],
        connection: Connection,
    ) -> "PostgresBatch":
        """Lock jobs, take keys, and lock quotas, each in order, read the clock, then find jobs; one round trip.

        A transaction has its place in the log from its first lock on. Raises Conflicted when a job was moved by one
        with a later place, while this one waited for its lock: a job's positions rise with its versions.
        """
        asked = time.monotonic()
        if not (job_ids or keys or quotas or claim):  # one message for both takes half the time of a pipeline
            begun = connection.execute(BEGIN, prepare=False)
            begun.nextset()
            return cls(connection, ready_jobs, _place(begun), Locked(), asked)
        with connection.pipeline():
            connection.execute("BEGIN")
            jobs = connection.execute(LOCK, (uuids(job_ids),), binary=True) if job_ids else None
            pending = KeysOfBatch.request(connection, keys)
            counted = QuotasOfBatch.request(connection, quotas)
            begun = connection.execute(PLACE, binary=True)
            found = ready_jobs.find_everywhere(connection, *claim) if claim else None
        place = _place(begun)
        rows = jobs.fetchall() if jobs else []
        if any(position >= place.base for _, _, position in rows):
            raise Conflicted
        locked = Locked(
            load_streams(connection, cache, rows),
            pending.read() if pending else KeysOfBatch(),
            QuotasOfBatch.read(counted),
            claim,
            found,
        )
        return cls(connection, ready_jobs, place, locked, asked)

    @property
    def streams(self) -> list[Stream]:
        """The jobs of the batch that could be read."""
        return [stream for stream in self._streams.values() if isinstance(stream, Stream)]

    @property
    def events(self) -> int:
        """How many were recorded in it."""
        return len(self._events.ids)

    def job(self, id: UUID) -> Job:
        stream = self._streams.get(id.int)
        if stream is None:
            raise absent(id, archives_of(self._connection, [id]).get(id))
        if isinstance(stream, Exception):
            raise stream
        return stream.job

    def new_jobs(self, count: int) -> list[Job]:
        jobs = [Job(id=id) for id in job_ids(count, self.now)]
        self._streams.update((job.id.int, Stream(job)) for job in jobs)
        return jobs

    def ready(self, wanted: Ready, count: int) -> list[Job]:
        jobs: list[Job] = []
        taken = [stream.job.id for stream in self._touched]
        while len(jobs) < count:
            found = self._ready(wanted, count - len(jobs), taken)
            jobs.extend(stream.job for stream in found.values() if isinstance(stream, Stream))
            if all(isinstance(stream, Stream) for stream in found.values()):
                break
            taken.extend(UUID(int=id) for id in found)  # one that is passed over does not hold up those behind it
        return jobs

    def _ready(self, wanted: Ready, count: int, taken: list[UUID]) -> Streams:
        if self._found is not None and (wanted, count) == self._claim and not taken:
            places, self._found = self._found, None
        else:
            places = self._ready_jobs.find(self._connection, wanted, count, taken, self.now)
        return self._read_found(places)

    def _read_found(self, found: Found) -> Streams:
        """Streams of jobs found locked, none of which was moved with a later place in the log than ours."""
        streams = read_streams(self._connection, found)
        self._streams.update(streams)
        return streams

    def record(self, job: Job, events: Sequence[Event], *, claim_id: str | None = None) -> int:
        stream = self._streams[job.id.int]
        assert isinstance(stream, Stream)
        if not stream.touched:
            stream.touched = True
            self._touched.append(stream)
        for event in events:
            evolve(job, event)
            topic, state = written(event)
            stream.hash = self._events.add(job.id, job.version, topic, state, stream.hash, event.at)
            if isinstance(event, Progressed) and event.artifact is not None:
                self._named.add(event.artifact.sha256)
        if events:
            if job.version > 1:
                self._moves.add(None if stream.moved or len(events) > 1 else type(events[0]))
            stream.moved = True
            stream.position = self._base | len(self._events.ids)
        stream.claim_id = claim_id or stream.claim_id
        return stream.position

    def when_placed(self, tell: Callable[[int], None]) -> None:
        """Nobody is told: the batch had its place when it began."""

    def tell_place(self) -> None:
        """It is recorded, and will not be elsewhere: tell those who wait for its place."""

    def expired(self, unbroken: float, count: int) -> list[Expired]:
        found: list[Expired] = []
        passed_over: list[UUID] = []
        while len(found) < count:
            values = (unbroken, [*passed_over, *(one.job_id for one in found)], count - len(found))
            rows = self._connection.execute(EXPIRED, values, binary=True).fetchall()
            streams = self._read_found([(id, position) for id, position, _, _ in rows])
            readable = [Expired(id, n, at) for id, _, n, at in rows if isinstance(streams[id.int], Stream)]
            found += readable
            if len(readable) == len(rows):
                break
            passed_over += [row[0] for row in rows]  # these do not hold up those behind them
        self._expired = {one.job_id for one in found}
        return found

    def lease_expired(self, job: Job) -> bool:
        if self._expired is None:
            rows = self._connection.execute(STILL_EXPIRED, ([UUID(int=id) for id in self._streams],), binary=True)
            self._expired = {row[0] for row in rows}
        return job.id in self._expired

    def last_heard(self, job: Job) -> datetime | None:
        if self._heard is None:
            rows = self._connection.execute(HEARD, ([UUID(int=id) for id in self._streams],), binary=True)
            self._heard = dict(rows.fetchall())
        return self._heard.get(job.id)

    def answered(self, key: IdempotencyKey) -> Answered | None:
        return self._keys.find(key)

    def answer(self, key: IdempotencyKey, job_ids: Sequence[UUID], position: int) -> None:
        self._keys.answer(key, job_ids, position)

    def in_flight(self, quota: Quota) -> int:
        return self._quotas.counts[quota.key_id]

    def charge(self, quota: Quota, jobs: Sequence[Job]) -> None:
        self._quotas.charge(quota, jobs)

    def write(self) -> None:
        """Send everything recorded, and commit, in one round trip; view rows and leases in the order of ids."""
        created = [stream for stream in self._touched if stream.job.version == 1]
        others = sorted((stream for stream in self._touched if stream.job.version > 1), key=_id)
        moved = [stream for stream in others if stream.moved]
        taken = [(stream.job, stream.claim_id) for stream in others if stream.job.held and not stream.was_held]
        kept = [(stream.job, stream.claim_id) for stream in others if stream.job.held and stream.was_held]
        ended = [stream.job.id for stream in others if stream.was_held and not stream.job.held]
        with self._connection.pipeline():
            if self._events.ids:
                self._events.insert(self._connection, self._base)
                charged_to = self._quotas.charged_to
                insert_jobs(self._connection, [s.job for s in created], [s.position for s in created], charged_to)
                by = self._moves.pop() if len(self._moves) == 1 else None
                move_jobs(self._connection, [s.job for s in moved], [s.position for s in moved], by)
                self._quotas.write(self._connection, [s.job for s in moved])
            name_contents(self._connection, self._named, self.now)
            move_leases(self._connection, taken, kept, ended, self.now)
            self._keys.write(self._connection)
            self._connection.execute("COMMIT")

    def took_place(self, connection: Connection) -> bool:
        """Whether its transaction, whose end was not heard of, is known to have taken place.

        Waits until the server is done with it, then reads the hash at the (job, version) it wrote; raises Conflicted
        when that is not there. A server that was promoted meanwhile may not have come to that transaction.
        """
        if not is_over(connection, self.transaction):
            return False
        if self._events.ids:
            self.position_in_log(connection)
        return True

    def position_in_log(self, connection: Connection) -> int:
        """Where the first event of the batch is. Raises Conflicted when it is not in the log."""
        place = (self._events.ids[0], self._events.versions[0])
        row = connection.execute(RECORDED, place).fetchone()
        if row is None or bytes(row[0]) != self._events.hashes[0]:
            raise Conflicted
        position: int = row[1]
        return position

    def topics(self) -> Collection[str]:
        """The queues of jobs that now wait and are due, and the jobs that moved, if they are not too many to name.

        What came due while this was recorded may be so by a hair too early: alarms look at it as well.
        """
        jobs = [stream.job for stream in self._touched if stream.moved]
        recorded = self.now + timedelta(seconds=time.monotonic() - self._begun)
        waiting = [job for job in jobs if job.status == "queued"]
        told = {queue_topic(job.queue) for job in waiting if job.run_at <= recorded}
        if any(self.now < job.run_at <= recorded + NEAR for job in waiting):
            told.add(SOON)
        moved = [job.id for job in jobs if job.version > 1]
        if len(moved) > MOST_NAMED:
            return {*told, JOBS}
        return told | {job_topic(id) for id in moved}


def _place(begun: Cursor) -> Place:
    """Its moment is made here: those from the driver have a zone of its own, and those of two zones compare slowly."""
    transaction, offset, microseconds = begun.fetchone() or (0, 0, 0)
    return Place(transaction, (transaction + offset) << 16, EPOCH + timedelta(microseconds=microseconds))


def is_over(connection: Connection, transaction: int) -> bool:
    """Whether a transaction has ended, or never came to this server."""
    try:
        return connection.execute(XACT_STATUS, (str(transaction),)).fetchone() != ("in progress",)
    except psycopg.errors.InvalidParameterValue:  # "in the future"
        return True


def _id(stream: Stream) -> int:
    return stream.job.id.int

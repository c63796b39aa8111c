"""The ledger: batches of commands on locked jobs, recorded with their views and leases in one transaction."""

import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TypeAlias
from uuid import UUID

import psycopg
import structlog
from msgspec import MsgspecError, Struct
from psycopg import Connection, Cursor

from application.errors import BatchRefused, Conflicted, MonthClosed, Unavailable, UnreadableStream
from application.jobs import absent
from application.ledger import Answered, Expired, IdempotencyKey, Quota, Ready
from application.news import ANY, SOON, job_topic, queue_topic
from domain.audit import GENESIS
from domain.events import Event, Progressed, decode
from domain.ids import job_ids
from domain.job import Job, evolve
from infrastructure.postgres.archives import archives_of
from infrastructure.postgres.columns import uuids
from infrastructure.postgres.contents import name_contents
from infrastructure.postgres.horizon import Horizon
from infrastructure.postgres.idempotency import KeysOfBatch
from infrastructure.postgres.jobs import LOCK, insert_jobs, move_jobs
from infrastructure.postgres.leases import EXPIRED, STILL_EXPIRED, move_leases
from infrastructure.postgres.log import Log
from infrastructure.postgres.mapper import written
from infrastructure.postgres.quotas import QuotasOfBatch
from infrastructure.postgres.ready import Found, ReadyJobs
from infrastructure.postgres.recorder import NewEvents

log = structlog.get_logger()
# The transaction, the log's epoch, and the clock in microseconds since 1970.
PLACE = """
SELECT pg_current_xact_id()::text::bigint, (SELECT epoch_offset FROM log_epoch),
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
"""
BEGIN = f"BEGIN; {PLACE}"
# The bounds let the planner leave out partitions, which it cannot do by an array.
STREAMS = """
SELECT originator_id, hash, state FROM events
WHERE originator_id = ANY(%b::uuid[]) AND originator_id BETWEEN %b AND %b
ORDER BY originator_id, originator_version
"""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
XACT_STATUS = "SELECT pg_xact_status(%s::text::xid8)"
# Writes to the server's log, so that its commit waits for a synchronous standby as that of any event does.
CONFIRM = "SELECT pg_logical_emit_message(true, 'jobledger', 'confirmed')"
RECORDED = "SELECT hash FROM events WHERE originator_id = %s AND originator_version = %s"
SETTLE_SECONDS = 1.0
"""How long a commit whose answer was lost is looked for; within two seconds callers know that the database is away."""
BEGINNINGS = 5
"""Of a batch that waited for what a later one moved, before its caller is told of a conflict."""
MOST_NAMED = 300
"""Jobs of a batch that are told of by name."""
NEAR = timedelta(seconds=2)
"""What is due within this is told of at once; alarms find the rest by themselves, once a second."""
CACHED = 4096
LARGEST_CACHED = 16 * 1024
"""Jobs kept in memory, and the bytes of payload that one of them may have: 64 MiB at the most."""


class Stream(Struct, gc=False):
    """A job in a batch: the hash and the position of its last event, and what the batch did to it so far."""

    job: Job
    hash: bytes = GENESIS
    position: int = 0
    was_held: bool = False
    moved: bool = False
    touched: bool = False
    claim_id: str | None = None

    def begin(self, position: int) -> None:
        """Enter a batch, locked, with the position of the last event."""
        self.position, self.was_held = position, self.job.held
        self.moved = self.touched = False
        self.claim_id = None


Streams: TypeAlias = dict[int, Stream | Exception]
"""By the number that a job's id is: a UUID is hashed and compared in Python, ten times as slowly."""


class StreamCache:
    """The streams written last. One is taken out while a transaction holds its job, so that it is never shared."""

    def __init__(self) -> None:
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, ids: Collection[int]) -> dict[int, Stream]:
        """The streams of locked jobs that are at hand, at whatever version."""
        with self._lock:
            return {id: self._streams.pop(id) for id in ids if id in self._streams}

    def keep(self, streams: Collection[Stream]) -> None:
        with self._lock:
            for stream in streams:
                if not stream.job.finished and _payload(stream.job) <= LARGEST_CACHED:
                    self._streams[stream.job.id.int] = stream
            while len(self._streams) > CACHED:
                self._streams.popitem(last=False)


class PostgresLedger:
    """Opens batches on the log."""

    def __init__(
        self,
        log: Log,
        tell: Callable[[Collection[str]], None],
        appended: Callable[[int, float], None] = lambda _events, _seconds: None,
    ) -> None:
        """`tell` is given the topics of what a batch moved, after the commit.

        `appended` is given how many events a batch had, and the seconds from sending them to their commit.
        """
        self._database = log.batches
        self._tell = tell
        self._appended = appended
        self._cache = StreamCache()
        self.ready_jobs = ReadyJobs(Horizon())

    @contextmanager
    def batch(
        self,
        job_ids: Collection[UUID] = (),
        keys: Collection[IdempotencyKey] = (),
        claim: tuple[Ready, int] | None = None,
        quotas: Collection[Quota] = (),
    ) -> Iterator["PostgresBatch"]:
        connection, batch = self._begin(sorted(job_ids, key=attrgetter("int")), keys, claim, quotas)
        committing = False
        try:
            yield batch
            committing = True
            begun = time.perf_counter()
            batch.write()
            if batch.events:
                self._appended(batch.events, time.perf_counter() - begun)
        except (UnicodeEncodeError, struct.error) as error:
            raise BatchRefused(str(error)) from error
        except psycopg.Error as error:
            if not (committing and self._was_recorded(connection, batch, error)):
                raise _translated(error) from error
        finally:
            self._database.give_back(connection)
        self._cache.keep(batch.streams)
        if topics := batch.topics():
            self._tell(topics)

    def _begin(
        self,
        job_ids: list[UUID],
        keys: Collection[IdempotencyKey],
        claim: tuple[Ready, int] | None,
        quotas: Collection[Quota],
    ) -> tuple[Connection, "PostgresBatch"]:
        """Nothing was decided yet: a transaction that came too early simply begins anew.

        So does one whose connection broke while it was idle, once. Raises Conflicted.
        """
        replaced = False
        for _ in range(BEGINNINGS):
            connection = self._database.take()
            try:
                return connection, PostgresBatch.begin(
                    connection, self._cache, self.ready_jobs, job_ids, keys, claim, quotas
                )
            except Conflicted:
                self._database.give_back(connection)
            except psycopg.Error as error:
                broken = connection.broken or connection.closed
                self._database.give_back(connection)
                if replaced or not broken:
                    raise _translated(error) from error
                replaced = True
                self._database.close()
        raise Conflicted

    def _was_recorded(self, connection: Connection, batch: "PostgresBatch", error: psycopg.Error) -> bool:
        """Whether a transaction whose COMMIT was not answered took place. Raises Conflicted when it did not.

        Waits until the server is done with that transaction, then reads the hash at the (job, version) it wrote. What
        is there counts once a later commit is answered: before, it may not have reached the synchronous standby, and
        would be lost in a failover. A server that was promoted meanwhile may not have come to that transaction.
        """
        if not (connection.broken or connection.closed):
            return False
        log.warning("commit.lost", transaction=batch.transaction, error=str(error))
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            with suppress(Unavailable, psycopg.Error), self._database.connection() as other:
                if _is_over(other, batch.transaction) and batch.is_recorded(other):
                    other.execute(CONFIRM)
                    return True
            time.sleep(0.05)
        raise Unavailable(
            "the database went away while it was recording this, and may or may not have; "
            "look, or repeat the request with the same Idempotency-Key"
        )


class PostgresBatch:
    """One transaction: see the port, `application.ledger.Batch`."""

    def __init__(
        self,
        connection: Connection,
        ready_jobs: ReadyJobs,
        transaction: int,
        base: int,
        now: datetime,
        streams: Streams,
        keys: KeysOfBatch,
        quotas: QuotasOfBatch,
        claim: tuple[Ready, int] | None,
        found: Found | None,
        begun: float,
    ) -> None:
        """`found`: the positions of jobs for `claim`, if they were looked for when the batch began.

        `begun`: when that was, before `now`, by the monotonic clock.
        """
        self._begun = begun
        self._connection = connection
        self._ready_jobs = ready_jobs
        self.transaction = transaction
        self._base = base
        self.now = now
        self._streams = streams
        self._keys = keys
        self._quotas = quotas
        self._claim = claim
        self._found = found
        self._events = NewEvents()
        self._touched: list[Stream] = []
        self._moves: set[type[Event] | None] = set()
        self._named: set[str] = set()
        self._expired: set[UUID] | None = None

    @classmethod
    def begin(
        cls,
        connection: Connection,
        cache: StreamCache,
        ready_jobs: ReadyJobs,
        job_ids: list[UUID],
        keys: Collection[IdempotencyKey],
        claim: tuple[Ready, int] | None,
        quotas: Collection[Quota],
    ) -> "PostgresBatch":
        """Lock jobs, take keys, and lock quotas, each in order, read the clock, then find jobs; one round trip.

        A transaction has its place in the log from its first lock on. Raises Conflicted when a job was moved by one
        with a later place, while this one waited for its lock: a job's positions rise with its versions.
        """
        asked = time.monotonic()
        if not (job_ids or keys or quotas or claim):  # one message for both takes half the time of a pipeline
            begun = connection.execute(BEGIN, prepare=False)
            begun.nextset()
            return cls(connection, ready_jobs, *_place(begun), {}, KeysOfBatch(), QuotasOfBatch(), None, None, asked)
        with connection.pipeline():
            connection.execute("BEGIN")
            locked = connection.execute(LOCK, (uuids(job_ids),), binary=True) if job_ids else None
            pending = KeysOfBatch.request(connection, keys)
            counted = QuotasOfBatch.request(connection, quotas)
            begun = connection.execute(PLACE, binary=True)
            found = ready_jobs.find_everywhere(connection, *claim) if claim else None
        transaction, base, now = _place(begun)
        rows = locked.fetchall() if locked else []
        if any(position >= base for _, _, position in rows):
            raise Conflicted
        return cls(
            connection,
            ready_jobs,
            transaction,
            base,
            now,
            _load(connection, cache, rows),
            pending.read() if pending else KeysOfBatch(),
            QuotasOfBatch.read(counted),
            claim,
            found,
            asked,
        )

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
        streams = _read(self._connection, found)
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

    def is_recorded(self, connection: Connection) -> bool:
        """Whether the first event of the batch is in the log. Raises Conflicted when it is not."""
        if not self._events.ids:
            return True
        place = (self._events.ids[0], self._events.versions[0])
        row = connection.execute(RECORDED, place).fetchone()
        if row is None or bytes(row[0]) != self._events.hashes[0]:
            raise Conflicted
        return True

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
            return {*told, ANY}
        return told | {job_topic(id) for id in moved}


def _place(begun: Cursor) -> tuple[int, int, datetime]:
    """The transaction, what the positions of its events begin with, and its moment.

    That is made here, since moments from the driver have a zone of its own, and those of two zones compare slowly.
    """
    transaction, offset, microseconds = begun.fetchone() or (0, 0, 0)
    return transaction, (transaction + offset) << 16, EPOCH + timedelta(microseconds=microseconds)


def _load(connection: Connection, cache: StreamCache, locked: list[tuple[UUID, int, int]]) -> Streams:
    """The streams of locked jobs: from memory where it is at the locked version, else from the log."""
    streams: Streams = {}
    missing: Found = []
    at_hand = cache.take([id.int for id, _, _ in locked])
    for id, version, position in locked:
        if (stream := at_hand.get(id.int)) is not None and stream.job.version == version:
            stream.begin(position)
            streams[id.int] = stream
        else:
            missing.append((id, position))
    if missing:
        streams.update(_read(connection, missing))
    return streams


def _read(connection: Connection, places: Found) -> Streams:
    """Fold streams from the log, in the order asked for. One that cannot be read harms only its own job."""
    streams: Streams = {id.int: Stream(Job(id=id)) for id, _ in places}
    if not places:
        return streams
    ids = sorted((id for id, _ in places), key=attrgetter("int"))
    for id, hash, state in connection.execute(STREAMS, (uuids(ids), ids[0], ids[-1]), binary=True).fetchall():
        stream = streams[id.int]
        if isinstance(stream, Exception):
            continue
        try:
            evolve(stream.job, decode(state))
            stream.hash = hash
        except MsgspecError:
            version = stream.job.version + 1
            log.exception("stream.unreadable", job_id=str(id), version=version)
            streams[id.int] = UnreadableStream(f"event {version} of job {id} cannot be read by this release")
    for id, position in places:
        if isinstance(stream := streams[id.int], Stream):
            stream.begin(position)
    return streams


def _is_over(connection: Connection, transaction: int) -> bool:
    """Whether a transaction has ended, or never came to this server."""
    try:
        return connection.execute(XACT_STATUS, (str(transaction),)).fetchone() != ("in progress",)
    except psycopg.errors.InvalidParameterValue:  # "in the future"
        return True


def _id(stream: Stream) -> int:
    return stream.job.id.int


def _translated(error: psycopg.Error) -> Exception:
    """The driver's error in the application's words."""
    state = error.sqlstate or ""
    if isinstance(error, psycopg.errors.UniqueViolation) or state.startswith("40"):
        return Conflicted()
    if isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name == "month_is_open":
        return MonthClosed(error.diag.message_primary)
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return BatchRefused(error.diag.message_primary or str(error))
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) or state.startswith("25"):
        log.warning("database.away", error=str(error))
        return Unavailable()
    return error


def _payload(job: Job) -> int:
    recorded = (
        sum(len(bytes(payload)) for payload in (*job.steps.values(), *job.handles.values()))
        if job.steps or job.handles
        else 0
    )
    return len(bytes(job.input)) + recorded

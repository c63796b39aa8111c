"""Streams: jobs as batches work on them, folded from the log or at hand in memory."""

import threading
from collections import OrderedDict
from collections.abc import Collection
from operator import attrgetter
from typing import TypeAlias
from uuid import UUID

import structlog
from msgspec import MsgspecError, Struct
from psycopg import Connection

from application.errors import UnreadableStream
from domain.audit import GENESIS
from domain.events import decode
from domain.job import Job, evolve
from infrastructure.postgres.columns import uuids
from infrastructure.postgres.ready import Found

log = structlog.get_logger()
# The bounds let the planner leave out partitions, which it cannot do by an array.
STREAMS = """
SELECT originator_id, hash, state FROM events
WHERE originator_id = ANY(%b::uuid[]) AND originator_id BETWEEN %b AND %b
ORDER BY originator_id, originator_version
"""
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


def load_streams(connection: Connection, cache: StreamCache, locked: list[tuple[UUID, int, int]]) -> Streams:
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
        streams.update(read_streams(connection, missing))
    return streams


def read_streams(connection: Connection, places: Found) -> Streams:
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


def _payload(job: Job) -> int:
    recorded = (
        sum(len(bytes(payload)) for payload in (*job.steps.values(), *job.handles.values()))
        if job.steps or job.handles
        else 0
    )
    return len(bytes(job.input)) + recorded

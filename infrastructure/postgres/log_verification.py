"""Verifying the live log in Postgres: one unit after the other, each in a snapshot of its own."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from operator import itemgetter
from typing import Any, LiteralString
from uuid import UUID

from msgspec import MsgspecError
from psycopg import Connection, IsolationLevel

from application.jobs import JobView
from application.log_verification import Checked, Difference, Unit, Verification, covering
from domain.audit import GENESIS, chain
from domain.events import TAGS, decode
from domain.job import Job, evolve
from domain.merkle import SIZE, WIDTH, ProofFailed, fold, leaf_hash, root, split
from domain.notes import Checkpoint, Malformed, read
from infrastructure.postgres.archives import MOVING
from infrastructure.postgres.database import Database
from infrastructure.postgres.installation import installation_id
from infrastructure.postgres.jobs import COLUMNS, job_view
from infrastructure.postgres.seal import unpacked
from infrastructure.signing import signers

JOBS, TILES, CHECKPOINTS = 4000, 64, 500
"""How much is one unit: jobs, tiles of 256 leaves, checkpoints."""
FETCH = 1000
LAST_ID = UUID(int=2**128 - 1)
BOUNDS = """
SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM jobs) AS numbered WHERE n %% %s = 0 ORDER BY id
"""
SIZES = """
SELECT size FROM (SELECT size, row_number() OVER (ORDER BY size) AS n FROM seal_checkpoints) AS numbered
WHERE n %% %s = 0 ORDER BY size
"""
SEAL = "SELECT size, (SELECT max(size) FROM seal_checkpoints) FROM seal"
EVENTS = f"""
SELECT originator_id, originator_version, topic, state, hash, notification_id, recorded_at
FROM events
WHERE originator_id >= %s AND originator_id <= %s
  AND NOT EXISTS (SELECT FROM archives WHERE originator_id >= low AND originator_id < high AND {MOVING})
ORDER BY originator_id, originator_version
"""  # noqa: S608  the condition is ours
ROWS = f"""
SELECT {COLUMNS.replace("heartbeat_at", "NULL")} FROM jobs
WHERE id >= %s AND id <= %s AND NOT EXISTS (SELECT FROM archives WHERE id >= low AND id < high AND {MOVING})
ORDER BY id
"""  # noqa: S608  the columns are ours
LEAVES = """
SELECT index, hashes, positions FROM seal_tiles WHERE level = 0 AND index >= %s AND index < %s ORDER BY index
"""
BEFORE = "SELECT substr(positions, octet_length(positions) - 7) FROM seal_tiles WHERE level = 0 AND index = %s"
ARCHIVED = """
SELECT index, leaves FROM archived_leaves JOIN archives USING (month)
WHERE state = 'archived' AND index >= %s AND index < %s
"""
SEALED_EVENTS = """
SELECT coalesce(string_agg(int8send(notification_id), '' ORDER BY notification_id), ''),
  coalesce(string_agg(hash, '' ORDER BY notification_id), '')
FROM events WHERE notification_id > %s AND notification_id <= %s
"""
PLACES = """
SELECT notification_id, originator_id, originator_version, hash FROM events
WHERE notification_id > %s AND notification_id <= %s ORDER BY notification_id
"""
TILE = "SELECT hashes FROM seal_tiles WHERE level = %s AND index = %s"
ABOVE = "SELECT level, index, hashes FROM seal_tiles WHERE level > 1 ORDER BY level, index"
NOTES = "SELECT size, note FROM seal_checkpoints WHERE size > %s AND size <= %s ORDER BY size"
JOB_OF = "SELECT id, version FROM jobs WHERE position = %s LIMIT 1"


def plan(database: Database) -> Verification:
    """What there is to verify now."""
    ids = [str(id) for (id,) in database.rows(BOUNDS, (JOBS,))]
    jobs = covering([str(UUID(int=0)), *ids, str(LAST_ID)], "jobs", JOBS)
    ((size, _),) = database.rows(SEAL)
    tiles = -(-size // WIDTH)
    leaves = covering([*map(str, range(0, tiles, TILES)), str(tiles)] if tiles else [], "leaves", TILES * WIDTH)
    sizes = [str(size) for (size,) in database.rows(SIZES, (CHECKPOINTS,))]
    notes = covering(["0", *sizes, str(2**63 - 1)], "checkpoints", CHECKPOINTS)
    return Verification(str(installation_id(database)), [*jobs, *leaves, *notes])


_verifiers: list["Verifier"] = []
"""The verifier of a process that does nothing but verify."""


def start_verifier(dsn: str, prepare: bool, keys: list[str], known: list[str]) -> None:
    """Make ready to verify units in this process, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    if (parent := parent_process()) is not None:
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    _verifiers[:] = [Verifier(Database(dsn, prepare=prepare), keys, known)]


def _end_with(parent: BaseProcess) -> None:
    """When the process that waits for this one was killed, nobody tells this one, which would wait for ever."""
    parent.join()
    os._exit(1)


def verify_unit(unit: Unit) -> Checked:
    """Verify a unit in a process that was made ready."""
    return _verifiers[0].check(unit)


class Verifier:
    """Verifies units. `keys` are those whose signatures count; `known` are checkpoints that the log must extend."""

    def __init__(self, database: Database, keys: list[str], known: list[str]) -> None:
        self._database = database
        self._keys = keys
        self._known = known
        self._tile = lru_cache(maxsize=4096)(self._read_tile)

    def check(self, unit: Unit) -> Checked:
        """Blocks. Raises Unavailable."""
        self._tile.cache_clear()  # the right edge may have grown
        checks: dict[str, Callable[[Unit, Checked], None]] = {
            "jobs": self._check_jobs,
            "leaves": self._check_leaves,
            "checkpoints": self._check_checkpoints,
        }
        checked = Checked()
        checks[unit.of](unit, checked)
        return checked

    def _check_jobs(self, unit: Unit, checked: Checked) -> None:
        """Every chain from its first event on, and that each row of the view is the fold of its stream."""
        low, high = UUID(unit.low), UUID(unit.high)
        if high != LAST_ID:
            high = UUID(int=high.int - 1)
        with self._snapshot() as connection:
            events = _rows(connection, "events", EVENTS, (low, high))
            rows = _rows(connection, "rows", ROWS, (low, high))
            row = next(rows, None)
            for id, stream in groupby(events, itemgetter(0)):
                while row is not None and row[0] < id:
                    self._differ_row(row, checked)
                    row = next(rows, None)
                job, position = _fold(id, stream, checked)
                checked.jobs += 1
                if row is None or row[0] != id:
                    checked.differ(
                        Difference(job_id=id, field="view", says="the job has events and no row in the view")
                    )
                    continue
                _compare(job, position, row, checked)
                row = next(rows, None)
            while row is not None:
                self._differ_row(row, checked)
                row = next(rows, None)

    @staticmethod
    def _differ_row(row: tuple[Any, ...], checked: Checked) -> None:
        says = f"the view has the job at version {row[23]}, and none of its events is there"
        checked.differ(Difference(job_id=row[0], version=1, field="version", says=says))

    def _check_leaves(self, unit: Unit, checked: Checked) -> None:
        """Every sealed event is there, in its place, with the hash that was sealed; and the tiles above."""
        first, end = int(unit.low), int(unit.high)
        with self._snapshot() as connection:
            tiles = connection.execute(LEAVES, (first, end), binary=True).fetchall()
            before = connection.execute(BEFORE, (first - 1,), binary=True).fetchone()
            begin = int.from_bytes(before[0], "big") if before else 0
            positions = b"".join(tile[2] for tile in tiles)
            hashes = b"".join(tile[1] for tile in tiles)
            if [tile[0] for tile in tiles] != list(range(first, first + len(tiles))) or len(tiles) < end - first:
                says = f"tiles of leaves are missing between {first} and {end}"
                checked.differ(Difference(field="tile", says=says))
                return
            last = int.from_bytes(positions[-8:], "big")
            found = connection.execute(SEALED_EVENTS, (begin, last), binary=True).fetchone()
            assert found is not None
            sealed = dict(enumerate(zip(unpacked(positions), split(hashes), strict=True), first * WIDTH))
            archived = _archived(connection.execute(ARCHIVED, (first, end), binary=True).fetchall())
            for leaf in archived & sealed.keys():
                del sealed[leaf]
            checked.archived += len(archived)
            there = zip(unpacked(found[0]), map(leaf_hash, split(found[1])), strict=True)
            if list(there) != list(sealed.values()):
                self._differ_leaves(connection, sealed, (begin, last), checked)
            checked.leaves += len(sealed)
        for index, tile, _ in tiles:
            if len(tile) == WIDTH * SIZE and fold(split(tile)) != self._hash_above(1, index):
                says = f"tile {index // WIDTH} of level 1 does not have the root of tile {index} of the leaves"
                checked.differ(Difference(field="tile", says=says))

    def _differ_leaves(
        self,
        connection: Connection,
        leaves: dict[int, tuple[int, bytes]],
        span: tuple[int, int],
        checked: Checked,
    ) -> None:
        """Name what differs between the leaves of a stretch of the log and its events."""
        events = {row[0]: row[1:] for row in connection.execute(PLACES, span, binary=True)}
        for n, (position, leaf) in leaves.items():
            if position not in events:
                job = connection.execute(JOB_OF, (position,), binary=True).fetchone()
                says = f"the event that was sealed as leaf {n} is not in the log: it was deleted, or moved"
                id, version = job or (None, None)
                checked.differ(Difference(job_id=id, version=version, position=str(position), field="leaf", says=says))
                continue
            id, version, hash = events[position]
            if leaf_hash(hash) != leaf:
                says = f"another event was sealed as leaf {n}, at position {position}"
                checked.differ(Difference(job_id=id, version=version, position=str(position), field="leaf", says=says))
        for position in sorted(events.keys() - {position for position, _ in leaves.values()}):
            id, version, _ = events[position]
            says = f"the event at position {position} was not there when the log was sealed: it was inserted, or moved"
            checked.differ(Difference(job_id=id, version=version, position=str(position), field="leaf", says=says))

    def _check_checkpoints(self, unit: Unit, checked: Checked) -> None:
        """Every checkpoint is signed by a key that counts, and states the tree that the tiles make."""
        low, high = int(unit.low), int(unit.high)
        for size, note in self._database.rows(NOTES, (low, high)):
            self._check_note(size, note, f"checkpoint of {size} events", checked)
            checked.checkpoints += 1
        if low == 0:
            for note in self._known:
                self._check_note(None, note, "checkpoint that was kept outside the database", checked)
            self._check_tiles_above(checked)
            self._check_end(checked)

    def _check_note(self, size: int | None, note: str, named: str, checked: Checked) -> None:
        try:
            signed = signers(note, self._keys)
            stated = Checkpoint.parse(read(note)[0])
        except Malformed as error:
            checked.differ(Difference(field="signature", says=f"{named}: {error}"))
            return
        if not signed:
            checked.differ(Difference(field="signature", says=f"{named}: no key that counts has signed it"))
        if size is not None and stated.size != size:
            checked.differ(Difference(field="checkpoint", says=f"{named}: it states {stated.size} events"))
        try:
            made = root(stated.size, self._tile)
        except ProofFailed:
            says = f"{named}: the log is not sealed as far as its {stated.size} events; was an older backup restored?"
            checked.differ(Difference(field="checkpoint", says=says))
            return
        if made != stated.root:
            says = f"{named}: the tree of {stated.size} events has another root; the log does not extend it"
            checked.differ(Difference(field="checkpoint", says=says))

    def _check_tiles_above(self, checked: Checked) -> None:
        """The tiles of level 2 and above have the roots of those below; level 1 is checked with the leaves."""
        for level, index, hashes in self._database.rows(ABOVE):
            for n, hash in enumerate(split(bytes(hashes)), index * WIDTH):
                below = self._tile(level - 1, n)
                if len(below) != WIDTH * SIZE or fold(split(below)) != hash:
                    says = f"tile {index} of level {level} does not have the root of tile {n} below"
                    checked.differ(Difference(field="tile", says=says))

    def _check_end(self, checked: Checked) -> None:
        ((size, stated),) = self._database.rows(SEAL)
        if size != (stated or 0):
            says = f"the log is sealed to {size} events, and the last checkpoint states {stated}: some were removed"
            checked.differ(Difference(field="checkpoint", says=says))

    def _hash_above(self, level: int, below: int) -> bytes:
        index, at = divmod(below, WIDTH)
        return self._tile(level, index)[at * SIZE : (at + 1) * SIZE]

    def _read_tile(self, level: int, index: int) -> bytes:
        rows = self._database.rows(TILE, (level, index))
        return bytes(rows[0][0]) if rows else b""

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        """A transaction that reads everything as of one moment, and holds nobody up."""
        with self._database.connection() as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            try:
                with connection.transaction():
                    yield connection
            finally:
                connection.isolation_level = None


def _archived(tiles: Sequence[tuple[int, bytes]]) -> set[int]:
    """The leaves whose events have left the log."""
    return {index * WIDTH + n for index, leaves in tiles for n in range(WIDTH) if leaves[n // 8] & 1 << n % 8}


def _rows(
    connection: Connection, name: str, query: LiteralString, bounds: tuple[UUID, UUID]
) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, some at a time."""
    with connection.cursor(name) as cursor:
        cursor.execute(query, bounds, binary=True)
        while rows := cursor.fetchmany(FETCH):
            yield from rows


def _fold(id: UUID, stream: Iterator[tuple[Any, ...]], checked: Checked) -> tuple[Job, int]:
    """The job that its events tell of, as far as they can be read, and the position of the last."""
    job, previous, expected, position = Job(id=id), GENESIS, 1, 0
    for _, version, topic, state, hash, at, recorded_at in stream:
        checked.events += 1
        if version != expected:
            says = f"missing: version {version} follows version {expected - 1}"
            checked.differ(Difference(job_id=id, version=expected, field="version", says=says))
        elif chain(previous, id, version, topic, state) != hash:
            says = "the stored hash is not that of the event and the one before it"
            checked.differ(Difference(job_id=id, version=version, field="hash", says=says))
        previous, expected, position = hash, version + 1, at
        try:
            event = decode(state)
        except MsgspecError as error:
            checked.differ(Difference(job_id=id, version=version, field="state", says=f"cannot be read: {error}"))
            continue
        if TAGS[type(event)] != topic:
            says = f"the event says that it is {TAGS[type(event)]}, not {topic}"
            checked.differ(Difference(job_id=id, version=version, field="topic", says=says))
        if event.at != recorded_at:
            says = f"{recorded_at.isoformat()} is beside the event, which says {event.at.isoformat()}"
            checked.differ(Difference(job_id=id, version=version, field="recorded_at", says=says))
        evolve(job, event)
    job.version = expected - 1
    return job, position


def _compare(job: Job, position: int, row: tuple[Any, ...], checked: Checked) -> None:
    """That a row of the view is the fold."""
    folded, shown = JobView.of(job, position), job_view(row)
    if folded == shown:
        return
    for field in JobView.__struct_fields__:
        was, by = getattr(shown, field), getattr(folded, field)
        if was != by:
            says = f"the view says {_brief(was)}, the events say {_brief(by)}"
            checked.differ(Difference(job_id=job.id, version=job.version, field=field, says=says))


def _brief(value: object) -> str:
    """A value, cut to a length, and never what a job was given or came to."""
    text = repr(value)
    return text if len(text) <= 60 and "Raw" not in text else f"something of {len(text)} characters"

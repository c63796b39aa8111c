"""Verifications: who does which, and what is kept beside what the log says."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from msgspec import MsgspecError, structs
from msgspec.json import encode
from psycopg import Connection

from application.jobs import JobView
from application.operations import DifferenceView
from application.projections import Rows, add_up
from application.verifier import Kept, Taken, Verdict, Verification, shown
from domain.events import decode
from domain.job import Job
from infrastructure.postgres.archives import MOVING
from infrastructure.postgres.database import Database
from infrastructure.postgres.jobs import COLUMNS, job_view
from infrastructure.postgres.projections import ARCHIVED, View, carried_generation
from infrastructure.postgres.rewriting import rewrite, streams_of

TAKE = """
UPDATE verifications
SET beat_at = clock_timestamp(), compared = 0
WHERE id = (
  SELECT id FROM verifications
  WHERE finished_at IS NULL AND (beat_at IS NULL OR beat_at < clock_timestamp() - make_interval(secs => %b))
  ORDER BY id
  LIMIT 1
  FOR UPDATE SKIP LOCKED
)
RETURNING id, name, generation, mends, beat_at
"""
# The beat is the token of who does it: nobody else knows it.
BEAT = """
UPDATE verifications
SET beat_at = clock_timestamp(), compared = %b
WHERE id = %b AND beat_at = %b AND finished_at IS NULL
RETURNING beat_at
"""
END = """
UPDATE verifications
SET finished_at = clock_timestamp(), compared = %b, checkpoint = %b, differences = %b, examples = %b, error = %b
WHERE id = %b AND beat_at = %b AND finished_at IS NULL
RETURNING beat_at
"""
# Only of a generation that is built: what serves goes on serving, whatever is wrong with it.
JUDGE = """
UPDATE projections
SET verified_at = CASE WHEN %(right)s THEN clock_timestamp() END,
  state = CASE WHEN %(right)s THEN state ELSE 'retired' END
WHERE name = %(name)s AND generation = %(generation)s AND state = 'building'
"""
CHECKPOINT = "SELECT position FROM projections WHERE name = %b AND generation = %b"
SKIPPED = "SELECT position FROM resumptions WHERE name = %b AND generation = %b AND action = 'skip'"
NEXT_IDS = f"""
SELECT originator_id FROM events
WHERE originator_id > %b AND originator_version = 1
  AND NOT EXISTS (SELECT FROM archives WHERE originator_id >= low AND originator_id < high AND {MOVING})
ORDER BY originator_id
LIMIT %b
"""  # noqa: S608  the condition is ours
ROWS = f"""
SELECT {COLUMNS} FROM jobs LEFT JOIN leases ON false WHERE id > %b AND id <= %b
  AND NOT EXISTS (SELECT FROM archives WHERE id >= low AND id < high AND {MOVING})
"""  # noqa: S608  the columns are ours
SILENT_SECONDS = 10.0
AT_A_TIME = 500
FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)


class PostgresVerifications:
    """See the port, `application.verifier.Verifications`."""

    def __init__(self, database: Database, views: Collection[View], *, silent: float = SILENT_SECONDS) -> None:
        """`silent`: seconds without a sign of life after which another verifier begins anew."""
        self._database = database
        self._views = {view.name: view for view in views}
        self._silent = silent
        self._beats: dict[int, object] = {}

    def take(self) -> Verification | None:
        with self._database.connection() as connection:
            row = connection.execute(TAKE, (self._silent,), binary=True).fetchone()
        if row is None:
            return None
        self._beats[row[0]] = row[4]
        return Verification(*row[:4])

    def beat(self, verification: Verification, compared: int) -> None:
        with self._database.connection() as connection:
            values = (compared, verification.id, self._beats[verification.id])
            row = connection.execute(BEAT, values, binary=True).fetchone()
        if row is None:
            raise Taken
        self._beats[verification.id] = row[0]

    def kept(self, verification: Verification) -> Kept:
        place = (verification.name, verification.generation)
        assert verification.generation is not None
        with self._snapshot() as connection:
            row = connection.execute(CHECKPOINT, place, binary=True).fetchone()
            skipped = {position for (position,) in connection.execute(SKIPPED, place, binary=True)}
            view = self._views[verification.name]
            rows = view.rows(connection, verification.generation)
            carried: Rows = {}
            for (month,) in connection.execute(ARCHIVED).fetchall():
                add_up(carried, view.rows(connection, carried_generation(month)))
        return Kept(rows, row[0] if row else 0, skipped, carried)

    def jobs(self) -> Iterator[tuple[int, list[DifferenceView]]]:
        after = FIRST_ID
        while True:
            with self._snapshot() as connection:
                ids = [row[0] for row in connection.execute(NEXT_IDS, (after, AT_A_TIME), binary=True)]
                last = ids[-1] if len(ids) == AT_A_TIME else LAST_ID
                stored = {row[0]: job_view(row) for row in connection.execute(ROWS, (after, last), binary=True)}
                streams = streams_of(connection, ids)
            yield len(ids), _differing(stored, streams)
            if last == LAST_ID:
                return
            after = last

    def mend(self, found: Sequence[DifferenceView]) -> None:
        ids = sorted(UUID(difference.key[0]) for difference in found)
        with self._database.connection() as connection, connection.transaction():
            rewrite(connection, ids)

    def end(self, verification: Verification, verdict: Verdict) -> None:
        values = (
            verdict.compared,
            verdict.checkpoint,
            None if verdict.error else verdict.differences,
            encode(list(verdict.examples)),
            verdict.error,
            verification.id,
            self._beats.pop(verification.id),
        )
        right = verdict.error is None and verdict.differences == 0
        place = {"name": verification.name, "generation": verification.generation, "right": right}
        with self._database.connection() as connection, connection.transaction():
            if connection.execute(END, values, binary=True).fetchone() is None:
                raise Taken
            connection.execute(JUDGE, place)

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        """All that is read in it is of one moment. It writes nothing, so that no reader of the log waits for it."""
        with self._database.connection() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection
            connection.execute("COMMIT")


def _differing(stored: dict[UUID, JobView], streams: dict[UUID, list[tuple[int, bytes]]]) -> list[DifferenceView]:
    found = []
    for id in sorted(stored.keys() | streams.keys()):
        try:
            folded = _folded(id, streams.get(id, []))
        except MsgspecError as error:
            found.append(DifferenceView(key=[str(id)], stored=None, folded=f"cannot be read: {error}"))
            continue
        if folded != stored.get(id):
            found.append(_difference(id, stored.get(id), folded))
    return found


def _folded(id: UUID, stream: list[tuple[int, bytes]]) -> JobView | None:
    job = Job.fold(id, [decode(state) for _, state in stream])
    return JobView.of(job, stream[-1][0]) if stream else None


def _difference(id: UUID, stored: JobView | None, folded: JobView | None) -> DifferenceView:
    """The fields that differ, where there are both."""
    if stored is None or folded is None:
        return DifferenceView(key=[str(id)], stored=shown(stored), folded=shown(folded))
    told, should = structs.asdict(stored), structs.asdict(folded)
    names = [name for name in told if told[name] != should[name]]
    return DifferenceView(
        key=[str(id)],
        stored=shown({name: told[name] for name in names}),
        folded=shown({name: should[name] for name in names}),
    )

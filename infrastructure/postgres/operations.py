"""What operators are shown, and what they ask for."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, LiteralString

import psycopg
from msgspec.json import Decoder

from application.errors import NotFound
from application.news import queue_topic
from application.operations import (
    INLINE,
    MOST_COUNTED,
    DifferenceView,
    FailureView,
    GenerationView,
    Measures,
    ParkedView,
    PauseView,
    ProjectionView,
    QueueView,
    StatsView,
    StatsWanted,
    UsageView,
    UsageWanted,
    VerificationView,
    WorkerView,
)
from domain.refusals import Conflict
from infrastructure.postgres import failures, queues, stats, usage, workers
from infrastructure.postgres.database import Database
from infrastructure.postgres.measures import measured
from infrastructure.postgres.projections import View, take_up_archived

GENERATIONS = """
SELECT name, generation, state, position, events, begun_at, begun_by, verified_at IS NOT NULL,
  parked_at, parked_position, parked_job_id, parked_version, parked_error,
  (SELECT count(*) FROM (SELECT FROM events WHERE notification_id > projections.position LIMIT %(most)s) AS behind),
  (SELECT extract(epoch FROM clock_timestamp() - recorded_at)::float8 FROM events
    WHERE notification_id > projections.position ORDER BY notification_id LIMIT 1),
  (SELECT count(*) FROM resumptions
    WHERE resumptions.name = projections.name AND resumptions.generation = projections.generation AND action = 'skip'),
  reason
FROM projections
WHERE state <> 'retired'
ORDER BY name
"""
VERIFICATIONS = """
SELECT DISTINCT ON (name) name, beat_at IS NOT NULL, generation, asked_at, asked_by, finished_at, compared, checkpoint,
  differences, examples, error, reason, mends
FROM verifications
ORDER BY name, id DESC
"""
END = "SELECT coalesce(max(notification_id), 0) FROM events"
REBUILD = """
INSERT INTO projections (name, generation, revision, state, begun_by, reason)
SELECT %(name)s, 1 + max(generation), %(revision)s, 'building', %(by)s, %(reason)s
FROM projections
WHERE name = %(name)s
RETURNING generation
"""
VERIFY = """
INSERT INTO verifications (name, generation, asked_by, reason)
SELECT %(name)s, (SELECT generation FROM projections WHERE name = %(name)s AND state = 'live'), %(by)s, %(reason)s
"""
REBUILD_INLINE = """
INSERT INTO verifications (name, mends, asked_by, reason) VALUES (%(name)s, true, %(by)s, %(reason)s)
"""
RESUME = """
WITH parked AS (
  SELECT name, generation, parked_position, parked_job_id, parked_version, parked_error
  FROM projections
  WHERE name = %(name)s AND parked_at IS NOT NULL
  FOR UPDATE
), resumed AS (
  INSERT INTO resumptions (name, generation, action, position, job_id, version, error, reason, resumed_by)
  SELECT name, generation, %(action)s, parked_position, parked_job_id, parked_version, parked_error, %(reason)s, %(by)s
  FROM parked
)
UPDATE projections
SET position = CASE %(action)s WHEN 'skip' THEN parked.parked_position ELSE position END,
  parked_at = NULL, parked_position = NULL, parked_job_id = NULL, parked_version = NULL, parked_error = NULL
FROM parked
WHERE projections.name = parked.name AND projections.generation = parked.generation
"""
_differences = Decoder(list[DifferenceView]).decode


class PostgresOperations:
    """See the port, `application.operations.Operations`."""

    def __init__(
        self,
        database: Database,
        reads: Database,
        projections: Mapping[str, View],
        tell: Callable[[Collection[str]], None],
    ) -> None:
        """`tell` is given the topics of queues that are no longer paused."""
        self._database = database
        self._reads = reads
        self._projections = projections
        self._tell = tell

    def projections(self) -> list[ProjectionView]:
        verified = {row[0]: _verification(row[1:]) for row in self._reads.rows(VERIFICATIONS)}
        rows = self._reads.rows(GENERATIONS, {"most": MOST_COUNTED})
        building = {row[0]: row for row in rows if row[2] == "building"}
        ((end,),) = self._reads.rows(END)
        inline = ProjectionView(
            name=INLINE,
            kind="inline",
            state="live",
            generation=None,
            checkpoint=str(end),
            events=None,
            lag_events=0,
            lag_seconds=0.0,
            skipped=0,
            parked=None,
            rebuild=None,
            verification=verified.get(INLINE),
        )
        views = [_projection(row, building.get(row[0]), verified.get(row[0])) for row in rows if row[2] == "live"]
        return sorted([inline, *views], key=lambda view: view.name)

    def rebuild(self, name: str, by: str, reason: str) -> None:
        if name == INLINE:
            self._ask(REBUILD_INLINE, name, by, reason)
            return
        view = self._known(name)
        with self._database.connection() as connection:
            try:
                with connection.transaction():
                    values = {"name": name, "revision": view.revision, "by": by, "reason": reason}
                    ((generation,),) = connection.execute(REBUILD, values).fetchall()
                    take_up_archived(connection, view, generation)
            except psycopg.errors.UniqueViolation as error:
                raise Conflict(f"projection {name!r} is being rebuilt already") from error

    def verify(self, name: str, by: str, reason: str) -> None:
        if name != INLINE:
            self._known(name)
        self._ask(VERIFY, name, by, reason)

    def _ask(self, statement: LiteralString, name: str, by: str, reason: str) -> None:
        with self._database.connection() as connection:
            try:
                connection.execute(statement, {"name": name, "by": by, "reason": reason})
            except psycopg.errors.UniqueViolation as error:
                raise Conflict(f"{name!r} is being verified already") from error

    def resume(self, name: str, action: Literal["retry", "skip"], by: str, reason: str) -> None:
        self._known(name)
        values = {"name": name, "action": action, "by": by, "reason": reason}
        with self._database.connection() as connection:
            if connection.execute(RESUME, values).rowcount == 0:
                raise Conflict(f"projection {name!r} is not parked")

    def queues(self, namespace: str | None, after: str, limit: int) -> list[QueueView]:
        return queues.listed(self._reads, namespace, after, limit)

    def pause(self, queue: str, by: str, reason: str) -> PauseView:
        return queues.pause(self._database, queue, by, reason)

    def unpause(self, queue: str) -> None:
        queues.unpause(self._database, queue)
        self._tell([queue_topic(queue)])

    def workers(self, namespace: str | None, since: float, after: str, limit: int) -> list[WorkerView]:
        return workers.listed(self._reads, namespace, since, after, limit)

    def failures(self, namespace: str | None, limit: int, cursor: str | None) -> tuple[list[FailureView], str | None]:
        return failures.listed(self._reads, namespace, limit, cursor)

    def usage(self, namespace: str | None, wanted: UsageWanted) -> list[UsageView]:
        return usage.summed(self._reads, namespace, wanted)

    def stats(self, namespace: str | None, wanted: StatsWanted) -> StatsView:
        return stats.within(self._reads, namespace, wanted)

    def measures(self) -> Measures:
        return measured(self._reads, self.projections())

    def _known(self, name: str) -> View:
        if name not in self._projections:
            raise NotFound(f"there is no projection {name!r}; there are {', '.join(sorted(self._projections))}")
        return self._projections[name]


def _projection(
    row: tuple[Any, ...], building: tuple[Any, ...] | None, verification: VerificationView | None
) -> ProjectionView:
    return ProjectionView(
        name=row[0],
        kind="async",
        state="parked" if row[8] else "live",
        generation=row[1],
        checkpoint=str(row[3]),
        events=row[4],
        lag_events=row[13],
        lag_seconds=row[14] or 0.0,
        skipped=row[15],
        parked=_parked(row),
        rebuild=_generation(building, verification) if building else None,
        verification=verification,
    )


def _generation(row: tuple[Any, ...], verification: VerificationView | None) -> GenerationView:
    verifying = verification is not None and verification.generation == row[1] and verification.state != "done"
    return GenerationView(
        generation=row[1],
        state="parked" if row[8] else "verified" if row[7] else "verifying" if verifying else "building",
        checkpoint=str(row[3]),
        events=row[4],
        begun_at=row[5],
        begun_by=row[6],
        reason=row[16],
        parked=_parked(row),
    )


def _parked(row: tuple[Any, ...]) -> ParkedView | None:
    if row[8] is None:
        return None
    return ParkedView(at=row[8], position=str(row[9]), job_id=row[10], version=row[11], error=row[12])


def _verification(row: tuple[Any, ...]) -> VerificationView:
    begun, generation, asked_at, asked_by, finished_at, compared, checkpoint, differences, examples, error = row[:10]
    reason, mends = row[10:]
    return VerificationView(
        state="done" if finished_at else "running" if begun else "asked",
        mends=mends,
        generation=generation,
        asked_at=asked_at,
        asked_by=asked_by,
        reason=reason,
        finished_at=finished_at,
        compared=compared,
        checkpoint=str(checkpoint) if checkpoint is not None else None,
        differences=differences,
        examples=_differences(examples) if examples else [],
        error=error,
    )

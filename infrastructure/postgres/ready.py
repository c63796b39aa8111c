"""The jobs that are ready to be claimed: found in the ready index, lane by lane."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, LiteralString, TypeAlias
from uuid import UUID

from psycopg import Connection

from application.jobs import DEFAULT
from application.ledger import Ready
from infrastructure.postgres.columns import Column, int2s, moments, texts, uuids
from infrastructure.postgres.horizon import Horizon, Pick, Stretch
from infrastructure.postgres.recorder import BASE

# The heads: the first living entry of each lane, (queue, kind, priority), of jobs_ready, found by hopping from lane to
# lane, so that nothing is walked over but the dead entries at the front of each, once. A queue whose kind is NULL is
# hopped through whole; with a kind, kind by kind, so that lanes of kinds nobody here handles are not even visited.
HEADS = """
queue_heads (queue, kind, priority, run_at, id) AS (
  SELECT wanted.queue, head.*
  FROM wanted
  CROSS JOIN LATERAL (
    SELECT jobs.kind, priority, run_at, id FROM jobs
    WHERE status = 'queued' AND jobs.queue = wanted.queue
    ORDER BY jobs.kind, priority, run_at, id
    LIMIT 1
  ) AS head
  WHERE wanted.kind IS NULL
  UNION ALL
  SELECT here.queue, head.*
  FROM queue_heads AS here
  CROSS JOIN LATERAL (
    SELECT jobs.kind, jobs.priority, jobs.run_at, jobs.id FROM jobs
    WHERE status = 'queued' AND jobs.queue = here.queue AND (jobs.kind, jobs.priority) > (here.kind, here.priority)
    ORDER BY jobs.kind, jobs.priority, jobs.run_at, jobs.id
    LIMIT 1
  ) AS head
), kind_heads (queue, kind, priority, run_at, id) AS (
  SELECT wanted.queue, wanted.kind, head.*
  FROM wanted
  CROSS JOIN LATERAL (
    SELECT priority, run_at, id FROM jobs
    WHERE status = 'queued' AND jobs.queue = wanted.queue AND jobs.kind = wanted.kind
    ORDER BY priority, run_at, id
    LIMIT 1
  ) AS head
  UNION ALL
  SELECT here.queue, here.kind, head.*
  FROM kind_heads AS here
  CROSS JOIN LATERAL (
    SELECT jobs.priority, jobs.run_at, jobs.id FROM jobs
    WHERE status = 'queued' AND jobs.queue = here.queue AND jobs.kind = here.kind AND jobs.priority > here.priority
    ORDER BY jobs.priority, jobs.run_at, jobs.id
    LIMIT 1
  ) AS head
), heads AS (
  SELECT queue, kind, priority, run_at, id FROM queue_heads
  UNION ALL
  SELECT queue, kind, priority, run_at, id FROM kind_heads
)
"""
# The claim of stretches of lanes. Within a priority the oldest of all lanes come first; lower priorities are looked at
# only while the higher ones did not fill the claim. Rows that another claimer has locked are passed over, and so are
# jobs that moved with a later place in the log than this transaction has, of which there are always some where jobs are
# created all the time. The clock is the statement's, since the volatile clock_timestamp() could not end an index scan.
CLAIM = f"""
FROM (SELECT DISTINCT priority FROM stretches ORDER BY priority DESC) AS level
CROSS JOIN LATERAL (
  SELECT found.id, found.position, found.priority, found.run_at
  FROM stretches
  CROSS JOIN LATERAL (
    SELECT jobs.id, jobs.position, jobs.priority, jobs.run_at
    FROM jobs
    WHERE status = 'queued' AND jobs.queue = stretches.queue AND jobs.kind = stretches.kind
      AND jobs.priority = level.priority
      AND (jobs.run_at, jobs.id) >= (first_at, first_id) AND (jobs.run_at, jobs.id) <= (last_at, last_id)
      AND jobs.id <> ALL(%(taken)s::uuid[])
      AND jobs.position < {BASE}
    ORDER BY jobs.run_at, jobs.id
    LIMIT %(count)s
    FOR UPDATE SKIP LOCKED
  ) AS found
  WHERE stretches.priority = level.priority
  ORDER BY found.run_at, found.id
  LIMIT %(count)s
) AS due
LIMIT %(count)s
"""  # noqa: S608  the parts are ours
# Looks at everything: each lane from its head to what is due. Both are of one snapshot, so that nothing is missed.
READY = f"""
WITH RECURSIVE wanted (queue, kind) AS (
  SELECT queue, kind
  FROM unnest(%(queues)s::text[]) AS x (queue)
  CROSS JOIN unnest(coalesce(%(kinds)s::text[], ARRAY[NULL])) AS y (kind)
), {HEADS}, stretches (queue, kind, priority, first_at, first_id, last_at, last_id) AS (
  SELECT queue, kind, priority, run_at, id, statement_timestamp(), 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
  FROM heads
  WHERE run_at <= statement_timestamp()
)
SELECT due.id, due.position
{CLAIM}
"""  # noqa: S608  the parts are ours
STRETCHES = """
stretches (queue, kind, priority, first_at, first_id, last_at, last_id) AS (
  SELECT queue, kind, priority, first_at, first_id, coalesce(last_at, statement_timestamp()), last_id
  FROM unnest(%(queues)b::text[], %(kinds)b::text[], %(priorities)b::int2[], %(first_ats)b::timestamptz[],
      %(first_ids)b::uuid[], %(last_ats)b::timestamptz[], %(last_ids)b::uuid[])
    AS x (queue, kind, priority, first_at, first_id, last_at, last_id)
)
"""
# Looks only where it is told to.
READY_FROM = f"""
WITH {STRETCHES}
SELECT due.id, due.position, due.priority, due.run_at
{CLAIM}
"""
PLACE: LiteralString = "jobs.namespace <> 'default' AND (jobs.namespace || '/' || jobs.queue)"


def within(query: LiteralString) -> LiteralString:
    """The same of workers that are limited to namespaces, whose queues stand as `namespace/queue` in an index of it.

    No other index has that: so no plan, however old, walks over the jobs of other namespaces. No namespace has a slash.
    """
    return query.replace("jobs.queue = ", f"{PLACE} = ")


def of_default(query: LiteralString) -> LiteralString:
    """The same of workers that are limited to the default namespace, which that index leaves out.

    They pass over jobs of others that are queued before their own in the same lane, in the index, whose last column
    tells them apart: ten times as quick as by their rows.
    """
    return query.replace("jobs.queue = ", f"jobs.namespace = '{DEFAULT}' AND jobs.queue = ")


Scope: TypeAlias = Literal["all", "default", "within"]
"""Whose jobs are looked for: everybody's, those of the default namespace, or those of another one."""


def scope(namespace: str | None) -> Scope:
    return "all" if namespace is None else "default" if namespace == DEFAULT else "within"


def scoped(query: LiteralString) -> dict[Scope, LiteralString]:
    """A query for each scope."""
    return {"all": query, "default": of_default(query), "within": within(query)}


READIES, READIES_FROM = scoped(READY), scoped(READY_FROM)
BY_INDEX = "SET LOCAL enable_bitmapscan = off"
"""For a transaction behind a pooler, where the session's settings are not ours: a bitmap would be of a whole lane."""
SLOW = 0.005
"""Seconds for looking at everything, above which a claim asks the scout whether there are many entries to walk over."""
MANY = 10_000
"""Entries, nearly all of them dead or of others, above which claims go by the horizon; they take some 5 ms."""
AGAIN = 10
"""While the last look walked over less than so many times MANY, a claim that comes back empty looks at everything
after all."""
TRIES = 10
"""Statements of one claim by the horizon, at the most."""
_LAST_ID = UUID(int=2**128 - 1)
Found: TypeAlias = list[tuple[UUID, int]]
"""Jobs, and the positions of their last events."""


class ReadyJobs:
    """Finds jobs to claim.

    A claim looks at everything: whatever came in on any server is seen at once. A job that was claimed leaves a dead
    entry in the index, which the next scan marks as such. But while another transaction in this database holds an
    older snapshot (a forgotten BEGIN), they can neither be marked nor removed, and every claim walks over all of them.
    So when looking at everything was slow, and the scout says that it was for those, claims begin at the horizon, and
    the scout looks at everything beside them, until there are few again.
    """

    def __init__(
        self,
        horizon: Horizon,
        *,
        slow: float = SLOW,
        many: int = MANY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.horizon = horizon
        self._slow = slow
        self._many = many
        self._clock = clock

    def find_everywhere(self, connection: Connection, wanted: Ready, count: int) -> Found | None:
        """What `find` finds, in the round trip of the statements before it; None while claims go by the horizon."""
        begun = self._clock()
        if self.horizon.stretches(wanted, count, begun) is not None:
            return None
        return self._find_everywhere(connection, wanted, count, (), begun)

    def find(self, connection: Connection, wanted: Ready, count: int, taken: Sequence[UUID], now: datetime) -> Found:
        """Up to `count` jobs and their positions, best first, locked, without those `taken`.

        `now` is a moment of this transaction.
        """
        begun = self._clock()
        stretches = self.horizon.stretches(wanted, count, begun)
        if stretches is None:
            return self._find_everywhere(connection, wanted, count, taken, begun)
        picks = self._find_by_horizon(connection, wanted, stretches, count, taken, now)
        if not picks and self.horizon.walked < AGAIN * self._many:
            return self._find_everywhere(connection, wanted, count, taken, self._clock())
        return [(pick.id, pick.position) for pick in picks]

    def _find_everywhere(
        self, connection: Connection, wanted: Ready, count: int, taken: Sequence[UUID], begun: float
    ) -> Found:
        query = READIES[scope(wanted.namespace)]
        found = [(id, at) for id, at in _run(connection, query, everywhere(wanted, count, taken))]
        if self._clock() - begun > self._slow:
            self.horizon.ask(wanted, begun)
        return found

    def _find_by_horizon(
        self,
        connection: Connection,
        wanted: Ready,
        stretches: Sequence[Stretch],
        count: int,
        taken: Sequence[UUID],
        now: datetime,
    ) -> list[Pick]:
        """Others may have been at the strays first, all of whom know the same; then the next ones are tried."""
        query = READIES_FROM[scope(wanted.namespace)]
        picks: list[Pick] = []
        for _ in range(TRIES):
            if not stretches:
                break
            left = count - len(picks)
            values = {**columns(stretches), "count": left, "taken": [*taken, *(pick.id for pick in picks)]}
            found = [Pick(*row) for row in _run(connection, query, values)]
            self.horizon.claimed(stretches, left, found, now)
            picks += found
            if len(picks) == count:
                break
            stretches = self.horizon.strays(wanted, count - len(picks))
        return picks


def everywhere(wanted: Ready, count: int, taken: Sequence[UUID] = ()) -> dict[str, Any]:
    """The values of READY."""
    queues = [indexed(wanted.namespace, queue) for queue in wanted.queues]
    kinds = list(wanted.kinds) if wanted.kinds else None
    return {"queues": queues, "kinds": kinds, "count": count, "taken": list(taken)}


def indexed(namespace: str | None, queue: str) -> str:
    """What stands for a queue in the index that is looked at."""
    return f"{namespace}/{queue}" if scope(namespace) == "within" else queue


def columns(stretches: Sequence[Stretch]) -> dict[str, Column]:
    """The values of STRETCHES."""
    return {
        "queues": texts([indexed(stretch.lane.namespace, stretch.lane.queue) for stretch in stretches]),
        "kinds": texts([stretch.lane.kind for stretch in stretches]),
        "priorities": int2s([stretch.lane.priority for stretch in stretches]),
        "first_ats": moments([stretch.first[0] for stretch in stretches]),
        "first_ids": uuids([stretch.first[1] for stretch in stretches]),
        "last_ats": moments([stretch.last[0] if stretch.last else None for stretch in stretches]),
        "last_ids": uuids([stretch.last[1] if stretch.last else _LAST_ID for stretch in stretches]),
    }


def _run(connection: Connection, query: LiteralString, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    if connection.prepare_threshold is not None:
        return connection.execute(query, values, binary=True).fetchall()
    with connection.pipeline():
        connection.execute(BY_INDEX)
        found = connection.execute(query, values, binary=True)
    return found.fetchall()

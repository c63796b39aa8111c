"""The scout: looks at all lanes of the ready index, beside the claims, while that is too much for a claim to do."""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

import psycopg
import structlog
from psycopg import Connection

from application.errors import Unavailable
from application.jobs import DEFAULT
from application.ledger import Ready
from application.news import queue_topic
from infrastructure.postgres.columns import Column, texts
from infrastructure.postgres.database import Database
from infrastructure.postgres.horizon import MOST_STRAYS, Horizon, Lane, Look, Place, Stretch
from infrastructure.postgres.ready import BY_INDEX, HEADS, MANY, STRETCHES, Scope, columns, indexed, scope, scoped

log = structlog.get_logger()
LOOK = f"""
WITH RECURSIVE wanted (queue, kind) AS (
  SELECT queue, kind FROM unnest(%(queues)b::text[], %(kinds)b::text[]) AS x (queue, kind)
), {HEADS}
SELECT queue, kind, priority, run_at, id FROM heads
"""  # noqa: S608  the parts are ours
STRAYS = f"""
WITH {STRETCHES}
SELECT queue, kind, priority, stray.run_at, stray.id
FROM stretches
CROSS JOIN LATERAL (
  SELECT jobs.run_at, jobs.id FROM jobs
  WHERE status = 'queued' AND jobs.queue = stretches.queue AND jobs.kind = stretches.kind
    AND jobs.priority = stretches.priority
    AND (jobs.run_at, jobs.id) >= (first_at, first_id) AND (jobs.run_at, jobs.id) < (last_at, last_id)
  ORDER BY jobs.run_at, jobs.id
  LIMIT %(most)s
) AS stray
"""  # noqa: S608  the parts are ours
# Of either index: the entries that this session's scans were given, those included that turned out to be dead; the
# scans that began; and the pages that were read. Seconds would not do: on a busy machine a look is slow though there is
# nothing to walk over.
READ = """
SELECT sum(pg_stat_get_xact_tuples_returned(index))::int8, sum(pg_stat_get_xact_numscans(index))::int8,
  sum(pg_stat_get_xact_blocks_fetched(index))::int8
FROM unnest(ARRAY['jobs_ready'::regclass, 'jobs_ready_in_namespace'::regclass]) AS x (index)
"""
DEPTH = 4
"""Pages that a scan reads until it is at its first entry, in an index of a hundred million at the most."""
PAGE = 10
"""Entries that take as long as a page of some hundred that are not given to the scan: of another namespace, or known to
be dead."""
HINT = "is a transaction open that is forgotten, or does much of other namespaces wait in the same queues?"
LOOKS, ALL_STRAYS = scoped(LOOK), scoped(STRAYS)
PERIOD = 1.0
REST = 3
"""Seconds between looks, or so many times what the last one took if that is longer: a quarter of the time at most."""
CANCEL_SECONDS = 2.0


class Scout:
    """Keeps a horizon true with looks of its own: read-only, without locks, and no claim waits for one."""

    def __init__(
        self,
        database: Database,
        horizon: Horizon,
        tell: Callable[[Collection[str]], None],
        *,
        many: int = MANY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` is given the topics of queues in which jobs were found that claims did not know of."""
        self._database = database
        self._horizon = horizon
        self._tell = tell
        self._many = many
        self._clock = clock
        self._closing = threading.Event()
        self._looking: Connection | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look on a thread of its own, whenever it is asked for, until closed."""
        self._thread = threading.Thread(target=self._run, name="scout", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._horizon.asked_for.set()
        if (connection := self._looking) is not None:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_SECONDS)
        if self._thread is not None:
            self._thread.join(5)

    @property
    def ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def run_once(self) -> float:
        """Look at what claims ask for; returns the seconds until it is time for the next look. Raises Unavailable."""
        begun = self._clock()
        asked, before = self._horizon.asked(begun)
        look = self._look(asked, before)
        ended = self._clock()
        if look.walked > self._many:
            if not before:
                log.warning("claims.slow", entries=look.walked, hint=HINT)
            if news := self._horizon.looked(look, ended - begun, ended):
                self._tell({queue_topic(queue) for queue in news})
        else:
            if before:
                log.info("claims.quick", entries=look.walked)
            if self._horizon.drop():  # claims may have missed some
                self._tell({queue_topic(queue) for wanted in asked for queue in wanted.queues})
        return max(PERIOD, REST * (ended - begun))

    def _look(self, asked: Collection[Ready], before: dict[Lane, Place]) -> Look:
        """What is there, and how much was walked over to find all heads."""
        wanted = {each: [ready for ready in asked if scope(ready.namespace) == each] for each in LOOKS}
        with self._database.connection() as connection:
            try:
                self._looking = connection
                with connection.pipeline():
                    connection.execute("BEGIN READ ONLY")
                    connection.execute(BY_INDEX)
                    begun = connection.execute("SELECT clock_timestamp()", binary=True)
                    earlier = connection.execute(READ, binary=True)
                    found = {
                        each: connection.execute(LOOKS[each], _wanted(readies), binary=True)
                        for each, readies in wanted.items()
                        if readies
                    }
                    later = connection.execute(READ, binary=True)
                first = {_lane(each, *lane): (run_at, id) for each, rows in found.items() for *lane, run_at, id in rows}
                strays = _strays(connection, first, before)
                connection.execute("COMMIT")
            finally:
                self._looking = None
        ((moment,),) = begun.fetchall()
        return Look(moment, asked, before, first, strays, _walked(earlier.fetchall()[0], later.fetchall()[0]))

    def _run(self) -> None:
        while self._horizon.asked_for.wait() and not self._closing.is_set():
            pause = PERIOD
            try:
                pause = self.run_once()
            except (Unavailable, psycopg.Error) as error:
                if not self._closing.is_set():
                    log.warning("scout.away", error=str(error))
            except Exception:
                log.exception("scout.failed")
            self._closing.wait(pause)


def _walked(earlier: tuple[int, int, int], later: tuple[int, int, int]) -> int:
    """How many entries were walked over between two answers of READ, or what takes as long."""
    given, scans, pages = (after - before for before, after in zip(earlier, later, strict=True))
    return given + PAGE * max(0, pages - DEPTH * scans)


def _strays(connection: Connection, first: dict[Lane, Place], before: dict[Lane, Place]) -> dict[Lane, list[Place]]:
    """The living entries before the horizon, of lanes that begin before it."""
    behind = [Stretch(lane, head, before[lane]) for lane, head in first.items() if head < before.get(lane, head)]
    strays: dict[Lane, list[Place]] = {}
    for each, query in ALL_STRAYS.items():
        if stretches := [stretch for stretch in behind if scope(stretch.lane.namespace) == each]:
            found = connection.execute(query, {**columns(stretches), "most": MOST_STRAYS}, binary=True)
            for *lane, run_at, id in found:
                strays.setdefault(_lane(each, *lane), []).append((run_at, id))
    return strays


def _wanted(asked: Collection[Ready]) -> dict[str, Column]:
    """The values of LOOK: each queue whole, or kind by kind."""
    whole = {indexed(ready.namespace, queue) for ready in asked if ready.kinds is None for queue in ready.queues}
    by_kind = {
        (indexed(ready.namespace, queue), kind)
        for ready in asked
        for queue in ready.queues
        for kind in ready.kinds or ()
    }
    pairs = [(queue, None) for queue in whole] + [pair for pair in by_kind if pair[0] not in whole]
    return {"queues": texts([queue for queue, _ in pairs]), "kinds": texts([kind for _, kind in pairs])}


def _lane(scope: Scope, place: str, kind: str, priority: int) -> Lane:
    """A lane of the index that a scope goes by."""
    if scope == "within":
        namespace, _, queue = place.partition("/")
        return Lane(queue, kind, priority, namespace)
    return Lane(place, kind, priority, DEFAULT if scope == "default" else None)

"""The claim among a million jobs, with a million dead entries in its index: what the server reads for it."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import Diagnostic

from application.ledger import Ready
from infrastructure.postgres.horizon import Horizon
from infrastructure.postgres.log import Log
from infrastructure.postgres.ready import ReadyJobs
from infrastructure.postgres.scout import Scout
from tests.infrastructure.nodes import ask, holding_a_snapshot, plan_nodes

QUEUES = tuple(f"q{n:02}" for n in range(20))
SEED = """
INSERT INTO jobs (id, version, position, namespace, kind, queue, priority, status, attempt, max_attempts, progress,
  input, run_at, created_at, updated_at)
SELECT uuidv7(), 1, n, 'tenant', 'work', 'q' || lpad((n %% 20)::text, 2, '0'), %(priority)s, 'queued', 0, 3, 0,
  '{"a": 1}', now() + %(due)s::interval + n / 1000 * interval '1 ms', now(), now()
FROM generate_series(1, %(count)s) AS n
"""
EXPLAIN = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_buffers = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_format = json;
SET client_min_messages = log
"""
TAKE = "UPDATE jobs SET status = 'running', version = version + 1 WHERE id = ANY(%s)"


@pytest.fixture(scope="module")
def crowded(dsn: str) -> Iterator[str]:
    """A million jobs that have ended under a snapshot that still sees them queued, 200 000 that are due in 20 queues,
    and 100 000 of the highest priority that are not due yet. Jobs are due a thousand at a time, as batches make them.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        for priority, due, count in ((0, "-2 hours", 1_000_000), (0, "-1 hour", 200_000), (100, "1 day", 100_000)):
            connection.execute(SEED, {"priority": priority, "due": due, "count": count})
        connection.execute("VACUUM ANALYZE jobs")
        with holding_a_snapshot(dsn):
            connection.execute("""
                UPDATE jobs SET status = 'completed', version = 3, finished_at = now()
                WHERE run_at < now() - interval '90 minutes'
            """)
            yield dsn


class Read(NamedTuple):
    """What one statement read of the jobs: buffers in all, rows, heap rows of index-only scans, and by which scans."""

    buffers: int
    rows: float
    fetched: int
    scans: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, plan: dict[str, Any]) -> "Read":
        scans = [node for node in plan_nodes(plan) if node.get("Relation Name") == "jobs"]
        return cls(
            plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
            sum((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"] for scan in scans),
            sum(scan.get("Heap Fetches", 0) for scan in scans),
            frozenset((scan["Node Type"], scan.get("Index Name", "")) for scan in scans),
        )


class Claimer:
    """A process that claims: its horizon, its scout, and one connection, which tells the plans of what it runs."""

    def __init__(self, dsn: str, *, prepare: bool = True) -> None:
        self._log = Log(dsn, prepare=prepare)
        self._reads: list[tuple[str, Read]] = []
        with self._log.batches.connection() as connection:
            connection.execute(EXPLAIN)
            connection.add_notice_handler(self._note)
        self._ready = ReadyJobs(Horizon())
        self._scout = Scout(self._log.batches, self._ready.horizon, lambda _: None)

    def claim(self, wanted: Ready, count: int) -> tuple[list[UUID], Read]:
        """Find jobs with one statement, and take them."""
        with self._log.batches.connection() as connection, connection.transaction():
            now = connection.execute("SELECT clock_timestamp()").fetchall()[0][0]
            self._reads.clear()
            ids = [id for id, _ in self._ready.find(connection, wanted, count, [], now)]
            connection.execute(TAKE, [ids])
        ((_, read),) = self._reads
        return ids, read

    def look(self) -> Read:
        """Have the scout look at everything."""
        self._reads.clear()
        self._scout.run_once()
        (read,) = [read for query, read in self._reads if "heads" in query]
        return read

    def close(self) -> None:
        self._log.close()

    def _note(self, diagnostic: Diagnostic) -> None:
        _, _, told = (diagnostic.message_primary or "").partition("plan:\n")
        if told and "FROM jobs" in (plan := json.loads(told))["Query Text"]:
            self._reads.append((plan["Query Text"], Read.of(plan["Plan"])))


@pytest.fixture(params=[True, False], ids=["prepared", "not prepared"])
def claimer(crowded: str, request: pytest.FixtureRequest) -> Iterator[Claimer]:
    with closing(Claimer(crowded, prepare=request.param)) as claimer:
        yield claimer


FILTERS = [
    Ready(QUEUES, None),
    Ready(QUEUES, ("other", "work")),
    Ready(QUEUES[:1], None),
    Ready(QUEUES, None, "tenant"),
    Ready(QUEUES, ("other", "work"), "tenant"),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=["all kinds", "two kinds", "one queue", "a namespace", "its kinds"])
def test_claims_by_the_horizon_read_what_they_return_and_no_dead_entries(
    crowded: str, claimer: Claimer, wanted: Ready
) -> None:
    found, read = claimer.claim(wanted, 1)
    dead = 1_000_000 * len(wanted.queues) // len(QUEUES)
    # With an expression in it, an index is not read without the rows, which several entries share the pages of.
    assert max(read.fetched, 4 * read.buffers) >= dead
    index = "jobs_ready" if wanted.namespace is None else "jobs_ready_in_namespace"
    claimer.look()
    for count in (1, 10, 100, 1, 10, 100, 1, 1):
        before = len(found)
        ids, read = claimer.claim(wanted, count)
        found += ids
        assert len(ids) == count
        assert read.scans == {("Index Scan", index)}
        # Each lane locks up to `count` rows, whichever of them are claimed in the end.
        assert read.rows <= 2 * len(wanted.queues) * count
        # The entries of the claims before are dead now, and there is a page to find, and one to fetch, for each row.
        assert read.buffers <= 10 * 2 * len(wanted.queues) + 4 * (read.rows + before)
    order = {id: place for id, *place in ask(crowded, "SELECT id, run_at, id FROM jobs WHERE id = ANY(%s)", [found])}
    assert len(order) == len(found)
    assert found == sorted(found, key=order.__getitem__)


@pytest.mark.parametrize("wanted", FILTERS[:2], ids=["all kinds", "two kinds"])
def test_looking_at_everything_walks_over_each_dead_entry_once(claimer: Claimer, wanted: Ready) -> None:
    _, read = claimer.claim(wanted, 1)
    for found in (read, claimer.look()):
        assert 1_000_000 <= found.fetched < 1_010_000
        assert found.scans <= {("Index Only Scan", "jobs_ready"), ("Index Scan", "jobs_ready")}

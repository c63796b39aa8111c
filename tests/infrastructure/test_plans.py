"""Plans that do not turn: among a million jobs each hot query reads by index, and little more than it answers.

The server itself explains what it was sent (auto_explain), so that what is judged is what the product asks, by its own
connections and prepared as it prepares.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from msgspec import Struct
from psycopg import Connection
from psycopg.errors import Diagnostic

from application.following import History
from application.jobs import Filter, JobView, Sort
from application.ledger import IdempotencyKey
from application.reports import Beat
from infrastructure.postgres import failures
from infrastructure.postgres.database import Database
from infrastructure.postgres.idempotency import KeysOfBatch
from infrastructure.postgres.jobs import PostgresViews
from infrastructure.postgres.leases import EXPIRED, PostgresLeases
from infrastructure.postgres.schema import health
from infrastructure.postgres.why import PostgresFacts
from tests.infrastructure import million

EXPLAIN = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_buffers = on;
SET auto_explain.log_format = json; SET auto_explain.log_level = notice; SET auto_explain.log_timing = off;
"""
SORTS: tuple[Sort, ...] = ("-created_at", "created_at", "-updated_at")
RUN_OUT = """
UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id IN (SELECT job_id FROM leases LIMIT %s)
"""
FILL_FAILURES = """
INSERT INTO failures (generation, namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen,
  examples)
SELECT generation, CASE WHEN n % 200 = 3 THEN 'other' ELSE 'default' END, 'kind-' || n % 5, 'Broken',
  sha256(n::text::bytea), 'it broke', 1, 0, now(), now() - make_interval(secs => n / 10), ARRAY[gen_random_uuid()]
FROM generate_series(1, 100000) AS n, projections
WHERE projections.name = 'failures' AND state = 'live'
"""
PAGE = 50
LANES = 500
"""Where the server plans as it likes, a page may read as many jobs as fill it, of some 100 lanes of each status."""
LEASES = 2 * million.HELD + 2_000
"""Jobs that workers hold are looked at one by one where no order of theirs is kept."""
UNSUMMARISED = 30_000
"""Jobs in parts of the table that the index of workers has no summary of yet: autovacuum makes it when it comes by."""
ONE_ROW = frozenset({"log_epoch"})


class Plan(Struct):
    """What the server did for one statement."""

    query: str
    nodes: list[dict[str, Any]]

    @property
    def scanned(self) -> set[str]:
        """The tables that were read from end to end."""
        scans = [node for node in self.nodes if node["Node Type"] == "Seq Scan" and node["Actual Loops"]]
        return {str(node["Relation Name"]) for node in scans if node["Actual Rows"] or _removed(node)}

    @property
    def rows(self) -> int:
        """Rows that were read of tables, those that did not fit included."""
        tables = [node for node in self.nodes if "Relation Name" in node]
        return int(sum((node["Actual Rows"] + _removed(node)) * node["Actual Loops"] for node in tables))

    @property
    def buffers(self) -> int:
        return int(self.nodes[0]["Shared Hit Blocks"] + self.nodes[0]["Shared Read Blocks"])

    @property
    def told(self) -> str:
        """What was read where, and the statement."""
        read = [
            f"{node['Relation Name']}, {node['Node Type']}: {node['Actual Loops']} times {node['Actual Rows']} rows,"
            f" and {_removed(node)} that did not fit"
            for node in self.nodes
            if "Relation Name" in node and node["Actual Loops"]
        ]
        return "\n".join([*read, self.query])


class Explained(Database):
    """A database whose server tells how it did what was asked."""

    def __init__(self, dsn: str, *, prepare: bool = True, by_index: bool = False) -> None:
        super().__init__(dsn, prepare=prepare, by_index=by_index)
        self.plans: list[Plan] = []

    def connect(self) -> Connection:
        connection = super().connect()
        connection.execute(EXPLAIN)
        connection.add_notice_handler(self._hear)
        return connection

    def _hear(self, told: Diagnostic) -> None:
        if found := re.search(r"plan:\n(\{.*)", told.message_primary or "", re.DOTALL):
            plan = json.loads(found[1])
            self.plans.append(Plan(plan["Query Text"], list(_nodes(plan["Plan"]))))

    @contextmanager
    def judging(self, rows: int, buffers: int, scanned: frozenset[str] = frozenset()) -> Iterator[None]:
        """What is asked meanwhile reads so many rows and buffers at the most, and no other table from end to end."""
        self.plans.clear()
        yield
        assert self.plans
        for plan in self.plans:
            assert plan.scanned - ONE_ROW <= scanned, plan.told
            assert plan.rows <= rows, plan.told
            assert plan.buffers <= buffers, plan.told


def _removed(node: dict[str, Any]) -> int:
    return int(node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


@pytest.fixture(scope="module")
def full(dsn: str) -> str:
    """The module's database with a million jobs in it."""
    million.fill(dsn)
    return dsn


@pytest.fixture(scope="module")
def ask(full: str) -> Iterator[Callable[..., list[Any]]]:
    """Asks the database directly; the first column of each row."""
    with psycopg.connect(full, autocommit=True) as connection:
        yield lambda query, *values: [row[0] for row in connection.execute(query, values or None)]


@pytest.fixture(scope="module")
def reads(full: str) -> Iterator[Explained]:
    """As `Log.reads`."""
    database = Explained(full, by_index=True)
    yield database
    database.close()


@pytest.fixture(scope="module")
def plain(full: str) -> Iterator[Explained]:
    """As `Log.database`, whose plans the server makes, and makes generic after five times, as it thinks best."""
    database = Explained(full)
    yield database
    database.close()


@pytest.fixture(scope="module")
def pooled(full: str) -> Iterator[Explained]:
    """As `Log.reads` behind a transaction pooler."""
    database = Explained(full, prepare=False, by_index=True)
    yield database
    database.close()


NOW = datetime.now(UTC)
FILTERS: dict[str, tuple[dict[str, Any], int]] = {
    "everything": ({}, 25_000),
    "queued": ({"status": ("queued",)}, 2_000),
    "scheduled": ({"status": ("scheduled",)}, 16_000),
    "running": ({"status": ("running",)}, LEASES),
    "cancelling": ({"status": ("cancelling",)}, LEASES),
    "completed": ({"status": ("completed",)}, 3_000),
    "failed": ({"status": ("failed",)}, 1_000),
    "cancelled": ({"status": ("cancelled",)}, 1_000),
    "two statuses": ({"status": ("failed", "cancelled")}, 1_200),
    "queued or running": ({"status": ("queued", "running")}, 24_000),
    "a kind": ({"kind": ("kind-1",)}, 26_000),
    "a rare kind": ({"kind": ("rare",)}, LEASES),
    "a retired kind": ({"kind": ("retired",)}, 25_000),
    "an unknown kind": ({"kind": ("nothing",)}, LEASES),
    "two kinds": ({"kind": ("kind-1", "rare")}, 26_000),
    "a queue": ({"queue": ("queue-3",)}, 25_000),
    "a rare queue": ({"queue": ("rare",)}, LEASES),
    "a retired queue": ({"queue": ("retired",)}, LEASES),
    "a label": ({"label": (("team", "3"),)}, 55_000),
    "a rare label": ({"label": (("customer", "rare"),)}, 25_000),
    "an unknown label": ({"label": (("customer", "none"),)}, 25_000),
    "a label of many": ({"label": (("tier", "gold"),)}, 50_000),
    "a worker": ({"worker": ("worker-2",)}, 100_000 + UNSUMMARISED),
    "the last worker": ({"worker": ("worker-8",)}, 80_000 + UNSUMMARISED),
    "a rare worker": ({"worker": ("rare",)}, 40_000 + UNSUMMARISED),
    "an unknown worker": ({"worker": ("nobody",)}, 25_000 + UNSUMMARISED),
    "created after": ({"created_after": NOW - timedelta(days=200)}, 20_000),
    "created before": ({"created_before": NOW - timedelta(days=400)}, 20_000),
    "created long before": ({"created_before": NOW - timedelta(days=900)}, 20_000),
    "created on a day": (
        {"created_after": NOW - timedelta(days=500), "created_before": NOW - timedelta(days=499)},
        6_000,
    ),
    "another namespace": ({"namespace": "other"}, 50_000),
    "all namespaces": ({"namespace": None}, 26_000),
    "status in all namespaces": ({"namespace": None, "status": ("failed",)}, 1_200),
    "queue in all namespaces": ({"namespace": None, "queue": ("queue-3",)}, 26_000),
    "status and kind": ({"status": ("failed",), "kind": ("kind-1",)}, 1_000),
    "status and rare kind": ({"status": ("completed",), "kind": ("rare",)}, 1_000),
    "status and queue": ({"status": ("queued",), "queue": ("queue-3",)}, 2_000),
    "queue and kind": ({"queue": ("queue-3",), "kind": ("kind-1",)}, LEASES),
    "status and worker": ({"status": ("failed",), "worker": ("worker-2",)}, 100_000 + UNSUMMARISED),
    "running of a worker": ({"status": ("running",), "worker": ("worker-8",)}, 80_000 + UNSUMMARISED),
    "status and label": ({"status": ("failed",), "label": (("tier", "gold"),)}, 5_000),
    "status and rare label": ({"status": ("completed",), "label": (("customer", "rare"),)}, 5_000),
    "kind and label": ({"kind": ("rare",), "label": (("tier", "gold"),)}, 27_000),
    "a label of half": ({"label": (("region", "eu"),)}, 32_000),
    "a label of one in fifty": ({"label": (("trial", "yes"),)}, 50_000),
    "a label of one kind": ({"label": (("model", "large"),)}, 180_000),
    # Neither way is short: all 188 000 jobs with the label are looked at.
    "a label that a kind never has": ({"kind": ("kind-1",), "label": (("model", "large"),)}, 340_000),
    "a label that a queue never has": ({"queue": ("queue-3",), "label": (("tier", "gold"),)}, 145_000),
    "a label that another namespace never has": ({"namespace": "other", "label": (("tier", "gold"),)}, 55_000),
    "a label of old jobs of a queue": ({"queue": ("retired",), "label": (("region", "eu"),)}, 75_000),
    "scheduled and label": ({"status": ("scheduled",), "label": (("region", "eu"),)}, 20_000),
    "label and created after": (
        {"label": (("model", "large"),), "created_after": NOW - timedelta(days=500)},
        52_000,
    ),
    "label and created before": (
        {"label": (("trial", "yes"),), "created_before": NOW - timedelta(days=400)},
        40_000,
    ),
    "label and created long before": (
        {"label": (("trial", "yes"),), "created_before": NOW - timedelta(days=900)},
        40_000,
    ),
    "status and span": ({"status": ("completed",), "created_after": NOW - timedelta(days=500)}, 8_000),
}
"""Filters, and the rows that a page of each may read."""


def expected(connection: Connection, wanted: Filter, sort: Sort) -> list[UUID]:
    """The first two pages, by the plainest statement there is."""
    values = [list(alternatives) for alternatives in _alternatives(wanted).values()]
    conditions = ["true", *(f"{name} = ANY(%s)" for name in _alternatives(wanted))]
    conditions += ["status = 'queued' AND run_at > now()"] * ("scheduled" in wanted.status)
    conditions += [f"labels ->> '{name}' = '{value}'" for name, value in wanted.label]
    for moment, beyond in ((wanted.created_after, ">"), (wanted.created_before, "<")):
        if moment:
            conditions.append(f"created_at {beyond} '{moment.isoformat()}'")
    order = {"-created_at": "id DESC", "created_at": "id", "-updated_at": "updated_at DESC, id DESC"}[sort]
    query = f"SELECT id FROM jobs WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT {2 * PAGE}"
    return [row[0] for row in connection.execute(query.encode(), values)]


def _alternatives(wanted: Filter) -> dict[str, tuple[str, ...]]:
    statuses = tuple(status for status in wanted.status if status != "scheduled")
    seen = (wanted.namespace,) if wanted.namespace is not None else ()
    given = {"namespace": seen, "status": statuses, "kind": wanted.kind, "queue": wanted.queue, "worker": wanted.worker}
    return {name: values for name, values in given.items() if values}


def two_pages(views: PostgresViews, wanted: Filter, sort: Sort) -> list[JobView]:
    found, cursor = views.page(wanted, sort, PAGE, None)
    return found + (views.page(wanted, sort, PAGE, cursor)[0] if cursor else [])


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("name", FILTERS)
class TestLists:
    def test_a_page_reads_little_and_is_right(self, full: str, reads: Explained, name: str, sort: Sort) -> None:
        fields, rows = FILTERS[name]
        wanted = Filter(**{"namespace": "default", **fields})
        with reads.judging(rows, 5 * rows):
            found = two_pages(PostgresViews(reads), wanted, sort)
        with psycopg.connect(full) as connection:
            assert [view.id for view in found] == expected(connection, wanted, sort)

    def test_it_does_where_the_server_plans_as_it_likes(self, pooled: Explained, name: str, sort: Sort) -> None:
        fields, rows = FILTERS[name]
        rows = max(rows, LANES * PAGE)  # it may sort the few thousand jobs of a lane, rather than read them in order
        with pooled.judging(rows, 5 * rows, frozenset({"leases"})):
            two_pages(PostgresViews(pooled), Filter(**{"namespace": "default", **fields}), sort)


def test_everything_is_listed_from_one_end(reads: Explained) -> None:
    for sort in SORTS[:2]:
        with reads.judging(2 * PAGE + 10, 500):
            two_pages(PostgresViews(reads), Filter(), sort)


@pytest.mark.parametrize("label", [("trial", "yes"), ("tier", "gold")])
def test_what_is_younger_than_a_span_is_gone_over_once(reads: Explained, label: tuple[str, str]) -> None:
    """600 000 jobs, which are in more pages of the index than all else takes."""
    wanted = Filter(label=(label,), created_before=NOW - timedelta(days=900), namespace="default")
    with reads.judging(40_000, 35_000):
        two_pages(PostgresViews(reads), wanted, "-updated_at")


def test_a_plan_does_not_turn_after_five_times(reads: Explained) -> None:
    for sort in SORTS:
        with reads.judging(LANES * PAGE, 5 * LANES * PAGE):
            for _ in range(8):
                PostgresViews(reads).page(Filter(status=("failed",)), sort, PAGE, None)
        assert len({plan.rows for plan in reads.plans}) == 1


class TestOneJob:
    def test_status_by_id(self, reads: Explained, ask: Callable[..., list[Any]]) -> None:
        (id,) = ask("SELECT id FROM seed WHERE n = 500000")
        with reads.judging(2, 10):
            for _ in range(8):
                assert PostgresViews(reads).jobs([id]) != [None]

    def test_a_batch_of_ids(self, reads: Explained, ask: Callable[..., list[Any]]) -> None:
        ids = ask("SELECT id FROM seed WHERE n %% %s = 4", 2000)
        with reads.judging(len(ids) + million.HELD, 8 * len(ids)):
            for _ in range(8):
                assert None not in PostgresViews(reads).jobs(ids)

    def test_versions(self, reads: Explained, ask: Callable[..., list[Any]]) -> None:
        ids = ask("SELECT id FROM seed WHERE n %% %s = 4", 200)
        with reads.judging(len(ids), 5 * len(ids)):
            for _ in range(8):
                assert len(PostgresViews(reads).versions(ids)) == len(ids)

    def test_histories_are_read_in_the_partitions_of_their_months(
        self, reads: Explained, ask: Callable[..., list[Any]]
    ) -> None:
        ids = ask("SELECT id FROM seed WHERE version = 3 AND n %% %s = 0 LIMIT 400", 1400)
        with reads.judging(3 * len(ids), 8 * len(ids)):
            for _ in range(8):
                histories = PostgresViews(reads).histories([History(id, 0) for id in ids])
                assert {len(history) for history in histories} == {3}

    def test_the_version_and_the_position_at_a_moment(self, reads: Explained, ask: Callable[..., list[Any]]) -> None:
        (id,) = ask("SELECT id FROM seed WHERE n = 400000")
        with reads.judging(3, 12):
            for _ in range(8):
                assert PostgresViews(reads).version_at(id, NOW)[0] == 3
                assert PostgresViews(reads).position_of(id, 2) > 0


class TestTheWholeLog:
    def test_a_page_after_a_position(self, reads: Explained, ask: Callable[..., list[Any]]) -> None:
        (late,) = ask("SELECT notification_id FROM events ORDER BY notification_id DESC OFFSET 1000 LIMIT 1")
        for after in (0, late):
            with reads.judging(2 * 201 + 2 * million.PARTITIONS, 8 * 201):
                for _ in range(8):
                    assert len(PostgresViews(reads).log(after, 201, None)) == 201

    def test_its_end(self, reads: Explained) -> None:
        with reads.judging(2 * million.PARTITIONS, 10 * million.PARTITIONS):
            for _ in range(8):
                end, lagging = PostgresViews(reads).log_end()
                assert (end > 0, lagging) == (True, False)

    def test_the_state_of_the_schema(self, reads: Explained) -> None:
        small = frozenset({"migrations", "log_epoch", "seal", "oldest_server"})
        with reads.judging(2 * million.PARTITIONS, 10 * million.PARTITIONS, small):
            assert health(reads).positions_rise


class TestWhy:
    def test_the_jobs_ahead_are_counted_lane_by_lane(self, reads: Explained, ask: Callable[..., list[Any]]) -> None:
        (id,) = ask("SELECT id FROM jobs WHERE status = 'queued' AND queue = 'queue-3' ORDER BY priority, id LIMIT 1")
        (job,) = PostgresViews(reads).jobs([id])
        assert job
        (ahead,) = ask(
            "SELECT count(*) FROM jobs WHERE status = 'queued' AND queue = 'queue-3' AND run_at <= now() AND "
            "(priority > %s OR priority = %s AND (run_at, id) < (%s, %s))",
            job.priority,
            job.priority,
            job.run_at,
            id,
        )
        with reads.judging(50_000 + 2 * million.HELD, 150_000):
            for _ in range(8):
                assert PostgresFacts(reads).queue(job, 10_000, None).ahead == ahead


class TestLeases:
    def test_a_thousand_heartbeats(self, plain: Explained, ask: Callable[..., list[Any]]) -> None:
        ids = ask("SELECT job_id FROM leases WHERE worker = 'worker-8' LIMIT 1000")
        beats = [Beat(id, 1, "worker-8") for id in ids]
        with plain.judging(3_000 + million.HELD, 30_000, frozenset({"leases"})):
            for _ in range(8):
                assert all(lease and lease.extended for lease in PostgresLeases(plain).extend(beats))

    def test_what_a_claim_holds(self, plain: Explained) -> None:
        with plain.judging(1_000 + million.HELD, 3_000, frozenset({"leases"})):
            for _ in range(8):
                assert PostgresLeases(plain).held_by("worker-8", "claim-6830")

    @pytest.mark.parametrize("run_out", [0, 500])
    def test_what_has_run_out(self, full: str, run_out: int) -> None:
        """As `Log.batches`: the leases are gone through once, and of the jobs only those that are rescued."""
        database = Explained(full, by_index=True)
        with database.connection() as connection, connection.transaction(force_rollback=True):
            connection.execute(RUN_OUT, [run_out])
            with database.judging(million.HELD + 2 * run_out, 10 * million.HELD, frozenset({"leases"})):
                for _ in range(8):
                    found = connection.execute(EXPIRED, (60.0, [], 500), binary=True).fetchall()
                    assert len(found) == run_out
        database.close()


def test_failures_are_listed_from_one_end(full: str, reads: Explained, ask: Callable[..., list[Any]]) -> None:
    """Those of all namespaces, and those of one with few of them."""
    with psycopg.connect(full, autocommit=True) as connection:
        connection.execute(FILL_FAILURES)
        connection.execute("VACUUM ANALYZE failures")
    for namespace in (None, "default", "other", "nobody"):
        with reads.judging(PAGE + 5, 200, frozenset({"projections"})):
            cursor = None
            for _ in range(8):
                found, cursor = failures.listed(reads, namespace, PAGE, cursor)
                assert len(found) == (0 if namespace == "nobody" else PAGE)


def test_idempotency_keys_are_taken_and_looked_up_by_index(full: str) -> None:
    database = Explained(full, by_index=True)
    keys = [IdempotencyKey("default", f"key-{n}", b"x") for n in range(1, 101)]
    with database.judging(len(keys), 20 * len(keys)):
        for _ in range(8):
            with database.connection() as connection:
                connection.execute("BEGIN")
                assert KeysOfBatch.request(connection, keys).read().answered  # type: ignore[union-attr]
                connection.rollback()
    database.close()

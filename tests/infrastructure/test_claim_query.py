"""The claim: best first over all lanes, nothing twice, and never a walk over what is not wanted."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection

from application.jobs import Filter
from application.ledger import Ready
from infrastructure.postgres.lists import Page
from infrastructure.postgres.ready import READIES, READY, everywhere, scope
from tests.infrastructure.nodes import ask, migrated, plan_nodes

ADD = """
INSERT INTO jobs (id, version, position, namespace, kind, queue, priority, status, attempt, max_attempts, progress,
  input, run_at, created_at, updated_at, finished_at)
SELECT uuidv7(), 1, n, %(namespace)s, %(kind)s, %(queue)s, %(priority)s, %(status)s, 0, 3, 0,
  '{}', clock_timestamp() + %(due)s::interval, now(), now(), CASE WHEN %(status)s <> 'queued' THEN now() END
FROM generate_series(1, %(count)s) AS n
RETURNING id
"""


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    """A claimer's connection to a view without jobs."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection
        connection.execute("TRUNCATE jobs")


def add(
    connection: Connection,
    count: int = 1,
    *,
    kind: str = "a",
    queue: str = "default",
    priority: int = 0,
    due: str = "-1 minute",
    status: str = "queued",
    namespace: str = "default",
) -> list[UUID]:
    values = {"kind": kind, "queue": queue, "priority": priority, "due": due, "status": status, "count": count}
    values["namespace"] = namespace
    return [row[0] for row in connection.execute(ADD, values)]


def ready(
    connection: Connection,
    count: int,
    *,
    queues: tuple[str, ...] = ("default",),
    kinds: tuple[str, ...] | None = None,
    taken: tuple[UUID, ...] = (),
) -> list[UUID]:
    return [row[0] for row in connection.execute(READY, wanted(count, queues, kinds, taken))]


def wanted(
    count: int, queues: tuple[str, ...], kinds: tuple[str, ...] | None = None, taken: tuple[UUID, ...] = ()
) -> dict[str, Any]:
    return {"queues": list(queues), "kinds": list(kinds) if kinds else None, "count": count, "taken": list(taken)}


class TestOrder:
    def test_higher_priorities_go_first_over_all_kinds_and_queues(self, connection: Connection) -> None:
        (low,) = add(connection, kind="a", queue="q1", priority=-5, due="-3 hours")
        (high,) = add(connection, kind="z", queue="q2", priority=100)
        (middle,) = add(connection, kind="b", queue="q2", priority=7)
        (other,) = add(connection, kind="a", queue="q2", priority=8)
        assert ready(connection, 10, queues=("q1", "q2")) == [high, other, middle, low]
        assert ready(connection, 2, queues=("q1", "q2")) == [high, other]

    def test_within_a_priority_the_longest_due_goes_first_over_all_lanes(self, connection: Connection) -> None:
        ids = {
            n: add(connection, kind="ab"[n % 2], queue=f"q{n % 3}", due=f"-{60 - n} minutes")[0]
            for n in (5, 0, 3, 1, 4, 2)
        }
        assert ready(connection, 10, queues=("q0", "q1", "q2")) == [ids[n] for n in range(6)]
        assert ready(connection, 3, queues=("q0", "q1", "q2")) == [ids[n] for n in range(3)]

    def test_jobs_due_at_the_same_moment_go_in_the_order_of_their_ids(self, connection: Connection) -> None:
        ids = [id for kind in "ba" for id in add(connection, 3, kind=kind)]
        connection.execute("UPDATE jobs SET run_at = '2026-01-01 00:00:00Z'")
        assert ready(connection, 10) == sorted(ids)

    def test_only_the_kinds_asked_for_are_taken(self, connection: Connection) -> None:
        (a,), (b,), (_,) = (add(connection, kind=kind) for kind in "abc")
        assert ready(connection, 10, kinds=("a", "b", "unheard of")) == [a, b]
        assert ready(connection, 10, kinds=("unheard of",)) == []

    def test_only_the_queues_asked_for_are_taken(self, connection: Connection) -> None:
        (here,), (_,) = add(connection, queue="here"), add(connection, queue="there", priority=9)
        assert ready(connection, 10, queues=("here", "nowhere")) == [here]

    def test_only_queued_jobs_that_are_due_are_taken(self, connection: Connection) -> None:
        for status in ("running", "cancelling"):
            connection.execute("UPDATE jobs SET status = %s WHERE id = %s", [status, add(connection)[0]])
        add(connection, status="completed")
        add(connection, due="1 minute", priority=100)
        (due,) = add(connection, due="0")
        assert ready(connection, 10) == [due]

    def test_what_the_batch_has_taken_already_is_left_out(self, connection: Connection) -> None:
        first, second = add(connection, 2)
        assert ready(connection, 1, taken=(first,)) == [second]


class TestTwoClaimers:
    def test_they_get_different_jobs_and_together_all(self, dsn: str, connection: Connection) -> None:
        ids = [id for kind in "ab" for id in add(connection, 20, kind=kind)]
        with psycopg.connect(dsn) as other, connection.transaction():
            mine = ready(connection, 15)
            theirs = ready(other, 40)
            assert len(mine) == 15
            assert not set(mine) & set(theirs)
            other.rollback()
            # Each lane locked up to fifteen of its rows, whichever of them were claimed in the end.
            assert set(theirs) <= set(ids)
        assert sorted(ready(connection, 40)) == ids

    def test_a_job_that_was_taken_meanwhile_is_passed_over(self, dsn: str, connection: Connection) -> None:
        first, second = add(connection, 2)
        with psycopg.connect(dsn) as other:
            other.execute("UPDATE jobs SET status = 'running' WHERE id = %s", [first])
            assert ready(connection, 2) == [second]
            other.commit()
        assert ready(connection, 2) == [second]


class TestThePlan:
    @pytest.fixture(scope="class")
    def crowded(self, request: pytest.FixtureRequest, new_database_for_class: Callable[[], str]) -> str:
        """20 000 jobs: most wait at the highest priority for a time to come, many have ended, few are due."""
        dsn = migrated(new_database_for_class())
        with psycopg.connect(dsn, autocommit=True) as connection:
            add(connection, 12_000, priority=100, due="1 day")
            add(connection, 4_000, status="completed")
            for queue in ("default", "q1", "q2"):
                for kind in "abcd":
                    add(connection, 350, kind=kind, queue=queue, priority=1)
            connection.execute("VACUUM ANALYZE jobs")
        return dsn

    @pytest.mark.parametrize("kinds", [None, ("a",), ("a", "b", "c", "d", "e")])
    @pytest.mark.parametrize("queues", [("default",), ("default", "q1", "q2")])
    def test_it_reads_the_index_and_only_what_it_returns(
        self, crowded: str, queues: tuple[str, ...], kinds: tuple[str, ...] | None
    ) -> None:
        with psycopg.connect(crowded) as connection:
            explain = b"EXPLAIN (ANALYZE, FORMAT JSON) " + READY.encode()
            row = connection.execute(explain, wanted(10, queues, kinds)).fetchone()
            assert row is not None
            scans = [node for node in plan_nodes(row[0][0]["Plan"]) if node.get("Relation Name") == "jobs"]
        assert scans
        assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
        assert {node["Index Name"] for node in scans} == {"jobs_ready"}
        read = sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans
        )
        assert read < 400

    def test_future_jobs_of_the_highest_priority_do_not_hide_those_that_are_due(self, crowded: str) -> None:
        with psycopg.connect(crowded) as connection:
            found = ready(connection, 2000)
        due = ask(crowded, "SELECT id FROM jobs WHERE queue = 'default' AND run_at <= now() AND status = 'queued'")
        assert {(id,) for id in found} == set(due)
        assert len(due) == 4 * 350


@pytest.fixture(scope="class")
def new_database_for_class(postgres: str) -> Callable[[], str]:
    """Makes an empty database that a class shares."""

    def make() -> str:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute("CREATE DATABASE crowded")
            connection.execute("SELECT 1")
        return postgres.replace("@/jobledger?", "@/crowded?")

    return make


class TestWithinANamespace:
    def claimed(self, connection: Connection, wanted: Ready, count: int) -> list[UUID]:
        return [row[0] for row in connection.execute(READIES[scope(wanted.namespace)], everywhere(wanted, count))]

    def test_its_own_jobs_are_claimed_best_first_and_no_others(self, connection: Connection) -> None:
        add(connection, 3, priority=5, due="-1 hour")
        late = add(connection, namespace="a")
        urgent = add(connection, namespace="a", priority=3, kind="b")
        add(connection, namespace="a", queue="other")
        add(connection, namespace="a", due="1 hour")
        add(connection, namespace="a/default", queue="x")  # no namespace has a slash: this is only what it might say
        assert self.claimed(connection, Ready(("default",), None, "a"), 10) == urgent + late
        assert self.claimed(connection, Ready(("default",), ("a",), "a"), 10) == late
        assert self.claimed(connection, Ready(("default",), None, "b"), 10) == []

    def test_the_default_one_is_one_of_them(self, connection: Connection) -> None:
        add(connection, 3, namespace="a", priority=5, due="-1 hour")
        add(connection, 3, namespace="a", due="-1 hour")
        add(connection, 1, namespace="a", kind="b")
        late = add(connection)
        urgent = add(connection, priority=3, kind="b")
        add(connection, queue="other")
        add(connection, due="1 hour")
        assert self.claimed(connection, Ready(("default",), None, "default"), 10) == urgent + late
        assert self.claimed(connection, Ready(("default",), ("a",), "default"), 10) == late
        assert self.claimed(connection, Ready(("default",), None, None), 1) != urgent

    @pytest.mark.parametrize("kinds", [None, ("a", "b")])
    def test_the_jobs_of_others_are_not_walked_over(
        self, connection: Connection, kinds: tuple[str, ...] | None
    ) -> None:
        add(connection, 20_000, due="-1 hour")
        add(connection, 20_000, due="-1 hour", namespace="b")
        add(connection, 100, namespace="a")
        connection.execute("ANALYZE jobs")
        for settings in ("SET plan_cache_mode = auto", "SET plan_cache_mode = force_generic_plan"):
            connection.execute(settings)
            values = everywhere(Ready(("default",), kinds, "a"), 10)
            explain = b"EXPLAIN (ANALYZE, FORMAT JSON) " + READIES["within"].encode()
            ((explained,),) = connection.execute(explain, values).fetchall()
            scans = [node for node in plan_nodes(explained[0]["Plan"]) if node.get("Relation Name") == "jobs"]
            assert {scan.get("Index Name") for scan in scans} == {"jobs_ready_in_namespace"}
            assert sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) < 50

    @pytest.mark.parametrize("kinds", [None, ("a", "b")])
    def test_those_of_others_are_passed_over_in_the_index_by_the_default_one(
        self, connection: Connection, kinds: tuple[str, ...] | None
    ) -> None:
        add(connection, 20_000, due="-1 hour", namespace="b")
        add(connection, 100)
        connection.execute("VACUUM ANALYZE jobs")
        claim = READIES["default"].encode(), everywhere(Ready(("default",), kinds, "default"), 10)
        page = Page(Filter(namespace="default", status=("queued",), kind=kinds or ()), "created_at", 10, None)
        for settings in ("SET plan_cache_mode = auto", "SET plan_cache_mode = force_generic_plan"):
            connection.execute(settings)
            for query, values in (claim, (page.query("id"), page.values)):
                explain = b"EXPLAIN (ANALYZE, FORMAT JSON) " + query
                ((explained,),) = connection.execute(explain, values).fetchall()
                scans = [node for node in plan_nodes(explained[0]["Plan"]) if node.get("Relation Name") == "jobs"]
                assert "jobs_ready" in {scan.get("Index Name") for scan in scans}
                read = sum(
                    (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
                    for scan in scans
                )
                assert read < 200

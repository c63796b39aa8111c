"""Leases: extended by whoever holds the attempt, found when they ran out, and never in anybody's way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from application.jobs import Cancel
from application.reports import Beat, CompletionReport, FailureReport, Lease, ProgressReport, ReportedError, Say
from application.rescue import Expired, MissHeartbeat
from tests.infrastructure.nodes import ASKED, Node, ask, eventually, new_job


@pytest.fixture
def node(dsn: str) -> Iterator[Node]:
    with Node(dsn) as node:
        yield node
    ask(dsn, "DELETE FROM leases")


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """A queue of the test's own."""
    return str(request.node.name)


def lease(node: Node, id: UUID) -> tuple[Any, ...]:
    (row,) = ask(
        node.dsn,
        "SELECT attempt, worker, claim_id, heartbeat_timeout, heartbeat_at, expires_at FROM leases WHERE job_id = %s",
        [id],
    )
    return row


def run_out(node: Node, *ids: UUID, seconds: float = 1.0) -> None:
    ask(
        node.dsn,
        "UPDATE leases SET expires_at = clock_timestamp() - make_interval(secs => %s) WHERE job_id = ANY(%s)",
        [seconds, list(ids)],
    )


def test_a_claim_holds_its_jobs_for_their_heartbeat_timeout(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue, heartbeat_timeout=12.5), claim_id="c1")
    attempt, worker, claim_id, timeout, heartbeat_at, expires_at = lease(node, id)
    assert (attempt, worker, claim_id, timeout) == (1, "w1", "c1", 12.5)
    assert expires_at - heartbeat_at == timedelta(seconds=12.5)
    assert node.leases.held_by("w1", "c1") == [id]
    assert node.leases.held_by("w2", "c1") == node.leases.held_by("w1", "c2") == []


def test_a_heartbeat_extends_the_lease_and_records_no_event(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue), claim_id="c1")
    before = lease(node, id)
    (found,) = node.leases.extend([Beat(id, 1, "w1")])
    assert found == Lease(extended=True, version=2, status="running", attempt=1, worker="w1")
    after = lease(node, id)
    assert after[:4] == before[:4]
    assert after[4] > before[4]
    assert after[5] > before[5]
    assert len(node.log.stream(id)) == 2


def test_every_accepted_report_extends_the_lease_even_one_that_repeats_another(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue))
    report = ProgressReport(job_id=id, attempt=1, message="half")
    node.say(report)
    expiries = [lease(node, id)[5]]
    for _ in range(2):
        assert node.say(report).version == 3
        expiries.append(lease(node, id)[5])
    assert expiries == sorted(set(expiries))


def test_a_heartbeat_never_shortens_a_lease(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue))
    later = datetime.now(UTC) + timedelta(hours=1)
    ask(node.dsn, "UPDATE leases SET expires_at = %s WHERE job_id = %s", [later, id])
    node.leases.extend([Beat(id, 1, "w1")])
    node.say(ProgressReport(job_id=id, attempt=1, message="half"))
    assert lease(node, id)[5] == later


def test_only_the_worker_of_the_attempt_extends_it(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue))
    before = lease(node, id)
    beats = [Beat(id, 1, "w2"), Beat(id, 2, "w1"), Beat(uuid4(), 1, "w1")]
    standing = Lease(extended=False, version=2, status="running", attempt=1, worker="w1")
    assert node.leases.extend(beats) == [standing, standing, None]
    assert lease(node, id) == before


def test_many_heartbeats_are_each_answered_on_their_own_merits(node: Node, queue: str) -> None:
    ids = node.started(*[new_job(queue=queue) for _ in range(4)])
    node.say(CompletionReport(job_id=ids[1], attempt=1))
    node.one(Cancel(job_id=ids[2], reason="enough", asked=ASKED))
    found = node.leases.extend([Beat(id, 1, "w1") for id in (ids[3], ids[2], ids[1], ids[0], ids[0])])
    assert [(one.extended, one.status) for one in found if one] == [
        (True, "running"),
        (True, "cancelling"),
        (False, "completed"),
        (True, "running"),
        (True, "running"),
    ]


def test_an_end_frees_the_lease_and_the_next_attempt_takes_its_own(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue), claim_id="c1")
    error = ReportedError(type="E", message="boom")
    node.say(FailureReport(job_id=id, attempt=1, error=error, retry_in=0))
    assert node.leases.held_by("w1", "c1") == []
    assert node.claim("w2", queue=queue, claim_id="c2") == [id]
    assert lease(node, id)[:3] == (2, "w2", "c2")
    node.say(ProgressReport(job_id=id, attempt=2, message="half"), worker="w2")
    assert lease(node, id)[:3] == (2, "w2", "c2")


def test_leases_that_ran_out_are_found_longest_first(node: Node, queue: str) -> None:
    ids = node.started(*[new_job(queue=queue) for _ in range(4)])
    run_out(node, ids[0], seconds=1)
    run_out(node, ids[2], seconds=3)
    run_out(node, ids[3], seconds=2)
    beat = {id: lease(node, id)[4] for id in ids}
    expected = [Expired(ids[n], 1, beat[ids[n]]) for n in (2, 3, 0)]
    assert node.leases.expired(30.0, 10) == expected
    assert node.leases.expired(30.0, 2) == expected[:2]


def test_leases_are_found_only_after_contact_as_long_as_their_timeout(node: Node, queue: str) -> None:
    short, long = node.started(new_job(queue=queue, heartbeat_timeout=2), new_job(queue=queue, heartbeat_timeout=60))
    run_out(node, short, long)
    assert [one.job_id for one in node.leases.expired(1.9, 10)] == []
    assert [one.job_id for one in node.leases.expired(2.0, 10)] == [short]
    assert {one.job_id for one in node.leases.expired(60.0, 10)} == {short, long}


def test_heartbeats_stay_heap_only(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue))
    updates = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'leases'"

    def told() -> tuple[Any, ...]:
        with node.log.database.connection() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
        return ask(node.dsn, updates)[0]

    before = told()
    for _ in range(50):
        node.leases.extend([Beat(id, 1, "w1")])
    after = told()
    assert after[0] - before[0] == after[1] - before[1] == 50


def test_a_heartbeat_that_was_taken_outlives_a_rescue_under_way(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue))
    run_out(node, id)
    with ThreadPoolExecutor(1) as thread:
        with node.ledger.batch([id]) as batch:
            assert batch.lease_expired(batch.job(id))
            beat = thread.submit(node.leases.extend, [Beat(id, 1, "w1")])
            answer = waits_or_is_done(node, beat)
            MissHeartbeat(expired=Expired(id, 1, datetime.now(UTC))).run(batch)
        (found,) = beat.result(30)
    assert answer is None, "a heartbeat was answered well, and its lease taken away all the same"
    assert found is not None
    assert not found.extended


def waits_or_is_done(node: Node, beat: Any) -> Any:
    """Wait until the heartbeat is answered, which is returned, or waits for a lock."""
    eventually(lambda: beat.done() or waiting(node.dsn))
    return beat.result() if beat.done() else None


def test_heartbeats_and_reports_for_the_same_jobs_never_wait_in_a_circle(node: Node, queue: str) -> None:
    a, b = node.started(new_job(queue=queue), new_job(queue=queue))
    reports = [
        Say(report=CompletionReport(job_id=a, attempt=1), worker="w1"),
        Say(report=ProgressReport(job_id=b, attempt=1, message="half"), worker="w1"),
    ]
    with psycopg.connect(node.dsn) as gate, ThreadPoolExecutor(2) as threads:
        gate.execute("SELECT 1 FROM leases WHERE job_id = %s FOR UPDATE", [a])
        beats = threads.submit(node.leases.extend, [Beat(a, 1, "w1"), Beat(b, 1, "w1")])
        eventually(lambda: waiting(node.dsn) == 1)
        told = threads.submit(node.execute, *reports)
        eventually(lambda: waiting(node.dsn) == 2)
        gate.rollback()
        answers = told.result(30)
        first, second = beats.result(30)
    assert [answer.version for answer in answers] == [3, 3]
    assert first is not None
    assert second is not None
    assert second.extended
    with node.log.database.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
    assert ask(node.dsn, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


def waiting(dsn: str) -> int:
    """How many sessions of the database wait for a lock."""
    ((count,),) = ask(
        dsn,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    return int(count)

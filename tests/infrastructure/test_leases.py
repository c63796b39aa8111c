"""Leases: extended by whoever holds the attempt, found when they ran out, and never in anybody's way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from application.jobs import Cancel
from application.ledger import Expired
from application.reports import Beat, CompletionReport, FailureReport, Lease, ProgressReport, ReportedError, Say
from application.rescue import MissHeartbeat
from tests.infrastructure.nodes import ASKED, Node, ask, new_job
from tests.waiting import eventually

PASSES = 60
SPOIL = "UPDATE events SET state = '{}' WHERE originator_id = %s AND originator_version = 2"


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


def expired(node: Node, unbroken: float, count: int = 10) -> list[Expired]:
    with node.ledger.batch() as batch:
        return batch.expired(unbroken, count)


def test_a_claim_holds_its_jobs_for_their_heartbeat_timeout(node: Node, queue: str) -> None:
    (id,) = node.started(new_job(queue=queue, heartbeat_timeout=12.5), claim_id="c1")
    attempt, worker, claim_id, timeout, heartbeat_at, expires_at = lease(node, id)
    assert (attempt, worker, claim_id, timeout) == (1, "w1", "c1", 12.5)
    assert expires_at - heartbeat_at == timedelta(seconds=12.5)
    assert node.leases.held_by("w1", "c1") == [id]
    assert node.leases.held_by("w2", "c1") == node.leases.held_by("w1", "c2") == []


def test_a_claim_that_is_repeated_begins_its_leases_anew(node: Node, queue: str) -> None:
    """It is told when they expire, and that is so."""
    (id,) = node.started(new_job(queue=queue), claim_id="c3")
    (other,) = node.started(new_job(queue=queue), claim_id="c4")
    before, untouched = lease(node, id), lease(node, other)
    assert node.leases.held_by("w1", "c3") == [id]
    after = lease(node, id)
    assert after[:4] == before[:4]
    assert (after[4] > before[4], after[5] > before[5]) == (True, True)
    assert lease(node, other) == untouched


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
    assert expired(node, 30.0) == expected
    assert expired(node, 30.0, 2) == expected[:2]


def test_leases_are_found_only_after_contact_as_long_as_their_timeout(node: Node, queue: str) -> None:
    short, long = node.started(new_job(queue=queue, heartbeat_timeout=2), new_job(queue=queue, heartbeat_timeout=60))
    run_out(node, short, long)
    assert [one.job_id for one in expired(node, 1.9)] == []
    assert [one.job_id for one in expired(node, 2.0)] == [short]
    assert {one.job_id for one in expired(node, 60.0)} == {short, long}


def test_heartbeats_stay_heap_only_and_their_table_as_large_as_it_was(node: Node, queue: str) -> None:
    """As many as fit on a page, and on a hundred of them; each pass makes room for the next."""
    ids = node.started(*[new_job(queue=queue) for _ in range(2_000)])
    beats = [Beat(id, 1, "w1") for id in ids]
    node.leases.extend(beats)
    before = size(node), updates(node)
    for _ in range(PASSES):
        assert all(one and one.extended for one in node.leases.extend(beats))
    (index, table), (told, heap_only) = size(node), updates(node)
    assert told - before[1][0] >= len(ids) * PASSES  # other servers may report late what they did before
    assert heap_only - before[1][1] > 0.99 * len(ids) * PASSES
    assert index == before[0][0]
    assert table <= 2 * before[0][1]


def size(node: Node) -> tuple[int, int]:
    """Bytes of the key, and of the table."""
    (sizes,) = ask(node.dsn, "SELECT pg_relation_size('leases_pkey'), pg_relation_size('leases')")
    return sizes[0], sizes[1]


def updates(node: Node) -> tuple[int, int]:
    """How often leases were updated, and how often without an entry in the index."""
    with node.log.beats.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
    (told,) = ask(node.dsn, "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'leases'")
    return told[0], told[1]


def test_a_rescue_passes_over_what_another_has_locked(node: Node, queue: str) -> None:
    ids = node.started(*[new_job(queue=queue) for _ in range(4)])
    run_out(node, *ids)
    with psycopg.connect(node.dsn) as worker, psycopg.connect(node.dsn) as client:
        worker.execute("SELECT FROM leases WHERE job_id = %s FOR UPDATE", [ids[0]])
        client.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [ids[2]])
        with node.ledger.batch() as batch:
            assert {one.job_id for one in batch.expired(30.0, 10)} == {ids[1], ids[3]}
    assert {one.job_id for one in expired(node, 30.0)} == set(ids)


def test_two_nodes_share_what_there_is_to_rescue(node: Node, queue: str) -> None:
    ids = node.started(*[new_job(queue=queue) for _ in range(10)])
    run_out(node, *ids)
    with Node(node.dsn) as other, node.ledger.batch() as mine, other.ledger.batch() as others:
        first, second, third = mine.expired(30.0, 6), others.expired(30.0, 6), others.expired(30.0, 6)
        for batch, found in ((mine, first), (others, second)):
            for one in found:
                MissHeartbeat(expired=one).run(batch)
    assert (len(first), len(second), third) == (6, 4, second)
    assert sorted(one.job_id for one in [*first, *second]) == ids
    assert [len(node.log.stream(id)) for id in ids] == [3] * 10


def test_a_job_that_cannot_be_read_holds_up_no_rescue(node: Node, queue: str) -> None:
    ids = node.started(*[new_job(queue=queue) for _ in range(3)])
    run_out(node, ids[0], seconds=9)
    run_out(node, *ids[1:])
    with psycopg.connect(node.dsn) as connection:
        connection.execute("SET session_replication_role = replica")  # past the trigger that keeps history
        connection.execute(SPOIL, [ids[0]])
    assert [one.job_id for one in expired(node, 30.0, 2)] == ids[1:]


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

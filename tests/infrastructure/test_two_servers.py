"""Servers that write at once: no job is lost or started twice, and who lost a race decides again."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import msgspec
import psycopg
import pytest
from msgspec import Raw

from application.jobs import Accepted, Cancel, Retry
from application.reports import (
    CompletionReport,
    FailureReport,
    Reported,
    ReportedError,
    Say,
)
from domain.events import Event, Progressed
from domain.job import Cause
from domain.refusals import LeaseLost
from infrastructure.postgres.mapper import JobEvent
from tests.infrastructure.commands import EVENTS, progress, topics
from tests.infrastructure.nodes import ASKED, Node, ask, new_job
from tests.waiting import eventually


class TestTwoServers:
    def test_batches_in_opposite_order_neither_deadlock_nor_lose_anything(self, own: str) -> None:
        rounds = 40
        with Node(own) as one, Node(own) as other:
            a, b = one.started(new_job(), new_job())

            def speak(node: Node, name: str, order: Sequence[UUID]) -> list[Any]:
                return [
                    answer
                    for n in range(rounds)
                    for answer in node.execute(*[Say(report=progress(id, f"{name} {n}"), worker="w1") for id in order])
                ]

            with ThreadPoolExecutor(2) as threads:
                first = threads.submit(speak, one, "one", (a, b))
                second = threads.submit(speak, other, "other", (b, a))
                answers = first.result(60) + second.result(60)
        assert all(isinstance(answer, Reported) for answer in answers), answers
        for id in (a, b):
            said = [msgspec.json.decode(row[3]).get("message") for row in ask(own, EVENTS, [[id]])][2:]
            assert sorted(said) == sorted(f"{name} {n}" for name in ("one", "other") for n in range(rounds))
        assert deadlocks(own) == 0

    def test_claims_against_cancellations_leave_every_job_in_one_hand(self, own: str) -> None:
        with Node(own) as one, Node(own) as other:
            ids = one.create(*[new_job() for _ in range(120)])
            together = threading.Barrier(2)

            def claim() -> list[UUID]:
                together.wait(30)
                claimed: list[UUID] = []
                for _ in range(40):
                    claimed += one.claim(count=4)
                return claimed

            def cancel() -> list[Any]:
                together.wait(30)
                backwards = list(reversed(ids))
                return [
                    answer
                    for n in range(0, len(backwards), 4)
                    for answer in other.execute(
                        *[Cancel(job_id=id, reason="enough", asked=ASKED) for id in backwards[n : n + 4]]
                    )
                ]

            with ThreadPoolExecutor(2) as threads:
                claiming, cancelling = threads.submit(claim), threads.submit(cancel)
                claimed, answers = claiming.result(60), cancelling.result(60)
            assert all(isinstance(answer, Accepted) for answer in answers), answers
            assert len(set(claimed)) == len(claimed)
            for id in ids:
                expected = ["job.started", "job.cancel_requested"] if id in claimed else ["job.cancelled"]
                assert topics(one, id)[1:] == expected
            assert {row[0] for row in ask(own, "SELECT job_id FROM leases")} == set(claimed)
        assert deadlocks(own) == 0

    def test_two_claimers_at_once_start_every_job_once(self, own: str) -> None:
        with Node(own) as one, Node(own) as other:
            ids = one.create(*[new_job() for _ in range(200)])

            def claim(node: Node, worker: str) -> list[UUID]:
                claimed: list[UUID] = []
                while taken := node.claim(worker, 7):
                    claimed += taken
                return claimed

            with ThreadPoolExecutor(2) as threads:
                first, second = threads.submit(claim, one, "w1"), threads.submit(claim, other, "w2")
                claimed = first.result(60) + second.result(60)
            claimed += one.claim("w1", 200)  # what the one passed over while the other had it locked
            assert sorted(claimed) == ids
            assert [topics(one, id) for id in ids] == [["job.created", "job.started"]] * 200

    def test_nobody_is_refused_for_what_is_remembered(self, nodes: Callable[[], Node]) -> None:
        """Here the first attempt is remembered; elsewhere it was lost, and the second one began."""
        node, other = nodes(), nodes()
        (id,) = node.started(new_job(queue="again", retry=Retry(initial=0, factor=1, max=0)))
        other.rescue(id)
        assert other.claim("w2", queue="again") == [id]
        assert isinstance(node.say(CompletionReport(job_id=id, attempt=2), "w2"), Reported)
        with pytest.raises(LeaseLost):
            node.say(CompletionReport(job_id=id, attempt=1), "w1")

    def test_what_another_server_did_is_seen_in_spite_of_a_memory_of_before(self, nodes: Callable[[], Node]) -> None:
        one, other = nodes(), nodes()
        (id,) = one.started(new_job(queue="stale"))
        for n in range(3):
            assert other.say(progress(id, f"other {n}")).version == 3 + 2 * n
            assert one.say(progress(id, f"one {n}")).version == 4 + 2 * n
        other.say(FailureReport(job_id=id, attempt=1, error=ReportedError(type="E", message="boom"), retry_in=0))
        with pytest.raises(LeaseLost):
            one.say(progress(id, "too late"))
        assert other.claim("w2", queue="stale") == [id]
        with pytest.raises(LeaseLost):
            one.say(CompletionReport(job_id=id, attempt=1))
        assert one.log.fold(id).worker == "w2"


class TestAConflict:
    def test_it_is_decided_again_from_the_fresh_stream(self, nodes: Callable[[], Node]) -> None:
        node = nodes()
        ids = node.started(*[new_job(queue="conflict") for _ in range(5)])
        append_behind(node, ids[2], 3, Progressed(attempt=1, progress=0.5, at=datetime.now(UTC), by="worker:w1"))
        answers = node.execute(*[Say(report=CompletionReport(job_id=id, attempt=1), worker="w1") for id in ids])
        assert [answer.version for answer in answers] == [3, 3, 4, 3, 3]
        assert topics(node, ids[2]) == ["job.created", "job.started", "job.progressed", "job.completed"]
        (view,) = node.views.jobs([ids[2]])
        assert view is not None
        assert (view.status, view.version) == ("completed", 4)

    def test_a_decision_that_no_longer_holds_is_refused(self, node: Node) -> None:
        (id,) = node.started(new_job(queue="refused"))
        ended = node.log.fold(id).complete(1, "w1", Raw(b"1"), Cause(datetime.now(UTC), "worker:w1"))
        append_behind(node, id, 3, *ended)
        (answer,) = node.execute(Say(report=CompletionReport(job_id=id, attempt=1, result=Raw(b"2")), worker="w1"))
        assert "is completed" in str(answer)
        assert topics(node, id) == ["job.created", "job.started", "job.completed"]


def append_behind(node: Node, id: UUID, version: int, *events: Event) -> None:
    """Append to a stream without the ledger's locks, as a writer that knows nothing of them would."""
    mapper = node.log.mapper
    stored = [mapper.to_stored_event(cast("Any", JobEvent(id, version + n, event))) for n, event in enumerate(events)]
    node.log.recorder.insert_events(stored)


def deadlocks(dsn: str) -> int:
    """How many the server counted in this database, once its sessions have ended and told."""
    others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    eventually(lambda: not ask(dsn, others))
    ((count,),) = ask(dsn, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(count)


class TestADeadlock:
    def test_it_counts_as_a_conflict_and_is_decided_again(self, node: Node) -> None:
        a, b = node.started(*[new_job(queue="deadlock") for _ in range(2)])
        with psycopg.connect(node.dsn, autocommit=True) as other, ThreadPoolExecutor(1) as thread:
            other.execute("SET deadlock_timeout = '60s'")  # so that it is the ledger who finds out
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", [b])
            told = thread.submit(node.execute, *[Say(report=progress(id, "half"), worker="w1") for id in (a, b)])
            eventually(
                lambda: ask(
                    node.dsn, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND state = 'active'"
                )
            )
            other.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", [a])
            other.execute("COMMIT")
            assert told.result(30) == [Reported(version=3, cancel_requested=False)] * 2

"""An event's position in the whole log: its transaction, and its place within it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from typing import Any
from uuid import UUID

import pytest

from application.commands import Command
from application.jobs import Cancel, Create, Requeue
from application.ledger import Ready
from application.reports import (
    Say,
)
from infrastructure.postgres.ready import Found, ReadyJobs
from tests.infrastructure.commands import EVENTS, progress
from tests.infrastructure.nodes import ASKED, PATIENCE, Node, ask, new_job
from tests.waiting import eventually

BY_POSITION = """
SELECT originator_id, originator_version FROM events WHERE originator_id = ANY(%s) ORDER BY notification_id
"""

WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class TestPositions:
    def test_a_position_is_the_transaction_and_the_ordinal_within_it(self, own: str) -> None:
        offset = 12_345
        ask(own, "UPDATE log_epoch SET epoch_offset = %s", [offset])
        with Node(own) as node, Node(own) as other:
            ids = node.create(*[new_job() for _ in range(5)])
            other.claim(count=5)
            node.execute(*[Say(report=progress(id, "half"), worker="w1") for id in reversed(ids)])
        rows = ask(own, "SELECT xmin::text::bigint, notification_id FROM events ORDER BY notification_id")
        assert [position >> 16 for _, position in rows] == [transaction + offset for transaction, _ in rows]
        for _, events in groupby(rows, key=lambda row: row[0]):
            ordinals = [position & 65535 for _, position in events]
            assert ordinals == list(range(1, len(ordinals) + 1))

    def test_positions_rise_strictly_from_commit_to_commit(self, own: str) -> None:
        batches: list[list[int]] = []
        known: set[int] = set()
        with Node(own) as one, Node(own) as other:
            for turn in range(12):
                (one, other)[turn % 2].create(*[new_job() for _ in range(turn + 1)])
                positions = {row[0] for row in ask(own, "SELECT notification_id FROM events")}
                batches.append(sorted(positions - known))
                known = positions
        assert [len(batch) for batch in batches] == list(range(1, 13))
        assert all(max(before) < min(after) for before, after in pairwise(batches))

    def test_of_a_job_they_rise_with_its_versions_though_a_claim_began_before_it_was_created(self, node: Node) -> None:
        lane = Ready(("early",), None)
        with node.ledger.batch() as early:
            (first,) = node.create(new_job(queue="early"))
            assert early.ready(lane, 2) == []
        assert node.claim(queue="early") == [first]
        assert ask(node.dsn, BY_POSITION, [[first]]) == [(first, 1), (first, 2)]

    def test_a_claim_ends_though_jobs_are_created_faster_than_it_looks(
        self, nodes: Callable[[], Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """None of which it can start, nor keeps from claims that came later."""
        claimer, other = nodes(), nodes()
        find, created = ReadyJobs.find, list[UUID]()

        def find_after_a_creation(*given: Any) -> Found:
            created.extend(other.create(new_job(queue="rush")))
            assert len(created) < 10, "the claim does not end"
            return find(*given)

        (first,) = other.create(new_job(queue="rush"))
        lane = Ready(("rush",), None)
        with claimer.ledger.batch() as batch, monkeypatch.context() as patched:
            patched.setattr(ReadyJobs, "find", find_after_a_creation)
            assert [job.id for job in batch.ready(lane, 5)] == [first]
            patched.undo()
            assert other.claim(count=5, queue="rush") == created

    def test_of_a_job_they_rise_with_its_versions_though_its_lock_was_waited_for(
        self, nodes: Callable[[], Node]
    ) -> None:
        """The batch that waits has its place from its first lock on; meanwhile a later one moves its last job."""
        holder, waiter, other = nodes(), nodes(), nodes()
        low, middle, high = sorted(holder.create(*[new_job()] * 3))
        moves: list[Command] = [
            Cancel(job_id=low, reason="", asked=ASKED),
            Cancel(job_id=middle, reason="", asked=ASKED),
            Requeue(job_id=high, reason="", asked=ASKED),
        ]
        with ThreadPoolExecutor(1) as thread:
            with holder.ledger.batch([middle]):
                waiting = thread.submit(waiter.execute, *moves)
                eventually(lambda: ask(holder.dsn, WAITS))
                other.one(Cancel(job_id=high, reason="", asked=ASKED))
            answers = waiting.result(PATIENCE)
        assert not any(isinstance(answer, Exception) for answer in answers), answers
        by_position = ask(holder.dsn, BY_POSITION, [[low, middle, high]])
        assert len(by_position) == 7
        by_job = sorted(by_position, key=lambda row: row[0])  # which keeps the order of positions within each
        assert by_job == sorted(by_position)

    def test_a_command_is_answered_with_the_position_of_its_last_event(self, node: Node) -> None:
        answers = node.execute(*[Create([new_job(), new_job()], ASKED) for _ in range(3)])
        for answer in answers:
            rows = ask(node.dsn, EVENTS, [list(answer.job_ids)])
            assert answer.position == max(row[5] for row in rows)

"""The ledger under fire: the view is the fold, nothing is lost or doubled, and one bad row harms nobody else."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any, cast
from uuid import UUID

import msgspec
import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from msgspec import Raw, Struct

from application.commands import Command
from application.errors import IdempotencyMismatch, Invalid, Unavailable, UnreadableStream
from application.jobs import Accepted, Asked, Cancel, Create, JobView, NewJob, Requeue, Retry
from application.ledger import Batch, Expired, IdempotencyKey, Ready
from application.news import JOBS, job_topic, queue_topic
from application.reports import (
    ArtifactReport,
    CancelReport,
    CompletionReport,
    Decided,
    FailureReport,
    ProgressReport,
    ReleaseReport,
    Reported,
    ReportedError,
    Say,
)
from application.rescue import MissHeartbeat
from domain.audit import GENESIS, chain
from domain.events import Artifact, Event, Progressed
from domain.job import Cause, Job
from domain.refusals import Conflict, LeaseLost
from infrastructure.postgres.batch import MOST_NAMED
from infrastructure.postgres.mapper import JobEvent
from infrastructure.postgres.persistence import BATCH_PATIENCE
from infrastructure.postgres.ready import Found, ReadyJobs
from tests.infrastructure.nodes import ASKED, PATIENCE, Node, ask, migrated, new_job
from tests.infrastructure.proxies import Cut, Proxy
from tests.waiting import eventually

EVENTS = """
SELECT originator_id, originator_version, topic, state, hash, notification_id
FROM events WHERE originator_id = ANY(%s) ORDER BY originator_id, originator_version
"""

BY_POSITION = """
SELECT originator_id, originator_version FROM events WHERE originator_id = ANY(%s) ORDER BY notification_id
"""
WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def nodes(dsn: str) -> Iterator[Callable[[], Node]]:
    """Makes servers that share the module's database."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Node(dsn))


@pytest.fixture
def node(nodes: Callable[[], Node]) -> Node:
    return nodes()


@pytest.fixture
def own(new_database: Callable[[], str]) -> str:
    """A migrated database of the test's own."""
    return migrated(new_database())


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as proxy:
        yield proxy


def topics(node: Node, id: UUID) -> list[str]:
    return [row[2] for row in ask(node.dsn, EVENTS, [[id]])]


def progress(id: UUID, message: str, attempt: int = 1) -> ProgressReport:
    return ProgressReport(job_id=id, attempt=attempt, message=message)


def created(answer: Any) -> UUID:
    assert isinstance(answer, Accepted), repr(answer)
    (id,) = answer.job_ids
    return id


class TestTheViewIsTheFold:
    @pytest.mark.parametrize("seed", range(4))
    def test_after_any_commands_every_row_equals_its_folded_stream(self, own: str, seed: int) -> None:
        with Node(own) as one, Node(own) as other:
            story = Story(random.Random(seed), [one, other])
            for _ in range(40):
                story.go_on()
                story.check()
            assert len(Counter(story.recorded())) >= 8, "the story is too dull to show anything"

    @pytest.mark.parametrize("seed", range(2))
    def test_every_hash_covers_its_predecessor_to_the_byte(self, own: str, seed: int) -> None:
        with Node(own) as one, Node(own) as other:
            story = Story(random.Random(100 + seed), [one, other])
            for _ in range(30):
                story.go_on()
            rows = ask(own, EVENTS, [story.ids])
        assert len(rows) > 30
        for _, stream in groupby(rows, key=lambda row: row[0]):
            previous, follows = GENESIS, 0
            for id, version, topic, state, hash, _ in stream:
                assert version == follows + 1
                previous, follows = chain(previous, id, version, topic, state), version
                assert hash == previous
                assert msgspec.json.decode(state)["type"] == topic


class TestNews:
    def test_who_waits_for_work_hears_only_of_work(self, node: Node) -> None:
        """Also when the jobs that moved are too many to name; each idle worker would look for work, again and again."""
        queue = "news"
        ids = node.started(*[new_job(queue=queue) for _ in range(MOST_NAMED + 3)])
        assert node.told[-2:] == [{queue_topic(queue)}, {JOBS}]
        done = [Say(report=CompletionReport(job_id=id, attempt=1), worker="w1") for id in ids]
        node.execute(*done[:2])
        assert node.told[-1] == {job_topic(id) for id in ids[:2]}
        node.execute(*[Requeue(job_id=id, reason="again", asked=ASKED) for id in ids[:2]])
        assert node.told[-1] == {queue_topic(queue), *map(job_topic, ids[:2])}
        released = [ReleaseReport(job_id=id, attempt=1, reason="later") for id in ids[2:]]
        node.execute(*[Say(report=report, worker="w1") for report in released])
        assert node.told[-1] == {queue_topic(queue), JOBS}


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


class TestIdempotencyKeys:
    def test_two_hundred_creates_with_one_key_on_three_servers_make_one_job(self, own: str) -> None:
        with ExitStack() as stack:
            servers = [stack.enter_context(Node(own)) for _ in range(3)]
            sizes = [1, 2, 5, 12, 20] * 5
            together = threading.Barrier(len(sizes))

            def send(n: int) -> list[Any]:
                together.wait(30)
                return servers[n % 3].execute(*[with_key("same") for _ in range(sizes[n])])

            with ThreadPoolExecutor(len(sizes)) as threads:
                answers = [answer for batch in threads.map(send, range(len(sizes))) for answer in batch]
        assert len(answers) == 200
        assert len({(created(answer), answer.position) for answer in answers}) == 1
        assert [answer.replayed for answer in answers].count(False) == 1
        assert ask(own, "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM jobs)") == [(1, 1)]

    def test_a_key_is_free_again_after_a_day(self, node: Node) -> None:
        first = created(node.one(with_key("daily")))
        age(node, "daily", "23 hours 59 minutes")
        assert node.one(with_key("daily")).job_ids == (first,)
        age(node, "daily", "24 hours 1 second")
        second = node.one(with_key("daily"))
        assert not second.replayed
        assert created(second) != first
        assert node.one(with_key("daily")) == Accepted((created(second),), second.position, replayed=True)

    def test_a_key_after_a_day_takes_another_request(self, node: Node) -> None:
        first = created(node.one(with_key("other day", b"one")))
        age(node, "other day", "25 hours")
        second = created(node.one(with_key("other day", b"two")))
        assert second != first
        with pytest.raises(IdempotencyMismatch):
            node.one(with_key("other day", b"one"))

    def test_one_key_for_two_requests_is_refused_wherever_they_meet(self, nodes: Callable[[], Node]) -> None:
        one, other = nodes(), nodes()
        first, second, third = one.execute(*[with_key("two", request) for request in (b"b", b"a", b"b")])
        assert not first.replayed
        assert isinstance(second, IdempotencyMismatch)
        assert third.job_ids == first.job_ids
        with pytest.raises(IdempotencyMismatch):
            other.one(with_key("two", b"a"))

    def test_keys_of_two_namespaces_do_not_meet(self, node: Node) -> None:
        keys = [IdempotencyKey(namespace, "shared", b"same") for namespace in ("left", "right")]
        answers = node.execute(
            *[Create([new_job()], Asked(by="key:test", namespace=key.namespace, key=key)) for key in keys]
        )
        assert len({created(answer) for answer in answers}) == 2

    def test_a_refused_command_leaves_its_key_free(self, node: Node) -> None:
        (id,) = node.create(new_job())
        key = IdempotencyKey("default", "refused", b"request")
        requeue = Requeue(job_id=id, reason="again", asked=Asked(by="key:test", key=key))
        with pytest.raises(Conflict):
            node.one(requeue)
        assert ask(node.dsn, "SELECT 1 FROM idempotency_keys WHERE key = 'refused'") == []
        node.one(Cancel(job_id=id, reason="first this", asked=ASKED))
        assert not node.one(requeue).replayed
        assert node.one(requeue).replayed
        assert topics(node, id) == ["job.created", "job.cancelled", "job.requeued"]

    def test_a_bad_neighbour_leaves_a_key_usable(self, node: Node) -> None:
        good, bad = node.execute(with_key("neighbour"), Create([new_job(kind="n\0l")], ASKED))
        assert isinstance(bad, Invalid)
        assert not good.replayed
        assert node.one(with_key("neighbour")).job_ids == good.job_ids


class TestABadRow:
    @pytest.mark.parametrize(
        "fields",
        [{"kind": "n\0l"}, {"labels": {"k": "\ud800"}}, {"kind": "\udfff"}, {"priority": 40_000}, {"queue": "\0"}],
        ids=["NUL", "a lone surrogate in a label", "a lone surrogate", "a number out of range", "NUL in the queue"],
    )
    def test_it_fails_alone_among_a_hundred(self, node: Node, fields: dict[str, Any]) -> None:
        answers = node.execute(*[Create([new_job(**(fields if n == 61 else {}))], ASKED) for n in range(100)])
        assert [n for n, answer in enumerate(answers) if not isinstance(answer, Accepted)] == [61]
        assert isinstance(answers[61], Invalid | UnicodeEncodeError)
        ids = [created(answer) for n, answer in enumerate(answers) if n != 61]
        assert [row[1:3] for row in ask(node.dsn, EVENTS, [ids])] == [(1, "job.created")] * 99
        assert all(node.views.jobs(ids))

    @pytest.mark.parametrize("text", ["n\0l", "\ud800"], ids=["NUL", "a lone surrogate"])
    def test_a_bad_report_fails_alone_and_its_job_goes_on(self, node: Node, text: str) -> None:
        ids = node.started(*[new_job(queue=f"bad-reports-{ord(text[0])}") for _ in range(20)])
        answers = node.execute(
            *[Say(report=progress(id, text if n == 7 else "fine"), worker="w1") for n, id in enumerate(ids)]
        )
        assert isinstance(answers.pop(7), Invalid | UnicodeEncodeError)
        assert answers == [Reported(version=3, cancel_requested=False)] * 19
        assert node.say(CompletionReport(job_id=ids[7], attempt=1)).version == 3
        assert topics(node, ids[7]) == ["job.created", "job.started", "job.completed"]

    def test_a_stream_that_cannot_be_read_harms_only_its_own_job(self, nodes: Callable[[], Node]) -> None:
        one, fresh = nodes(), nodes()
        ids = one.started(*[new_job(queue="unreadable") for _ in range(3)])
        from_tomorrow(one, ids[1], 3)
        for node in (one, fresh):
            answers = node.execute(*[Say(report=progress(id, str(id_of(node))), worker="w1") for id in ids])
            assert isinstance(answers[1], UnreadableStream)
            assert [type(answer) for answer in answers] == [Reported, UnreadableStream, Reported]

    def test_a_stream_that_cannot_be_read_does_not_hold_up_its_queue(self, nodes: Callable[[], Node]) -> None:
        one, fresh = nodes(), nodes()
        ids = one.create(*[new_job(queue="held up") for _ in range(3)])
        from_tomorrow(one, ids[0], 2)
        assert fresh.claim(queue="held up") == [ids[1]]
        assert fresh.claim(queue="held up") == [ids[2]]


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


class TestALostAnswer:
    @pytest.mark.parametrize("where", ["before COMMIT", "in COMMIT", "after COMMIT"])
    def test_creates_are_neither_lost_nor_doubled(self, dsn: str, proxy: Proxy, where: Cut) -> None:
        queue = f"lost {where}"
        with Node(proxy.dsn, prepare=False) as node:
            proxy.cut_next(where)
            answers = node.execute(*[Create([new_job(queue=queue)], ASKED) for _ in range(5)])
        assert proxy.cuts == 1
        ids = sorted(created(answer) for answer in answers)
        assert [row[0] for row in ask(dsn, "SELECT id FROM jobs WHERE queue = %s ORDER BY id", [queue])] == ids
        rows = ask(dsn, EVENTS, [ids])
        assert [row[1] for row in rows] == [1] * 5
        assert {row[5] for row in rows} == {answer.position for answer in answers}

    @pytest.mark.parametrize("where", ["before COMMIT", "in COMMIT", "after COMMIT"])
    def test_reports_are_neither_lost_nor_doubled(self, dsn: str, proxy: Proxy, where: Cut) -> None:
        with Node(proxy.dsn, prepare=False) as node:
            ids = node.started(*[new_job(queue=f"lost reports {where}") for _ in range(3)])
            proxy.cut_next(where)
            answers = node.execute(*[Say(report=CompletionReport(job_id=id, attempt=1), worker="w1") for id in ids])
            assert proxy.cuts == 1
            assert answers == [Reported(version=3, cancel_requested=False)] * 3
            assert [topics(node, id) for id in ids] == [["job.created", "job.started", "job.completed"]] * 3
        assert ask(dsn, "SELECT 1 FROM leases WHERE job_id = ANY(%s)", [ids]) == []

    @pytest.mark.parametrize("where", ["before COMMIT", "in COMMIT", "after COMMIT"])
    def test_a_key_is_answered_as_it_was_recorded(self, proxy: Proxy, where: Cut) -> None:
        with Node(proxy.dsn, prepare=False) as node:
            proxy.cut_next(where)
            first = node.one(with_key(f"lost {where}"))
            again = node.one(with_key(f"lost {where}"))
        assert proxy.cuts == 1
        assert again == Accepted(first.job_ids, first.position, replayed=True)

    @pytest.mark.parametrize("n", range(4))
    def test_what_was_sent_again_and_lost_again_has_the_place_where_it_is_at_last(self, node: Node, n: int) -> None:
        """A server that was promoted without it, say, after it was there and before a later commit confirmed it.

        Several times, since the places of some transactions cannot be told from a mixture with the one before.
        """
        ask(node.dsn, "SELECT pg_current_xact_id()")
        with node.ledger.batch(new_only=True) as batch:
            accepted = [Create([new_job(queue=f"lost again {n}")], ASKED).run(batch) for _ in range(2)]
            with node.log.batches.connection() as other, other.transaction(force_rollback=True):
                assert batch.took_place(other)
        ids = [created(answer) for answer in accepted]
        positions = [(answer.position,) for answer in accepted]
        recorded = "SELECT notification_id FROM events WHERE originator_id = ANY(%s) ORDER BY 1"
        assert ask(node.dsn, recorded, [ids]) == positions
        assert ask(node.dsn, "SELECT position FROM jobs WHERE id = ANY(%s) ORDER BY 1", [ids]) == positions
        assert [answer.view and answer.view.position for answer in accepted] == [
            str(position) for (position,) in positions
        ]

    @pytest.mark.parametrize("named", [False, True])
    def test_a_commit_that_is_still_under_way_is_waited_for(self, own: str, *, named: bool) -> None:
        """By the look-up of its transaction; by sending it once more, where it was a single statement."""
        with (
            commits_held_up(own) as gate,
            Proxy(own) as proxy,
            Node(proxy.dsn, prepare=False) as node,
            ThreadPoolExecutor(1) as thread,
        ):
            proxy.cut_next("in COMMIT")
            create = with_key("under way") if named else Create([new_job()], ASKED)
            answer = thread.submit(node.one, create)
            looking = "query LIKE '%pg_xact_status%'" if named else "wait_event = 'transactionid'"
            waits = f"SELECT 1 FROM pg_stat_activity WHERE {looking} AND pid <> pg_backend_pid()"
            eventually(lambda: gate.execute(waits).fetchall())
            assert not answer.done()
            gate.execute("SELECT pg_advisory_unlock(77)")
            ids = [created(answer.result(30))]
        assert [row[:2] for row in ask(own, EVENTS, [ids])] == [(ids[0], 1)]
        assert ask(own, "SELECT id FROM jobs") == [(ids[0],)]

    @pytest.mark.parametrize("named", [False, True])
    def test_a_commit_that_does_not_end_is_not_waited_for_as_long_as_a_statement_may_take(
        self, own: str, *, named: bool
    ) -> None:
        """That is half a minute, in which the node would record nothing else."""
        with commits_held_up(own) as gate, Proxy(own) as proxy, Node(proxy.dsn, prepare=False) as node:
            with ThreadPoolExecutor(1) as thread:
                proxy.cut_next("in COMMIT")
                answer = thread.submit(node.one, with_key("held up") if named else Create([new_job()], ASKED))
                try:
                    assert isinstance(answer.exception(BATCH_PATIENCE / 2), Unavailable)
                finally:
                    gate.execute("SELECT pg_advisory_unlock(77)")
            eventually(lambda: ask(own, "SELECT count(*) FROM jobs") == [(1,)])


@contextmanager
def commits_held_up(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection whose advisory lock 77 is waited for by every commit of a new job."""
    with psycopg.connect(dsn, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(77)")
        gate.execute("""
            CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NULL; END $$
        """)
        gate.execute("""
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION wait_at_commit()
        """)
        yield gate


class TestTheDatabaseGone:
    def test_a_connection_that_died_while_idle_is_replaced_unnoticed(self, node: Node) -> None:
        (id,) = node.started(new_job(queue="idle"))
        for n in range(3):
            terminate(node)
            assert node.say(progress(id, f"after {n}")).version == 3 + n

    @pytest.mark.parametrize("locking", [False, True])
    def test_a_connection_that_dies_within_a_batch_loses_nothing(self, node: Node, *, locking: bool) -> None:
        """What locks nothing is sent again as it was decided; what does is decided again."""
        (id,) = node.started(new_job(queue=f"torn {locking}"))
        once = Once(lambda: terminate(node), job_ids=(id,) if locking else ())
        queue = f"torn {locking} apart"
        answers = node.execute(Create([new_job(queue=queue)], ASKED), once, Create([new_job(queue=queue)], ASKED))
        assert once.tries == 1 + locking
        ids = sorted((created(answers[0]), created(answers[2])))
        assert [row[0] for row in ask(node.dsn, "SELECT id FROM jobs WHERE queue = %s ORDER BY id", [queue])] == ids

    def test_it_is_unavailable_while_it_is_away_and_as_before_when_it_is_back(self, proxy: Proxy) -> None:
        with Node(proxy.dsn, prepare=False) as node:
            (id,) = node.started(new_job(queue="away"))
            proxy.refuse()
            answers = node.execute(*[Say(report=progress(id, "nobody hears"), worker="w1")] * 3)
            assert [type(answer) for answer in answers] == [Unavailable] * 3
            proxy.accept_again()
            assert node.say(progress(id, "heard")).version == 3
            assert [e.message for e in node.log.stream(id) if isinstance(e, Progressed)] == ["heard"]


class Once(Struct):
    """Does something in the first batch it is run in."""

    act: Callable[[], None]
    tries: int = 0
    idempotency_key: None = None
    quota: None = None
    weight: int = 1
    job_ids: tuple[UUID, ...] = ()

    def run(self, batch: Batch) -> None:
        self.tries += 1
        if self.tries == 1:
            self.act()


class Story:
    """Random commands to a handful of jobs, through the servers in turn; also such as must be refused."""

    def __init__(self, chance: random.Random, nodes: list[Node]) -> None:
        self._chance = chance
        self._nodes = nodes
        self._said = 0
        self.ids: list[UUID] = []

    def go_on(self) -> None:
        """One batch of commands, or a claim, through one of the servers."""
        node = self._chance.choice(self._nodes)
        if not self.ids or (len(self.ids) < 8 and self._chance.random() < 0.3):
            self.ids += node.create(*[self._new_job() for _ in range(self._chance.randint(1, 3))])
        elif self._chance.random() < 0.35:
            node.claim(self._chance.choice(("w1", "w2")), self._chance.randint(1, 4), claim_id="claim")
        else:
            for answer in node.execute(*[self._command() for _ in range(self._chance.randint(1, 6))]):
                assert not isinstance(answer, Unavailable | Invalid), answer

    def check(self) -> None:
        """All columns of all rows, and the leases, are what the streams say."""
        node = self._chance.choice(self._nodes)
        dsn = node.dsn
        positions = dict(ask(dsn, "SELECT originator_id, max(notification_id) FROM events GROUP BY originator_id"))
        leases = {row[0]: row[1:] for row in ask(dsn, "SELECT job_id, attempt, worker, heartbeat_at FROM leases")}
        jobs = [node.log.fold(id) for id in self.ids]
        assert node.views.jobs(self.ids) == [
            JobView.of(job, positions[job.id], leases[job.id][2] if job.held else None) for job in jobs
        ]
        assert {id: lease[:2] for id, lease in leases.items()} == {
            job.id: (job.attempt, job.worker) for job in jobs if job.held
        }

    def recorded(self) -> list[str]:
        return [row[2] for row in ask(self._nodes[0].dsn, EVENTS, [self.ids])]

    def _new_job(self) -> NewJob:
        some = self._chance
        return new_job(
            input=Raw(msgspec.json.encode({"n": some.random(), "text": "żółw 🐢"})),
            queue="default",
            kind=some.choice(("a", "b")),
            priority=some.randint(-100, 100),
            run_at=datetime.now(UTC) + timedelta(seconds=some.choice((-60, 0))),
            max_attempts=some.randint(1, 3),
            retry=Retry(initial=0, factor=1, max=0),
            heartbeat_timeout=some.choice((0.5, 30.0)),
            time_limit=some.choice((None, 5.0)),
            labels=some.choice((None, {"team": "ż", "tier": ""})),
        )

    def _command(self) -> Command:
        some = self._chance
        id = some.choice(self.ids)
        job = self._nodes[0].log.fold(id)
        if some.random() < (0.15 if job.held else 0.6):
            return self._intervention(id, job)
        worker = (job.worker or "w1") if some.random() < 0.9 else "w3"
        return Say(report=self._report(id, max(1, job.attempt - (some.random() < 0.1))), worker=worker)

    def _intervention(self, id: UUID, job: Job) -> Command:
        match self._chance.randint(0, 3):
            case 0:
                return cast("Command", Cancel(job_id=id, reason=self._words(), asked=ASKED))
            case 1 | 2:
                afresh = self._chance.random() < 0.5
                return Requeue(job_id=id, reason=self._words(), asked=ASKED, afresh=afresh)
            case _:
                ask(self._nodes[0].dsn, "UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id = %s", [id])
                return MissHeartbeat(expired=Expired(id, job.attempt, datetime.now(UTC)))

    def _report(self, id: UUID, attempt: int) -> Decided:
        some = self._chance
        match some.randint(0, 8):
            case 0:
                return CompletionReport(job_id=id, attempt=attempt, result=Raw(b'{"ok": [1, 2.5, null]}'))
            case 1 | 2:
                error = ReportedError(type="Boom", message=self._words(), detail=Raw(b'{"at": 1}'))
                return FailureReport(job_id=id, attempt=attempt, error=error, final=some.random() < 0.2, retry_in=0)
            case 3:
                return ReleaseReport(job_id=id, attempt=attempt, reason=self._words())
            case 4:
                return CancelReport(job_id=id, attempt=attempt)
            case 5:
                name = some.choice(("page.html", "ż.png"))
                artifact = Artifact(name=name, sha256=f"{some.getrandbits(256):064x}", size=7, media_type="text/html")
                return ArtifactReport(job_id=id, attempt=attempt, artifact=artifact)
            case 6:
                return ProgressReport(job_id=id, attempt=attempt, step=self._words(), handle=Raw(b'"render-1"'))
            case 7:
                return ProgressReport(job_id=id, attempt=attempt, step=self._words(), output=Raw(b"[1]"))
            case _:
                return ProgressReport(job_id=id, attempt=attempt, progress=some.random(), message=self._words())

    def _words(self) -> str:
        self._said += 1
        return f"said {self._said}: ½ – żółw"


def with_key(key: str, fingerprint: bytes = b"request") -> Create:
    named = IdempotencyKey("default", key, fingerprint)
    return Create([new_job()], Asked(by="key:test", key=named))


def age(node: Node, key: str, interval: str) -> None:
    ask(node.dsn, "UPDATE idempotency_keys SET used_at = now() - %s::interval WHERE key = %s", [interval, key])


def append_behind(node: Node, id: UUID, version: int, *events: Event) -> None:
    """Append to a stream without the ledger's locks, as a writer that knows nothing of them would."""
    mapper = node.log.mapper
    stored = [mapper.to_stored_event(cast("Any", JobEvent(id, version + n, event))) for n, event in enumerate(events)]
    node.log.recorder.insert_events(stored)


def from_tomorrow(node: Node, id: UUID, version: int) -> None:
    state = b'{"type":"job.teleported","at":"2031-01-01T00:00:00Z","by":"key:later"}'
    node.log.recorder.insert_events([StoredEvent(id, version, "job.teleported", state)])


def id_of(node: Node) -> str:
    return f"server {id(node)}"


def terminate(node: Node) -> None:
    """End all of this database's sessions on the server but the one that asks."""
    ask(
        node.dsn,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


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

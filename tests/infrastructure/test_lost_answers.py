"""Connections that die, in COMMIT and elsewhere: what was recorded is looked up, never guessed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
from msgspec import Struct

from application.errors import Unavailable
from application.jobs import Accepted, Create
from application.ledger import Batch
from application.reports import (
    CompletionReport,
    Reported,
    Say,
)
from domain.events import Progressed
from infrastructure.postgres.persistence import BATCH_PATIENCE
from tests.infrastructure.commands import EVENTS, created, progress, topics, with_key
from tests.infrastructure.nodes import ASKED, Node, ask, new_job
from tests.infrastructure.proxies import Cut, Proxy
from tests.waiting import eventually


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


def terminate(node: Node) -> None:
    """End all of this database's sessions on the server but the one that asks."""
    ask(
        node.dsn,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )

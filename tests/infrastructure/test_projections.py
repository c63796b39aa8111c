"""Projections: what views tell, and that they tell the same however they came to be."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from application.jobs import Cancel, Requeue
from application.projections import Rows
from application.projector import fold
from application.reports import CompletionReport, FailureReport, ReleaseReport, ReportedError
from tests.infrastructure.nodes import ASKED, Node, ask, migrated, new_job
from tests.infrastructure.views import Desk, break_event


@pytest.fixture
def node(dsn: str) -> Iterator[Node]:
    with Node(dsn) as node:
        yield node


@pytest.fixture
def desk(dsn: str) -> Iterator[Desk]:
    desk = Desk(dsn)
    yield desk
    desk.close()


def totals(rows: Rows, queue: str, *names: str) -> list[int]:
    """Sums over the minutes of a queue."""
    return [sum(getattr(counts, name) for key, counts in rows.items() if key[2] == queue) for name in names]


def a_life_of_each_kind(node: Node, queue: str) -> dict[str, UUID]:
    """Jobs of a queue of their own that end in every way."""
    names = ("completed", "failed", "retried", "released", "cancelled", "requeued", "queued")
    never = {"queue": queue, "max_attempts": 1}
    *held, queued = node.create(*(new_job(**never) for _ in names[:-1]), new_job(queue=queue, kind="other"))
    node.claim(count=len(held), queue=queue, kinds=("nothing",))
    jobs = dict(zip(names, (*held, queued), strict=True))
    error = ReportedError(type="TypeError", message="no")
    node.say(CompletionReport(job_id=jobs["completed"], attempt=1))
    node.say(FailureReport(job_id=jobs["failed"], attempt=1, error=error, final=True))
    node.say(FailureReport(job_id=jobs["retried"], attempt=1, error=error))
    node.say(ReleaseReport(job_id=jobs["released"], attempt=1, reason="drain"))
    node.one(Cancel(job_id=jobs["cancelled"], reason="enough", asked=ASKED))
    node.say(ReleaseReport(job_id=jobs["cancelled"], attempt=1, reason="drain"))
    node.say(CompletionReport(job_id=jobs["requeued"], attempt=1))
    node.one(Requeue(job_id=jobs["requeued"], reason="again", asked=ASKED))
    return jobs


def test_stats_count_what_happened_and_time_it(node: Node, desk: Desk) -> None:
    a_life_of_each_kind(node, "lives")
    desk.catch_up()
    rows = desk.rows("stats")
    names = ("created", "started", "completed", "failed", "released", "cancelled", "requeued")
    assert totals(rows, "lives", *names) == [7, 6, 2, 2, 2, 1, 1]
    waits = sum(sum(counts.waits.values()) for key, counts in rows.items() if key[2] == "lives")
    runs = sum(sum(counts.runs.values()) for key, counts in rows.items() if key[2] == "lives")
    assert (waits, runs) == (6, 6)
    assert desk.fresh("stats") == rows


def test_a_job_whose_beginning_was_read_long_ago_is_counted_in_its_place(node: Node, desk: Desk, dsn: str) -> None:
    (id,) = node.started(new_job(queue="late"))
    desk.catch_up()
    node.say(CompletionReport(job_id=id, attempt=1))
    later = Desk(dsn)
    later.catch_up()
    later.close()
    (counts,) = [counts for key, counts in desk.rows("stats").items() if key[2] == "late"]
    assert (counts.completed, len(counts.runs)) == (1, 1)
    assert desk.fresh("stats") == desk.rows("stats")


def test_projectors_side_by_side_count_everything_once(node: Node, desk: Desk, dsn: str) -> None:
    desks = [Desk(dsn) for _ in range(3)]
    with ThreadPoolExecutor(len(desks)) as pool:
        for n in range(5):
            node.create(*(new_job(queue="shared") for _ in range(50)))
            list(pool.map(Desk.catch_up, desks))
            assert totals(desk.rows("stats"), "shared", "created") == [50 * (n + 1)]
    for each in desks:
        each.close()


def test_who_was_second_at_a_batch_writes_nothing_and_rests(node: Node, desk: Desk, dsn: str) -> None:
    desk.catch_up()
    (standing,) = [s for s in desk.checkpoints.standings() if s.name == "stats"]
    node.create(new_job(queue="second"))
    other = Desk(dsn)
    other.catch_up()
    other.close()
    assert not desk.checkpoints.advance(standing, fold(desk.views["stats"], [], standing.position))
    assert totals(desk.rows("stats"), "second", "created") == [1]


def test_an_event_that_nobody_can_read_parks_every_projection_before_it(new_database: Callable[[], str]) -> None:
    dsn = migrated(new_database())
    desk = Desk(dsn)
    with Node(dsn) as node:
        (id,) = node.started(new_job())
        desk.catch_up()
        break_event(dsn, id)
        node.create(new_job())
        desk.catch_up()
        (standing,) = [s for s in desk.checkpoints.standings() if s.name == "stats"]
        assert standing.parked
        parked = ask(dsn, "SELECT parked_job_id, parked_version, parked_error FROM projections WHERE name = 'stats'")
        assert parked[0][:2] == (id, 3)
        assert "job.unheard_of" in parked[0][2]
        assert totals(desk.rows("stats"), "default", "created", "started") == [1, 1]
        assert desk.projector.run_once("stats") == 0
    desk.close()

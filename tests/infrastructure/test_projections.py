"""Projections: what views tell, and that they tell the same however they came to be."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from msgspec import Raw

from application.histogram import Histogram, observe, percentile
from application.jobs import Cancel, Requeue
from application.projections import Rows
from application.projector import fold
from application.reports import (
    ArtifactReport,
    CompletionReport,
    Decided,
    FailureReport,
    ProgressReport,
    ReleaseReport,
    ReportedError,
)
from domain.events import Artifact
from infrastructure.postgres.projections import VIEWS
from tests.infrastructure.nodes import ASKED, Node, ask, migrated, new_job
from tests.infrastructure.views import NUL_WORKER, UNHEARD_OF, Desk, append_by_hand


@pytest.fixture
def desk(dsn: str) -> Iterator[Desk]:
    desk = Desk(dsn)
    yield desk
    desk.close()


def sums(rows: Rows, queue: str, *names: str) -> list[int]:
    """Sums over the minutes of a queue."""
    return [sum(getattr(counts, name) for key, counts in rows.items() if key[2] == queue) for name in names]


def lives(node: Node, name: str) -> dict[str, UUID]:
    """Jobs of a queue, a kind and a worker of that name, which end in every way."""
    ends = ("completed", "failed", "retried", "released", "cancelled", "requeued", "missed", "queued")
    *held, queued = node.create(*(new_job(queue=name, kind=name, max_attempts=2) for _ in ends))
    assert node.claim(name, len(held), queue=name) == held
    jobs = dict(zip(ends, (*held, queued), strict=True))

    def say(report: Decided) -> None:
        node.say(report, name)

    say(CompletionReport(job_id=jobs["completed"], attempt=1))
    say(failure(jobs["failed"], "order 17 of 2026-01-02T03:04:05Z is 0xBAD", final=True))
    say(failure(jobs["retried"], "order 4711 of 2026-01-03T03:04:05Z is 0xDEAD"))
    say(ReleaseReport(job_id=jobs["released"], attempt=1, reason="drain"))
    node.one(Cancel(job_id=jobs["cancelled"], reason="enough", asked=ASKED))
    say(ReleaseReport(job_id=jobs["cancelled"], attempt=1, reason="drain"))
    say(CompletionReport(job_id=jobs["requeued"], attempt=1))
    node.one(Requeue(job_id=jobs["requeued"], reason="again", asked=ASKED))
    node.rescue(jobs["missed"])
    return jobs


def failure(job_id: UUID, message: str, **fields: Any) -> FailureReport:
    return FailureReport(job_id=job_id, attempt=1, error=ReportedError(type="ShopError", message=message), **fields)


@pytest.mark.parametrize("name", [view.name for view in VIEWS])
def test_a_view_is_the_same_however_it_came_to_be(node: Node, desk: Desk, name: str) -> None:
    lives(node, f"same-{name}")
    desk.catch_up()
    lives(node, f"same-{name}-2")
    desk.catch_up()
    assert desk.rows(name)
    assert desk.fresh(name) == desk.rows(name)


def test_stats_count_what_happened_and_time_it(node: Node, desk: Desk) -> None:
    lives(node, "stats")
    desk.catch_up()
    rows = desk.rows("stats")
    names = ("created", "started", "completed", "failed", "retried", "missed", "released", "cancelled", "requeued")
    assert sums(rows, "stats", *names) == [8, 7, 2, 1, 1, 1, 2, 1, 1]
    timed = [counts for key, counts in rows.items() if key[2] == "stats"]
    assert sum(sum(counts.waits.values()) for counts in timed) == 7
    assert sum(sum(counts.runs.values()) for counts in timed) == 7


def test_totals_know_how_many_jobs_are_in_each_status(node: Node, desk: Desk) -> None:
    lives(node, "totals")
    desk.catch_up()
    total = desk.rows("totals")["default", "totals", "totals"]
    assert (total.now_queued, total.now_running, total.now_completed) == (5, 0, 1)
    assert (total.now_failed, total.now_cancelled, total.now_cancelling) == (1, 1, 0)
    assert (total.created, total.runs) == (8, 7)
    assert total.ran_us > 0


def test_workers_are_seen_at_work(node: Node, desk: Desk) -> None:
    lives(node, "hands")
    desk.catch_up()
    row = desk.rows("workers")["default", "hands"]
    assert (row.started, row.completed, row.failed, row.missed, row.released) == (7, 2, 2, 1, 2)
    assert row.first_seen < row.last_seen


def test_failures_alike_are_one(node: Node, desk: Desk) -> None:
    jobs = lives(node, "alike")
    desk.catch_up()
    rows = {key[2]: row for key, row in desk.rows("failures").items() if key[1] == "alike"}
    assert rows.keys() == {"ShopError", "heartbeat-missed"}
    row = rows["ShopError"]
    assert (row.count, row.final, row.examples) == (2, 1, [jobs["failed"], jobs["retried"]])
    assert row.message == "order 4711 of 2026-01-03T03:04:05Z is 0xDEAD"
    assert (rows["heartbeat-missed"].count, rows["heartbeat-missed"].final) == (1, 0)


def test_the_last_missed_heartbeat_is_one_failure(node: Node, desk: Desk) -> None:
    (id,) = node.started(new_job(queue="last", kind="last", max_attempts=1))
    assert node.rescue(id) == "failed"
    desk.catch_up()
    (row,) = [row for key, row in desk.rows("failures").items() if key[1] == "last"]
    assert (row.count, row.final, row.examples) == (1, 1, [id])


def test_examples_are_the_last_five(node: Node, desk: Desk) -> None:
    ids = node.started(*(new_job(queue="five", kind="five") for _ in range(8)))
    for id in ids:
        node.say(failure(id, "no", final=True))
        desk.catch_up()
    (row,) = [row for key, row in desk.rows("failures").items() if key[1] == "five"]
    assert row.examples == ids[-5:]
    assert desk.fresh("failures") == desk.rows("failures")


def test_usage_adds_up_run_time_bytes_and_tokens(node: Node, desk: Desk) -> None:
    (id,) = node.started(new_job(queue="usage", kind="usage"))
    outputs = (
        b'{"usage":{"model":"m1","input_tokens":10,"output_tokens":3}}',
        b'{"usage":{"model":"m1","input_tokens":5,"output_tokens":1,"cached":2},"text":"a"}',
        b'{"usage":{"model":"m2","input_tokens":1,"output_tokens":1}}',
        b'{"usage":"heavy"}',
        b'{"usage":{"model":"m1","input_tokens":-5,"output_tokens":1}}',
        b'["usage"]',
        b'{"usage":null}',
    )
    for n, output in enumerate(outputs):
        node.say(ProgressReport(job_id=id, attempt=1, step=f"step {n}", output=Raw(output)))
    artifact = Artifact(name="a", sha256="ab" * 32, size=1234, media_type="text/html")
    node.say(ArtifactReport(job_id=id, attempt=1, artifact=artifact))
    node.say(CompletionReport(job_id=id, attempt=1))
    desk.catch_up()
    rows = {key[3]: row for key, row in desk.rows("usage").items() if key[2] == "usage"}
    assert (rows["m1"].input_tokens, rows["m1"].output_tokens) == (15, 4)
    assert (rows["m2"].input_tokens, rows["m2"].output_tokens) == (1, 1)
    assert (rows[""].attempts, rows[""].artifact_bytes) == (1, 1234)
    assert rows[""].run_us > 0


def test_percentiles_are_true_to_a_twentieth() -> None:
    dice = random.Random(20)
    durations = sorted(int(dice.lognormvariate(13, 2)) for _ in range(10_000))
    counts: Histogram = {}
    for duration in durations:
        observe(counts, duration)
    for share in (0.5, 0.9, 0.95, 0.99):
        true = durations[int(len(durations) * share) - 1] / 1e6
        told = percentile(counts, share)
        assert told is not None
        assert abs(told - true) <= true * 0.0489
    assert percentile({}, 0.5) is None


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
            assert sums(desk.rows("stats"), "shared", "created") == [50 * (n + 1)]
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
    assert sums(desk.rows("stats"), "second", "created") == [1]


def test_an_event_that_nobody_can_read_parks_every_projection_before_it(new_database: Callable[[], str]) -> None:
    dsn = migrated(new_database())
    desk = Desk(dsn)
    with Node(dsn) as node:
        (id,) = node.started(new_job())
        desk.catch_up()
        append_by_hand(dsn, id, UNHEARD_OF)
        node.create(new_job())
        desk.catch_up()
        (standing,) = [s for s in desk.checkpoints.standings() if s.name == "stats"]
        assert standing.parked
        parked = ask(dsn, "SELECT parked_job_id, parked_version, parked_error FROM projections WHERE name = 'stats'")
        assert parked[0][:2] == (id, 3)
        assert "job.unheard_of" in parked[0][2]
        assert sums(desk.rows("stats"), "default", "created", "started") == [1, 1]
        assert desk.projector.run_once("stats") == 0
    desk.close()


def test_an_event_that_one_view_cannot_keep_parks_that_one_and_no_other(new_database: Callable[[], str]) -> None:
    dsn = migrated(new_database())
    desk = Desk(dsn)
    with Node(dsn) as node:
        node.started(new_job(), new_job())
        (id,) = node.create(new_job())
        append_by_hand(dsn, id, NUL_WORKER)
        node.create(new_job())
        desk.catch_up()
        assert {s.name for s in desk.checkpoints.standings() if s.parked} == {"workers"}
        ((parked, error),) = ask(dsn, "SELECT parked_job_id, parked_error FROM projections WHERE name = 'workers'")
        assert parked == id
        assert "0x00" in error
        assert desk.rows("workers")["default", "w1"].started == 2
        assert sums(desk.rows("stats"), "default", "created", "started") == [4, 3]
    desk.close()

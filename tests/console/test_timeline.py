"""The picture of a job's events: lanes, stretches, marks and how each attempt ended."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from application.jobs import EventView
from domain.events import JobError
from interfaces.console.timeline import draw, told

BEGUN = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def happened(second: float, type: str, by: str = "worker:w1", **data: Any) -> EventView:
    return EventView(
        job_id=UUID(int=1),
        version=1,
        position="1",
        type=f"job.{type}",
        at=BEGUN + timedelta(seconds=second),
        by=by,
        trace=None,
        hash="",
        data=data,
    )


CREATED = happened(0, "created", "key:shop", kind="order")


def started(second: float, attempt: int) -> EventView:
    return happened(second, "started", attempt=attempt, worker=f"w{attempt}")


def test_attempts_are_lanes_one_below_the_other() -> None:
    error = JobError(type="OutOfBoxes", message="no box")
    events = [
        CREATED,
        started(1, 1),
        happened(3, "heartbeat_missed", "system:rescue", attempt=1),
        started(4, 2),
        happened(5, "failed", attempt=2, error=error),
        started(6, 3),
        happened(10, "completed", attempt=3, result=None),
    ]
    drawn = draw(events, BEGUN + timedelta(days=1))
    assert [(lane.attempt, lane.worker, lane.outcome) for lane in drawn.lanes] == [
        (1, "w1", "missed"),
        (2, "w2", "failed"),
        (3, "w3", "completed"),
    ]
    assert [(lane.stretches[0].begin, lane.stretches[0].width) for lane in drawn.lanes] == [
        (10, 20),
        (40, 10),
        (60, 40),
    ]
    assert len({lane.y for lane in drawn.lanes}) == 3
    assert drawn.height > max(lane.y for lane in drawn.lanes)
    assert (drawn.seconds, [mark.type for mark in drawn.asked]) == (10, ["job.created"])


def test_steps_are_stretches_up_to_the_moment_they_were_recorded() -> None:
    step: dict[str, Any] = {"attempt": 1, "step": "charge", "output": "paid"}
    events = [CREATED, started(0, 1), happened(4, "progressed", **step), happened(10, "completed", attempt=1, result=1)]
    [lane] = draw(events, BEGUN).lanes
    assert [(s.begin, s.width, s.label) for s in lane.stretches] == [(0, 40, "charge"), (40, 60, "completed")]


def test_what_runs_is_drawn_up_to_now() -> None:
    message = happened(2, "progressed", attempt=1, message="packing")
    drawn = draw([CREATED, started(0, 1), message], BEGUN + timedelta(seconds=8))
    [lane] = drawn.lanes
    assert (lane.outcome, lane.stretches[0].width, drawn.seconds) == ("running", 100, 8)
    assert [(mark.at, mark.type) for mark in lane.marks] == [(25, "job.progressed")]


def test_a_cancelled_attempt_ends_where_it_was_cancelled_and_says_by_whom() -> None:
    wanted = happened(2, "cancel_requested", "key:anna", reason="asked twice")
    ended = happened(4, "cancelled", reason="asked twice")
    drawn = draw(
        [CREATED, started(0, 1), wanted, ended, happened(8, "requeued", "key:anna", reason="after all")], BEGUN
    )
    [lane] = drawn.lanes
    assert (lane.outcome, lane.stretches[0].width) == ("cancelled", 50)
    assert [mark.title for mark in drawn.asked][1] == "12:00:02 cancel requested by key:anna: asked twice"


def test_an_attempt_that_began_before_the_picture_is_its_worker_s_too() -> None:
    later = happened(5, "progressed", "worker:w9", attempt=7, message="row 500")
    [lane] = draw([later], BEGUN + timedelta(seconds=8)).lanes
    assert (lane.attempt, lane.worker) == (7, "w9")


def test_the_ends_of_a_picture_of_several_days_have_dates() -> None:
    day, days = draw([CREATED, started(3600, 1)], BEGUN), draw([CREATED, started(86400, 1)], BEGUN)
    assert day.ended.strftime(day.clock) == "13:00:00"
    assert (days.begun.strftime(days.clock), days.ended.strftime(days.clock)) == ("Jan 02, 12:00", "Jan 03, 12:00")


def test_a_job_that_only_waits_has_no_lane() -> None:
    drawn = draw([CREATED], BEGUN + timedelta(hours=1))
    assert (drawn.lanes, len(drawn.asked)) == ([], 1)


def test_an_event_is_told_with_its_reasons() -> None:
    failed = happened(1, "failed", attempt=1, error=JobError(type="OutOfBoxes", message="no box"))
    assert told(failed) == "12:00:01 failed by worker:w1: no box"

"""The rules of a job, one sentence each."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from domain.events import (
    Artifact,
    Cancelled,
    CancelRequested,
    Completed,
    Created,
    Event,
    Failed,
    HeartbeatMissed,
    JobError,
    Progressed,
    Released,
    Requeued,
    Started,
)
from domain.job import Cause, Job, evolve
from domain.refusals import Conflict, JobFinished, LeaseLost, Refused
from domain.retry import RetryPolicy

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=1)
LAST_BEAT = START + timedelta(seconds=30)
CAUSE = Cause(NOW, "worker:w1")
RESULT = Raw(b'{"answer":42}')
BOOM = JobError(type="ValueError", message="boom")

CREATED = Created(
    namespace="default",
    kind="render",
    queue="gpu",
    priority=5,
    input=Raw(b'{"question":"why?"}'),
    run_at=START,
    max_attempts=2,
    retry=RetryPolicy(initial=10, factor=2, max=3600),
    heartbeat_timeout=30,
    labels={"team": "blue"},
    at=START,
    by="key:shop",
)


def given(*events: Event) -> Job:
    return Job.fold(ID, list(events))


def after(job: Job, decided: list[Event]) -> Job:
    for event in decided:
        evolve(job, event)
    return job


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def created(*, run_at: datetime = START, max_attempts: int = 2, trace: str | None = None) -> Created:
    return replace(CREATED, run_at=run_at, max_attempts=max_attempts, trace=trace)


def started(attempt: int, worker: str = "w1") -> Started:
    return Started(attempt=attempt, worker=worker, at=NOW, by="worker:w1")


def progressed(
    attempt: int,
    progress: float = 0.0,
    *,
    step: str | None = None,
    message: str | None = None,
    output: Raw | UnsetType = UNSET,
    handle: Raw | UnsetType = UNSET,
    artifact: Artifact | None = None,
) -> Progressed:
    return Progressed(
        attempt=attempt,
        progress=progress,
        step=step,
        message=message,
        output=output,
        handle=handle,
        artifact=artifact,
        at=NOW,
        by="worker:w1",
    )


def missed(attempt: int, retry_at: datetime | None = NOW) -> HeartbeatMissed:
    return HeartbeatMissed(
        attempt=attempt, worker="w1", last_heartbeat=LAST_BEAT, retry_at=retry_at, at=NOW, by="worker:w1"
    )


def completed(attempt: int, result: Raw = RESULT) -> Completed:
    return Completed(attempt=attempt, result=result, at=NOW, by="worker:w1")


def failed(attempt: int, error: JobError = BOOM, retry_at: datetime | None = None) -> Failed:
    return Failed(attempt=attempt, error=error, retry_at=retry_at, at=NOW, by="worker:w1")


def released(attempt: int) -> Released:
    return Released(attempt=attempt, worker="w1", reason="deploy", at=NOW, by="worker:w1")


def cancel_requested() -> CancelRequested:
    return CancelRequested(reason="too dear", at=NOW, by="worker:w1")


def cancelled(reason: str = "too dear") -> Cancelled:
    return Cancelled(reason=reason, at=NOW, by="worker:w1")


def requeued(*, afresh: bool = False) -> Requeued:
    return Requeued(reason="fixed", afresh=afresh, at=NOW, by="worker:w1")


HEARTBEAT_MISSED = JobError(
    type="heartbeat-missed", message="no heartbeat from worker w1 since 2026-03-01T10:00:30+00:00"
)
PAGE = Artifact(name="page", sha256="ab" * 32, size=3, media_type="text/html")
RUNNING: tuple[Event, ...] = (CREATED, started(1))
CANCELLING: tuple[Event, ...] = (*RUNNING, cancel_requested())
FINISHED: dict[str, tuple[Event, ...]] = {
    "completed": (*RUNNING, completed(1)),
    "failed": (*RUNNING, failed(1)),
    "cancelled": (*CANCELLING, cancelled()),
}

Ask = Callable[[Job], list[Event]]
REPORTS: dict[str, Callable[[int, str], Ask]] = {
    "progressed": lambda attempt, worker: lambda job: job.progressed(attempt, worker, CAUSE, progress=0.9),
    "completed": lambda attempt, worker: lambda job: job.complete(attempt, worker, Raw(b'"other"'), CAUSE),
    "failed": lambda attempt, worker: (
        lambda job: job.fail(attempt, worker, JobError(type="other", message="other"), CAUSE, jitter=1)
    ),
    "released": lambda attempt, worker: lambda job: job.release(attempt, worker, "deploy", CAUSE),
    "cancelled": lambda attempt, worker: lambda job: job.acknowledge_cancel(attempt, worker, None, CAUSE),
}
SAID: dict[str, tuple[tuple[Event, ...], Ask]] = {
    "progressed": (
        (progressed(1, 0.5, step="draw", message="half"),),
        lambda job: job.progressed(1, "w1", CAUSE, progress=0.5, step="draw", message="half"),
    ),
    "a step's output": (
        (progressed(1, step="draw", output=Raw(b"1")), progressed(1, 0.5, step="tell")),
        lambda job: job.progressed(1, "w1", CAUSE, step="draw", output=Raw(b"1")),
    ),
    "a handle": (
        (progressed(1, step="render", handle=Raw(b'"r1"')), progressed(1, 0.5, step="tell")),
        lambda job: job.progressed(1, "w1", CAUSE, step="render", handle=Raw(b'"r1"')),
    ),
    "a file": (
        (progressed(1, artifact=PAGE), progressed(1, 0.5, step="tell")),
        lambda job: job.progressed(1, "w1", CAUSE, artifact=PAGE),
    ),
    "failed": ((failed(1, retry_at=NOW),), lambda job: job.fail(1, "w1", BOOM, CAUSE, jitter=0.5)),
    "released": ((released(1),), lambda job: job.release(1, "w1", "deploy", CAUSE)),
}
LAST_WORDS: dict[str, tuple[tuple[Event, ...], Ask]] = {
    "completed": ((completed(1),), lambda job: job.complete(1, "w1", RESULT, CAUSE)),
    "failed": ((failed(1),), lambda job: job.fail(1, "w1", BOOM, CAUSE, jitter=0.5)),
    "cancelled": (
        (cancel_requested(), cancelled()),
        lambda job: job.acknowledge_cancel(1, "w1", None, CAUSE),
    ),
}


def refused(job: Job, ask: Ask) -> Refused:
    """The refusal; asking must leave the job as it was."""
    before = deepcopy(job)
    with pytest.raises(Refused) as info:
        ask(job)
    assert job == before
    return info.value


class TestCreated:
    def test_a_created_job_is_queued_with_everything_it_was_asked_with(self) -> None:
        job = given(created(trace="t1"))
        assert job.status == "queued"
        assert (job.version, job.attempt, job.failures, job.progress) == (1, 0, 0, 0.0)
        assert (job.namespace, job.kind, job.queue, job.priority) == ("default", "render", "gpu", 5)
        assert (job.input, job.labels, job.run_at) == (CREATED.input, {"team": "blue"}, START)
        assert (job.max_attempts, job.retry, job.heartbeat_timeout, job.time_limit) == (2, CREATED.retry, 30, None)
        assert (job.created_at, job.updated_at, job.started_at, job.finished_at) == (START, START, None, None)
        assert job.trace == "t1"

    def test_folding_nothing_is_a_job_nobody_has_asked_for_yet(self) -> None:
        assert given() == Job(id=ID)
        assert given().version == 0


class TestStarting:
    def test_a_due_queued_job_is_started(self) -> None:
        job = given(CREATED)
        assert job.start("w1", CAUSE) == [started(1)]
        after(job, [started(1)])
        assert (job.status, job.worker, job.attempt, job.started_at) == ("running", "w1", 1, NOW)
        assert job.held

    def test_a_job_is_not_started_before_its_time(self) -> None:
        refusal = refused(given(created(run_at=NOW + seconds(1))), lambda job: job.start("w1", CAUSE))
        assert type(refusal) is Conflict
        assert str(refusal) == f"job {ID} is not due before 2026-03-01T10:01:01+00:00"

    def test_a_job_is_started_at_the_very_moment_it_is_due(self) -> None:
        assert given(created(run_at=NOW)).start("w1", CAUSE) == [started(1)]

    def test_a_retry_is_not_started_before_its_backoff_is_over(self) -> None:
        job = given(*RUNNING, failed(1, retry_at=NOW + seconds(10)))
        assert type(refused(job, lambda job: job.start("w2", CAUSE))) is Conflict
        assert job.start("w2", Cause(NOW + seconds(10), "worker:w2"))

    def test_each_start_is_the_previous_attempt_plus_one(self) -> None:
        assert given(*RUNNING, released(1)).start("w1", CAUSE) == [started(2)]
        assert given(*RUNNING, missed(1)).start("w1", CAUSE) == [started(2)]
        assert given(*RUNNING, failed(1), requeued()).start("w1", CAUSE) == [started(2)]

    @pytest.mark.parametrize("history", [RUNNING, CANCELLING], ids=["running", "cancelling"])
    def test_a_job_that_is_held_is_not_started(self, history: tuple[Event, ...]) -> None:
        refusal = refused(given(*history), lambda job: job.start("w2", CAUSE))
        assert type(refusal) is Conflict
        assert str(ID) in str(refusal)


class TestProgress:
    def test_progress_is_recorded_with_its_step_and_message(self) -> None:
        job = given(*RUNNING)
        decided = job.progressed(1, "w1", CAUSE, progress=0.25, step="draw", message="drawing")
        assert decided == [progressed(1, 0.25, step="draw", message="drawing")]
        after(job, decided)
        assert (job.status, job.progress, job.step, job.message) == ("running", 0.25, "draw", "drawing")

    def test_progress_never_falls_within_an_attempt(self) -> None:
        job = given(*RUNNING, progressed(1, 0.5))
        assert job.progressed(1, "w1", CAUSE, progress=0.2, message="again") == [progressed(1, 0.5, message="again")]

    def test_a_new_attempt_begins_at_the_progress_last_recorded(self) -> None:
        job = given(*RUNNING, progressed(1, 0.75), missed(1), started(2, "w2"))
        assert job.progress == 0.75
        assert job.progressed(2, "w2", CAUSE, progress=0.1, message="warm") == [progressed(2, 0.75, message="warm")]
        assert job.progressed(2, "w2", CAUSE, progress=0.8) == [progressed(2, 0.8)]

    def test_a_message_alone_keeps_the_progress(self) -> None:
        job = given(*RUNNING, progressed(1, 0.5, step="draw"))
        decided = job.progressed(1, "w1", CAUSE, message="nearly")
        assert decided == [progressed(1, 0.5, message="nearly")]
        assert after(job, decided).step == "draw"

    def test_a_report_that_says_nothing_new_records_nothing(self) -> None:
        job = given(*RUNNING, progressed(1, 0.5, step="draw", message="half", artifact=PAGE))
        assert job.progressed(1, "w1", CAUSE) == []
        assert job.progressed(1, "w1", CAUSE, progress=0.4, step="draw") == []
        assert job.progressed(1, "w1", CAUSE, artifact=PAGE) == []

    def test_a_completed_job_is_all_done(self) -> None:
        assert given(*RUNNING, progressed(1, 0.3), completed(1)).progress == 1.0

    def test_a_failed_or_cancelled_job_stays_at_the_progress_it_reached(self) -> None:
        assert given(*RUNNING, progressed(1, 0.3), failed(1)).progress == 0.3
        assert given(*RUNNING, progressed(1, 0.3), cancel_requested(), cancelled()).progress == 0.3

    def test_a_cancelling_job_may_still_progress(self) -> None:
        assert given(*CANCELLING).progressed(1, "w1", CAUSE, progress=0.5) == [progressed(1, 0.5)]


class TestSteps:
    def test_a_steps_output_is_recorded_once(self) -> None:
        job = given(*RUNNING)
        decided = job.progressed(1, "w1", CAUSE, step="draw", output=RESULT)
        assert decided == [progressed(1, step="draw", output=RESULT)]
        assert after(job, decided).steps == {"draw": RESULT}
        assert job.progressed(1, "w1", CAUSE, step="draw", output=RESULT) == []

    def test_null_is_an_output_like_any_other(self) -> None:
        job = given(*RUNNING)
        decided = job.progressed(1, "w1", CAUSE, step="draw", output=Raw(b"null"))
        assert decided == [progressed(1, step="draw", output=Raw(b"null"))]
        assert after(job, decided).steps == {"draw": Raw(b"null")}

    def test_another_output_for_a_recorded_step_is_refused(self) -> None:
        job = given(*RUNNING, progressed(1, step="draw", output=RESULT))
        refusal = refused(job, lambda job: job.progressed(1, "w1", CAUSE, step="draw", output=Raw(b"0")))
        assert type(refusal) is Conflict
        assert str(refusal) == f"step 'draw' of job {ID} is already recorded with another output"

    def test_another_attempt_cannot_change_a_recorded_step(self) -> None:
        job = given(*RUNNING, progressed(1, step="draw", output=RESULT), missed(1), started(2))
        refusal = refused(job, lambda job: job.progressed(2, "w1", CAUSE, step="draw", output=Raw(b"0")))
        assert type(refusal) is Conflict

    def test_the_next_attempt_may_repeat_a_recorded_step_with_its_output(self) -> None:
        work = (progressed(1, step="draw", output=RESULT), progressed(1, step="tell"))
        job = given(*RUNNING, *work, missed(1), started(2))
        assert job.progressed(2, "w1", CAUSE, step="draw", output=RESULT) == []

    def test_the_next_attempt_may_repeat_a_recorded_handle(self) -> None:
        work = (progressed(1, step="render", handle=Raw(b'"r1"')), progressed(1, step="tell"))
        job = given(*RUNNING, *work, missed(1), started(2))
        assert job.progressed(2, "w1", CAUSE, step="render", handle=Raw(b'"r1"')) == []

    def test_a_repeated_output_may_still_bring_progress(self) -> None:
        job = given(*RUNNING, progressed(1, 0.1, step="draw", output=RESULT))
        decided = job.progressed(1, "w1", CAUSE, step="draw", output=RESULT, progress=0.6)
        assert decided == [progressed(1, 0.6, step="draw", output=RESULT)]

    def test_what_comes_with_a_repeated_output_is_not_lost(self) -> None:
        job = given(*RUNNING, progressed(1, step="draw", output=RESULT))
        decided = job.progressed(1, "w1", CAUSE, step="draw", output=RESULT, artifact=PAGE)
        assert decided == [progressed(1, step="draw", output=RESULT, artifact=PAGE)]

    def test_a_handle_is_recorded_and_may_be_replaced(self) -> None:
        job = given(*RUNNING, progressed(1, step="render", handle=Raw(b'"r1"')))
        assert job.handles == {"render": Raw(b'"r1"')}
        decided = job.progressed(1, "w1", CAUSE, step="render", handle=Raw(b'"r2"'))
        assert decided == [progressed(1, step="render", handle=Raw(b'"r2"'))]
        assert after(job, decided).handles == {"render": Raw(b'"r2"')}

    def test_an_artifact_is_recorded_by_name_and_the_latest_counts(self) -> None:
        newer = replace(PAGE, sha256="cd" * 32)
        job = given(*RUNNING)
        assert job.progressed(1, "w1", CAUSE, artifact=PAGE) == [progressed(1, artifact=PAGE)]
        assert after(job, [progressed(1, artifact=PAGE)]).artifacts == {"page": PAGE}
        assert job.progressed(1, "w1", CAUSE, artifact=newer) == [progressed(1, artifact=newer)]
        assert after(job, [progressed(1, artifact=newer)]).artifacts == {"page": newer}

    @pytest.mark.parametrize(
        "ended",
        [
            (failed(1, retry_at=NOW),),
            (missed(1),),
            (released(1),),
            (failed(1), requeued()),
            (completed(1), requeued()),
            (cancel_requested(), cancelled(), requeued()),
        ],
        ids=["failed", "missed", "released", "failed+requeued", "completed+requeued", "cancelled+requeued"],
    )
    def test_recorded_steps_survive_attempts_and_requeued(self, ended: tuple[Event, ...]) -> None:
        work = (
            progressed(1, 0.5, step="draw", output=RESULT, artifact=PAGE),
            progressed(1, 0.6, step="render", handle=Raw(b'"r1"'), message="rendering"),
        )
        job = given(*RUNNING, *work, *ended, started(2))
        assert job.steps == {"draw": RESULT}
        assert job.handles == {"render": Raw(b'"r1"')}
        assert job.artifacts == {"page": PAGE}
        assert (job.progress, job.step, job.message) == (0.6, "render", "rendering")

    def test_requeued_afresh_forgets_steps_handles_artifacts_and_progress(self) -> None:
        work = progressed(1, 0.5, step="draw", message="half", output=RESULT, artifact=PAGE, handle=Raw(b"1"))
        job = given(*RUNNING, work, failed(1), requeued(afresh=True))
        assert (job.steps, job.handles, job.artifacts) == ({}, {}, {})
        assert (job.progress, job.step, job.message) == (0.0, None, None)

    def test_a_step_may_be_recorded_anew_after_requeued_afresh(self) -> None:
        work = progressed(1, step="draw", output=RESULT)
        job = given(*RUNNING, work, failed(1), requeued(afresh=True), started(2))
        decided = job.progressed(2, "w1", CAUSE, step="draw", output=Raw(b"0"))
        assert decided == [progressed(2, step="draw", output=Raw(b"0"))]


class TestCompleting:
    def test_completed_ends_a_running_job_with_its_result(self) -> None:
        job = given(*RUNNING)
        decided = job.complete(1, "w1", RESULT, CAUSE)
        assert decided == [completed(1)]
        after(job, decided)
        assert (job.status, job.result, job.error, job.finished_at) == ("completed", RESULT, None, NOW)
        assert job.finished
        assert not job.held

    def test_a_completion_forgets_the_error_of_an_earlier_attempt(self) -> None:
        assert given(*RUNNING, failed(1, retry_at=NOW), started(2), completed(2)).error is None

    def test_a_completion_that_arrives_before_the_rescue_stands_and_the_rescue_is_refused(self) -> None:
        job = given(*RUNNING, completed(1))
        refusal = refused(job, lambda job: job.miss_heartbeat(1, LAST_BEAT, CAUSE, jitter=1))
        assert type(refusal) is JobFinished

    def test_a_completion_that_arrives_after_the_rescue_is_refused(self) -> None:
        queued = given(*RUNNING, missed(1))
        assert type(refused(queued, lambda job: job.complete(1, "w1", RESULT, CAUSE))) is LeaseLost
        again = given(*RUNNING, missed(1), started(2, "w2"))
        assert type(refused(again, lambda job: job.complete(1, "w1", RESULT, CAUSE))) is LeaseLost

    def test_a_completion_that_arrives_after_the_last_rescue_is_refused(self) -> None:
        job = given(created(max_attempts=1), started(1), missed(1, None), failed(1, HEARTBEAT_MISSED))
        assert type(refused(job, lambda job: job.complete(1, "w1", RESULT, CAUSE))) is JobFinished


class TestFailing:
    def test_a_failure_is_retried_while_attempts_remain(self) -> None:
        job = given(*RUNNING)
        decided = job.fail(1, "w1", BOOM, CAUSE, jitter=1)
        assert decided == [failed(1, retry_at=NOW + seconds(10))]
        after(job, decided)
        assert (job.status, job.worker, job.run_at) == ("queued", None, NOW + seconds(10))
        assert (job.error, job.failures, job.finished_at) == (BOOM, 1, None)

    def test_the_last_failure_is_for_good(self) -> None:
        job = given(*RUNNING, failed(1, retry_at=NOW), started(2))
        decided = job.fail(2, "w1", BOOM, CAUSE, jitter=1)
        assert decided == [failed(2, retry_at=None)]
        after(job, decided)
        assert (job.status, job.error, job.finished_at) == ("failed", BOOM, NOW)

    def test_a_final_failure_is_not_retried_though_attempts_remain(self) -> None:
        assert given(*RUNNING).fail(1, "w1", BOOM, CAUSE, jitter=1, final=True) == [failed(1, retry_at=None)]

    def test_a_final_failure_is_for_good_even_if_it_asks_for_a_moment(self) -> None:
        decided = given(*RUNNING).fail(1, "w1", BOOM, CAUSE, jitter=1, final=True, retry_in=5)
        assert decided == [failed(1, retry_at=None)]

    def test_a_handler_may_ask_for_a_moment_in_place_of_the_backoff(self) -> None:
        decided = given(*RUNNING).fail(1, "w1", BOOM, CAUSE, jitter=1, retry_in=90)
        assert decided == [failed(1, retry_at=NOW + seconds(90))]
        assert given(*RUNNING).fail(1, "w1", BOOM, CAUSE, jitter=1, retry_in=0) == [failed(1, retry_at=NOW)]

    def test_asking_for_a_moment_buys_no_further_attempt(self) -> None:
        job = given(created(max_attempts=1), started(1))
        assert job.fail(1, "w1", BOOM, CAUSE, jitter=1, retry_in=90) == [failed(1, retry_at=None)]

    def test_backoff_grows_with_each_failure_and_is_jittered(self) -> None:
        job = given(created(max_attempts=9), started(1), failed(1, retry_at=NOW), started(2), missed(2), started(3))
        assert job.fail(3, "w1", BOOM, CAUSE, jitter=0.5) == [failed(3, retry_at=NOW + seconds(20))]


class TestCountingAttempts:
    def test_a_missed_heartbeat_counts_as_a_failure(self) -> None:
        assert given(*RUNNING, missed(1), started(2)).fail(2, "w1", BOOM, CAUSE, jitter=1) == [failed(2)]

    def test_a_release_costs_no_attempt(self) -> None:
        job = given(*RUNNING, released(1), started(2), released(2), started(3))
        assert (job.attempt, job.failures) == (3, 0)
        assert job.fail(3, "w1", BOOM, CAUSE, jitter=1) == [failed(3, retry_at=NOW + seconds(10))]

    def test_failures_are_counted_since_the_last_requeued_while_attempts_rise_on(self) -> None:
        job = given(*RUNNING, failed(1, retry_at=NOW), started(2), failed(2), requeued(), started(3))
        assert (job.attempt, job.failures) == (3, 0)
        assert job.fail(3, "w1", BOOM, CAUSE, jitter=1) == [failed(3, retry_at=NOW + seconds(10))]

    def test_a_last_missed_heartbeat_and_its_failure_count_once(self) -> None:
        job = given(created(max_attempts=1), started(1), missed(1, None), failed(1, HEARTBEAT_MISSED))
        assert job.failures == 1


class TestMissingHeartbeats:
    def test_a_missed_heartbeat_queues_the_job_again(self) -> None:
        job = given(*RUNNING)
        decided = job.miss_heartbeat(1, LAST_BEAT, CAUSE, jitter=1)
        assert decided == [missed(1, NOW + seconds(10))]
        after(job, decided)
        assert (job.status, job.worker, job.run_at) == ("queued", None, NOW + seconds(10))
        assert (job.error, job.failures) == (HEARTBEAT_MISSED, 1)

    def test_last_missed_heartbeat_fails_the_job(self) -> None:
        job = given(CREATED, started(1), missed(1), started(2))
        decided = job.miss_heartbeat(2, LAST_BEAT, CAUSE, jitter=1)
        assert decided == [missed(2, retry_at=None), failed(2, HEARTBEAT_MISSED)]
        after(job, decided)
        assert (job.status, job.error, job.finished_at) == ("failed", HEARTBEAT_MISSED, NOW)

    def test_the_missed_heartbeat_names_the_worker_that_held_the_lease(self) -> None:
        (event,) = given(CREATED, started(1, "w9")).miss_heartbeat(1, LAST_BEAT, CAUSE, jitter=1)
        assert isinstance(event, HeartbeatMissed)
        assert event.worker == "w9"

    @pytest.mark.parametrize(
        "history",
        [
            (CREATED,),
            (*RUNNING, missed(1)),
            (*RUNNING, failed(1, retry_at=NOW)),
            (*RUNNING, released(1)),
            (*RUNNING, released(1), started(2)),
        ],
        ids=["never started", "already rescued", "failed before", "released before", "next attempt runs"],
    )
    def test_the_rescue_of_an_attempt_that_has_ended_is_refused(self, history: tuple[Event, ...]) -> None:
        refusal = refused(given(*history), lambda job: job.miss_heartbeat(1, LAST_BEAT, CAUSE, jitter=1))
        assert type(refusal) is Conflict
        assert str(ID) in str(refusal)


class TestReleasing:
    def test_a_released_job_is_queued_again_and_due_at_once(self) -> None:
        job = given(*RUNNING)
        decided = job.release(1, "w1", "deploy", CAUSE)
        assert decided == [released(1)]
        after(job, decided)
        assert (job.status, job.worker, job.error, job.run_at) == ("queued", None, None, START)
        assert job.start("w1", CAUSE) == [started(2)]


class TestCancelling:
    def test_a_queued_job_is_cancelled_at_once(self) -> None:
        job = given(CREATED)
        decided = job.cancel("too dear", CAUSE)
        assert decided == [cancelled()]
        after(job, decided)
        assert (job.status, job.finished_at) == ("cancelled", NOW)
        assert job.error == JobError(type="cancelled", message="too dear")

    def test_a_scheduled_job_and_one_waiting_for_a_retry_are_cancelled_at_once(self) -> None:
        assert given(created(run_at=NOW + seconds(60))).cancel("too dear", CAUSE) == [cancelled()]
        waiting = given(*RUNNING, failed(1, retry_at=NOW + seconds(60)))
        assert waiting.cancel("too dear", CAUSE) == [cancelled()]

    def test_a_running_job_is_asked_to_stop(self) -> None:
        job = given(*RUNNING)
        decided = job.cancel("too dear", CAUSE)
        assert decided == [cancel_requested()]
        after(job, decided)
        assert (job.status, job.worker, job.finished_at) == ("cancelling", "w1", None)
        assert job.held

    def test_cancelling_a_job_that_is_cancelling_or_cancelled_is_answered_as_done(self) -> None:
        assert given(*CANCELLING).cancel("again", CAUSE) == []
        assert given(*CANCELLING, cancelled()).cancel("again", CAUSE) == []
        assert given(CREATED, cancelled()).cancel("again", CAUSE) == []

    @pytest.mark.parametrize("status", ["completed", "failed"])
    def test_a_job_that_finished_otherwise_cannot_be_cancelled(self, status: str) -> None:
        refusal = refused(given(*FINISHED[status]), lambda job: job.cancel("too late", CAUSE))
        assert type(refusal) is JobFinished

    def test_the_worker_acknowledges_with_the_reason_it_was_asked_with(self) -> None:
        job = given(*CANCELLING)
        decided = job.acknowledge_cancel(1, "w1", None, CAUSE)
        assert decided == [cancelled("too dear")]
        after(job, decided)
        assert (job.status, job.finished_at) == ("cancelled", NOW)

    def test_the_worker_may_give_a_reason_of_its_own(self) -> None:
        assert given(*CANCELLING).acknowledge_cancel(1, "w1", "stopped at 40 %", CAUSE) == [
            cancelled("stopped at 40 %")
        ]

    def test_a_cancellation_nobody_asked_for_cannot_be_acknowledged(self) -> None:
        refusal = refused(given(*RUNNING), lambda job: job.acknowledge_cancel(1, "w1", "bored", CAUSE))
        assert type(refusal) is Conflict
        assert str(ID) in str(refusal)

    def test_a_completion_while_cancelling_completes_the_job(self) -> None:
        job = given(*CANCELLING)
        decided = job.complete(1, "w1", RESULT, CAUSE)
        assert decided == [completed(1)]
        after(job, decided)
        assert (job.status, job.result, job.error) == ("completed", RESULT, None)

    @pytest.mark.parametrize("final", [False, True])
    def test_a_failure_while_cancelling_is_recorded_and_followed_by_cancelled(self, *, final: bool) -> None:
        job = given(*CANCELLING)
        decided = job.fail(1, "w1", BOOM, CAUSE, jitter=1, final=final)
        assert decided == [failed(1, retry_at=NOW), cancelled()]
        after(job, decided)
        assert (job.status, job.error) == ("cancelled", JobError(type="cancelled", message="too dear"))

    def test_a_last_failure_while_cancelling_has_one_terminal_event(self) -> None:
        job = given(created(max_attempts=1), started(1), cancel_requested())
        decided = job.fail(1, "w1", BOOM, CAUSE, jitter=1)
        assert decided == [failed(1, retry_at=NOW), cancelled()]

    def test_a_release_while_cancelling_is_recorded_and_followed_by_cancelled(self) -> None:
        job = given(*CANCELLING)
        decided = job.release(1, "w1", "deploy", CAUSE)
        assert decided == [released(1), cancelled()]
        assert after(job, decided).status == "cancelled"

    def test_a_missed_heartbeat_while_cancelling_is_recorded_and_followed_by_cancelled(self) -> None:
        job = given(*CANCELLING)
        decided = job.miss_heartbeat(1, LAST_BEAT, CAUSE, jitter=1)
        assert decided == [missed(1, None), cancelled()]
        assert after(job, decided).status == "cancelled"

    def test_a_last_missed_heartbeat_while_cancelling_has_one_terminal_event(self) -> None:
        job = given(created(max_attempts=1), started(1), cancel_requested())
        assert job.miss_heartbeat(1, LAST_BEAT, CAUSE, jitter=1) == [missed(1, None), cancelled()]


class TestRequeuing:
    @pytest.mark.parametrize("status", FINISHED)
    def test_a_finished_job_is_sent_round_again(self, status: str) -> None:
        job = given(*FINISHED[status])
        assert job.status == status
        decided = job.requeue("fixed", CAUSE)
        assert decided == [requeued()]
        after(job, decided)
        assert (job.status, job.run_at, job.attempt, job.failures) == ("queued", NOW, 1, 0)
        assert (job.result, job.error, job.worker, job.started_at, job.finished_at) == (None,) * 5

    def test_the_operator_may_ask_to_start_afresh(self) -> None:
        assert given(*FINISHED["failed"]).requeue("fixed", CAUSE, afresh=True) == [requeued(afresh=True)]

    @pytest.mark.parametrize("history", [(CREATED,), RUNNING, CANCELLING], ids=["queued", "running", "cancelling"])
    def test_a_job_that_is_not_finished_cannot_be_requeued(self, history: tuple[Event, ...]) -> None:
        refusal = refused(given(*history), lambda job: job.requeue("fixed", CAUSE))
        assert type(refusal) is Conflict
        assert str(ID) in str(refusal)

    def test_each_round_has_its_own_end(self) -> None:
        job = given(*FINISHED["completed"], requeued(), started(2))
        assert job.fail(2, "w1", BOOM, CAUSE, jitter=1, final=True) == [failed(2)]


class TestJudgingReports:
    @pytest.mark.parametrize("said", SAID)
    def test_an_exact_repeat_is_answered_as_done_at_once(self, said: str) -> None:
        history, repeat = SAID[said]
        assert repeat(given(*RUNNING, *history)) == []

    @pytest.mark.parametrize("said", SAID)
    def test_an_exact_repeat_is_answered_as_done_after_the_job_moved_to_another_attempt(self, said: str) -> None:
        history, repeat = SAID[said]
        ended = () if isinstance(history[-1], Failed | Released) else (missed(1),)
        assert repeat(given(*RUNNING, *history, *ended, started(2, "w2"))) == []

    @pytest.mark.parametrize("said", SAID)
    def test_an_exact_repeat_is_answered_as_done_after_the_job_finished(self, said: str) -> None:
        history, repeat = SAID[said]
        ended = () if isinstance(history[-1], Failed | Released) else (missed(1),)
        assert repeat(given(*RUNNING, *history, *ended, started(2, "w2"), completed(2))) == []

    @pytest.mark.parametrize("said", LAST_WORDS)
    def test_an_exact_repeat_of_the_last_word_is_answered_as_done(self, said: str) -> None:
        history, repeat = LAST_WORDS[said]
        assert repeat(given(*RUNNING, *history)) == []

    @pytest.mark.parametrize("said", LAST_WORDS)
    def test_an_exact_repeat_of_the_last_word_is_answered_as_done_in_the_next_round(self, said: str) -> None:
        history, repeat = LAST_WORDS[said]
        assert repeat(given(*RUNNING, *history, requeued())) == []
        assert repeat(given(*RUNNING, *history, requeued(), started(2, "w2"))) == []

    def test_a_repeat_of_what_ended_a_cancelling_job_is_answered_as_done(self) -> None:
        after_failure = given(*CANCELLING, failed(1, retry_at=NOW), cancelled())
        assert after_failure.fail(1, "w1", BOOM, CAUSE, jitter=1) == []
        after_release = given(*CANCELLING, released(1), cancelled())
        assert after_release.release(1, "w1", "deploy", CAUSE) == []

    def test_another_last_word_is_no_repeat(self) -> None:
        job = given(*RUNNING, completed(1))
        for ask in (
            lambda job: job.complete(1, "w1", Raw(b"0"), CAUSE),
            lambda job: job.fail(1, "w1", BOOM, CAUSE, jitter=1),
            lambda job: job.release(1, "w1", "deploy", CAUSE),
            lambda job: job.acknowledge_cancel(1, "w1", None, CAUSE),
        ):
            assert type(refused(job, ask)) is JobFinished
        other = JobError(type="ValueError", message="bang")
        assert type(refused(given(*RUNNING, failed(1)), lambda job: job.fail(1, "w1", other, CAUSE, jitter=1))) is (
            JobFinished
        )

    def test_a_cancellation_after_the_rescue_is_not_the_workers_word(self) -> None:
        job = given(*CANCELLING, missed(1, None), cancelled())
        assert type(refused(job, lambda job: job.acknowledge_cancel(1, "w1", None, CAUSE))) is JobFinished

    def test_what_another_attempt_recorded_is_no_repeat(self) -> None:
        job = given(*RUNNING, missed(1), started(2, "w2"), progressed(2, step="draw", output=RESULT))
        refusal = refused(job, lambda job: job.progressed(1, "w1", CAUSE, step="draw", output=RESULT))
        assert type(refusal) is LeaseLost

    @pytest.mark.parametrize(
        "said", [*SAID.values(), *LAST_WORDS.values()], ids=[*SAID, *(f"last word {name}" for name in LAST_WORDS)]
    )
    def test_the_same_words_from_another_worker_are_no_repeat(self, said: tuple[tuple[Event, ...], Ask]) -> None:
        history, repeat = said
        job = given(CREATED, started(1, "w2"), *history)
        assert type(refused(job, repeat)) is LeaseLost

    def test_a_stale_attempt_that_goes_further_than_it_said_has_lost_its_lease(self) -> None:
        job = given(*RUNNING, progressed(1, 0.5), missed(1), started(2, "w2"))
        refusal = refused(job, lambda job: job.progressed(1, "w1", CAUSE, progress=0.6))
        assert type(refusal) is LeaseLost

    @pytest.mark.parametrize("report", REPORTS)
    def test_a_stale_attempt_is_refused_with_lease_lost(self, report: str) -> None:
        job = given(*RUNNING, missed(1), started(2))
        assert type(refused(job, REPORTS[report](1, "w1"))) is LeaseLost

    @pytest.mark.parametrize("report", REPORTS)
    def test_another_worker_is_refused_with_lease_lost(self, report: str) -> None:
        assert type(refused(given(*RUNNING), REPORTS[report](1, "w2"))) is LeaseLost

    @pytest.mark.parametrize("report", REPORTS)
    def test_an_attempt_yet_to_come_is_refused_with_lease_lost(self, report: str) -> None:
        assert type(refused(given(*RUNNING), REPORTS[report](2, "w1"))) is LeaseLost
        assert type(refused(given(CREATED), REPORTS[report](1, "w1"))) is LeaseLost

    @pytest.mark.parametrize("report", REPORTS)
    def test_an_attempt_that_was_rescued_is_refused_with_lease_lost_while_queued(self, report: str) -> None:
        assert type(refused(given(*RUNNING, missed(1)), REPORTS[report](1, "w1"))) is LeaseLost

    @pytest.mark.parametrize("report", REPORTS)
    @pytest.mark.parametrize("status", ["completed", "failed"])
    def test_the_last_attempt_of_a_finished_job_is_refused_with_job_finished(self, status: str, report: str) -> None:
        assert type(refused(given(*FINISHED[status]), REPORTS[report](1, "w1"))) is JobFinished

    @pytest.mark.parametrize("report", REPORTS)
    @pytest.mark.parametrize("status", FINISHED)
    def test_lease_lost_is_judged_before_job_finished(self, status: str, report: str) -> None:
        job = given(*FINISHED[status])
        assert type(refused(job, REPORTS[report](1, "w2"))) is LeaseLost
        ends: dict[str, Event] = {"completed": completed(2), "failed": failed(2), "cancelled": cancelled()}
        job = given(*RUNNING, missed(1), started(2), ends[status])
        assert type(refused(job, REPORTS[report](1, "w1"))) is LeaseLost


class TestFinished:
    @pytest.mark.parametrize("status", FINISHED)
    def test_a_finished_job_accepts_nothing_but_requeued(self, status: str) -> None:
        job = given(*FINISHED[status])
        for ask in (
            lambda job: job.start("w1", CAUSE),
            lambda job: job.miss_heartbeat(1, LAST_BEAT, CAUSE, jitter=1),
            REPORTS["progressed"](1, "w1"),
            REPORTS["completed"](1, "w1"),
            REPORTS["failed"](1, "w1"),
            REPORTS["released"](1, "w1"),
        ):
            assert type(refused(job, ask)) is JobFinished
        assert job.requeue("fixed", CAUSE) == [requeued()]


class TestRefusals:
    def test_each_refusal_knows_its_code(self) -> None:
        assert Conflict.code == "conflict"
        assert JobFinished.code == "job-finished"
        assert LeaseLost.code == "lease-lost"

    def test_job_finished_says_which_job_what_is_so_and_what_to_do(self) -> None:
        refusal = refused(given(*FINISHED["failed"]), lambda job: job.start("w1", CAUSE))
        assert f"job {ID} is failed at 2026-03-01T10:01:00+00:00" in str(refusal)
        assert f"POST /v1/jobs/{ID}/retries" in str(refusal)

    def test_lease_lost_says_who_spoke_who_holds_and_what_to_do(self) -> None:
        job = given(*RUNNING, missed(1), started(2, "w2"))
        refusal = refused(job, lambda job: job.complete(1, "w1", RESULT, CAUSE))
        assert f"worker 'w1' does not hold attempt 1 of job {ID}" in str(refusal)
        assert "attempt 2 is held by 'w2'" in str(refusal)
        assert "discard its work" in str(refusal)


class TestTimeAndCause:
    BACK = Cause(START - seconds(5), "worker:w1")

    @pytest.mark.parametrize(
        ("history", "ask"),
        [
            (RUNNING, lambda job: job.progressed(1, "w1", TestTimeAndCause.BACK, progress=0.5)),
            (RUNNING, lambda job: job.complete(1, "w1", RESULT, TestTimeAndCause.BACK)),
            (RUNNING, lambda job: job.fail(1, "w1", BOOM, TestTimeAndCause.BACK, jitter=1)),
            (RUNNING, lambda job: job.release(1, "w1", "deploy", TestTimeAndCause.BACK)),
            (RUNNING, lambda job: job.cancel("too dear", TestTimeAndCause.BACK)),
            (RUNNING, lambda job: job.miss_heartbeat(1, LAST_BEAT, TestTimeAndCause.BACK, jitter=1)),
            (CANCELLING, lambda job: job.acknowledge_cancel(1, "w1", None, TestTimeAndCause.BACK)),
            (CANCELLING, lambda job: job.fail(1, "w1", BOOM, TestTimeAndCause.BACK, jitter=1)),
            (FINISHED["failed"], lambda job: job.requeue("fixed", TestTimeAndCause.BACK)),
            ((*RUNNING, released(1)), lambda job: job.start("w1", TestTimeAndCause.BACK)),
        ],
    )
    def test_time_never_runs_backwards_within_a_stream(self, history: tuple[Event, ...], ask: Any) -> None:
        decided = ask(given(*history))
        assert decided
        assert {event.at for event in decided} == {NOW}

    def test_a_backoff_is_counted_from_the_streams_time_not_from_a_clock_behind_it(self) -> None:
        assert given(*RUNNING).fail(1, "w1", BOOM, self.BACK, jitter=1) == [failed(1, retry_at=NOW + seconds(10))]

    def test_every_event_says_who_caused_it_and_in_which_trace(self) -> None:
        job = given(created(trace="t1"))
        (own,) = job.start("w1", Cause(NOW, "worker:w1", "t2"))
        assert (own.by, own.trace) == ("worker:w1", "t2")
        (inherited,) = job.start("w1", Cause(NOW, "worker:w1"))
        assert inherited.trace == "t1"


class TestHistory:
    def test_a_decision_changes_nothing_until_its_events_are_applied(self) -> None:
        job = given(*RUNNING)
        before = deepcopy(job)
        job.progressed(1, "w1", CAUSE, progress=0.5, step="draw", output=RESULT)
        job.complete(1, "w1", RESULT, CAUSE)
        job.fail(1, "w1", BOOM, CAUSE, jitter=1)
        job.cancel("too dear", CAUSE)
        assert job == before

    def test_evolve_never_refuses(self) -> None:
        odd: list[Event] = [
            completed(7),
            started(3),
            progressed(9, 0.1),
            missed(2, None),
            failed(4),
            cancelled(),
            requeued(),
        ]
        job = given(*odd, CREATED)
        assert job.version == len(odd) + 1

    def test_the_whole_diagram_in_one_life(self) -> None:
        life: list[tuple[Event, str]] = [
            (CREATED, "queued"),
            (started(1), "running"),
            (released(1), "queued"),
            (started(2), "running"),
            (failed(2, retry_at=NOW), "queued"),
            (started(3), "running"),
            (missed(3), "queued"),
            (started(4), "running"),
            (completed(4), "completed"),
            (requeued(), "queued"),
            (started(5), "running"),
            (failed(5), "failed"),
            (requeued(), "queued"),
            (started(6), "running"),
            (cancel_requested(), "cancelling"),
            (cancelled(), "cancelled"),
            (requeued(), "queued"),
            (cancelled(), "cancelled"),
        ]
        job = Job(id=ID)
        told = []
        for event, _ in life:
            evolve(job, event)
            told.append(job.status)
        assert told == [status for _, status in life]

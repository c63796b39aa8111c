"""A job that is not completed: failures, missed heartbeats, releases and cancellations."""

import pytest

from domain.events import (
    Event,
    HeartbeatMissed,
    JobError,
)
from domain.refusals import Conflict, JobFinished
from tests.domain.lives import (
    BOOM,
    CANCELLING,
    CAUSE,
    CREATED,
    FINISHED,
    HEARTBEAT_MISSED,
    ID,
    LAST_BEAT,
    NOW,
    RESULT,
    RUNNING,
    START,
    after,
    cancel_requested,
    cancelled,
    completed,
    created,
    failed,
    given,
    missed,
    refused,
    released,
    requeued,
    seconds,
    started,
)


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

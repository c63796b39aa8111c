"""The rules of a job, one sentence each."""

from copy import deepcopy
from typing import Any

import pytest

from domain.events import (
    Event,
)
from domain.job import Cause, Job, evolve
from domain.refusals import Conflict, JobFinished, LeaseLost
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
    REPORTS,
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
    progressed,
    refused,
    released,
    requeued,
    seconds,
    started,
)


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

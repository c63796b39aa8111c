"""Whose word counts: exact repeats are answered as done, stale attempts and other workers are refused."""

import pytest
from msgspec import Raw

from domain.events import (
    Event,
    Failed,
    JobError,
    Released,
)
from domain.refusals import JobFinished, LeaseLost
from tests.domain.lives import (
    BOOM,
    CANCELLING,
    CAUSE,
    CREATED,
    FINISHED,
    NOW,
    PAGE,
    REPORTS,
    RESULT,
    RUNNING,
    Ask,
    cancel_requested,
    cancelled,
    completed,
    failed,
    given,
    missed,
    progressed,
    refused,
    released,
    requeued,
    started,
)

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

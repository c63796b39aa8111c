"""What a running attempt records of its progress and its steps, and what the next attempt is handed of it."""

import pytest
from msgspec import Raw
from msgspec.structs import replace

from domain.events import (
    Event,
)
from domain.refusals import Conflict
from tests.domain.lives import (
    CANCELLING,
    CAUSE,
    ID,
    NOW,
    PAGE,
    RESULT,
    RUNNING,
    after,
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

"""Rows of jobs that moved by one event alone: what is written of them is all that the event changes."""

import re
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from domain.events import Completed, Event, Started
from domain.job import Job, evolve
from infrastructure.postgres.jobs import COMPLETE, MOVE, START, _moved_columns
from tests.domain.test_job_properties import anything

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NOW = datetime(2026, 11, 30, tzinfo=UTC)
thorough = settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)


@thorough
@given(st.lists(anything, max_size=6))
def test_a_start_changes_no_other_column(events: list[Event]) -> None:
    job = Job.fold(ID, events)
    assume(job.status == "queued")
    assert changed(job, Started(attempt=job.attempt + 1, worker="w1", at=NOW, by="worker:w1")) <= written(START)
    assert (job.status, job.started_at, job.updated_at) == ("running", NOW, NOW)


@thorough
@given(st.lists(anything, max_size=6))
def test_a_completion_changes_no_other_column(events: list[Event]) -> None:
    job = Job.fold(ID, events)
    assume(job.held)
    event = Completed(attempt=job.attempt, result=Raw(b"{}"), at=NOW, by="worker:w1")
    assert changed(job, event) <= written(COMPLETE)
    assert (job.status, job.progress, job.error, job.finished_at, job.updated_at) == ("completed", 1, None, NOW, NOW)


def changed(job: Job, event: Event) -> set[str]:
    """The columns of a job's row that an event changes."""
    names = re.split(r",\s*", MOVE.partition("AS x (")[2].partition(")")[0])
    before = _moved_columns([job], [1])
    evolve(job, event)
    after = _moved_columns([job], [2])
    return {name for name, old, new in zip(names, before, after, strict=True) if old != new}


def written(statement: str) -> set[str]:
    """The columns that an UPDATE sets."""
    return set(re.findall(r"(\w+) = ", statement.partition("FROM")[0]))

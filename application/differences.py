"""What changed in a job between two of its versions."""

from typing import Any
from uuid import UUID

from msgspec import Struct, structs

from application.jobs import EventView, JobView

UNTOLD = frozenset({"links", "settled", "heartbeat_at"})
"""Fields that are no part of a job's history."""


class Change(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """A field that differs."""

    field: str
    before: Any
    after: Any


class Diff(Struct, frozen=True, rename={"begin": "from", "end": "to"}):
    """What changed from one version to another, field by field, and the events that did it."""

    job_id: UUID
    begin: int
    end: int
    changes: list[Change]
    events: list[EventView]


def changes(before: JobView, after: JobView) -> list[Change]:
    """The fields in which two moments of a job differ."""
    fields = [f.name for f in structs.fields(JobView) if f.name not in UNTOLD]
    pairs = [(name, getattr(before, name), getattr(after, name)) for name in fields]
    return [Change(name, old, new) for name, old, new in pairs if old != new]

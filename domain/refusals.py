"""Why a command is refused: each refusal knows its code, and says which job, what is so, and what to do next."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID


class Refused(Exception):
    """A command that may not be done; it recorded nothing."""

    code: ClassVar[str] = "conflict"


class Conflict(Refused):
    """The job is in a state that does not allow this."""


class JobFinished(Refused):
    """The job has ended and accepts nothing but being queued again."""

    code = "job-finished"

    def __init__(self, id: UUID, status: str, finished_at: datetime | None) -> None:
        when = f" at {finished_at.isoformat()}" if finished_at else ""
        super().__init__(
            f"job {id} is {status}{when}; a finished job changes only by a retry (POST /v1/jobs/{id}/retries)"
        )


class LeaseLost(Refused):
    """The worker does not hold the attempt it speaks for; it must stop and discard what it has."""

    code = "lease-lost"

    def __init__(self, id: UUID, attempt: int, worker: str, holder: str) -> None:
        super().__init__(
            f"worker {worker!r} does not hold attempt {attempt} of job {id} ({holder}); "
            "stop the handler and discard its work"
        )

"""How an attempt ends: the report that a handler's result, or what it raised, calls for."""

from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Raw

from application.claims import ClaimedJob
from application.handlers import MAX_OUTPUT, GiveUp, Handler, RetryLater
from application.jobs import DAY
from application.record import Record
from application.reports import CompletionReport, FailureReport, ReportedError

LONGEST_MESSAGE = 2000
LONGEST_DELAY = 30 * DAY
End: TypeAlias = CompletionReport | FailureReport


class Recorded(Protocol):
    """A job as its handler sees it, with its record, which is made when it is first looked at."""

    @property
    def record(self) -> Record: ...


class WrongInput(GiveUp):
    """The job's input is not what its handler takes."""


def given(handler: Handler, job: ClaimedJob) -> Any:
    """The input as the handler's type. Raises WrongInput."""
    try:
        return handler.read(job.input)
    except (msgspec.MsgspecError, ValueError) as error:
        raise WrongInput(f"the input does not fit kind {job.kind!r}: {error}") from error


def completed(job: ClaimedJob, handler: Handler, context: Recorded, result: Any) -> End:
    """The handler returned `result`; a failure for good when that cannot be recorded, or a step was passed over."""
    if (job.steps or job.handles) and (unasked := context.record.unasked(handler.retired)):
        message = (
            f"{', '.join(unasked)} of an earlier attempt is on record, and the handler no longer asks for it; "
            "was it renamed? A handler that dropped it on purpose says so: @handles(kind, retired=[name])"
        )
        return failure(job, "step-renamed", message, final=True)
    output = msgspec.json.encode(result)
    if len(output) > MAX_OUTPUT:
        message = f"the result has {len(output)} bytes, and at most {MAX_OUTPUT} are recorded; save an artifact"
        return failure(job, "too-large", message, final=True)
    return CompletionReport(job_id=job.id, attempt=job.attempt, result=Raw(output))


def raised(job: ClaimedJob, error: BaseException) -> FailureReport:
    """The handler raised `error`."""
    kind = type(error).__name__
    match error:
        case WrongInput():
            return failure(job, "invalid-input", str(error), final=True)
        case GiveUp():
            return failure(job, kind, str(error), final=True)
        case RetryLater(delay=delay):
            return failure(job, kind, str(error), retry_in=min(max(delay, 0.0), LONGEST_DELAY))
    return failure(job, kind, str(error))


def failure(
    job: ClaimedJob, kind: str, message: str, *, final: bool = False, retry_in: float | None = None
) -> FailureReport:
    error = ReportedError(type=kind, message=text(message) or kind)
    return FailureReport(job_id=job.id, attempt=job.attempt, error=error, final=final, retry_in=retry_in)


def text(message: str | None) -> str | None:
    """A message as it can be recorded: without NUL and lone surrogates, and not too long."""
    if message is None:
        return None
    return message.replace("\0", "�").encode(errors="replace").decode()[:LONGEST_MESSAGE]

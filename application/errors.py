"""Why a request could not be served, apart from the domain's own refusals: each error knows its code."""

from typing import ClassVar

from msgspec import Struct

from domain.refusals import Conflict


class FieldError(Struct, frozen=True):
    """What is wrong with one field of a request; `field` is a path such as `jobs[3].priority`."""

    field: str
    message: str


class ApplicationError(Exception):
    """A request that was not served; `code` is the contract's, and the text is for whoever asked."""

    code: ClassVar[str]


class Invalid(ApplicationError):
    """The request itself is wrong; every field at fault is named."""

    code = "invalid"

    def __init__(self, *errors: FieldError, detail: str | None = None) -> None:
        super().__init__(detail or "; ".join(f"{e.field}: {e.message}" for e in errors))
        self.errors = errors


class NotFound(ApplicationError):
    code = "not-found"


class Forbidden(ApplicationError):
    code = "forbidden"


class KeyRefused(ApplicationError):
    """The service does not take our key, or takes it for less than a worker needs."""

    code = "unauthenticated"


class TooLarge(ApplicationError):
    code = "too-large"


class IdempotencyMismatch(ApplicationError):
    code = "idempotency-mismatch"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Idempotency-Key {key!r} was already used with another request; send the first request again, "
            "or use a new key"
        )


class PreconditionFailed(ApplicationError):
    code = "precondition-failed"


class RateLimited(ApplicationError):
    """A key asks for more than it may; again after `retry_after` seconds."""

    code = "rate-limited"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(ApplicationError):
    """The database is away. What was asked may or may not have been done when `outcome` says so."""

    code = "unavailable"

    def __init__(
        self,
        detail: str = "the database does not answer; nothing was recorded; try again",
        retry_after: float | None = None,
    ) -> None:
        """`retry_after`: seconds that a caller was asked to let pass, if it was."""
        super().__init__(detail)
        self.retry_after = retry_after


class WrongSetting(ApplicationError):
    """A setting that nothing can be done with; the text says which, and what to write instead."""

    code = "internal"


class UnreadableAddress(WrongSetting):
    """An address of the database that is none. It is not repeated, nor what its parser says: a password is in it."""

    def __init__(self) -> None:
        super().__init__(
            "DATABASE_URL, or one beside it, cannot be read as an address of PostgreSQL, such as "
            "postgresql://user:password@host:5432/name; in a password, write % as %25, @ as %40, : as %3A and / as %2F"
        )


class StoreUnavailable(ApplicationError):
    """The place where artifacts are kept does not take or give a content now."""

    code = "unavailable"


class NoSpace(StoreUnavailable):
    """There is no room for a content; nothing of it was kept."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"no space left where artifacts are kept ({reason}); nothing was stored")


class NotOurs(StoreUnavailable):
    """Another database keeps its artifacts there, and would sweep ours away."""

    def __init__(self) -> None:
        super().__init__(
            "another database keeps its artifacts in this place; set JOBLEDGER_ARTIFACTS to a place of this one's own"
        )


class UnreadableStream(ApplicationError):
    """A job's stored events cannot be read by this release; other jobs are as before."""

    code = "internal"


class Conflicted(Exception):
    """Another writer moved a job of the batch first: load afresh and decide again."""


class BatchRefused(Exception):
    """The database refused the data of a batch; which command is at fault is not known yet."""

    def answer(self) -> Exception:
        """What the command at fault is answered, once it is known."""
        return Invalid(detail=f"the database refuses this: {self}; nothing was recorded")


class MonthClosed(BatchRefused):
    """A job of the batch is of a month that is being archived."""

    def answer(self) -> Exception:
        return Conflict(f"{self}, so that it stays as it is; nothing was recorded")

"""Whether a server can serve, and what an operator should look at."""

from collections.abc import Sequence
from typing import Literal, Self, get_args

from msgspec import Struct

Code = Literal[
    "database-away",
    "schema-behind",
    "schema-ahead",
    "log-restored",
    "position-stalled",
    "seal-unknown",
    "seal-refused",
    "seal-behind",
    "projection-parked",
    "projection-behind",
    "replica-away",
    "replica-behind",
]
"""What may be found; docs/operations.md has what to do about each, under this name. Codes stay."""
CODES: tuple[Code, ...] = get_args(Code)


class Finding(Struct, frozen=True):
    """Something that is not as it should be. Anybody may read it: it names no job and quotes no error of one."""

    code: Code
    message: str


class Ready(Struct, frozen=True):
    """`reasons` say why not; `warnings` name what an operator should look at while it still serves.

    `findings` are both, the reasons first, with codes that stay.
    """

    status: Literal["ready", "not-ready"]
    reasons: list[str]
    warnings: list[str]
    findings: list[Finding]

    @classmethod
    def of(cls, reasons: Sequence[Finding], warnings: Sequence[Finding] = ()) -> Self:
        return cls(
            "not-ready" if reasons else "ready",
            [reason.message for reason in reasons],
            [warning.message for warning in warnings],
            [*reasons, *warnings],
        )

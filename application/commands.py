"""Running commands in batches: each is decided on its own merits, all are recorded in one transaction."""

from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

from application.errors import ApplicationError, BatchRefused, Conflicted, Unavailable
from application.ledger import Batch, IdempotencyKey, Ledger, Quota
from domain.refusals import Refused

TRIES = 5


class Command(Protocol):
    """A request that may be refused; `run` raises a refusal before it records anything."""

    @property
    def job_ids(self) -> Sequence[UUID]:
        """The jobs it moves."""
        ...

    @property
    def idempotency_key(self) -> IdempotencyKey | None: ...

    @property
    def quota(self) -> Quota | None:
        """The one that counts the jobs it sends on their way."""
        ...

    @property
    def weight(self) -> int:
        """About how many events it records."""
        ...

    def run(self, batch: Batch) -> Any: ...


def execute(ledger: Ledger, commands: Sequence[Command]) -> list[Any]:
    """For each command its answer, or the exception that says why not.

    A conflict decides the batch once more from fresh streams, then command by command. A batch refused for its data
    is halved until the one bad command stands alone; one that a command broke is run command by command.
    """
    for _ in range(2):
        try:
            return _execute(ledger, commands)
        except Conflicted:
            continue
        except BatchRefused as refused:
            return _halves(ledger, commands, refused)
        except Unavailable as away:
            return [away] * len(commands)
        except Exception as error:
            if len(commands) == 1:
                return [error]
            break
    return [one for command in commands for one in _alone(ledger, command)]


def _halves(ledger: Ledger, commands: Sequence[Command], refused: BatchRefused) -> list[Any]:
    if len(commands) == 1:
        return [refused.answer()]
    half = len(commands) // 2
    return execute(ledger, commands[:half]) + execute(ledger, commands[half:])


def _alone(ledger: Ledger, command: Command) -> list[Any]:
    for _ in range(TRIES):
        try:
            return _execute(ledger, [command])
        except Conflicted:
            continue
        except BatchRefused as refused:
            return _halves(ledger, [command], refused)
        except Exception as error:
            return [error]
    return [Unavailable(f"other writers moved the same job {TRIES} times; nothing was recorded; try again")]


def _execute(ledger: Ledger, commands: Sequence[Command]) -> list[Any]:
    job_ids = {id.int: id for command in commands for id in command.job_ids}
    keys = {command.idempotency_key for command in commands if command.idempotency_key}
    quotas = {command.quota for command in commands if command.quota}
    new_only = not (job_ids or keys or quotas)  # what moves none of the jobs that there are can only make others
    with ledger.batch(job_ids.values(), keys, quotas=quotas, new_only=new_only) as batch:
        return [answer(command, batch) for command in commands]


def answer(command: Command, batch: Batch) -> Any:
    """The answer to a command of an open batch, or its refusal."""
    try:
        return command.run(batch)
    except (Refused, ApplicationError) as refusal:
        return refusal

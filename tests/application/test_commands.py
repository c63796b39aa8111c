"""Batches of commands: conflicts are decided again, and a bad command is found by halving."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct

from application.commands import TRIES, execute
from application.errors import BatchRefused, Conflicted, Invalid, NotFound, Unavailable
from application.ledger import Batch
from domain.events import Requeued
from domain.refusals import Conflict
from tests.application.memory import NOW, MemoryBatch, MemoryLedger


class Note(Struct):
    """A command that records its text; it is refused, or breaks, when it is told to."""

    text: str
    refusal: Exception | None = None
    tries: int = 0
    idempotency_key: None = None
    quota: None = None
    weight: int = 1
    job_ids: tuple[UUID, ...] = ()

    def run(self, batch: Batch) -> str:
        self.tries += 1
        if self.refusal:
            raise self.refusal
        (job,) = batch.new_jobs(1)
        batch.record(job, [Requeued(reason=self.text, afresh=False, at=NOW, by="key:test")])
        return f"noted {self.text}"


def noted(ledger: MemoryLedger) -> list[str]:
    return [event.reason for event in ledger.events if isinstance(event, Requeued)]


def texts(batch: MemoryBatch) -> list[str]:
    return [event.reason for event in batch.recorded if isinstance(event, Requeued)]


def refuses(*bad: str) -> Callable[[MemoryBatch], None]:
    """Refuses the data of batches with one of these texts."""

    def at_commit(batch: MemoryBatch) -> None:
        if found := set(bad) & set(texts(batch)):
            raise BatchRefused(f"value {found.pop()!r}")

    return at_commit


def conflicts(times: int, only: str | None = None) -> Callable[[MemoryBatch], None]:
    """Another writer is first, so many times, or for ever in batches with a text."""
    left = [times]

    def at_commit(batch: MemoryBatch) -> None:
        if left[0] and (only is None or only in texts(batch)):
            left[0] -= 1
            raise Conflicted

    return at_commit


def test_all_are_recorded_in_one_batch_and_answered_in_order() -> None:
    ledger = MemoryLedger()
    assert execute(ledger, [Note("a"), Note("b")]) == ["noted a", "noted b"]
    assert (noted(ledger), ledger.batches) == (["a", "b"], 1)


def test_a_refusal_answers_its_own_caller_and_touches_nobody_else() -> None:
    ledger = MemoryLedger()
    refusals = [Conflict("it is running"), NotFound("there is no such job")]
    answers = execute(ledger, [Note("a"), Note("b", refusals[0]), Note("c", refusals[1]), Note("d")])
    assert answers == ["noted a", *refusals, "noted d"]
    assert (noted(ledger), ledger.batches) == (["a", "d"], 1)


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_a_bad_command_is_found_and_the_others_are_recorded(count: int) -> None:
    for bad in {0, count // 2, count - 1}:
        ledger = MemoryLedger(refuses(str(bad)))
        answers = execute(ledger, [Note(str(n)) for n in range(count)])
        good = [n for n in range(count) if n != bad]
        assert isinstance(answers[bad], Invalid)
        assert f"value '{bad}'" in str(answers[bad])
        assert [answers[n] for n in good] == [f"noted {n}" for n in good]
        assert noted(ledger) == [str(n) for n in good]
        assert ledger.batches <= 2 * count.bit_length() + 1


def test_several_bad_commands_are_found_each() -> None:
    ledger = MemoryLedger(refuses("1", "2", "7"))
    answers = execute(ledger, [Note(str(n)) for n in range(8)])
    assert [n for n, answer in enumerate(answers) if isinstance(answer, Invalid)] == [1, 2, 7]
    assert noted(ledger) == ["0", "3", "4", "5", "6"]


def test_a_conflict_is_decided_once_more_together() -> None:
    ledger = MemoryLedger(conflicts(1))
    notes = [Note("a"), Note("b")]
    assert execute(ledger, notes) == ["noted a", "noted b"]
    assert (noted(ledger), ledger.batches) == (["a", "b"], 2)
    assert [note.tries for note in notes] == [2, 2]


def test_a_second_conflict_is_decided_command_by_command() -> None:
    ledger = MemoryLedger(conflicts(2))
    assert execute(ledger, [Note("a"), Note("b"), Note("c")]) == ["noted a", "noted b", "noted c"]
    assert (noted(ledger), ledger.batches) == (["a", "b", "c"], 5)


def test_a_command_that_always_comes_second_is_unavailable_and_the_others_are_not() -> None:
    ledger = MemoryLedger(conflicts(1000, only="b"))
    answers = execute(ledger, [Note("a"), Note("b"), Note("c")])
    assert (answers[0], answers[2]) == ("noted a", "noted c")
    assert isinstance(answers[1], Unavailable)
    assert f"{TRIES} times; nothing was recorded" in str(answers[1])
    assert noted(ledger) == ["a", "c"]


def test_a_bad_command_among_conflicts_is_found() -> None:
    first = conflicts(2)
    then = refuses("b")

    def at_commit(batch: MemoryBatch) -> None:
        first(batch)
        then(batch)

    ledger = MemoryLedger(at_commit)
    answers = execute(ledger, [Note("a"), Note("b"), Note("c")])
    assert [type(answer) for answer in answers] == [str, Invalid, str]
    assert noted(ledger) == ["a", "c"]


def test_a_database_that_is_away_answers_all_of_them_so() -> None:
    def at_commit(batch: MemoryBatch) -> None:
        raise Unavailable

    ledger = MemoryLedger(at_commit)
    answers = execute(ledger, [Note("a"), Note("b")])
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    assert (noted(ledger), ledger.batches) == ([], 1)


def test_a_command_that_breaks_harms_nobody_else() -> None:
    ledger = MemoryLedger()
    broken = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
    answers: list[Any] = execute(ledger, [Note("a"), Note("b", broken), Note("c")])
    assert answers == ["noted a", broken, "noted c"]
    assert noted(ledger) == ["a", "c"]


def test_nothing_is_recorded_of_commands_that_are_not_there() -> None:
    assert execute(MemoryLedger(), []) == []

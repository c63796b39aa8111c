"""Verifying the live log: every chain, view, leaf and checkpoint, in units that many processes share."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from itertools import pairwise
from typing import Literal
from uuid import UUID

from msgspec import Struct


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is not as it was recorded or sealed.

    `field` is the event's or the view's; of the seal itself `leaf`, `tile`, `checkpoint` or `signature`.
    """

    field: str
    says: str
    job_id: UUID | None = None
    version: int | None = None
    position: str | None = None

    def __str__(self) -> str:
        at = [
            f"job {self.job_id}" if self.job_id else "",
            f"version {self.version}" if self.version is not None else "",
            f"position {self.position}" if self.position and not self.job_id else "",
        ]
        return f"{', '.join(part for part in at if part) or 'the seal'}: {self.field}: {self.says}"


class Unit(Struct, frozen=True):
    """A part of the work: jobs by id, leaves by tile, or checkpoints by size; from `low` to before `high`."""

    of: Literal["jobs", "leaves", "checkpoints"]
    low: str
    high: str
    weight: int = 0


class Checked(Struct):
    """What one or more units came to; `archived` leaves are of events that are in archives, which prove themselves."""

    events: int = 0
    jobs: int = 0
    leaves: int = 0
    archived: int = 0
    checkpoints: int = 0
    differences: int = 0
    first: Difference | None = None

    def differ(self, difference: Difference) -> None:
        """Count it; the first is kept."""
        self.differences += 1
        self.first = self.first or difference

    def add(self, other: "Checked") -> None:
        """Add what comes after this."""
        for field in ("events", "jobs", "leaves", "archived", "checkpoints", "differences"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        self.first = self.first or other.first


class Verification(Struct):
    """The units of one verification, and those that are done, so that it can be gone on with."""

    log: str
    units: list[Unit]
    done: dict[int, Checked] = {}

    @property
    def total(self) -> Checked:
        """What is known so far; the first difference by the order of units: jobs, leaves, checkpoints."""
        total = Checked()
        for _, checked in sorted(self.done.items()):
            total.add(checked)
        return total

    def run(self, check: Callable[[Unit], Checked], executor: Executor, workers: int) -> Iterator[Unit]:
        """Do what is not done yet; each unit as it ends. A few more than there are workers are under way."""
        left = iter([n for n in range(len(self.units)) if n not in self.done])
        running: dict[Future[Checked], int] = {}
        while True:
            while len(running) < workers * 2 and (n := next(left, None)) is not None:
                running[executor.submit(check, self.units[n])] = n
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                n = running.pop(future)
                self.done[n] = future.result()
                yield self.units[n]


def covering(bounds: Sequence[str], of: Literal["jobs", "leaves", "checkpoints"], weight: int) -> list[Unit]:
    """The units between bounds that follow each other."""
    return [Unit(of, low, high, weight) for low, high in pairwise(bounds)]

"""The verifier: compares views, one row after the other, with a fresh fold of the events they were made from."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import structlog
from msgspec import Struct
from msgspec.json import decode, encode

from application.errors import Unavailable
from application.operations import INLINE, DifferenceView
from application.projections import Projection, Rows, Told, add_up
from application.projector import Log, Reader, cannot_fold

log = structlog.get_logger()
PERIOD = 1.0
PAGE = 10_000
EXAMPLES = 20
"""Differences that are kept of a verification; all are counted."""


class Verification(Struct, frozen=True):
    """One that this verifier does; `generation` is None for the inline view, which it `mends` where that was asked."""

    id: int
    name: str
    generation: int | None
    mends: bool


class Kept(Struct, frozen=True):
    """A view as it was kept at one moment: its rows, its checkpoint, and the positions it was told to skip.

    `carried` are the rows that were made of months that have left the log.
    """

    rows: Rows
    checkpoint: int
    skipped: Collection[int]
    carried: Rows


class Verdict(Struct, frozen=True, kw_only=True):
    """What a verification came to; `examples` are some of the `differences`."""

    compared: int
    checkpoint: int | None = None
    differences: int = 0
    examples: Sequence[DifferenceView] = ()
    error: str | None = None


class Taken(Exception):
    """Another verifier goes on with it."""


class Verifications(Protocol):
    """The port to what there is to verify. Calls block; run them on a thread."""

    def take(self) -> Verification | None:
        """One that was asked for, or whose verifier gave no sign of life for a while."""
        ...

    def beat(self, verification: Verification, compared: int) -> None:
        """Give a sign of life. Raises Taken."""
        ...

    def kept(self, verification: Verification) -> Kept:
        """The rows of a generation, at one moment."""
        ...

    def jobs(self) -> Iterator[tuple[int, list[DifferenceView]]]:
        """The inline view beside its streams, some jobs at a time: how many, and which differ."""
        ...

    def mend(self, found: Sequence[DifferenceView]) -> None:
        """Bring the rows of jobs that differ, and their leases, up to the fold of their streams."""
        ...

    def end(self, verification: Verification, verdict: Verdict) -> None:
        """Record it, and whether a generation that is built may serve. Raises Taken."""
        ...


class Verifier:
    """Does the verifications that are asked for, one at a time."""

    def __init__(self, projections: Mapping[str, Projection], source: Log, verifications: Verifications) -> None:
        self._projections = projections
        self._source = source
        self._verifications = verifications

    async def run(self) -> None:
        """Verify until cancelled."""
        while True:
            try:
                done = await asyncio.to_thread(self.run_once)
            except Unavailable as away:
                log.warning("verifier.unavailable", reason=str(away))
                done = False
            except Exception:
                log.exception("verifier.failed")
                done = False
            if not done:
                await asyncio.sleep(PERIOD)

    def run_once(self) -> bool:
        """Do one that was asked for; whether there was one. Raises Unavailable."""
        verification = self._verifications.take()
        if verification is None:
            return False
        try:
            verdict = self._jobs(verification) if verification.name == INLINE else self._projection(verification)
            self._verifications.end(verification, verdict)
        except Taken:
            return True
        log.info(
            "projection.verified",
            projection=verification.name,
            generation=verification.generation,
            mended=verification.mends,
            compared=verdict.compared,
            differences=verdict.differences,
            error=verdict.error,
        )
        return True

    def _projection(self, verification: Verification) -> Verdict:
        projection = self._projections[verification.name]
        kept = self._verifications.kept(verification)
        rows: Rows = {}
        compared = 0
        for told in self._pages(kept.checkpoint):
            for happened in told:
                if happened.position not in kept.skipped and (error := cannot_fold(projection, rows, happened)):
                    where = f"event {happened.version} of job {happened.job_id}"
                    return Verdict(compared=compared, checkpoint=kept.checkpoint, error=f"{where}: {error}")
            compared += len(told)
            self._verifications.beat(verification, compared)
        if kept.carried:
            add_up(rows, kept.carried)
            _pass_over(projection.told_last, kept.rows, rows)
        found = differences(kept.rows, rows)
        return Verdict(compared=compared, checkpoint=kept.checkpoint, differences=len(found), examples=found[:EXAMPLES])

    def _pages(self, checkpoint: int) -> Iterator[list[Told]]:
        """All events up to a checkpoint."""
        reader = Reader(self._source, PAGE)
        position = 0
        while position < checkpoint:
            told = [happened for happened in reader.after(position) if happened.position <= checkpoint]
            if not told:
                return
            position = told[-1].position
            yield told

    def _jobs(self, verification: Verification) -> Verdict:
        compared, count = 0, 0
        examples: list[DifferenceView] = []
        for jobs, found in self._verifications.jobs():
            compared += jobs
            count += len(found)
            examples += found[: EXAMPLES - len(examples)]
            if found and verification.mends:
                self._verifications.mend(found)
            self._verifications.beat(verification, compared)
        return Verdict(compared=compared, differences=count, examples=examples)


def _pass_over(fields: Collection[str], stored: Rows, folded: Rows) -> None:
    """With months missing, nobody can tell any more which events came last."""
    for key in stored.keys() & folded.keys():
        for field in fields:
            setattr(folded[key], field, getattr(stored[key], field))


def differences(stored: Rows, folded: Rows) -> list[DifferenceView]:
    """The rows that are not in both, or not the same."""
    keys = [key for key in stored.keys() | folded.keys() if stored.get(key) != folded.get(key)]
    return [
        DifferenceView(key=shown(key), stored=shown(stored.get(key)), folded=shown(folded.get(key)))
        for key in sorted(keys, key=repr)
    ]


def shown(row: Any) -> Any:
    """A row as JSON."""
    return decode(encode(row))

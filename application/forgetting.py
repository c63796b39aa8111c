"""Forgetting the files of a month that is archived: its contents may go that nothing else names, and it is said so."""

from collections.abc import Callable
from datetime import date
from typing import Protocol

import structlog
from msgspec import Struct

from application.retention import ARCHIVED, Month, Months, RetentionRefused

log = structlog.get_logger()
ACTOR = "system:retention"
PAGE = 1_000
"""Contents that are given free in one transaction."""


class Forgotten(Struct, frozen=True):
    """Contents that only jobs of the month named: the sweeper removes them, or would after a run that is not dry."""

    month: str
    contents: int
    dry_run: bool


class Names(Protocol):
    """The port to what is known of contents by month. Calls block."""

    def unnamed(self) -> list[date]:
        """Archived months of which it is not known what they name."""
        ...

    def alone(self, month: Month) -> int:
        """How many contents are named by this month, and by none that is in the log or whose files are kept."""
        ...

    def forget(self, month: Month, by: str, reason: str) -> None:
        """Record that its files need not be kept from now on, and who wants that and why; once."""
        ...

    def free(self, month: Month, after: bytes, limit: int) -> bytes | None:
        """Have some of its contents, in the order of their hashes, kept no more where they are named by nothing else.

        The last of them, None at the end.
        """
        ...


class Forgetting:
    """Lets go of files that an archive has no use for: it keeps their names, sizes and hashes in its events."""

    def __init__(self, months: Months, names: Names, tell: Callable[[str], None] = lambda _: None) -> None:
        self._months = months
        self._names = names
        self._tell = tell

    def plan(self, day: date) -> Forgotten:
        """What would be forgotten. Raises RetentionRefused."""
        month = self._archived(day)
        return Forgotten(str(month), self._names.alone(month), dry_run=True)

    def forget(self, day: date, reason: str) -> Forgotten:
        """Give its contents free, or go on with that; the sweeper removes them. Raises RetentionRefused, and Busy."""
        with self._months.alone():
            month = self._archived(day)
            contents = self._names.alone(month)
            self._names.forget(month, ACTOR, reason)
            self._done("recorded", month)
            after = b""
            while (following := self._names.free(month, after, PAGE)) is not None:
                self._done("forgetting", month)
                after = following
            log.warning("retention.forgotten", month=str(month), contents=contents, reason=reason)
            return Forgotten(str(month), contents, dry_run=False)

    def _archived(self, day: date) -> Month:
        month = self._months.find(day)
        row = self._months.row(month)
        if row is None or row.state != ARCHIVED:
            raise RetentionRefused(f"{month} is not archived: files of jobs that are in the log are kept")
        if unnamed := self._names.unnamed():
            names = ", ".join(f"{day:%Y-%m}" for day in unnamed)
            raise RetentionRefused(
                f"nobody knows which files {names} names, since it was archived by an older release: bring it back and "
                "archive it again first"
            )
        return month

    def _done(self, step: str, month: Month) -> None:
        log.debug("retention.step", step=step, month=str(month))
        self._tell(step)

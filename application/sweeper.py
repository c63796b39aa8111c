"""The sweeper: removes the contents that no event names, and what is left of uploads that died."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from msgspec import Struct

log = structlog.get_logger()
DAY = 24 * 3600.0
HOUR = 3600.0


class Found(Struct, frozen=True):
    """Something in the store: a content, or, without a `sha256`, an upload that is under way or died."""

    path: str
    size: int
    modified: datetime
    sha256: str | None


class Shelves(Protocol):
    """The port to what the store holds. Calls block; run them on a thread."""

    def pages(self) -> Iterator[list[Found]]:
        """Everything that is ours there, some at a time. Raises NotOurs in a place that another database uses."""
        ...

    def remove(self, found: Sequence[Found]) -> None:
        """Remove these; what is gone already is no matter."""
        ...


class Contents(Protocol):
    """The port to what is known of contents. Calls block; run them on a thread. A grace is in seconds."""

    def unnamed(self, found: Sequence[Found], grace: float) -> set[str]:
        """Those that no event names and no running attempt may yet name, last stored at least `grace` ago."""
        ...

    def condemn(self, found: Sequence[Found], grace: float) -> set[str]:
        """Mark those of them of which that is still so; from now on nobody stores them until they are forgotten."""
        ...

    def forget(self, hashes: Collection[str]) -> None:
        """The condemned are removed; they may be stored anew."""
        ...

    def tidy(self, grace: float) -> None:
        """Forget the holds of attempts that have ended, and contents that are in no store."""
        ...

    def due(self, period: float) -> bool:
        """Whether the last sweep is `period` seconds ago; if so, this one counts as begun, for all nodes."""
        ...

    def clock(self) -> datetime:
        """The database's."""
        ...


class Swept(Struct, frozen=True):
    """What a sweep freed, or would free in a dry run."""

    files: int
    bytes: int
    dry_run: bool


class Sweeper:
    """Sweeps once a day, on whichever node comes first, and when it is asked to. Any number may at once.

    A content is condemned in the database before it is removed from the store, and forgotten after that. Whoever
    wants to store a condemned content waits until it is forgotten, so that what is stored is never removed.
    """

    def __init__(self, shelves: Shelves, contents: Contents) -> None:
        self._shelves = shelves
        self._contents = contents
        self._stopping = False

    def run_if_due(self) -> int:
        """Sweep if nobody did for a day; how many files were removed. Blocks."""
        return self.run_once().files if self._contents.due(DAY) else 0

    def run_once(self, grace: float = DAY, *, dry_run: bool = False) -> Swept:
        """Remove what is older than `grace` seconds, or only count it. Blocks."""
        files = freed = 0
        # An upload that moves at all touches its file every minute.
        died = self._contents.clock() - timedelta(seconds=max(grace, HOUR))
        for page in self._shelves.pages():
            if self._stopping:
                break
            removed = self._removable(page, grace, died) if dry_run else self._remove(page, grace, died)
            files += len(removed)
            freed += sum(one.size for one in removed)
        if not dry_run:
            self._contents.tidy(grace)
        log.info("artifacts.swept", files=files, bytes=freed, grace=grace, dry_run=dry_run)
        return Swept(files, freed, dry_run)

    def stop(self) -> None:
        """Let a sweep that is under way end with its page."""
        self._stopping = True

    def _removable(self, page: list[Found], grace: float, died: datetime) -> list[Found]:
        unnamed = self._contents.unnamed([one for one in page if one.sha256], grace)
        return [one for one in page if one.sha256 in unnamed or (one.sha256 is None and one.modified < died)]

    def _remove(self, page: list[Found], grace: float, died: datetime) -> list[Found]:
        removable = self._removable(page, grace, died)
        condemned = self._contents.condemn([one for one in removable if one.sha256], grace)
        removed = [one for one in removable if one.sha256 is None or one.sha256 in condemned]
        self._shelves.remove(removed)
        self._contents.forget(condemned)
        return removed

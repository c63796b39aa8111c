"""Retention: a month of the log, once all its jobs have ended, goes to an archive, and comes back from there.

Each step is recorded before the next, so that whoever runs the command again goes on where the last one was killed. A
month is closed first: nothing is appended to it any more. Its archive is written, uploaded, read back and checked; only
then do its rows leave the view of jobs and its events the log.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final, Literal, Protocol
from uuid import UUID

import structlog
from msgspec import Struct

from application.archive_writer import ArchiveWriter, Source
from application.archives import FORMAT, ArchivedEvent, ArchiveReader, ArchiveRefused, Contents, Header, Seen
from application.errors import ApplicationError
from application.projections import Projection

log = structlog.get_logger()
PAGE = 2_000
"""Rows of the view that are removed or made in one transaction."""
FIRST = UUID(int=0)
PATIENCE, PAUSE = 60.0, 0.5
"""Seconds in which a moment is looked for in which nobody else needs what a step needs, and between two looks."""
WRITING: Final = "writing"
LEAVING: Final = "leaving"
ARCHIVED: Final = "archived"
RETURNING: Final = "returning"
RETURNED: Final = "returned"
State = Literal["writing", "leaving", "archived", "returning", "returned"]
"""See the migration that makes the table `archives`."""


class RetentionRefused(ApplicationError):
    """A month that cannot leave the log, or come back, as things are; nothing was changed, or it is as it was."""

    code = "conflict"


class Busy(RetentionRefused):
    """Others use what is needed for a moment; nothing was changed by this step."""


class Month(Struct, frozen=True):
    """A month by its first day, its partition of the log, and the ids of jobs created in it: `low` to before `high`."""

    day: date
    partition: str
    low: UUID
    high: UUID

    def __str__(self) -> str:
        return f"{self.day:%Y-%m}"


class ArchiveRow(Struct, frozen=True):
    """What is recorded of a month's archive; all but `state` and `name` is None until it was written and checked."""

    state: State
    name: str | None
    sha256: bytes | None = None
    bytes: int | None = None
    jobs: int | None = None
    events: int | None = None
    archived_at: datetime | None = None
    returned_at: datetime | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """A month that is in the log: what it has, and why it cannot be archived, if so."""

    month: str
    state: str
    jobs: int
    events: int
    bytes: int
    reasons: list[str]


class Months(Protocol):
    """The port to the log's months. Calls block. They raise Unavailable, and Busy while others are in the way."""

    def alone(self) -> AbstractContextManager[None]:
        """While nobody else moves months. Raises Busy."""
        ...

    def find(self, day: date) -> Month:
        """Raises RetentionRefused where there is no such partition or archive."""
        ...

    def all(self) -> list[Month]: ...

    def rows(self) -> dict[str, ArchiveRow]:
        """Of all months that were ever archived, in order."""
        ...

    def row(self, month: Month) -> ArchiveRow | None: ...

    def plan(self, month: Month) -> Plan: ...

    def close(self, month: Month) -> None:
        """Have nothing appended to it any more. Raises RetentionRefused when a job of it has not ended."""
        ...

    def reopen(self, month: Month) -> None:
        """Take back what closing did, and forget that it was begun."""
        ...

    def source(self, month: Month) -> Source: ...

    def uncarry(self, month: Month) -> None: ...

    def name(self, month: Month, name: str | None) -> None:
        """Record where its archive is about to be written."""
        ...

    def written(self, month: Month, written: ArchiveRow) -> None:
        """The archive is there and checked: from now on the month is leaving."""
        ...

    def remove_rows(self, month: Month, limit: int) -> int:
        """Take some of its rows out of the view of jobs; how many."""
        ...

    def detach(self, month: Month) -> None:
        """Drop its partition, in one transaction with what says so. Raises RetentionRefused, and Busy."""
        ...

    def receive(self, month: Month) -> None:
        """Make an empty table for its events, beside the log."""
        ...

    def discard(self, month: Month) -> None:
        """Drop that table."""
        ...

    def put(self, month: Month, events: Sequence[ArchivedEvent]) -> None: ...

    def finish(self, month: Month) -> None:
        """All is in the table: make it one that can join the log."""
        ...

    def attach(self, month: Month) -> None:
        """Make the table a partition again, in one transaction with what says so. Raises RetentionRefused, and Busy."""
        ...

    def make_rows(self, month: Month, after: UUID, limit: int) -> UUID | None:
        """Make rows of the view for `limit` jobs after one, unless they are there; the last one, None at the end."""
        ...

    def returned(self, month: Month) -> None:
        """All is back; it can be appended to."""
        ...


class ArchiveStore(Protocol):
    """The port to the place where archives are kept. Calls block; they raise StoreUnavailable."""

    def put(self, name: str, file: IO[bytes]) -> None:
        """Keep the file in a way that outlives a power cut; one of that name is replaced."""
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """Raises FileNotFoundError."""
        ...

    def remove(self, name: str) -> None:
        """What is not there is no matter."""
        ...


class Retention:
    """Moves months between the log and their archives."""

    def __init__(
        self,
        months: Months,
        store: ArchiveStore,
        projections: Sequence[Projection],
        signed: Callable[[str], bool],
        spool: Path,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`signed` says whether a note bears a signature that counts; `tell` is told of each step that was done.

        `spool` is a folder with room for one archive.
        """
        self._months = months
        self._store = store
        self._projections = projections
        self._signed = signed
        self._spool = spool
        self._tell = tell

    def archives(self) -> dict[str, ArchiveRow]:
        """What is recorded of archives, by the month."""
        return self._months.rows()

    def plans(self) -> list[Plan]:
        """Every month that is in the log and has begun."""
        return [self._months.plan(month) for month in self._months.all()]

    def plan(self, day: date) -> Plan:
        return self._months.plan(self._months.find(day))

    def archive(self, day: date) -> ArchiveRow:
        """Take a month out of the log, or go on with that. Raises RetentionRefused; ArchiveRefused for what differs."""
        with self._months.alone():
            month = self._months.find(day)
            row = self._months.row(month)
            if row is None or row.state == RETURNED:
                if reasons := self._months.plan(month).reasons:
                    raise RetentionRefused(f"{month} stays in the log: {'; '.join(reasons)}")
                self._months.close(month)
                self._done("closed", month)
            elif row.state == RETURNING:
                raise RetentionRefused(f"{month} is being brought back; run `jobledger retention restore {month}`")
            elif row.state == ARCHIVED:
                raise RetentionRefused(f"{month} was archived already, as {row.name}")
            row = self._months.row(month)
            if row is not None and row.state == WRITING:
                self._write_or_reopen(month, row)
            while self._months.remove_rows(month, PAGE):
                self._done("removing", month)
            self._patiently(lambda: self._months.detach(month))
            self._done("archived", month)
            archived = self._months.row(month)
            assert archived is not None
            return archived

    def check(self, day: date) -> Contents:
        """Read a month's archive and check all of it. Raises ArchiveRefused."""
        month = self._months.find(day)
        row = self._months.row(month)
        if row is None or row.state == WRITING:
            raise RetentionRefused(f"{month} has no archive")
        return self._check(month, row)

    def restore(self, day: date) -> ArchiveRow:
        """Bring a month back, or go on with that; what is half archived goes back, too.

        Raises RetentionRefused, and ArchiveRefused for an archive that is not what was sealed: then nothing is changed.
        """
        with self._months.alone():
            month = self._months.find(day)
            row = self._months.row(month)
            if row is None or row.state == RETURNED:
                raise RetentionRefused(f"{month} is in the log")
            if row.state == WRITING:
                self._forget(month, row)
                return ArchiveRow(RETURNED, None)
            if row.state == ARCHIVED:
                self._load(month, row)
                self._patiently(lambda: self._months.attach(month))
                self._done("attached", month)
            after = FIRST
            while (following := self._months.make_rows(month, after, PAGE)) is not None:
                self._done("making rows", month)
                after = following
            self._patiently(lambda: self._months.returned(month))
            self._done("returned", month)
            returned = self._months.row(month)
            assert returned is not None
            return returned

    def _write_or_reopen(self, month: Month, row: ArchiveRow) -> None:
        """What is found to be wrong with a month leaves it as it was."""
        try:
            self._write(month, row)
        except (ArchiveRefused, RetentionRefused):
            self._forget(month, row)
            raise

    def _forget(self, month: Month, row: ArchiveRow) -> None:
        row = self._months.row(month) or row
        if row.name is not None:
            self._store.remove(row.name)
        self._patiently(lambda: self._months.reopen(month))
        self._done("reopened", month)

    def _write(self, month: Month, row: ArchiveRow) -> None:
        if row.name is not None:  # what a run that was killed left there
            self._store.remove(row.name)
            self._months.name(month, None)
        self._months.uncarry(month)
        self._spool.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self._spool) as file:
            source = self._months.source(month)
            sealed = source.sealed()
            header = Header(
                format=FORMAT,
                month=month.day,
                low=month.low,
                high=month.high,
                checkpoint=sealed.checkpoint,
                keys=sealed.keys,
            )
            writer = ArchiveWriter(source, self._projections, file)
            writer.write(header, sealed.size)
            self._done("written", month)
            size = file.tell()
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").digest()
            name = f"{month}-{sha256.hex()[:16]}.ndjson.gz"
            self._months.name(month, name)
            self._done("named", month)
            file.seek(0)
            self._store.put(name, file)
        self._done("uploaded", month)
        written = ArchiveRow(WRITING, name, sha256, size, writer.jobs, writer.events)
        self._check(month, written)
        self._done("checked", month)
        self._months.written(month, written)
        self._done("leaving", month)

    def _check(self, month: Month, row: ArchiveRow) -> Contents:
        reader = ArchiveReader(self._chunks(row), self._signed, self._seen(month))
        for _ in reader.pages():
            pass
        return _as_recorded(reader.contents, month, row)

    def _load(self, month: Month, row: ArchiveRow) -> None:
        """All of it is checked before it joins the log."""
        reader = ArchiveReader(self._chunks(row), self._signed, self._seen(month))
        self._months.receive(month)
        self._done("received", month)
        try:
            for page in reader.pages():
                self._months.put(month, page)
            _as_recorded(reader.contents, month, row)
        except ApplicationError:
            self._months.discard(month)
            raise
        self._months.finish(month)
        self._done("loaded", month)

    def _chunks(self, row: ArchiveRow) -> Iterator[bytes]:
        """The file's bytes. Raises ArchiveRefused when they are not those that were written."""
        assert row.name is not None
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self._store.read(row.name):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        except FileNotFoundError as error:
            raise ArchiveRefused(
                f"there is no archive {row.name!r} where archives are kept; set JOBLEDGER_ARCHIVES to where it is"
            ) from error
        if (digest.digest(), size) != (row.sha256, row.bytes):
            raise ArchiveRefused(
                f"the archive {row.name!r} is another file than the one that was written: it has {size} bytes and "
                f"sha256 {digest.hexdigest()}, not {row.bytes} and {(row.sha256 or b'').hex()}"
            )

    def _seen(self, month: Month) -> Seen:
        """An archive's tiles are those of the seal as it stands, which only ever grows."""
        source = self._months.source(month)
        return lambda level, index, hashes: source.tile(level, index)[: len(hashes)] == hashes

    def _patiently(self, act: Callable[[], None]) -> None:
        """Wait for a moment in which nobody is in the way. Raises Busy after a minute."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return act()
            except Busy:
                if time.monotonic() >= until:
                    raise
            time.sleep(PAUSE)

    def _done(self, step: str, month: Month) -> None:
        log.debug("retention.step", step=step, month=str(month))
        self._tell(step)


def _as_recorded(found: Contents | None, month: Month, row: ArchiveRow) -> Contents:
    """What a file has, if that is what was recorded of it. Raises ArchiveRefused."""
    assert found is not None
    if (found.month, found.low, found.high) != (month.day, month.low, month.high):
        raise ArchiveRefused(f"the archive {row.name!r} is of {found.month:%Y-%m}, not of {month}")
    if (found.jobs, found.events) != (row.jobs, row.events):
        raise ArchiveRefused(
            f"the archive {row.name!r} has {found.events} events of {found.jobs} jobs, not {row.events} of {row.jobs}"
        )
    return found

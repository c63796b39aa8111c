"""Writing the archive of a month that is closed: all of it is checked against the seal on the way."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import IO, Protocol
from uuid import UUID

from msgspec import Struct

from application.archives import (
    ArchivedEvent,
    ArchiveRefused,
    Compressed,
    Footer,
    Header,
    Tile,
    tile_line,
    width_at,
)
from application.projections import Happened, Projection, Recorded, Rows, Stories
from application.projector import cannot_fold
from domain.audit import GENESIS, chain
from domain.job import FINISHED
from domain.merkle import SIZE, WIDTH, leaf_hash, root

PAGE = 5_000
"""Events that are in memory at a time; fewer when they are large."""
CARRIED_AT = 50_000
"""Events after which what projections made of them is written down."""
CACHED = 512
"""Tiles of leaves that are in memory at a time, of 12 KiB each."""


class Leaves(Struct, frozen=True):
    """A tile of leaves, some of them a month's: its first position, and a bit for each that is, the first lowest."""

    index: int
    first_position: int
    marked: bytes


class StoredEvent(Struct, frozen=True):
    """An event of a month as it is stored."""

    job_id: UUID
    version: int
    position: int
    topic: str
    hash: bytes
    state: bytes


class Sealed(Struct, frozen=True):
    """The seal as of now: leaves, the signed checkpoint, and the public keys that ever signed."""

    size: int
    checkpoint: str
    keys: list[str]


class Source(Protocol):
    """The port to a month. Calls block."""

    def sealed(self) -> Sealed: ...

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile as it is now."""
        ...

    def leaves(self) -> Iterator[Leaves]:
        """The tiles that have leaves of the month, in order, as they are now."""
        ...

    def positions(self, index: int) -> list[int]:
        """The positions of the events under a tile of leaves."""
        ...

    def events(self, after: tuple[UUID, int], limit: int) -> list[StoredEvent]:
        """Its events in the order of (job, version); `limit` at the most, and fewer when they are large."""
        ...

    def carry(self, rows: dict[str, Rows]) -> None:
        """Keep what projections made of some of its events, by their names; it is added up."""
        ...


class ArchiveWriter:
    """Writes one archive into a file."""

    def __init__(self, source: Source, projections: Sequence[Projection], file: IO[bytes]) -> None:
        self._source = source
        self._projections = projections
        self._out = Compressed(file)
        self._first_positions: list[int] = []
        self._indexes: list[int] = []
        self._tile_at = lru_cache(CACHED)(lambda index: (source.positions(index), source.tile(0, index)))
        self._last: tuple[UUID, int, bytes] = (UUID(int=0), 0, GENESIS)
        self._ended = True
        self._told = UUID(int=0)
        self._stories = Stories(_all_there)
        self._carried: dict[str, Rows] = {}
        self.jobs = 0
        self.events = 0

    def write(self, header: Header, size: int) -> None:
        """Write all of it; `size` is that of the tree that the header's checkpoint is of.

        Raises ArchiveRefused for an event that is not as it was sealed, or whose job has not ended.
        """
        self._out.write([header])
        self._write_tiles(size)
        after = (UUID(int=0), 0)
        while page := self._source.events(after, PAGE):
            self._out.write(self._checked(page))
            self._fold(page)
            after = (page[-1].job_id, page[-1].version)
            if self.events % CARRIED_AT < len(page):
                self._carry()
        self._must_have_ended()
        self._carry()
        self._out.write([Footer(self.jobs, self.events)])
        self._out.end()

    def _write_tiles(self, size: int) -> None:
        """Those with leaves of the month, and all that lead from there to the root; from the top."""
        marked = {}
        for leaves in self._source.leaves():
            self._first_positions.append(leaves.first_position)
            self._indexes.append(leaves.index)
            marked[leaves.index] = leaves.marked
        wanted = {(0, index) for index in marked}

        def read(level: int, index: int) -> bytes:
            wanted.add((level, index))
            return self._source.tile(level, index)

        root(size, read)
        for level in range(8):
            for index in [index for at, index in wanted if at == level]:
                if width_at(level, index, size) == WIDTH:
                    wanted.add((level + 1, index // WIDTH))
        for level, index in sorted(wanted, key=lambda tile: (-tile[0], tile[1])):
            self._out.write([self._tile(level, index, size, marked)])

    def _tile(self, level: int, index: int, size: int, marked: dict[int, bytes]) -> Tile:
        hashes = self._source.tile(level, index)[: width_at(level, index, size) * SIZE]
        return tile_line(level, index, hashes, None if level else marked.get(index))

    def _checked(self, page: Sequence[StoredEvent]) -> Iterator[ArchivedEvent]:
        for event in page:
            id, version, previous = self._last
            if event.job_id != id:
                self.jobs += 1
                version, previous = 0, GENESIS
            where = f"event {event.version} of job {event.job_id}"
            hash = chain(previous, event.job_id, event.version, event.topic, event.state)
            if (event.version, event.hash) != (version + 1, hash):
                raise ArchiveRefused(
                    f"{where} is not what was recorded, or one before it is missing; run `audit verify`"
                )
            leaf = self._leaf(event, where)
            self._last = (event.job_id, event.version, hash)
            self.events += 1
            yield ArchivedEvent(
                job_id=event.job_id,
                version=event.version,
                position=str(event.position),
                leaf=leaf,
                topic=event.topic,
                hash=hash.hex(),
                state=event.state.decode(),
            )

    def _leaf(self, event: StoredEvent, where: str) -> int:
        n = bisect_right(self._first_positions, event.position) - 1
        positions, hashes = self._tile_at(self._indexes[n]) if n >= 0 else ([], b"")
        at = bisect_right(positions, event.position) - 1
        if at < 0 or positions[at] != event.position or hashes[at * SIZE : (at + 1) * SIZE] != leaf_hash(event.hash):
            raise ArchiveRefused(f"{where} is not what was sealed at position {event.position}; run `audit verify`")
        return self._indexes[n] * WIDTH + at

    def _fold(self, page: Sequence[StoredEvent]) -> None:
        """Add up what projections make of the events, and see to it that each job has ended."""
        recorded = [Recorded(event.position, event.job_id, event.version, event.state) for event in page]
        for told in self._stories.tell(recorded):
            if told.version == 1:
                self._must_have_ended()
                self._told = told.job_id
            if not isinstance(told, Happened):
                raise ArchiveRefused(
                    f"event {told.version} of job {told.job_id} cannot be read by this release: {told.error}"
                )
            self._ended = told.after in FINISHED
            for projection in self._projections:
                cannot_fold(projection, self._carried.setdefault(projection.name, {}), told)

    def _must_have_ended(self) -> None:
        if not self._ended:
            raise ArchiveRefused(f"job {self._told} has not ended, by its events; run `audit verify`")

    def _carry(self) -> None:
        self._source.carry(self._carried)
        self._carried = {}


def _all_there(versions: Mapping[UUID, int]) -> Sequence[Recorded]:
    """A month's events come in the order of their jobs: none has to be read again."""
    raise ArchiveRefused(f"events of job {next(iter(versions))} are missing; run `audit verify`")

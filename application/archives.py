"""Archives: the events of a month in one file, with what proves them, and the check of such a file.

A file is NDJSON in gzip. Its lines, in this order:

* a `Header`: the month, the checkpoint that proves it, and the public keys that may have signed it;
* `Tile`s of the Merkle tree that the checkpoint is of, those above the leaves first, from the top: all that lead from
  the month's leaves to the root. A tile of leaves says which of its leaves are the month's;
* the `ArchivedEvent`s in the order of (job, version), `state` being the event as it was stored and hashed;
* a `Footer`, which counts them.

interfaces/cli/verify.py has the same check for those who have nothing of ours.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from functools import lru_cache
from os import SEEK_END
from tempfile import TemporaryFile
from typing import IO, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.json import Decoder, encode

from application.errors import ApplicationError, NotFound
from domain.audit import GENESIS, chain
from domain.merkle import HEIGHT, SIZE, WIDTH, ProofFailed, fold, inclusion, leaf_hash, root, split
from domain.notes import Checkpoint, Malformed, read

FORMAT = "jobledger/archive/1"
PAGE, PAGE_BYTES = 5_000, 16 * 1024 * 1024
"""Events that are in memory at a time; fewer when they are large."""
CACHED = 512
"""Tiles of leaves that are in memory, of 8 KiB each; the others are in a temporary file."""
PIECE = 1024 * 1024
"""Bytes that are decompressed at a time: a few of a file can stand for very many."""
LONGEST_LINE = 64 * 1024 * 1024
COMPRESSION = 3
GZIP = 16 + zlib.MAX_WBITS


class ArchiveRefused(ApplicationError):
    """A file is no archive, or not what was sealed."""

    code = "conflict"


class Archive(Struct, frozen=True, kw_only=True):
    """A month that left the log: the name of its file, and when. A `month` is told by its first day."""

    month: date
    name: str
    archived_at: datetime


class ArchiveView(Archive, frozen=True, kw_only=True):
    """The same with what the file has: `first_position` and `last_position` are of its events in the log."""

    sha256: str
    bytes: int
    jobs: int
    events: int
    first_position: str
    last_position: str


class Gone(NotFound):
    """Retention took it, or would have if it ever was there: of a month that left the log only its archive knows."""

    code = "gone"

    def __init__(self, what: str, archive: Archive) -> None:
        month = f"{archive.month:%Y-%m}"
        super().__init__(
            f"{what} is of {month}, which left the log at {archive.archived_at.isoformat()} and is kept as "
            f"{archive.name!r}; an operator brings it back with `jobledger retention restore {month}`"
        )
        self.archive = archive


class Header(Struct, frozen=True, kw_only=True):
    """Jobs with ids from `low` to before `high` were created in the month; `checkpoint` is a signed note."""

    format: str
    month: date
    low: UUID
    high: UUID
    checkpoint: str
    keys: list[str]


class Tile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hashes of one level in base64; `leaves`, in hex, has a bit for each that is the month's, the first one lowest."""

    level: int
    index: int
    hashes: str
    leaves: str | None = None


class ArchivedEvent(Struct, frozen=True, kw_only=True, gc=False):
    """An event; `leaf` is its index among the leaves of the tree, and `hash` is in hex."""

    job_id: UUID
    version: int
    position: str
    leaf: int
    topic: str
    hash: str
    state: str


class Footer(Struct, frozen=True):
    jobs: int
    events: int


class Contents(Struct, frozen=True):
    """What a file was found to have."""

    month: date
    low: UUID
    high: UUID
    checkpoint: str
    keys: list[str]
    size: int
    jobs: int
    events: int


class Compressed:
    """Writes lines into a file in gzip."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._compressor = zlib.compressobj(COMPRESSION, wbits=GZIP)

    def write(self, lines: Iterable[Struct]) -> None:
        self._file.write(self._compressor.compress(b"".join(encode(line) + b"\n" for line in lines)))

    def end(self) -> None:
        self._file.write(self._compressor.flush())


class Seen(Protocol):
    """Asked of every tile that an archive has, cut to its size; False when the seal has another there."""

    def __call__(self, level: int, index: int, hashes: bytes) -> bool: ...


_header = Decoder(Header).decode
_tile = Decoder(Tile).decode
_event = Decoder(ArchivedEvent).decode
_footer = Decoder(Footer).decode


class ArchiveReader:
    """Reads an archive and checks all of it on the way, in memory that does not grow with its events.

    `signed` tells whether a note bears a signature that counts.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        signed: Callable[[str], bool],
        seen: Seen,
    ) -> None:
        self._lines = lines(chunks)
        self._signed = signed
        self._seen = seen
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._marked: dict[int, tuple[int, int, bytes]] = {}
        self._expected = 0
        self._size = 0
        self._leaves: Callable[[int], bytes] = lambda _: b""
        self.contents: Contents | None = None
        """What was read, once all of it was."""

    def pages(self) -> Iterator[list[ArchivedEvent]]:
        """The events, some at a time. Raises ArchiveRefused, at the end for what is known only then."""
        with TemporaryFile() as leaves:
            self._leaves = lru_cache(CACHED)(lambda index: self._read_leaves(leaves, index))
            try:
                yield from self._pages(leaves)
            except (msgspec.MsgspecError, Malformed, ValueError, zlib.error) as error:
                raise ArchiveRefused(f"this is no archive of a month: {type(error).__name__}: {error}") from error

    def check(self) -> Contents:
        """Read all of it. Raises ArchiveRefused."""
        for _ in self.pages():
            pass
        assert self.contents is not None
        return self.contents

    def proof(self, leaf: int) -> list[bytes]:
        """The inclusion proof of one of its leaves in the tree that was signed; to be asked for between two pages."""
        return inclusion(leaf, self._size, self._tile)

    def _pages(self, leaves: IO[bytes]) -> Iterator[list[ArchivedEvent]]:
        header = self._read_header()
        checkpoint = Checkpoint.parse(read(header.checkpoint)[0])
        line = self._read_tiles(leaves, checkpoint)
        page: list[ArchivedEvent] = []
        before: tuple[UUID, int, bytes] = (UUID(int=0), 0, GENESIS)
        jobs = events = size = 0
        while not line.startswith(b'{"jobs"'):
            event = _event(line)
            if not header.low <= event.job_id < header.high:
                raise ArchiveRefused(f"job {event.job_id} is not of the month {header.month:%Y-%m}")
            jobs += event.job_id != before[0]
            events += 1
            before = self._check_event(event, before)
            page.append(event)
            size += len(line)
            if len(page) == PAGE or size > PAGE_BYTES:
                yield page
                page, size = [], 0
            line = self._next("the archive ends before its footer")
        footer = _footer(line)
        if (footer.jobs, footer.events) != (jobs, events) or events != self._expected:
            raise ArchiveRefused(
                f"the archive has {events} events of {jobs} jobs; it should have {footer.events} of {footer.jobs}, and "
                f"{self._expected} leaves are marked as the month's"
            )
        if next(self._lines, None) is not None:
            raise ArchiveRefused("there is more after the archive's footer")
        if page:
            yield page
        self.contents = Contents(
            header.month,
            header.low,
            header.high,
            header.checkpoint,
            header.keys,
            checkpoint.size,
            jobs,
            events,
        )

    def _read_header(self) -> Header:
        header = _header(self._next("the archive is empty"))
        if header.format != FORMAT:
            raise ArchiveRefused(f"the format of this archive is {header.format!r}; this release knows {FORMAT}")
        if not self._signed(header.checkpoint):
            raise ArchiveRefused("no key that counts has signed the archive's checkpoint")
        return header

    def _read_tiles(self, leaves: IO[bytes], checkpoint: Checkpoint) -> bytes:
        """Check that the tiles make the tree that was signed; leaves go to a file. Returns the line that follows."""
        while (line := self._next("the archive ends among its tiles")).startswith(b'{"level"'):
            tile = _tile(line)
            hashes = b64decode(tile.hashes, validate=True)
            self._check_tile(tile, hashes, checkpoint.size)
            if tile.level:
                self._tiles[tile.level, tile.index] = hashes
                continue
            marked = bytes.fromhex(tile.leaves or "")
            self._expected += int.from_bytes(marked, "big").bit_count()
            self._marked[tile.index] = (leaves.seek(0, SEEK_END), len(hashes) // SIZE, marked)
            leaves.write(hashes)

        self._size = checkpoint.size
        try:
            made = root(checkpoint.size, self._tile)
        except ProofFailed as error:
            raise ArchiveRefused(f"the archive lacks tiles of the tree: {error}") from error
        if made != checkpoint.root:
            raise ArchiveRefused("the archive's tiles do not make the root that was signed")
        return line

    def _check_tile(self, tile: Tile, hashes: bytes, size: int) -> None:
        named = f"tile {tile.index} of level {tile.level}"
        width = width_at(tile.level, tile.index, size)
        if len(hashes) != width * SIZE or width <= 0:
            raise ArchiveRefused(f"{named} of the archive does not have {width} hashes")
        if width == WIDTH:
            above, at = divmod(tile.index, WIDTH)
            parent = self._tiles.get((tile.level + 1, above), b"")
            if parent[at * SIZE : (at + 1) * SIZE] != fold(split(hashes)):
                raise ArchiveRefused(f"{named} of the archive is not that of the tree that was signed")
        if not self._seen(tile.level, tile.index, hashes):
            raise ArchiveRefused(f"{named} of the archive is not that of this log's seal")

    def _tile(self, level: int, index: int) -> bytes:
        return self._tiles.get((level, index), b"") if level else self._leaves(index)

    def _read_leaves(self, leaves: IO[bytes], index: int) -> bytes:
        if index not in self._marked:
            return b""
        place, width, _ = self._marked[index]
        leaves.seek(place)
        return leaves.read(width * SIZE)

    def _check_event(self, event: ArchivedEvent, before: tuple[UUID, int, bytes]) -> tuple[UUID, int, bytes]:
        """That it follows the one before it, has its own hash, and was sealed as the leaf that it names."""
        where = f"event {event.version} of job {event.job_id}"
        id, version, previous = before
        if event.job_id != id:
            if event.job_id < id:
                raise ArchiveRefused(f"{where} is out of order")
            version, previous = 0, GENESIS
        if event.version != version + 1:
            raise ArchiveRefused(f"{where} follows version {version}: one is missing, or was added")
        hash = chain(previous, event.job_id, event.version, event.topic, event.state.encode())
        if hash.hex() != event.hash:
            raise ArchiveRefused(f"{where}: its content, its topic or its place was changed; its hash is another")
        index, at = divmod(event.leaf, WIDTH)
        _, _, marked = self._marked.get(index, (0, 0, b""))
        if not marked or not marked[at // 8] & 1 << at % 8:
            raise ArchiveRefused(f"{where} is at leaf {event.leaf}, which the archive does not mark as the month's")
        if self._leaves(index)[at * SIZE : (at + 1) * SIZE] != leaf_hash(hash):
            raise ArchiveRefused(f"{where}: the log that was signed does not have it at leaf {event.leaf}")
        return event.job_id, event.version, hash

    def _next(self, otherwise: str) -> bytes:
        line = next(self._lines, None)
        if line is None:
            raise ArchiveRefused(otherwise)
        return line


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a file in gzip. Raises zlib.error, and ValueError for one that is cut off."""
    decompressor = zlib.decompressobj(GZIP)
    rest = b""
    for chunk in chunks:
        while chunk:
            *whole, rest = (rest + decompressor.decompress(chunk, PIECE)).split(b"\n")
            if len(rest) > LONGEST_LINE:
                raise ValueError(f"a line has more than {LONGEST_LINE} bytes")
            yield from whole
            chunk = decompressor.unconsumed_tail
    *whole, rest = (rest + decompressor.flush()).split(b"\n")
    yield from whole
    if not decompressor.eof or decompressor.unused_data or rest:
        raise ValueError("it is cut off, or goes on after its end")


def width_at(level: int, index: int, size: int) -> int:
    """How many hashes a tile of the tree of `size` leaves has."""
    return min(WIDTH, (size >> HEIGHT * level) - index * WIDTH)


def tile_line(level: int, index: int, hashes: bytes, leaves: bytes | None = None) -> Tile:
    return Tile(level=level, index=index, hashes=b64encode(hashes).decode(), leaves=leaves.hex() if leaves else None)

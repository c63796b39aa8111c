"""The sealer: adds the log's events to a Merkle tree, and signs a checkpoint of it every few seconds."""

import asyncio
from datetime import datetime
from typing import Protocol

import structlog
from msgspec import Struct

from application.errors import ApplicationError, Unavailable
from domain.merkle import SIZE, ProofFailed, Read, Tile, grow, leaf_hash, root, widths
from domain.notes import Checkpoint, Malformed, read

log = structlog.get_logger()
PERIOD = 2.0
"""Seconds between checkpoints, while there is something new."""
MOST_LEAVES = 65_536
"""Events that one checkpoint adds at the most; what is left is sealed at once after that."""


BRING = (
    "bring a copy of the file `keys`; only if there is none any more, `jobledger audit rekey` goes on under a new key; "
    "see docs/audit.md"
)


class SealRefused(ApplicationError):
    """The sealer will not sign this."""

    code = "conflict"


class Sealed(Struct, frozen=True):
    """How far the log is sealed, by the database's word.

    `edge` has, for each level, the hashes of the tile that is not full yet; `positions` are those of its leaves, 8
    bytes each. `age` is in seconds since the last checkpoint.
    """

    size: int
    position: int
    note: str | None
    edge: list[bytes]
    positions: bytes
    now: datetime
    age: float | None
    refusal: str | None


class Unsealed(Struct, frozen=True):
    """Events beyond the seal, in order: their positions, 8 bytes each, and their hashes."""

    positions: bytes
    hashes: bytes


class Extension(Struct, frozen=True):
    """What sealing some events writes, all in one transaction."""

    size: int
    position: int
    tiles: list[Tile]
    positions: bytes
    note: str
    keys: list[str]


class SealStore(Protocol):
    """The port to the seal. Calls block; run them on a thread."""

    def sealed(self) -> Sealed: ...

    def unsealed(self, after: int, limit: int) -> Unsealed:
        """Events with positions above `after` and below the safe position."""
        ...

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile; none when there is no such tile."""
        ...

    def extend(self, before: Sealed, extension: Extension) -> bool:
        """Whether it was written: nobody else had gone on from `before`, or was about to."""
        ...

    def refuse(self, reason: str | None) -> None:
        """Let it be known why sealing does not go on, or that it does."""
        ...


class Keys(Protocol):
    """The port to the keys, and to what is kept beside them, out of the database's reach. Calls block."""

    def origin(self) -> str | None:
        """The name of the keys; None while there are none."""
        ...

    def make(self) -> str:
        """Make the log's first key; returns its name."""
        ...

    def sign(self, text: str, now: datetime) -> tuple[str, list[str]]:
        """The note with the signatures of all keys that are in use, and the verifier keys of those."""
        ...

    def signed(self, note: str) -> bool:
        """Whether one of the keys signed it."""
        ...

    def last(self) -> str | None:
        """The checkpoint that was kept last."""
        ...

    def keep(self, note: str) -> None:
        """Keep the checkpoint that was signed last."""
        ...


class Sealer:
    """Seals what is safe to read. Any number may run: the one that writes first is the sealer of that moment."""

    def __init__(self, store: SealStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._told: str | None = None

    async def run(self) -> None:
        """Seal until cancelled."""
        behind = False
        while True:
            try:
                behind = await asyncio.to_thread(self.run_once, 0.0 if behind else PERIOD / 2) == MOST_LEAVES
            except Unavailable as away:
                behind = False
                log.warning("sealer.unavailable", reason=str(away))
            except (SealRefused, Malformed) as refused:
                behind = False
                self._tell(str(refused))
            except Exception:
                behind = False
                log.exception("sealer.failed")
            else:
                self._told = None
            if not behind:
                await asyncio.sleep(PERIOD)

    def run_once(self, age: float = 0.0) -> int:
        """Seal what is new, if the last checkpoint is `age` seconds old; how many events were added. Blocks.

        Raises Unavailable, and SealRefused rather than sign what does not extend what was signed before.
        """
        before, origin = self.check()
        if before.refusal is not None:
            self._store.refuse(None)
        if before.age is not None and before.age < age:
            return 0
        new = self._store.unsealed(before.position, MOST_LEAVES)
        if not new.positions:
            return 0
        extension = self._extension(before, new, origin)
        if not self._store.extend(before, extension):
            return 0
        self._keys.keep(extension.note)
        added = extension.size - before.size
        log.debug("log.sealed", size=extension.size, added=added)
        return added

    def check(self) -> tuple[Sealed, str]:
        """How far the log is sealed, and its origin. Raises SealRefused for what does not extend what was signed."""
        kept = self._keys.last()  # first: another sealer may keep a later one in the same place at any moment
        before = self._store.sealed()
        return before, self._checked(before, kept)

    def _extension(self, before: Sealed, new: Unsealed, origin: str) -> Extension:
        leaves = [leaf_hash(new.hashes[at : at + SIZE]) for at in range(0, len(new.hashes), SIZE)]
        tiles = grow(before.size, before.edge, leaves)
        size = before.size + len(leaves)
        changed = {(tile.level, tile.index): tile.hashes for tile in tiles}
        checkpoint = Checkpoint(origin, size, root(size, _reading({**_edge(before), **changed})))
        note, keys = self._keys.sign(checkpoint.text(), before.now)
        if not keys:
            raise SealRefused(f"the time of every key of {origin} is over; make a new one, see docs/audit.md")
        last = int.from_bytes(new.positions[-8:], "big")
        return Extension(size, last, tiles, before.positions + new.positions, note, keys)

    def _checked(self, before: Sealed, kept: str | None) -> str:
        """The log's origin, once it is sure that what is there extends what was signed, by our keys."""
        origin = self._keys.origin()
        if before.note is None:
            if origin is None and kept is None:
                origin = self._keys.make()
        elif origin is None:
            raise SealRefused(f"this log is sealed already, and its key is not here; {BRING}")
        elif not self._keys.signed(before.note):
            raise SealRefused(
                f"the last checkpoint of this log was not signed by a key that is here ({origin}); {BRING}"
            )
        if kept is not None and kept != before.note:
            self._must_extend(_checkpoint(kept), before)
        if before.note is None:
            if origin is None:
                raise SealRefused(f"a checkpoint is kept here, but no key; {BRING}")
            return origin
        last = _checkpoint(before.note)
        if last.size != before.size or last.root != _root(before.size, _reading(_edge(before))):
            self._refuse("the tiles of the seal are not those that the last checkpoint was signed for")
        if kept != before.note:
            self._keys.keep(before.note)
        return last.origin

    def _must_extend(self, kept: Checkpoint, before: Sealed) -> None:
        if kept.size > before.size:
            self._refuse(
                f"the checkpoint kept beside the key is of {kept.size} events, and this log has sealed {before.size}: "
                "it was restored from an older backup, or it is another log; see docs/audit.md"
            )
        if before.note is not None and kept.origin != _checkpoint(before.note).origin:
            self._refuse(f"the checkpoint kept beside the key is of another log: {kept.origin}")
        if _root(kept.size, self._store.tile) != kept.root:
            self._refuse(
                f"this log does not extend the checkpoint of {kept.size} events that is kept beside the key: what it "
                "had sealed was changed, or it was restored from a backup and went on; see docs/audit.md"
            )

    def _refuse(self, reason: str) -> None:
        self._store.refuse(reason)
        raise SealRefused(reason)

    def _tell(self, reason: str) -> None:
        """Log it, once."""
        if reason != self._told:
            log.error("sealer.refused", reason=reason)
            self._told = reason


def _checkpoint(note: str) -> Checkpoint:
    return Checkpoint.parse(read(note)[0])


def _edge(before: Sealed) -> dict[tuple[int, int], bytes]:
    """The tiles that are not full, by level and index."""
    return {(level, index): before.edge[level] for level, index, _ in widths(before.size)}


def _reading(tiles: dict[tuple[int, int], bytes]) -> Read:
    return lambda level, index: tiles.get((level, index), b"")


def _root(size: int, read: Read) -> bytes | None:
    """The root, or None when the tiles do not make one."""
    try:
        return root(size, read)
    except ProofFailed:
        return None

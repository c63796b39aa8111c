"""What auditors ask for: checkpoints, tiles and proofs, a job in one file, and who took what out of the log."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import cache
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct
from msgspec.json import encode

from application.archives import Archive, ArchiveView, Gone
from application.errors import FieldError, Invalid, NotFound
from application.jobs import Jobs
from application.readers import Readers
from domain.merkle import Read, consistency, inclusion, root
from domain.refusals import Conflict

FORMAT = "jobledger/bundle/1"
PAGE = 100
LOOK_SECONDS = 0.2
"""How often somebody who waits for the seal looks whether it is there."""
UNSEALED = "nothing is sealed yet; a projector seals what is new every few seconds"

Action = Literal["export", "bundle", "rekey"]


class SealingKey(Struct, frozen=True):
    """A public key, and when it signed its first and its latest checkpoint."""

    key: str
    first_signed_at: datetime
    last_signed_at: datetime


class SealedTo(Struct, frozen=True):
    """How far the log is sealed: leaves, the position of the last, and the checkpoint, as a note."""

    size: int
    position: int
    checkpoint: str


class Place(Struct, frozen=True):
    """Where an event is: its job and version, its position in the log, and its hash."""

    job_id: UUID
    version: int
    position: int
    hash: bytes


class StoredEvent(Struct, frozen=True):
    """An event as it is stored."""

    version: int
    position: int
    topic: str
    hash: bytes
    state: bytes


class Inclusion(Struct, frozen=True, kw_only=True):
    """The proof (RFC 6962) that an event's hash is a leaf of the tree that the checkpoint states; hashes are in hex."""

    job_id: UUID
    version: int
    position: str
    hash: str
    index: int
    size: int
    root: str
    proof: list[str]
    checkpoint: str


class Consistency(Struct, frozen=True, rename={"first": "from", "second": "to"}):
    """The proof (RFC 6962) that the tree of `from` leaves is how that of `to` leaves began; hashes are in hex."""

    first: int
    second: int
    from_root: str
    to_root: str
    proof: list[str]


class BundledEvent(Struct, frozen=True):
    """An event as it is stored, in a bundle: `hash` is in hex, `state` in base64."""

    version: int
    position: str
    topic: str
    hash: str
    state: bytes


class Access(Struct, frozen=True):
    """Somebody took events out of the log: a job's bundle, or an export of what a filter found.

    Or the seal goes on under a new key since the one before is lost: `filter` has from which size on and under which
    key, and `reason` why.
    """

    number: int
    at: datetime
    by: str
    action: Action
    job_id: UUID | None
    filter: str | None
    reason: str | None


class Proofs(Protocol):
    """The port to what is sealed. Calls block; run them on a thread."""

    def sealed_to(self) -> SealedTo | None:
        """None while nothing is sealed."""
        ...

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile; none when there is no such tile."""
        ...

    def entries(self, index: int) -> list[bytes] | None:
        """The hashes of the events under a tile of leaves; None where they have left the log."""
        ...

    def archives(self, after: int) -> list[ArchiveView]:
        """Those with events after a position of the log, the oldest month first."""
        ...

    def archive_under(self, index: int) -> Archive | None:
        """An archive that has events under a tile of leaves."""
        ...

    def archive_at(self, position: int) -> Archive | None:
        """The archive that has the event at a position."""
        ...

    def leaf(self, position: int) -> int | None:
        """The index of the leaf of the event at a position; None while it is not sealed."""
        ...

    def at_position(self, position: int) -> Place | None: ...

    def at_version(self, job_id: UUID, version: int) -> Place | None: ...

    def last_before(self, job_id: UUID, position: int) -> Place | None:
        """The job's last event up to a position."""
        ...

    def stored(self, job_id: UUID, after: int, to: int, limit: int) -> list[StoredEvent]:
        """A job's events with versions above `after`, up to `to`, `limit` at the most."""
        ...

    def sealing_keys(self) -> list[SealingKey]: ...


class Accesses(Protocol):
    """The port to the record of who took what. Calls block; run them on a thread."""

    def record(self, by: str, action: Action, job_id: UUID | None, filter: str | None) -> None: ...

    def page(self, before: int, limit: int) -> list[Access]:
        """Those numbered below `before`, the latest first."""
        ...


class Audit:
    """Answers auditors."""

    def __init__(self, proofs: Proofs, accesses: Accesses, jobs: Jobs) -> None:
        self._proofs = proofs
        self._accesses = accesses
        self._jobs = jobs
        self._read: Readers = jobs.read

    async def sealed_to(self) -> SealedTo:
        """How far the log is sealed. Raises NotFound while nothing is."""
        sealed = await self._read(self._proofs.sealed_to)
        if sealed is None:
            raise NotFound(UNSEALED)
        return sealed

    async def keys(self) -> list[SealingKey]:
        """The public keys that signed checkpoints, the first one first."""
        return await self._read(self._proofs.sealing_keys)

    async def archives(self, after: int) -> list[ArchiveView]:
        """The months that left the log and have events after a position, the oldest first."""
        return await self._read(self._proofs.archives, after)

    async def tile(self, level: int, index: int, width: int) -> bytes:
        """The first `width` hashes of a tile. Raises NotFound where there are not as many."""
        hashes = (await self._read(self._proofs.tile, level, index))[: width * 32]
        if len(hashes) < width * 32:
            raise NotFound(f"tile {index} of level {level} does not have {width} hashes")
        return hashes

    async def entries(self, index: int, width: int) -> bytes:
        """The first `width` leaves under a tile, each after its length (2 bytes, big-endian). Raises NotFound."""
        entries = await self._read(self._proofs.entries, index)
        if entries is None and (archive := await self._read(self._proofs.archive_under, index)) is not None:
            raise Gone(f"what is under tile {index}", archive)
        if entries is None or len(entries) < width:
            raise NotFound(f"the log does not have {width} events under tile {index}")
        return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries[:width])

    async def consistency(self, first: int, second: int | None) -> Consistency:
        """The proof between two sizes of the tree; the second is the present one by default.

        Raises NotFound for a size beyond the present one, and Invalid when the first is the larger.
        """
        size = (await self.sealed_to()).size
        second = size if second is None else second
        if max(first, second) > size:
            raise NotFound(f"the log is sealed to {size} events, not {max(first, second)}")
        if first > second:
            raise Invalid(FieldError("from", f"must be 0 to {second}"))
        return await self._read(_consistency, first, second, self._proofs.tile)

    async def inclusion(self, place: int | tuple[UUID, int], namespace: str | None, seconds: float) -> Inclusion:
        """The proof of the event at a position, or at a job's version, waiting up to `seconds` until it is sealed.

        Raises NotFound for an event that is not there, and Conflict while it is not sealed.
        """
        if isinstance(place, tuple) and namespace is not None:
            await self._jobs.get(place[0], namespace)
        found = await self._read(self._at, place)
        if found is None:
            raise await self._absent(place, namespace)
        if not await self._seen(found.job_id, namespace):
            raise NotFound(f"there is no event {_told(place)}")
        sealed = await self._until_sealed(found, seconds)
        return await self._read(self._prove, found, sealed)

    async def bundle(self, job_id: UUID, namespace: str | None, by: str | None, seconds: float) -> AsyncIterator[bytes]:
        """A job in one file, as JSON: what is sealed of its events, as stored, and what proves them.

        Waits up to `seconds` until all there are now is sealed. Raises NotFound, and Conflict while nothing of it is
        sealed. That it was asked for is recorded first; `by` is None for somebody who takes nothing of it.
        """
        view = await self._jobs.get(job_id, namespace)
        if seconds and (last := await self._read(self._proofs.at_version, job_id, view.version)) is not None:
            await self._until_sealed(last, seconds, enough=True)
        sealed = await self._read(self._proofs.sealed_to)
        last = await self._read(self._proofs.last_before, job_id, sealed.position) if sealed else None
        if sealed is None or last is None:
            raise Conflict(f"nothing of job {job_id} is sealed yet; ask again in a few seconds, with Prefer: wait=20")
        proof = await self._read(self._prove, last, sealed)
        keys = await self.keys()
        if by is not None:
            await self.record(by, "bundle", job_id=job_id)
        return self._written(job_id, last.version, view.version - last.version, proof, keys)

    async def record(self, by: str, action: Action, *, job_id: UUID | None = None, filter: str | None = None) -> None:
        """Record who takes what. Raises Unavailable: then nothing may be handed out."""
        await self._read(self._accesses.record, by, action, job_id, filter)

    async def accesses(self, before: int, limit: int) -> list[Access]:
        """Who took what, the latest first, from below the number `before`."""
        return await self._read(self._accesses.page, before, limit)

    async def _written(
        self, job_id: UUID, to: int, unsealed: int, proof: Inclusion, keys: Sequence[SealingKey]
    ) -> AsyncIterator[bytes]:
        """The bundle, a page of events in memory at a time."""
        head = encode({"format": FORMAT, "job_id": job_id, "unsealed": max(unsealed, 0)})
        yield head[:-1] + b',"keys":' + encode(keys) + b',"inclusion":' + encode(proof) + b',"events":['
        after = 0
        while after < to:
            page = await self._read(self._proofs.stored, job_id, after, to, PAGE)
            if not page:
                break
            yield (b"," if after else b"") + b",\n".join(_event(event) for event in page)
            after = page[-1].version
        yield b"]}\n"

    async def _absent(self, place: int | tuple[UUID, int], namespace: str | None) -> NotFound:
        """Why there is no event at a place. Raises Gone for one of a job that is."""
        if not isinstance(place, int):
            await self._jobs.get(place[0], namespace)
        elif (archive := await self._read(self._proofs.archive_at, place)) is not None:
            return Gone(f"the event {_told(place)}", archive)
        return NotFound(f"there is no event {_told(place)}")

    async def _seen(self, job_id: UUID, namespace: str | None) -> bool:
        """Whether somebody limited to a namespace sees the job."""
        if namespace is None:
            return True
        try:
            await self._jobs.get(job_id, namespace)
        except NotFound:
            return False
        return True

    async def _until_sealed(self, place: Place, seconds: float, *, enough: bool = False) -> SealedTo:
        """How far the log is sealed, once it is as far as that event. Raises Conflict after `seconds`.

        With `enough` what there is then is enough.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while True:
            sealed = await self._read(self._proofs.sealed_to)
            if sealed is not None and sealed.position >= place.position:
                return sealed
            if clock() >= until:
                if enough and sealed is not None:
                    return sealed
                raise Conflict(
                    f"event {place.version} of job {place.job_id} is not sealed yet; ask again in a few seconds, with "
                    "Prefer: wait=20"
                )
            await asyncio.sleep(min(LOOK_SECONDS, max(until - clock(), 0.0)))

    def _at(self, place: int | tuple[UUID, int]) -> Place | None:
        return self._proofs.at_position(place) if isinstance(place, int) else self._proofs.at_version(*place)

    def _prove(self, place: Place, sealed: SealedTo) -> Inclusion:
        index = self._proofs.leaf(place.position)
        if index is None:
            raise Conflict(
                f"the seal has no leaf for event {place.version} of job {place.job_id}: it was tampered with"
            )
        read = cache(self._proofs.tile)
        return Inclusion(
            job_id=place.job_id,
            version=place.version,
            position=str(place.position),
            hash=place.hash.hex(),
            index=index,
            size=sealed.size,
            root=root(sealed.size, read).hex(),
            proof=[hash.hex() for hash in inclusion(index, sealed.size, read)],
            checkpoint=sealed.checkpoint,
        )


def _consistency(first: int, second: int, tile: Read) -> Consistency:
    read = cache(tile)
    proof = [hash.hex() for hash in consistency(first, second, read)]
    return Consistency(first, second, root(first, read).hex(), root(second, read).hex(), proof)


def _event(event: StoredEvent) -> bytes:
    return encode(BundledEvent(event.version, str(event.position), event.topic, event.hash.hex(), event.state))


def _told(place: int | tuple[UUID, int]) -> str:
    return f"at position {place}" if isinstance(place, int) else f"{place[1]} of job {place[0]}"

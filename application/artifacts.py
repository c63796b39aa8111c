"""The files that jobs make, kept by the SHA-256 of their content."""

import asyncio
import re
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from application.errors import FieldError, Invalid, NotFound, StoreUnavailable, Unavailable
from application.reports import ArtifactReport, Heartbeat, Reports
from domain.events import Artifact

LONGEST_NAME = 255
LARGEST_FILE = 5 * 1024**3
"""Bytes a file may have."""
PIECE = 1024 * 1024
SWEEP_PATIENCE = 10.0
"""Seconds to wait for a sweeper that is removing the very content that is to be stored."""
SWEEP_PAUSE = 0.1
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  a token of HTTP
_MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?:\s*;\s*{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*\s*', re.ASCII)


class Stored(Struct, frozen=True):
    """A content: its SHA-256 in lower-case hex, and its bytes."""

    sha256: str
    size: int


class ArtifactStore(Protocol):
    """The port to where contents are kept."""

    async def save(
        self, content: AsyncIterator[bytes], most: int, admit: Callable[[Stored], Awaitable[None]]
    ) -> Stored:
        """Keep the content, safely stored when this returns; in constant memory, whatever its size.

        `admit` is asked when all of it is there and before it is kept; what it raises, what `content` raises, and more
        than `most` bytes (TooLarge) leave nothing behind. Raises StoreUnavailable, NoSpace among them.
        """
        ...

    def read(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end`. Raises FileNotFoundError for unknown content."""
        ...


class Holds(Protocol):
    """The port to what is known of contents. Calls block; run them on a thread."""

    def hold(self, sha256: str, job_id: UUID, attempt: int) -> bool:
        """Keep the sweeper from a content that the attempt is about to store and name. False: it is being removed."""
        ...


class Upload(Struct, frozen=True):
    """A file as it is recorded; `new` unless the job had the very same before."""

    artifact: Artifact
    new: bool


class Incoming(Struct):
    """A file on its way: of whose attempt, under which name, with which SHA-256 if that is known, and who sends it.

    `namespace` is the one whose jobs the sender knows; None for all.

    Raises Invalid for a bad name or media type.
    """

    worker: str
    job_id: UUID
    attempt: int
    name: str
    media_type: str
    sha256: str | None = None
    trace: str | None = None
    by: str | None = None
    namespace: str | None = None

    def __post_init__(self) -> None:
        self.name = checked_name(self.name)
        check_media_type(self.media_type)


class Artifacts:
    """Saves files for jobs: first the content, then the event that names it."""

    def __init__(self, store: ArtifactStore, holds: Holds, reports: Reports) -> None:
        self._store = store
        self._holds = holds
        self._reports = reports

    async def save(
        self, worker: str, job_id: UUID, attempt: int, name: str, content: bytes | Path, media_type: str
    ) -> Artifact:
        """Keep `content`, or that of the file at a path, as the job's file `name`; the caller keeps the lease alive.

        Raises Invalid for a bad name or media type, LeaseLost without the lease, StoreUnavailable.
        """
        return await self._save(Incoming(worker, job_id, attempt, name, media_type), pieces(content))

    async def upload(
        self,
        worker: str,
        job_id: UUID,
        attempt: int,
        name: str,
        content: AsyncIterator[bytes],
        media_type: str,
        sha256: str | None = None,
        trace: str | None = None,
        by: str | None = None,
        namespace: str | None = None,
    ) -> Upload:
        """Like `save`, for a content that takes its time to arrive: the lease is kept alive meanwhile.

        Nothing of it is read when the worker does not hold the attempt. Raises Invalid when `sha256` is not its hash.
        """
        file = Incoming(worker, job_id, attempt, name, media_type, sha256, trace, by, namespace)
        holding = await self._reports.hold(worker, job_id, attempt, namespace)
        saving = asyncio.ensure_future(self._save(file, content))
        beating = asyncio.ensure_future(self._beat(worker, job_id, attempt, holding.heartbeat_timeout / 3))
        try:
            await asyncio.wait({saving, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not saving.done():
                await beating  # raises why the attempt is no longer held
            artifact = await saving
        finally:
            saving.cancel()
            beating.cancel()
            await asyncio.gather(saving, beating, return_exceptions=True)
        return Upload(artifact, holding.artifacts.get(file.name) != artifact)

    def read(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        """See the port, `ArtifactStore.read`."""
        return self._store.read(sha256, start, end)

    async def content(self, artifact: Artifact) -> bytes:
        """All of a file, in memory. Raises NotFound for one that is not in the store."""
        try:
            return b"".join([piece async for piece in self.read(artifact.sha256, 0, artifact.size)])
        except FileNotFoundError as error:
            raise NotFound(
                f"the content of {artifact.name!r} (sha256 {artifact.sha256}) is not in the store"
            ) from error

    async def _save(self, file: Incoming, content: AsyncIterator[bytes]) -> Artifact:
        async def admit(stored: Stored) -> None:
            if file.sha256 not in (None, stored.sha256):
                raise Invalid(FieldError("Content-Digest", f"the SHA-256 of what arrived is {stored.sha256} in hex"))
            await self._hold(stored.sha256, file.job_id, file.attempt)

        stored = await self._store.save(content, LARGEST_FILE, admit)
        artifact = Artifact(name=file.name, sha256=stored.sha256, size=stored.size, media_type=file.media_type)
        report = ArtifactReport(job_id=file.job_id, attempt=file.attempt, artifact=artifact)
        await self._reports.say(file.worker, report, file.trace, file.by, file.namespace)
        return artifact

    async def _hold(self, sha256: str, job_id: UUID, attempt: int) -> None:
        """Raises StoreUnavailable while a sweeper, which has condemned the content, does not come to its end."""
        for _ in range(int(SWEEP_PATIENCE / SWEEP_PAUSE)):
            if await asyncio.to_thread(self._holds.hold, sha256, job_id, attempt):
                return
            await asyncio.sleep(SWEEP_PAUSE)
        raise StoreUnavailable("a content of the same bytes is being swept; nothing was stored; try again")

    async def _beat(self, worker: str, job_id: UUID, attempt: int, period: float) -> None:
        """Extend the lease until cancelled. Raises LeaseLost or JobFinished."""
        while True:
            await asyncio.sleep(period)
            try:
                await self._reports.say(worker, Heartbeat(job_id=job_id, attempt=attempt))
            except Unavailable:
                continue


async def pieces(content: bytes | Path) -> AsyncIterator[bytes]:
    """A content a piece at a time; of a file, one is in memory."""
    if isinstance(content, bytes):
        yield content
        return
    file = await asyncio.to_thread(content.open, "rb")
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


def checked_name(name: str) -> str:
    """The name in Unicode's composed form (NFC), so that what looks the same is the same. Raises Invalid.

    A name is never a path, here or where somebody saves the file.
    """
    composed = unicodedata.normalize("NFC", name)
    if (
        not 0 < len(composed) <= LONGEST_NAME
        or composed in (".", "..")
        or any(c in "/\\\ufffd" or unicodedata.category(c) in _CONTROLS for c in composed)
    ):
        raise Invalid(
            FieldError("name", f"must be 1 to {LONGEST_NAME} characters, without slashes or control characters")
        )
    return composed


def check_media_type(media_type: str) -> None:
    """Raises Invalid for what is no media type (RFC 9110, 8.3.1)."""
    if len(media_type) > LONGEST_NAME or not _MEDIA_TYPE.fullmatch(media_type):
        raise Invalid(FieldError("Content-Type", "must be a media type, such as video/mp4"))

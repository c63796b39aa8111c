"""The files that jobs make, kept by the SHA-256 of their content."""

from collections.abc import AsyncIterator
from typing import Protocol
from uuid import UUID

from application.errors import FieldError, Invalid
from application.reports import ArtifactReport, Reports
from domain.events import Artifact

LONGEST_NAME = 255


class ArtifactStore(Protocol):
    """The port to where contents are kept."""

    async def save(self, content: bytes) -> str:
        """Keep `content`, safely stored when this returns; answers its SHA-256 in lower-case hex."""
        ...

    def read(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end`. Raises FileNotFoundError for unknown content."""
        ...


class Artifacts:
    """Saves files for jobs: first the content, then the event that names it."""

    def __init__(self, store: ArtifactStore, reports: Reports) -> None:
        self._store = store
        self._reports = reports

    async def save(
        self, worker: str, job_id: UUID, attempt: int, name: str, content: bytes, media_type: str
    ) -> Artifact:
        """Keep `content` as the job's file `name`. Raises Invalid for a bad name, LeaseLost without the lease."""
        check_name(name)
        sha256 = await self._store.save(content)
        artifact = Artifact(name=name, sha256=sha256, size=len(content), media_type=media_type)
        await self._reports.say(worker, ArtifactReport(job_id=job_id, attempt=attempt, artifact=artifact))
        return artifact

    def read(self, artifact: Artifact, start: int, end: int) -> AsyncIterator[bytes]:
        return self._store.read(artifact.sha256, start, end)


def check_name(name: str) -> None:
    """A name is never a path. Raises Invalid."""
    if not 0 < len(name) <= LONGEST_NAME or name in (".", "..") or any(c in "/\\" or ord(c) < 32 for c in name):
        raise Invalid(
            FieldError("name", f"must be 1 to {LONGEST_NAME} characters, without slashes or control characters")
        )

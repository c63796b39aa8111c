"""A job's bundle out of an archive: what the service gives of a job that is in the log, made from the file alone."""

from collections.abc import Sequence
from uuid import UUID

from msgspec.json import encode

from application.archives import ArchivedEvent, ArchiveReader, Contents
from application.audit import FORMAT, BundledEvent, Inclusion
from application.errors import NotFound
from domain.notes import Checkpoint, read


def bundle_of(reader: ArchiveReader, job_id: UUID) -> bytes:
    """The job's events and what proves them, as JSON; all of the archive is checked on the way.

    `keys` has the public keys that the archive names, without the times that only the service knows. Raises
    ArchiveRefused, and NotFound for a job that is not in it.
    """
    events: list[ArchivedEvent] = []
    proof: list[bytes] = []
    for page in reader.pages():
        if mine := [event for event in page if event.job_id == job_id]:
            events += mine
            proof = reader.proof(mine[-1].leaf)
    assert reader.contents is not None
    if not events:
        contents = reader.contents
        raise NotFound(
            f"job {job_id} is not among the {contents.jobs} jobs of {contents.month:%Y-%m} in this archive, whose ids "
            f"are from {contents.low} to before {contents.high}"
        )
    return _written(reader.contents, events, proof)


def _written(contents: Contents, events: Sequence[ArchivedEvent], proof: Sequence[bytes]) -> bytes:
    last = events[-1]
    inclusion = Inclusion(
        job_id=last.job_id,
        version=last.version,
        position=last.position,
        hash=last.hash,
        index=last.leaf,
        size=contents.size,
        root=Checkpoint.parse(read(contents.checkpoint)[0]).root.hex(),
        proof=[hash.hex() for hash in proof],
        checkpoint=contents.checkpoint,
    )
    stored = [BundledEvent(e.version, e.position, e.topic, e.hash, e.state.encode()) for e in events]
    bundle = {
        "format": FORMAT,
        "job_id": last.job_id,
        "unsealed": 0,
        "keys": [{"key": key} for key in contents.keys],
        "inclusion": inclusion,
        "events": stored,
    }
    return encode(bundle) + b"\n"

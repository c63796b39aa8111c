"""The hash chain of a job's events, to the byte."""

from functools import cache
from hashlib import sha256
from uuid import UUID

GENESIS = bytes(32)
"""What the first event of a job is chained to."""

_PREFIX = b"jobledger/event/1\0"


def chain(previous: bytes, job_id: UUID, version: int, topic: str, state: bytes) -> bytes:
    """The 32-byte hash of an event, covering its predecessor's.

    SHA-256("jobledger/event/1\\0" ‖ previous hash (32 bytes) ‖ job id (16) ‖ version (8, big-endian) ‖ length of
    topic (4, big-endian) ‖ topic (UTF-8) ‖ state as stored).
    """
    place = job_id.int.to_bytes(16, "big") + version.to_bytes(8, "big")
    return sha256(b"".join((_PREFIX, previous, place, _named(topic), state))).digest()


@cache
def _named(topic: str) -> bytes:
    name = topic.encode()
    return len(name).to_bytes(4, "big") + name

"""News: which queues got work and which jobs moved, told after the commit and heard on every node.

A topic is a string. News may come late, twice, or not at all: who waits for it also looks for itself now and then.
"""

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

ANY = "*"
"""Anything may have happened: too much to name, or nobody was listening for a while."""
JOBS = "jobs"
"""Any job may have moved: too many to name did. Nothing came to wait that is not named."""
SOON = "soon"
"""A job came to wait for a moment that is near."""
LOG = "log"
"""The log grew; implied by any other news."""


def queue_topic(queue: str) -> str:
    return f"queue/{queue}"


def job_topic(job_id: UUID) -> str:
    return f"job/{job_id.hex}"


def is_of_job(topic: str) -> bool:
    return topic.startswith("job/")


class Listening(Protocol):
    """An ear for some topics, from the moment it was opened."""

    async def heard(self, seconds: float) -> bool:
        """Whether there was news since the last call, waiting for it up to `seconds`."""
        ...


class News(Protocol):
    """What is told in this process and, by way of the database, in all others."""

    def listen(self, topics: Collection[str]) -> AbstractContextManager[Listening]:
        """Open an ear. Look after opening it, not before: then nothing is missed."""
        ...

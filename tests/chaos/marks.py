"""Marks that handlers leave each time a step runs, in a file that outlives their process."""

import os
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

VARIABLE = "CHAOS_MARKS"


class Mark(NamedTuple):
    """A step's function was called in an attempt of a job, and was to return `token`."""

    job_id: str
    attempt: int
    step: str
    token: str


def leave(job_id: UUID, attempt: int, step: str) -> str:
    """Leave a mark, whole whenever the process dies; returns its token."""
    token = os.urandom(6).hex()
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{job_id} {attempt} {step} {token}\n".encode())
    finally:
        os.close(file)
    return token


def read(file: Path) -> list[Mark]:
    if not file.exists():
        return []
    lines = (line.split() for line in file.read_text().splitlines())
    return [Mark(job_id, int(attempt), step, token) for job_id, attempt, step, token in lines]

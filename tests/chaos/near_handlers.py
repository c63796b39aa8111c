"""Kinds that workers with a database run: steps, a file, a process of its own, a failure now and then."""

import asyncio
import random
import time
from uuid import UUID

from application.handlers import JobContext, PlainJobContext, handles
from tests.chaos.marks import leave


async def work(job_id: UUID, attempt: int, step: str) -> str:
    token = leave(job_id, attempt, step)
    await asyncio.sleep(random.uniform(0.005, 0.02))
    return token


@handles("steps")
async def steps(job: JobContext, input: int) -> list[str]:
    one = await job.step("one", work, job.id, job.attempt, "one")
    if input % 20 == 0 and job.attempt == 1:
        raise RuntimeError("the first attempt of each twentieth job fails")
    await job.progress(0.5, "half way")
    return [one, await job.step("two", work, job.id, job.attempt, "two")]


@handles("file")
async def file(job: JobContext, input: int) -> list[str]:
    one = await job.step("one", work, job.id, job.attempt, "one")
    await job.save_artifact("one.txt", f"{input}: {one}".encode(), "text/plain")
    return [one]


@handles("slow")
async def slow(job: JobContext, input: int) -> list[str]:
    """Long enough to be cancelled."""
    one = await job.step("one", work, job.id, job.attempt, "one")
    await asyncio.sleep(2)
    return [one]


def plain_work(job_id: UUID, attempt: int, step: str) -> str:
    token = leave(job_id, attempt, step)
    time.sleep(0.005)
    return token


@handles("plain")
def plain(job: PlainJobContext, input: int) -> list[str]:
    return [job.step("one", plain_work, job.id, job.attempt, "one")]

"""The kind that workers over HTTP run."""

from application.handlers import JobContext, handles
from tests.chaos.near_handlers import work


@handles("far")
async def far(job: JobContext, input: int) -> list[str]:
    one = await job.step("one", work, job.id, job.attempt, "one")
    return [one, await job.step("two", work, job.id, job.attempt, "two")]

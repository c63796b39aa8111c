"""What the tests of workers and rescue share: the service over a real database, and a worker on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from msgspec import Raw, Struct

from application.claims import Claim, ClaimedJob
from application.errors import Unavailable
from application.handlers import Handle, Handler, PlainHandle, handler_for
from application.jobs import Asked, JobView, NewJob, Retry
from application.reports import AnyReport, Heartbeat, Reported
from application.worker import Worker
from domain.events import Artifact
from interfaces.bootstrap import Service
from interfaces.settings import Settings
from tests.infrastructure.nodes import PATIENCE

ASKED = Asked(by="key:test")
AT_ONCE = Retry(initial=0, factor=1, max=0)


class Order(Struct):
    count: int = 1


class Page(Struct):
    url: str
    words: list[str]


def claimed() -> ClaimedJob:
    """A job as a worker gets it, that no ledger knows of."""
    return ClaimedJob(
        id=uuid4(),
        kind="work",
        queue="default",
        attempt=1,
        input=Raw(b"{}"),
        steps={},
        handles={},
        deadline=None,
        lease_expires_at=datetime.now(UTC),
        heartbeat_timeout=30,
        time_limit=None,
        progress=0,
        trace=None,
    )


class Line:
    """The service as a worker sees it, over a line that can go deaf to heartbeats."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.deaf = False

    async def claim(self, claim: Claim) -> Sequence[ClaimedJob]:
        return await self._service.claims.claim(claim)

    async def report(self, worker: str, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
        if self.deaf and any(isinstance(report, Heartbeat) for report in reports):
            return [Unavailable()] * len(reports)
        return await self._service.reports.say_all(worker, reports)

    async def save_artifact(
        self, worker: str, job_id: UUID, attempt: int, name: str, content: bytes | Path, media_type: str
    ) -> Artifact:
        return await self._service.artifacts.save(worker, job_id, attempt, name, content, media_type)

    async def read_artifact(self, job_id: UUID, artifact: Artifact) -> bytes:
        return await self._service.artifacts.content(artifact)


class Shop:
    """A service, the queue of one test, and workers for it."""

    def __init__(self, service: Service, queue: str) -> None:
        self.service = service
        self.queue = queue
        self.line = Line(service)

    async def create(self, kind: str = "work", input: bytes = b"{}", **fields: Any) -> UUID:
        new = NewJob(**{"kind": kind, "input": Raw(input), "queue": self.queue, **fields})
        (id,) = (await self.service.jobs.create([new], ASKED)).job_ids
        return id

    async def job(self, id: UUID) -> JobView:
        return await self.service.jobs.get(id)

    async def until(self, condition: Callable[[], Awaitable[object]]) -> None:
        """Wait until `condition` holds; fails when it does not within the patience of tests."""
        async with asyncio.timeout(PATIENCE):
            for pause in [0.005] * int(PATIENCE / 0.005):
                if await condition():
                    return
                await asyncio.sleep(pause)

    async def finished(self, id: UUID) -> JobView:
        """The job, once it is."""

        async def ended() -> bool:
            return (await self.job(id)).finished_at is not None

        await self.until(ended)
        return await self.job(id)

    async def status(self, id: UUID, *wanted: str) -> JobView:
        """The job, once its status is one of those wanted."""

        async def there() -> bool:
            return (await self.job(id)).status in wanted

        await self.until(there)
        return await self.job(id)

    async def topics(self, id: UUID) -> list[str]:
        """The tags of its events, without `job.`."""
        job = await self.service.jobs.fold(id)
        events = await asyncio.to_thread(self.service._log.stream, id)
        assert len(events) == job.version
        return [str(event.__struct_config__.tag).removeprefix("job.") for event in events]

    def worker(
        self, *, name: str = "w1", grace: float = 10.0, capacity: int = 5, **kinds: Handle | PlainHandle | Handler
    ) -> Worker:
        """A worker with a handler for each kind."""
        handlers: Mapping[str, Any] = {
            kind: run if isinstance(run, Handler) else handler_for(kind, run) for kind, run in kinds.items()
        }
        news = self.service.news
        return Worker(name, handlers, self.line, news, queues=[self.queue], capacity=capacity, grace=grace)

    @asynccontextmanager
    async def working(
        self, *, name: str = "w1", grace: float = 10.0, capacity: int = 5, **kinds: Handle | PlainHandle | Handler
    ) -> AsyncIterator[Worker]:
        """The same at work; it is stopped at the end."""
        worker = self.worker(name=name, grace=grace, capacity=capacity, **kinds)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(running, PATIENCE)


def in_shop(dsn: str, folder: Path, queue: str, story: Callable[[Shop], Awaitable[None]]) -> None:
    """Run a story with a service of its own."""

    async def main() -> None:
        settings = Settings.model_validate({"DATABASE_URL": dsn, "JOBLEDGER_DATA": folder})
        service = Service(settings)
        try:
            await story(Shop(service, queue))
        finally:
            await service.close()

    asyncio.run(main())


Story = Callable[[Shop], Awaitable[None]]
Play = Callable[[Story], None]

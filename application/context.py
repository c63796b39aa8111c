"""The job as its handler sees it: steps and submissions that happen once, progress at a reader's pace, files."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

from msgspec import Raw

from application.claims import ClaimedJob
from application.ends import text
from application.record import Kept, Record, inside
from application.reports import ProgressReport, Reported
from application.tracing import Tracing
from domain.events import Artifact

T = TypeVar("T")
PACE_SECONDS = 0.5
"""Between two reports of progress: what a reader can follow."""
handling: ContextVar[ClaimedJob] = ContextVar("handling")
"""The job that this task handles, so that whatever is logged on its way names it."""
Heard = Callable[[Reported | Exception], None]


class Teller(Protocol):
    """Who reports for a context, in the order said, and stops its handler when an answer asks for that."""

    def cancelled(self, job: ClaimedJob) -> bool: ...

    def say(self, report: ProgressReport, job: ClaimedJob, heard: Heard) -> None: ...

    async def save_artifact(self, job: ClaimedJob, name: str, content: bytes | Path, media_type: str) -> Artifact: ...

    async def read_artifact(self, job: ClaimedJob, artifact: Artifact) -> bytes: ...


class Context:
    """See `application.handlers.JobContext`."""

    _moved: tuple[float, str | None] | None = None
    _next: float = 0.0
    _said: asyncio.Future[None] | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, teller: Teller, job: ClaimedJob, tracing: Tracing | None = None) -> None:
        self._teller = teller
        self._job = job
        self._tracing = tracing

    @cached_property
    def record(self) -> Record:
        return Record(self._job)

    @cached_property
    def _under_way(self) -> dict[tuple[Kept, str], asyncio.Future[None]]:
        return {}

    @property
    def id(self) -> UUID:
        return self._job.id

    @property
    def attempt(self) -> int:
        return self._job.attempt

    @property
    def cancelled(self) -> bool:
        return self._teller.cancelled(self._job)

    async def step(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        value: T = await self._once("step", name, fn, partial(fn, *args))
        return value

    async def submit(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        value: T = await self._once("handle", name, fn, partial(fn, *args, idempotency_key=f"{self.id}:{name}"))
        return value

    async def progress(self, fraction: float, message: str | None = None) -> None:
        self.move(fraction, message)
        await asyncio.sleep(0)  # a handler that says a lot and waits for nothing still lets others have their turns

    async def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact:
        self.flush()
        if self._said is not None and not self._said.done():
            await asyncio.wait([self._said])
        return await self._teller.save_artifact(self._job, name, content, media_type)

    async def read_artifact(self, artifact: Artifact) -> bytes:
        return await self._teller.read_artifact(self._job, artifact)

    def move(self, fraction: float, message: str | None) -> None:
        """Report progress now, or when it is time for it again, together with what comes until then."""
        before, last = self._moved or (0.0, None)
        self._moved = (max(before, min(max(fraction, 0.0), 1.0)), last if message is None else text(message))
        if self._timer is None:
            loop = asyncio.get_running_loop()
            wait = self._next - loop.time()
            if wait <= 0:
                self.flush()
            else:
                self._timer = loop.call_later(wait, self.flush)

    def flush(self) -> None:
        """Report the progress that waits for its time: something is said that must come after it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._moved is None:
            return
        progress, message = self._moved
        loop = asyncio.get_running_loop()
        said = self._said = loop.create_future()
        self._moved, self._next = None, loop.time() + PACE_SECONDS
        report = ProgressReport(job_id=self.id, attempt=self.attempt, progress=progress, message=message)
        self._teller.say(report, self._job, lambda _: said.set_result(None))

    async def keep(self, kept: Kept, name: str, output: Raw, seconds: float) -> None:
        """Record an output or a handle, which another process took so long for; returns once it is."""
        if self._tracing is not None:
            self._tracing.stepped(kept, name, seconds)
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._record(kept, name, output, recorded)
        await _settled(recorded)

    async def _once(self, kept: Kept, name: str, fn: Callable[..., Any], call: Callable[[], Awaitable[Any]]) -> Any:
        """What is on record, or comes of the call that is under way, or of this one."""
        while not self.record.ask(kept, name):
            under_way = self._under_way.get((kept, name))
            if under_way is None or under_way.done():
                under_way = await self._call(kept, name, call)
            await _settled(under_way)
        return self.record.read(kept, name, fn)

    async def _call(self, kept: Kept, name: str, call: Callable[[], Awaitable[Any]]) -> asyncio.Future[None]:
        """Call it, and begin to record what it returns: that goes on although the caller may be cancelled."""
        under_way: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[kept, name] = under_way
        try:
            with inside(name):
                value = await (call() if self._tracing is None else self._tracing.step(kept, name, call))
            self._record(kept, name, self.record.written(kept, name, value), under_way)
        except asyncio.CancelledError:
            under_way.cancel()
            raise
        except BaseException as error:
            _fail(under_way, error)
            raise
        return under_way

    def _record(self, kept: Kept, name: str, output: Raw, recorded: asyncio.Future[None]) -> None:
        def heard(answer: Reported | Exception) -> None:
            if isinstance(answer, Exception):
                _fail(recorded, answer)
            else:
                self.record.keep(kept, name, output)
                recorded.set_result(None)

        self.flush()
        if kept == "step":
            report = ProgressReport(job_id=self.id, attempt=self.attempt, step=name, output=output)
        else:
            report = ProgressReport(job_id=self.id, attempt=self.attempt, step=name, handle=output)
        self._teller.say(report, self._job, heard)


async def _settled(future: asyncio.Future[None]) -> None:
    """Wait for it without cancelling it; raises what it failed with, and returns when it was given up."""
    await asyncio.wait([future])
    if not future.cancelled():
        future.result()


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    """To whom it may concern: often nobody else waits."""
    future.set_exception(error)
    future.exception()

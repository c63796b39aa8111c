"""The worker runtime: claims jobs, runs their handlers with recorded steps, heartbeats, and reports."""

import asyncio
import math
import os
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID

import structlog
from msgspec import Struct

from application.claims import Claim, ClaimedJob
from application.context import Context, Heard, handling
from application.ends import completed, failure, given, raised
from application.errors import KeyRefused, NotFound, Unavailable
from application.handlers import GiveUp, Handler, RetryLater
from application.news import News, queue_topic
from application.plain import Begin
from application.processes import ASKED_SECONDS, ProcessDied, Processes
from application.reports import (
    AnyReport,
    CancelReport,
    Heartbeat,
    ReleaseReport,
    Reported,
    Reports,
)
from application.tracing import Tracing
from domain.events import Artifact
from domain.refusals import JobFinished, LeaseLost, Refused

log = structlog.get_logger()
POLL_SECONDS = 1.0
RETRY_SECONDS = 0.5
LAST_WORDS_SECONDS = 10.0
"""Until what a worker has to say at its end is heard, or left to rescue."""
SERVED_AT_A_TIME = 50
"""Jobs whose handlers wait for nothing that are run before claims, reports and heartbeats have their turns."""
AHEAD_SECONDS = 0.1
"""How much work is held ahead for each process."""
NOT_HEARD = (Unavailable, KeyRefused)
"""Answers after which the same is said again."""


class Service(Protocol):
    """What a worker needs of jobledger, in this process or across HTTP."""

    async def claim(self, claim: Claim) -> Sequence[ClaimedJob]: ...

    async def report(self, worker: str, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
        """For each report its answer, or the exception that says why not; in order, in one transaction."""
        ...

    async def save_artifact(
        self, worker: str, job_id: UUID, attempt: int, name: str, content: bytes | Path, media_type: str
    ) -> Artifact: ...

    async def read_artifact(self, job_id: UUID, artifact: Artifact) -> bytes:
        """Raises NotFound when the job no longer has that very file."""
        ...


class Room(Struct, eq=False):
    """Where the handlers of some kinds run: up to `size` at a time.

    What they can do in a tenth of a second is held ahead, so that quick handlers need not wait for claims, and slow
    ones keep nothing from other workers. Jobs that have ended are held until their report is answered; with them there
    are up to `most`.
    """

    kinds: list[str]
    size: int
    most: int
    left: asyncio.Event
    """Set when there is room again, when a job is no longer held, and when the worker is to stop."""
    pressed: asyncio.Event
    """Set while claims come back full."""
    running: int = 0
    held: int = 0
    took: float = math.inf
    """Seconds that plain handlers took of late."""

    @property
    def free(self) -> int:
        ahead = min(int(self.size * AHEAD_SECONDS / max(self.took, 0.0001)), self.most)
        return min(self.size + ahead - self.running, self.most - self.held)

    def hold(self, more: int) -> None:
        """Take in so many jobs more, or those that a claim under way may bring; fewer, if it is negative."""
        self.running += more
        self.held += more

    def press(self, full: bool) -> None:
        """The last claim came back full, or not."""
        if full:
            self.pressed.set()
        else:
            self.pressed.clear()

    def ended(self, seconds: float) -> None:
        """One slow handler is enough to hold less ahead, until several were quick again."""
        self.took = seconds if self.took == math.inf else max(seconds, (self.took + seconds) / 2)


class Running(Struct, eq=False):
    """A job this worker holds. `stopped` says why its handler was cancelled, if it was; `ended`, that it has ended."""

    job: ClaimedJob
    room: Room
    next_beat: float
    task: "asyncio.Task[None] | None" = None
    ended: bool = False
    stopped: Literal["lease-lost", "cancel", "drain"] | None = None


class Word(Struct, eq=False):
    """A report on its way, and who is told what became of it."""

    report: AnyReport
    heard: Heard


class Worker:
    """Runs jobs of the kinds it has handlers for, until it is told to stop.

    Of async kinds up to `capacity` at a time; of plain ones, beside these, as many as there are processes for them: a
    job that waits long for a process would keep other workers from it.
    """

    def __init__(
        self,
        name: str,
        handlers: Mapping[str, Handler],
        service: Service,
        news: News,
        *,
        queues: Sequence[str] = ("default",),
        capacity: int = 10,
        grace: float = 20.0,
        tracing: Tracing | None = None,
    ) -> None:
        """`grace`: seconds that running handlers are given to end when the worker stops."""
        self._name = name
        self._handlers = handlers
        self._service = service
        self._news = news
        self._queues = list(queues)
        self._grace = grace
        self._tracing = tracing
        self._running: dict[tuple[int, int], Running] = {}
        self._waiting: deque[Running] = deque()
        self._served_soon = False
        self._tasks_made = 0
        self._context = copy_context()
        self._processes = Processes(min(capacity, os.cpu_count() or 1))
        self._rooms = _rooms(handlers, capacity, self._processes.size)
        self._outbox: deque[Word] = deque()
        self._spoken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._away = False
        self.refusal: KeyRefused | None = None
        """Why the worker stopped by itself, if it did."""

    def stop(self) -> None:
        """Claim no more, and let `run` end once the handlers have, or their grace is over."""
        self._stopping.set()
        for room in self._rooms:
            room.left.set()

    def hurry(self) -> None:
        """Let `run` give back at once what has not ended, without the rest of the grace."""
        self._hurried.set()

    async def run(self) -> None:
        """Work until stopped; jobs that did not end within the grace are released, which costs them no attempt.

        Raises what a part of it failed with: a worker that claims and can no longer report would hold jobs for ever.
        """
        log.info("worker.started", worker=self._name, kinds=sorted(self._handlers), queues=self._queues)
        duties = [asyncio.create_task(self._heartbeat()), asyncio.create_task(self._deliver())]
        try:
            filling = (fill(room) for room in self._rooms for fill in (self._fill, self._fill_besides))
            await _end_of(asyncio.gather(*filling), duties)
            await _end_of(asyncio.ensure_future(self._drain()), duties)
        finally:
            for duty in duties:
                duty.cancel()
            await self._processes.close()
        log.info("worker.stopped", worker=self._name)

    async def _fill(self, room: Room) -> None:
        """Claim for a room until the worker is to stop; when there is less work than there is room, wait for news."""
        with self._news.listen([queue_topic(queue) for queue in self._queues]) as ear:
            while not self._stopping.is_set():
                if not await self._claim(room):
                    await _first(ear.heard(POLL_SECONDS), self._stopping.wait())

    async def _fill_besides(self, room: Room) -> None:
        """While claims come back full, have a second one under way: so the database need not wait for the worker."""
        while not self._stopping.is_set():
            if room.pressed.is_set():
                await self._claim(room)
            else:
                await _first(room.pressed.wait(), self._stopping.wait())

    async def _claim(self, room: Room) -> bool:
        """Fill the room; returns whether there may be more work."""
        if room.free <= 0:
            room.left.clear()
            await room.left.wait()
            return True
        claim = Claim(worker=self._name, queues=self._queues, kinds=room.kinds, max=min(room.free, 1000))
        room.hold(claim.max)
        try:
            jobs = await self._service.claim(claim)
            self._away = False
        except Unavailable as away:
            self._tell_once("claim.unavailable", away)
            jobs = ()
        except KeyRefused as refusal:
            self._end_for(refusal)
            jobs = ()
        except Exception:  # whatever the claim met with, what runs here goes on and is reported
            log.exception("claim.failed", worker=self._name)
            jobs = ()
        finally:
            room.hold(-claim.max)
        if jobs:
            log.debug("jobs.claimed", worker=self._name, count=len(jobs))
        self._take(jobs, room)
        room.press(len(jobs) == claim.max)
        if room.free > 0:
            room.left.set()
        return len(jobs) == claim.max

    def _end_for(self, refusal: KeyRefused) -> None:
        """Stop: what has to be put right is outside this process."""
        if self.refusal is None:
            log.error("key.refused", worker=self._name, reason=str(refusal))
            self.refusal = refusal
            self.stop()

    def _tell_once(self, event: str, away: Unavailable) -> None:
        """Log that the service is away, unless that was said since it last answered."""
        if not self._away:
            log.warning(event, worker=self._name, reason=str(away))
        self._away = True

    def _take(self, jobs: Sequence[ClaimedJob], room: Room) -> None:
        """Hold the jobs, and run them while the next claim, if there is room for one, is on its way."""
        now = self._now()
        taken = [Running(job, room, now + job.heartbeat_timeout / 3) for job in jobs]
        room.hold(len(taken))
        self._running.update((_held(running.job), running) for running in taken)
        self._waiting.extend(taken)
        self._serve_soon()

    def _serve_soon(self) -> None:
        """See to it that what waits is run, though the handler that runs now may wait for something."""
        if self._waiting and not self._served_soon:
            self._served_soon = True
            self._tasks_made += 1
            asyncio.get_running_loop().create_task(self._serve(), context=self._context.copy())

    async def _serve(self) -> None:
        """Run what waits, one after the other, in one task: a task for each costs more than a quick handler.

        While a handler waits for something, the next task goes on with the others. A task whose handler waited, was
        cancelled or left something in its context is of no use to the next job.
        """
        self._served_soon = False
        task = asyncio.current_task()
        assert task is not None
        for _ in range(SERVED_AT_A_TIME):
            if not self._waiting:
                break
            running = self._waiting.popleft()
            running.task = task
            self._serve_soon()
            handling.set(running.job)
            context, made = copy_context(), self._tasks_made
            await self._work(running)
            if self._tasks_made > made or task.cancelling() or copy_context() != context:
                break
        self._serve_soon()

    async def _work(self, running: Running) -> None:
        """Run the handler and report how it ended; the job is held until the report is answered."""
        try:
            report = self._stopped(running) if running.stopped else await self._attempt(running)
        except (LeaseLost, JobFinished) as lost:
            self._let_go(running, lost)
            return
        except BaseException:  # such as SystemExit: nobody reports, and without heartbeats the job is rescued
            self._let_go(running)
            raise
        finally:
            running.ended = True
            running.room.running -= 1
            if running.room.free > 0:
                running.room.left.set()
        if report is None:
            self._let_go(running)
        else:
            self._say(report, lambda answer: self._let_go(running, answer, report))

    def _let_go(
        self, running: Running, answer: Reported | Exception | None = None, report: AnyReport | None = None
    ) -> None:
        """The job is no longer held, whatever its last report was answered."""
        del self._running[_held(running.job)]
        running.room.held -= 1
        running.room.left.set()
        if isinstance(answer, Exception):
            event = "lease-lost" if isinstance(answer, LeaseLost | JobFinished) else "report.refused"
            said = {"report": report.__struct_config__.tag} if report else {}
            job = running.job
            log.warning(event, job_id=str(job.id), attempt=job.attempt, worker=self._name, reason=str(answer), **said)

    async def _attempt(self, running: Running) -> AnyReport | None:
        run = self._run_handler(running)
        return await (run if self._tracing is None else self._tracing.attempt(running.job, run))

    async def _run_handler(self, running: Running) -> AnyReport | None:
        """The report that the handler's end calls for; none when the job is no longer ours."""
        job = running.job
        handler = self._handlers[job.kind]
        context = Context(self, job, self._tracing)
        limit: asyncio.Timeout | None = None
        try:
            if handler.choose is not None:
                handler = handler.choose(given(handler, job))
            if handler.plain is not None:
                begin = Begin(job, handler.plain, sorted(handler.retired))
                async with self._processes.one() as process, asyncio.timeout(job.time_limit) as limit:
                    began = self._now()
                    report = await process.run(begin, context, lambda: self._patience(running))
                    running.room.ended(self._now() - began)
                    return report or failure(job, "stopped", "the handler stopped, although nobody asked it to")
            if job.time_limit is None:
                return completed(job, handler, context, await handler.run(context, given(handler, job)))
            async with asyncio.timeout(job.time_limit) as limit:
                result = await handler.run(context, given(handler, job))
            return completed(job, handler, context, result)
        except asyncio.CancelledError:
            return self._stopped(running)
        except (LeaseLost, JobFinished):
            raise
        except ProcessDied as error:
            return failure(job, "process-died", str(error))
        except (GiveUp, RetryLater) as error:
            return raised(job, error)
        except TimeoutError as error:
            if limit is not None and limit.expired():
                return failure(job, "time-limit", f"attempt {job.attempt} took longer than its time limit")
            return raised(job, error)
        except Exception as error:
            log.exception("handler.failed", kind=job.kind)
            return raised(job, error)
        finally:
            context.flush()

    @staticmethod
    def _patience(running: Running) -> float:
        """Seconds a plain handler is given to stop; one that is stopped for the drain has had its grace."""
        return 0.0 if running.stopped == "drain" else ASKED_SECONDS

    def _stopped(self, running: Running) -> AnyReport | None:
        job = running.job
        match running.stopped:
            case "cancel":
                return CancelReport(job_id=job.id, attempt=job.attempt)
            case "drain":
                return ReleaseReport(job_id=job.id, attempt=job.attempt, reason="the worker is stopping")
            case "lease-lost":
                log.warning("lease-lost", job_id=str(job.id), attempt=job.attempt, worker=self._name)
                return None
            case None:
                return failure(job, "cancelled", "the handler cancelled itself")

    def cancelled(self, job: ClaimedJob) -> bool:
        """Whether the job's handler was stopped because somebody wants the job cancelled."""
        running = self._running.get(_held(job))
        return running is not None and running.stopped == "cancel"

    def say(self, report: AnyReport, job: ClaimedJob, heard: Heard) -> None:
        """Report for a handler, which is stopped when the answer asks for that."""

        def answered(answer: Reported | Exception) -> None:
            if isinstance(answer, LeaseLost | JobFinished):
                self._cancel(job, "lease-lost")
            elif isinstance(answer, Reported) and answer.cancel_requested:
                self._cancel(job, "cancel")
            heard(answer)

        self._say(report, answered)

    def _say(self, report: AnyReport, heard: Heard) -> None:
        self._outbox.append(Word(report, heard))
        self._spoken.set()

    async def _deliver(self) -> None:
        """Report what gathered in the outbox while the reports before were on their way, in order."""
        while True:
            await self._spoken.wait()
            self._spoken.clear()
            while self._outbox:
                said = [self._outbox.popleft() for _ in range(min(len(self._outbox), Reports.most))]
                answers = await self._answers([word.report for word in said])
                unheard = [word for word, answer in zip(said, answers, strict=True) if isinstance(answer, NOT_HEARD)]
                self._outbox.extendleft(reversed(unheard))
                for word, answer in zip(said, answers, strict=True):
                    if not isinstance(answer, NOT_HEARD):
                        word.heard(answer)
                if unheard:
                    await asyncio.sleep(max(map(_pause, answers)))

    async def _answers(self, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
        try:
            answers = await self._service.report(self._name, reports)
        except Exception as error:
            log.exception("report.failed", worker=self._name, reports=len(reports))
            return [error] * len(reports)
        if refusal := next((answer for answer in answers if isinstance(answer, KeyRefused)), None):
            self._end_for(refusal)
        elif away := next((answer for answer in answers if isinstance(answer, Unavailable)), None):
            self._tell_once("report.unavailable", away)
        else:
            self._away = False
        return answers

    async def save_artifact(self, job: ClaimedJob, name: str, content: bytes | Path, media_type: str) -> Artifact:
        while True:
            try:
                return await self._service.save_artifact(self._name, job.id, job.attempt, name, content, media_type)
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)

    async def read_artifact(self, job: ClaimedJob, artifact: Artifact) -> bytes:
        while True:
            try:
                return await self._service.read_artifact(job.id, artifact)
            except Unavailable as away:
                await asyncio.sleep(_pause(away))

    def _cancel(self, job: ClaimedJob, why: Literal["lease-lost", "cancel", "drain"]) -> None:
        """Stop a handler, once, for the first reason there was; one that has ended is left to report so."""
        running = self._running.get(_held(job))
        if running is not None and running.stopped is None and not running.ended:
            running.stopped = why
            if running.task is not None:  # one that has not begun reports so when its turn comes
                running.task.cancel()

    async def _heartbeat(self) -> None:
        """Extend every lease three times within its timeout; all that are due go in one statement."""
        while True:
            now = self._now()
            if due := [running for running in self._running.values() if running.next_beat <= now]:
                await self._beat(due)
            soonest = min((running.next_beat for running in self._running.values()), default=self._now() + 1)
            await asyncio.sleep(min(max(soonest - self._now(), 0.02), 0.5))

    async def _beat(self, due: Sequence[Running]) -> None:
        for running in due:
            running.next_beat = self._now() + running.job.heartbeat_timeout / 3
        beats = [Heartbeat(job_id=running.job.id, attempt=running.job.attempt) for running in due]
        for running, answer in zip(due, await self._answers(beats), strict=True):
            if isinstance(answer, Reported):
                if answer.cancel_requested:
                    self._cancel(running.job, "cancel")
            elif isinstance(answer, Refused | NotFound):
                self._cancel(running.job, "lease-lost")
            else:
                sixth = running.job.heartbeat_timeout / 6
                running.next_beat = self._now() + min(_pause(answer), sixth)

    async def _drain(self) -> None:
        """Let handlers end within the grace, then give the rest back; wait until all is reported, for a while."""
        if self._running:
            log.info("worker.draining", worker=self._name, jobs=len(self._running), grace=self._grace)
            await _first(self._all_let_go(self._grace), self._hurried.wait())
        for running in list(self._running.values()):
            self._cancel(running.job, "drain")
        await self._all_let_go(LAST_WORDS_SECONDS)

    async def _all_let_go(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while busy := next((room for room in self._rooms if room.held), None):
                    busy.left.clear()
                    await busy.left.wait()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _rooms(handlers: Mapping[str, Handler], capacity: int, processes: int) -> list[Room]:
    """For async handlers and for plain ones, where there are any; a process is free while a report is on its way."""
    plain = sorted(kind for kind, handler in handlers.items() if handler.plain is not None)
    others = sorted(handlers.keys() - set(plain))
    sizes = ((others, capacity, 2 * capacity), (plain, processes, capacity + 2 * processes))
    return [Room(kinds, size, most, asyncio.Event(), asyncio.Event()) for kinds, size, most in sizes if kinds]


def _held(job: ClaimedJob) -> tuple[int, int]:
    """What a worker holds: an attempt. It may be given the next one while it still runs the last, which it lost."""
    return job.id.int, job.attempt


def _pause(answer: object) -> float:
    """Seconds to let pass after an answer before the same is said again: what the service asked for, if it did."""
    asked = answer.retry_after if isinstance(answer, Unavailable) else None
    return RETRY_SECONDS if asked is None else max(asked, RETRY_SECONDS)


async def _end_of(work: "asyncio.Future[Any]", duties: Sequence["asyncio.Future[Any]"]) -> None:
    """Wait until the work is done; raises what it failed with, or a duty, none of which ends."""
    try:
        ended, _ = await asyncio.wait([work, *duties], return_when=asyncio.FIRST_COMPLETED)
        for each in ended:
            each.result()
    finally:
        work.cancel()


async def _first(*waits: Awaitable[Any]) -> None:
    """Wait until one of them is done, and drop the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

"""Claiming: workers take leases on queued jobs, many at a time, and wait for work when there is none."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Protocol, TypeAlias
from uuid import UUID

import structlog
from msgspec import Meta, Raw, Struct

from application.batcher import Batcher
from application.errors import ApplicationError, Conflicted, Unavailable
from application.jobs import Name
from application.ledger import Batch, Ledger, Ready
from application.news import ANY, News, queue_topic
from domain.job import Cause, Job
from domain.refusals import Refused

log = structlog.get_logger()
MOST_BYTES = 16 * 1024 * 1024
"""Of JSON that one claim hands out; fewer jobs than asked for fit when they are large."""
POLL_SECONDS = 1.0
"""How often a waiting claim looks for itself; notifications only make it sooner."""


class Claim(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A worker wants up to `max` jobs of `queues`, of `kinds` if given, and waits `wait` seconds for the first.

    Repeating a `claim_id` answers the jobs that claim still holds.
    """

    worker: Name
    queues: Annotated[list[Name], Meta(min_length=1, max_length=100)]
    kinds: Annotated[list[Name], Meta(min_length=1, max_length=100)] | None = None
    max: Annotated[int, Meta(ge=1, le=1000)] = 1
    wait: Annotated[float, Meta(ge=0, le=30)] = 0
    claim_id: Name | None = None

    @property
    def wanted(self) -> Ready:
        return Ready(tuple(sorted(set(self.queues))), tuple(sorted(set(self.kinds))) if self.kinds else None)


class ClaimedJob(Struct, frozen=True, kw_only=True, gc=False):
    """A job as its worker gets it: `steps` holds the recorded outputs by name, `handles` the outside ids.

    `deadline` is when the attempt's time limit ends, if it has one.
    """

    id: UUID
    kind: str
    queue: str
    attempt: int
    input: Raw
    steps: dict[str, Raw]
    handles: dict[str, Raw]
    deadline: datetime | None
    lease_expires_at: datetime
    heartbeat_timeout: float
    time_limit: float | None
    progress: float
    trace: str | None

    @property
    def taken_at(self) -> datetime:
        """When the lease began."""
        return self.lease_expires_at - timedelta(seconds=self.heartbeat_timeout)

    @classmethod
    def of(cls, job: Job, now: datetime) -> "ClaimedJob":
        started = job.started_at or now
        return cls(
            id=job.id,
            kind=job.kind,
            queue=job.queue,
            attempt=job.attempt,
            input=job.input,
            steps=dict(job.steps),
            handles=dict(job.handles),
            deadline=started + timedelta(seconds=job.time_limit) if job.time_limit else None,
            lease_expires_at=now + timedelta(seconds=job.heartbeat_timeout),
            heartbeat_timeout=job.heartbeat_timeout,
            time_limit=job.time_limit,
            progress=job.reached,
            trace=job.trace,
        )


class HeldJobs(Protocol):
    """The port to what claims hold."""

    def held_by(self, worker: str, claim_id: str, namespace: str | None = None) -> Sequence[UUID]:
        """The jobs still held under a claim's id, of a namespace if one is given; their leases begin anew."""
        ...


Release = Callable[[str, ClaimedJob, str], Awaitable[object]]
"""Gives a job back that a worker took and was not heard of since, with a reason."""
Via: TypeAlias = Literal["database", "http"]
"""How a claimer is connected."""
Notice = Callable[[Claim, Via, str | None], None]
"""Is told of each claim and of the namespace that limits it, if one does, again and again while it waits."""


class Claims:
    """Hands out queued jobs."""

    def __init__(
        self,
        ledger: Ledger,
        held: HeldJobs,
        news: News,
        release: Release,
        notice: Notice,
        paused: Callable[[], Collection[str]],
    ) -> None:
        """`release` gives a job back that its claimer did not wait for; `paused` names queues that give no claims."""
        self._ledger = ledger
        self._release = release
        self._paused = paused
        self._given_back: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._held = held
        self._notice = notice
        self._news = news
        self._claims = self._batcher("claims", threads=2)
        self._named = self._batcher("named-claims", threads=1)
        """Of claims with an id: one that is repeated must come after its first try has ended, however that ended."""

    async def claim(
        self, claim: Claim, via: Via = "database", by: str | None = None, namespace: str | None = None
    ) -> list[ClaimedJob]:
        """The claimed jobs, as soon as there are any, and none after `claim.wait` seconds.

        `by` is the actor of their starts, where it is not the worker itself; `namespace` the one they must be of.

        When the caller is cancelled meanwhile, what was claimed for it is released.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + claim.wait
        with self._news.listen([queue_topic(queue) for queue in claim.queues]) as ear:
            while True:
                self._notice(claim, via, namespace)
                jobs = await self._submit(_Claiming(claim, by or worker_actor(claim.worker), namespace))
                left = until - clock()
                if jobs or left <= 0 or self._stopped:
                    return jobs
                await ear.heard(min(left, POLL_SECONDS))

    async def give_back(self, jobs: Sequence[ClaimedJob], claim: Claim) -> None:
        """Release claimed jobs whose claimer is gone, unless a repetition of its claim was answered them as well."""
        for job in jobs:
            try:
                await self._release(claim.worker, job, "its claimer hung up")
            except (Refused, ApplicationError) as refusal:
                log.warning("release.refused", job_id=str(job.id), attempt=job.attempt, reason=str(refusal))

    def stop(self, tell: Callable[[Collection[str]], None]) -> None:
        """Let all who wait for work go, so that they can ask another server."""
        self._stopped = True
        tell([ANY])

    def close(self) -> None:
        self._claims.close()
        self._named.close()

    def _batcher(self, name: str, threads: int) -> "Batcher[_Claiming, list[ClaimedJob]]":
        return Batcher(self._execute, name=name, weigh=lambda claiming: claiming.claim.max, threads=threads)

    async def _submit(self, claiming: "_Claiming") -> list[ClaimedJob]:
        claims = self._claims if claiming.claim.claim_id is None else self._named
        submitted = asyncio.ensure_future(claims.submit(claiming))
        try:
            return await asyncio.shield(submitted)
        except asyncio.CancelledError:
            giving_back = asyncio.create_task(self._give_back_when_claimed(submitted, claiming.claim))
            self._given_back.add(giving_back)
            giving_back.add_done_callback(self._given_back.discard)
            raise

    async def _give_back_when_claimed(self, submitted: "asyncio.Future[list[ClaimedJob]]", claim: Claim) -> None:
        try:
            jobs = await submitted
        except ApplicationError:
            return
        await self.give_back(jobs, claim)

    def _execute(self, claimings: Sequence["_Claiming"]) -> list[Any]:
        """Those that repeat another of the same batch come after it, and are answered what it holds."""
        answers: dict[int, Any] = {}
        left = list(range(len(claimings)))
        while left:
            repeats = [left[n] for n in _repeats([claimings[n] for n in left])]
            firsts = sorted({*left} - {*repeats})
            answers |= zip(firsts, self._execute_once([claimings[n] for n in firsts]), strict=True)
            left = repeats
        return [answers[n] for n in range(len(claimings))]

    def _execute_once(self, claimings: Sequence["_Claiming"]) -> list[Any]:
        for _ in range(3):
            try:
                return self._claim(claimings)
            except Conflicted:
                continue
        return [Unavailable("other workers were first, again and again; nothing was claimed; try again")] * len(
            claimings
        )

    def _claim(self, claimings: Sequence["_Claiming"]) -> list[Any]:
        """Claims that want the same are served from one scan, dealt out in turn."""
        claims = [claiming.claim for claiming in claimings]
        answers: dict[int, list[ClaimedJob] | Exception] = {}
        known = [self._still_held_by(claiming) for claiming in claimings]
        groups: dict[Ready, list[int]] = {}
        paused = self._paused()
        for n, claim in enumerate(claims):
            if known[n]:
                continue
            wanted = claim.wanted
            open_queues = tuple(queue for queue in wanted.queues if queue not in paused)
            wanted = Ready(open_queues, wanted.kinds, claimings[n].namespace)
            if wanted.queues:
                groups.setdefault(wanted, []).append(n)
            else:
                answers[n] = []
        if not groups and not any(known):
            return [answers[n] for n in range(len(claims))]
        counts = [(wanted, sum(claims[n].max for n in members)) for wanted, members in groups.items()]
        first = counts[0] if counts else None
        with self._ledger.batch([id for ids in known for id in ids], claim=first) as batch:
            for n, claim in enumerate(claims):
                if known[n]:
                    answers[n] = _still_held(batch, known[n], claim)
            for wanted, count in counts:
                _deal(batch, batch.ready(wanted, count), [(n, claimings[n]) for n in groups[wanted]], answers)
        return [answers[n] for n in range(len(claims))]

    def _still_held_by(self, claiming: "_Claiming") -> Sequence[UUID]:
        claim = claiming.claim
        return self._held.held_by(claim.worker, claim.claim_id, claiming.namespace) if claim.claim_id else ()


class _Claiming(Struct, frozen=True):
    """A claim, the actor of what it starts, and the namespace that limits it, if one does."""

    claim: Claim
    by: str
    namespace: str | None = None


def _repeats(claimings: Sequence[_Claiming]) -> list[int]:
    """Which of the claims have the id of one before them."""
    seen: set[tuple[str, str | None, str]] = set()
    repeats: list[int] = []
    for n, claiming in enumerate(claimings):
        if (id := claiming.claim.claim_id) is not None:
            key = (claiming.claim.worker, claiming.namespace, id)
            if key in seen:
                repeats.append(n)
            seen.add(key)
    return repeats


def worker_actor(worker: str) -> str:
    """The actor of what a worker does that no key stands for."""
    return f"worker:{worker}"


def _deal(
    batch: Batch,
    found: Sequence[Job],
    claims: Sequence[tuple[int, "_Claiming"]],
    answers: dict[int, list[ClaimedJob] | Exception],
) -> None:
    ready = deque(found)
    for n, claiming in claims:
        claim = claiming.claim
        taken: list[ClaimedJob] = []
        answers[n] = taken
        room = MOST_BYTES
        cause = Cause(batch.now, claiming.by)
        while ready and len(taken) < claim.max:
            size = _size(ready[0])
            if taken and size > room:
                break
            started = _start(batch, ready.popleft(), claim, cause)
            if started is not None:
                taken.append(started)
                room -= size


def _size(job: Job) -> int:
    """Bytes of JSON that a claimed job hands out, nearly."""
    recorded = (
        sum(len(bytes(payload)) for payload in (*job.steps.values(), *job.handles.values()))
        if job.steps or job.handles
        else 0
    )
    return 500 + len(bytes(job.input)) + recorded


def _start(batch: Batch, job: Job, claim: Claim, cause: Cause) -> ClaimedJob | None:
    try:
        events = job.start(claim.worker, cause)
    except (Refused, ApplicationError):  # it moved between the scan and the lock
        return None
    batch.record(job, events, claim_id=claim.claim_id)
    return ClaimedJob.of(job, batch.now)


def _still_held(batch: Batch, ids: Sequence[UUID], claim: Claim) -> list[ClaimedJob]:
    jobs = [batch.job(id) for id in ids]
    return [ClaimedJob.of(job, batch.now) for job in jobs if job.held and job.worker == claim.worker]

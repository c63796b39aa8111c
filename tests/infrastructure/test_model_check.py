"""A thousand random schedules over two writers, with crashes: after each step the log, the view and the leases agree.

What a worker was told is recorded (outputs, handles, files) is on record for ever, once, and its next attempt gets it.

Schedules go side by side, a group at a time: in each step every schedule of a group does one thing, some through one
writer and some through the other, whose transactions overlap. A group is reproduced by its seed, which the name of its
test ends with. For more of them, or other ones, set JOBLEDGER_SCHEDULES=100000 or JOBLEDGER_SCHEDULES_SEED=5000.
"""

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, LiteralString, TypeAlias
from uuid import UUID

import psycopg
import pytest
from msgspec import UNSET, Raw, Struct, field
from psycopg import Connection

from application.claims import ClaimedJob
from application.commands import Command
from application.errors import ApplicationError, Conflicted
from application.jobs import Accepted, Cancel, Create, JobView, NewJob, Requeue, Retry
from application.ledger import Batch, Expired, Ready
from application.record import Kept, Record
from application.reports import (
    ArtifactReport,
    CancelReport,
    CompletionReport,
    Decided,
    FailureReport,
    ProgressReport,
    ReleaseReport,
    Reported,
    ReportedError,
    Say,
)
from application.rescue import MissHeartbeat, Unrescued
from domain.audit import GENESIS, chain
from domain.events import (
    TAGS,
    Artifact,
    Cancelled,
    CancelRequested,
    Completed,
    Created,
    Event,
    Failed,
    HeartbeatMissed,
    Progressed,
    Released,
    Requeued,
    Started,
    decode,
)
from domain.job import Cause, Job
from domain.refusals import Conflict, JobFinished, LeaseLost, Refused
from tests.infrastructure.nodes import ASKED, Node, new_job
from tests.waiting import eventually

SCHEDULES = int(os.environ.get("JOBLEDGER_SCHEDULES", "1000"))
FIRST_SEED = int(os.environ.get("JOBLEDGER_SCHEDULES_SEED", "0"))
SIDE_BY_SIDE = 50
KEPT: dict[str, Kept] = {"output": "step", "handle": "handle"}
STEPS = 14
STREAMS = """
SELECT originator_id, originator_version, topic, state, hash, notification_id
FROM events WHERE originator_id = ANY(%s) ORDER BY originator_id, originator_version
"""
LEASES = "SELECT job_id, attempt, worker, heartbeat_at FROM leases WHERE job_id = ANY(%s)"
EXPIRE = "UPDATE leases SET expires_at = heartbeat_at - interval '1 s' WHERE job_id = ANY(%s)"
DROP = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid = %s::text::xid"


@pytest.fixture(scope="module")
def nodes(dsn: str) -> Iterator[tuple[Node, Node]]:
    """Two writers of one log, each with a memory of its own."""
    with Node(dsn) as one, Node(dsn) as other:
        yield one, other


@pytest.fixture(scope="module")
def watcher(dsn: str) -> Iterator[Connection]:
    """Who compares what is stored."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SCHEDULES // SIDE_BY_SIDE), ids="seed-{}".format)
def test_log_view_and_leases_agree_after_each_step_of_random_schedules(
    nodes: tuple[Node, Node], watcher: Connection, seed: int
) -> None:
    group = Group(seed, nodes, watcher)
    for _ in range(STEPS):
        group.step()
    group.read_to_the_end()
    assert set(TAGS.values()) <= set(group.recorded), "too dull to show anything"
    assert set(group.met) == ACCIDENTS, group.met
    assert set(group.late) == {"output", "handle", "artifact"}, group.late
    assert group.repeated, "nothing was repeated"


class Crash(Exception):
    """The writer died after it decided and before it appended."""


ACCIDENTS = {LeaseLost, JobFinished, Conflict, Unrescued, Crash, Conflicted}


What: TypeAlias = tuple[str, str]
"""An output, a handle or an artifact, and its name."""
Recording: TypeAlias = tuple[int, What, Raw | Artifact]
"""The attempt that recorded it, what it is, and its value."""


class Claim(Struct, frozen=True):
    """A worker wants jobs of a queue."""

    queue: str
    worker: str
    count: int
    job_ids: tuple[UUID, ...] = ()

    @staticmethod
    def run_all(claims: Sequence["Claim"], batch: Batch) -> dict[str, list[ClaimedJob]]:
        """The claimed jobs by queue: as in a real claim, one scan serves them all."""
        workers = {claim.queue: claim.worker for claim in claims}
        started: dict[str, list[ClaimedJob]] = {queue: [] for queue in workers}
        for job in batch.ready(Ready(tuple(sorted(workers)), None), sum(claim.count for claim in claims)):
            worker = workers[job.queue]
            batch.record(job, job.start(worker, Cause(batch.now, f"worker:{worker}")), claim_id="claim")
            started[job.queue].append(ClaimedJob.of(job, batch.now))
        return started


class Told(Struct):
    """A job as the streams told of it when they were read last, and what its workers know of it.

    `recorded` are the recordings they were told are done, in order, `kept` those that count by now, and `said` the
    reports that did it. `record` is that of the attempt which was claimed last, and `late` what a worker that stopped
    amid its attempt has yet to say.
    """

    job: Job
    last: Say | None = None
    recorded: list[Recording] = field(default_factory=list)
    kept: dict[What, Raw | Artifact] = field(default_factory=dict)
    said: list[Say] = field(default_factory=list)
    record: Record | None = None
    late: list[Say] = field(default_factory=list)


class Schedule(Struct):
    """What happens to the jobs of one queue: one thing at each step, sensible or not."""

    chance: random.Random
    queue: str
    jobs: dict[UUID, Told] = field(default_factory=dict)

    def next(self) -> Command | Claim:
        some = self.chance
        if not self.jobs or (len(self.jobs) < 3 and some.random() < 0.06):
            return Create([self._new_job()], ASKED)
        told = some.choice(list(self.jobs.values()))
        job = told.job
        if not job.held and not job.finished and some.random() < 0.75:
            return Claim(self.queue, some.choice(("w1", "w2")), some.randint(1, 2))
        if told.late and some.random() < (0.5 if told.late[0].report.attempt == job.attempt and job.held else 0.9):
            return told.late.pop(0)
        if told.last is not None and some.random() < 0.2:
            return some.choice([told.last, *told.said])
        if job.held and not told.late and some.random() < 0.1:
            return self._pause(told)
        if some.random() < (0.25 if job.held else 0.65):
            return self._intervention(job)
        return Say(report=self._report(told), worker=self._worker(job))

    def _new_job(self) -> NewJob:
        some = self.chance
        return new_job(
            queue=self.queue,
            input=Raw(b'{"text":"\xc5\xbc\xc3\xb3\xc5\x82w"}'),
            priority=some.randint(-1, 1),
            max_attempts=some.randint(1, 3),
            retry=Retry(initial=0, max=0),
            labels=some.choice((None, {"team": "ż"})),
        )

    def _worker(self, job: Job) -> str:
        """Mostly the one that holds it."""
        holder = job.worker or "w1"
        return holder if self.chance.random() < 0.9 else {"w1": "w2", "w2": "w1"}[holder]

    def _pause(self, told: Told) -> Command:
        """The worker stops, with much to say yet, and somebody acts on its lease, which may have run out."""
        job, some = told.job, self.chance
        reports: list[Decided] = [self._output(told), self._handle(told), self._artifact(job)]
        some.shuffle(reports)
        reports.append(CompletionReport(job_id=job.id, attempt=job.attempt, result=Raw(b'"late"')))
        told.late = [Say(report=report, worker=job.worker or "w1") for report in reports]
        return MissHeartbeat(expired=Expired(job.id, job.attempt, datetime.now(UTC)))

    def _intervention(self, job: Job) -> Command:
        some = self.chance
        match some.randint(0, 4 if job.held else 2):
            case 0:
                return Cancel(job_id=job.id, reason=self._words(), asked=ASKED)
            case 1 | 2:
                return Requeue(job_id=job.id, reason=self._words(), asked=ASKED, afresh=some.random() < 0.4)
            case _:
                attempt = max(1, job.attempt - (some.random() < 0.15))
                return MissHeartbeat(expired=Expired(job.id, attempt, datetime.now(UTC)))

    def _report(self, told: Told) -> Decided:
        some, job, id = self.chance, told.job, told.job.id
        attempt = max(1, job.attempt - (some.random() < 0.12))
        match some.randint(0, 16):
            case 0 | 1:
                return CompletionReport(job_id=id, attempt=attempt, result=Raw(b'{"ok":[1,2.5,null]}'))
            case 2 | 3:
                error = ReportedError(type="Boom", message=self._words(), detail=Raw(b'{"at":1}'))
                retry_in = some.choice((None, None, 0, 3600))
                return FailureReport(
                    job_id=id, attempt=attempt, error=error, final=some.random() < 0.2, retry_in=retry_in
                )
            case 4:
                return ReleaseReport(job_id=id, attempt=attempt, reason=self._words())
            case 5 | 6:
                return CancelReport(job_id=id, attempt=attempt)
            case 7 | 8 | 9:
                return self._handle(told)
            case 10 | 11:
                return self._output(told)
            case 12 | 13 | 14:
                return self._artifact(job)
            case _:
                return ProgressReport(job_id=id, attempt=attempt, progress=some.random(), message=self._words())

    def _handle(self, told: Told) -> ProgressReport:
        """An order at an outside system: the worker looks whether one is on record, which it then does not replace."""
        job, name = told.job, self.chance.choice(("render", "voice"))
        attempt = max(1, job.attempt)
        if told.record is not None and told.record.ask("handle", name):
            return ProgressReport(job_id=job.id, attempt=attempt, step=name, message=self._words())
        return ProgressReport(job_id=job.id, attempt=attempt, step=name, handle=Raw(b'"%d"' % attempt))

    def _output(self, told: Told) -> ProgressReport:
        """A step's result. Some workers do not look at what is on record, nor is what they say the same again."""
        some, job = self.chance, told.job
        step = some.choice(("analysis", "story", "page"))
        attempt = max(1, job.attempt)
        if told.record is not None and told.record.ask("step", step) and some.random() < 0.6:
            return ProgressReport(job_id=job.id, attempt=attempt, step=step, message=self._words())
        return ProgressReport(job_id=job.id, attempt=attempt, step=step, output=Raw(b"[%d]" % some.randint(1, 2)))

    def _artifact(self, job: Job) -> ArtifactReport:
        """A file: of a name's contents the latest counts, and the next attempt's may be another."""
        name, attempt = self.chance.choice(("page.html", "video.mp4")), max(1, job.attempt)
        content = f"{name} {attempt // 2}".encode()
        artifact = Artifact(
            name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type="text/plain"
        )
        return ArtifactReport(job_id=job.id, attempt=attempt, artifact=artifact)

    def _words(self) -> str:
        return f"said {self.chance.getrandbits(32)}: ½ – żółw"


class Done(Struct):
    """One thing that a schedule did, with the answer, or the exception that says why not."""

    schedule: Schedule
    command: Command | Claim
    answer: Any = None


class Group:
    """Schedules that go side by side through two writers, and two readers of the log who follow them."""

    def __init__(self, seed: int, nodes: tuple[Node, Node], watcher: Connection) -> None:
        self._chance = random.Random(seed)
        self._nodes = nodes
        self._watcher = watcher
        self._schedules = [Schedule(random.Random(f"{seed}/{n}"), f"{seed}/{n}") for n in range(SIDE_BY_SIDE)]
        ((start,),) = self._ask("SELECT coalesce(max(notification_id), 0) FROM events")
        self._read = {"recorder": [start], "view": [start]}
        self._positions: set[int] = {start}
        self.recorded: Counter[str] = Counter()
        self.met: Counter[type[Exception]] = Counter()
        self.repeated: Counter[str] = Counter()
        self.late: Counter[str] = Counter()

    def step(self) -> None:
        """Every schedule does one thing: those of one writer in a transaction that is open while the other's are."""
        done = [Done(schedule, schedule.next()) for schedule in self._schedules]
        self._expire([one.command for one in done])
        self._chance.shuffle(done)
        first, second = self._chance.sample(self._nodes, 2)
        halves = done[: len(done) // 2], done[len(done) // 2 :]
        accidents = [self._chance.choice((None, None, None, None, "crash", "drop")) for _ in range(3)]
        quarter = len(halves[1]) // 2

        def meanwhile() -> None:
            self._run(second, halves[1][:quarter], accidents[1])
            self._read_on()
            self._run(second, halves[1][quarter:], accidents[2])

        self._run(first, halves[0], accidents[0], meanwhile)
        self._read_on()
        self._check(done)

    def read_to_the_end(self) -> None:
        """The readers see everything at last, although other transactions of the server may hold them back a little."""

        def all_read() -> bool:
            self._read_on()
            return all(len(read) == len(self._positions) for read in self._read.values())

        eventually(all_read)

    def _run(
        self, node: Node, done: Sequence[Done], accident: str | None, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Decide in one batch and append, unless the writer dies before that, or its connection does."""
        try:
            self._try(node, done, accident, meanwhile)
        except Crash as crash:
            self._fail(done, crash)
        except Conflicted as conflict:  # the connection broke, nothing is recorded: the ledger's caller tries again
            self._fail(done, conflict)
            if self._chance.random() < 0.5:
                self._try(node, done, None, lambda: None)

    def _try(self, node: Node, done: Sequence[Done], accident: str | None, meanwhile: Callable[[], None]) -> None:
        new_only = accident != "drop" and all(isinstance(one.command, Create) for one in done)
        with node.ledger.batch({id for one in done for id in one.command.job_ids}, new_only=new_only) as batch:
            started = Claim.run_all([one.command for one in done if isinstance(one.command, Claim)], batch)
            for one in done:
                if isinstance(one.command, Claim):
                    one.answer = started[one.command.queue]
                else:
                    one.answer = self._answer(one.command, batch)
            meanwhile()
            if accident == "crash":
                raise Crash
            if accident == "drop":
                assert self._ask(DROP, [batch.transaction]) == [(True,)]

    def _fail(self, done: Sequence[Done], why: Exception) -> None:
        self.met[type(why)] += 1
        for one in done:
            one.answer = why

    def _answer(self, command: Command, batch: Batch) -> Any:
        try:
            return command.run(batch)
        except (Refused, ApplicationError) as refusal:
            self.met[type(refusal)] += 1
            return refusal

    def _expire(self, commands: Sequence[Command | Claim]) -> None:
        """Let the leases run out that are rescued now, but for a few."""
        rescued = [c.expired.job_id for c in commands if isinstance(c, MissHeartbeat) and self._chance.random() < 0.8]
        self._ask(EXPIRE, [rescued])

    def _read_on(self) -> None:
        """Both readers go on from where they were, in pages, up to the safe position."""
        node = self._chance.choice(self._nodes)
        read = self._read["recorder"]
        while page := node.log.recorder.select_notifications(read[-1], 70, inclusive_of_start=False):
            read += [notification.id for notification in page]
        read = self._read["view"]
        while entries := node.views.log(read[-1], 90, None):
            read += [entry.position for entry in entries]

    def _check(self, done: Sequence[Done]) -> None:
        before = {id: told.job.version for schedule in self._schedules for id, told in schedule.jobs.items()}
        for one in done:
            _notice_new_jobs(one)
        ids = [id for schedule in self._schedules for id in schedule.jobs]
        jobs, positions, recorded = self._check_streams(ids)
        self._check_views(jobs, positions)
        for one in done:
            _check_answer(one, before, jobs)
            self._check_recordings(one, before, jobs)
            _remember(one, before, jobs)
        for told in (told for schedule in self._schedules for told in schedule.jobs.values()):
            assert recorded[told.job.id] == told.recorded, "a recording is lost, or recorded again, or nobody's"
            assert on_record(told.job) == told.kept
        for read in self._read.values():
            assert read == sorted(self._positions)[: len(read)], "a reader missed an event, or saw one twice"

    def _check_recordings(self, one: Done, before: dict[UUID, int], jobs: dict[UUID, Job]) -> None:
        """Hold a worker's answer against what it was told before, and keep what it is told now."""
        match one.command, one.answer:
            case Say(report=ProgressReport() | ArtifactReport() as report) as say, Reported():
                told = one.schedule.jobs[report.job_id]
                moved = jobs[report.job_id].version > before[report.job_id]
                for what, value in said_to_record(report):
                    if say in told.said or told.kept.get(what) == value:
                        self.repeated[what[0]] += 1
                        assert not moved, f"{what} is recorded again"
                        continue
                    assert what not in told.kept or what[0] != "output", f"{what} is recorded with another value"
                    told.kept[what] = value
                    told.recorded.append((report.attempt, what, value))
                    told.said.append(say)
                    if told.record is not None and report.attempt == told.job.attempt and isinstance(value, Raw):
                        told.record.keep(KEPT[what[0]], what[1], value)
            case Say(report=ProgressReport() | ArtifactReport() as report), LeaseLost() | JobFinished():
                self.late.update(kind for (kind, _), _ in said_to_record(report))
            case Requeue(job_id=id, afresh=True), Accepted():
                one.schedule.jobs[id].kept.clear()
            case Claim(), [*claimed]:
                for job in claimed:
                    told = one.schedule.jobs[job.id]
                    handed = {("output", name): value for name, value in job.steps.items()}
                    handed |= {("handle", name): value for name, value in job.handles.items()}
                    assert handed == {what: value for what, value in told.kept.items() if what[0] != "artifact"}
                    told.record = Record(job)

    def _check_streams(self, ids: list[UUID]) -> tuple[dict[UUID, Job], dict[UUID, int], dict[UUID, list[Recording]]]:
        """The folded jobs, the positions of their last events, and their recordings."""
        events: dict[UUID, list[Event]] = {id: [] for id in ids}
        positions: dict[UUID, list[int]] = {id: [] for id in ids}
        hashes = dict.fromkeys(ids, GENESIS)
        for id, version, topic, state, hash, position in self._ask(STREAMS, [ids]):
            events[id].append(decode(state))
            assert (version, topic) == (len(events[id]), TAGS[type(events[id][-1])])
            hashes[id] = chain(hashes[id], id, version, topic, state)
            assert hash == hashes[id], f"the chain of job {id} is broken at version {version}"
            positions[id].append(position)
            if position not in self._positions:
                self._positions.add(position)
                self.recorded[topic] += 1
        for id in ids:
            check_story(events[id])
            assert all(earlier < later for earlier, later in pairwise(positions[id]))
        recorded = {
            id: [(e.attempt, *one) for e in events[id] if isinstance(e, Progressed) for one in said_to_record(e)]
            for id in ids
        }
        return {id: Job.fold(id, events[id]) for id in ids}, {id: positions[id][-1] for id in ids}, recorded

    def _check_views(self, jobs: dict[UUID, Job], positions: dict[UUID, int]) -> None:
        ids = list(jobs)
        leases = {id: lease for id, *lease in self._ask(LEASES, [ids])}
        assert {id: tuple(lease[:2]) for id, lease in leases.items()} == {
            id: (job.attempt, job.worker) for id, job in jobs.items() if job.held
        }
        assert self._chance.choice(self._nodes).views.jobs(ids) == [
            JobView.of(job, positions[id], leases[id][2] if job.held else None) for id, job in jobs.items()
        ]
        ((count,),) = self._ask("SELECT count(*) FROM jobs WHERE queue = ANY(%s)", [self._queues()])
        assert count == len(ids), "there are jobs that nobody was told of"

    def _ask(self, query: LiteralString, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        cursor = self._watcher.execute(query, values)
        return cursor.fetchall() if cursor.description else []

    def _queues(self) -> list[str]:
        return [schedule.queue for schedule in self._schedules]


def check_story(events: Sequence[Event]) -> None:
    """What must hold in every stream: told apart from the domain's own decisions, by the words of the events alone."""
    assert isinstance(events[0], Created)
    at, over, attempt = events[0].at, False, 0
    holder: str | None = None
    asked = missed = False
    for event in events[1:]:
        assert event.at >= at
        at = event.at
        assert over == isinstance(event, Requeued), f"{type(event).__name__} after the end, or an end without one"
        match event:
            case Started():
                assert (holder, event.attempt) == (None, attempt + 1)
                holder, attempt, asked, missed = event.worker, event.attempt, False, False
            case Progressed() | Completed() | Released() | HeartbeatMissed():
                assert event.attempt == attempt
                assert holder is not None
                assert isinstance(event, HeartbeatMissed) or event.by == f"worker:{holder}"
            case Failed():
                assert event.attempt == attempt
                assert missed or event.by == f"worker:{holder}"
            case CancelRequested():
                assert holder is not None
                asked = True
            case Cancelled():
                assert asked or holder is None
            case _:
                pass
        over = ends_a_round(event)
        missed = isinstance(event, HeartbeatMissed) and event.retry_at is None and not asked
        if over or isinstance(event, Released | Failed | HeartbeatMissed):
            holder = None
        if over:
            asked = False


def ends_a_round(event: Event) -> bool:
    return isinstance(event, Completed | Cancelled) or (isinstance(event, Failed) and event.retry_at is None)


def said_to_record(said: Event | Decided) -> list[tuple[What, Raw | Artifact]]:
    """What an event or a report records."""
    match said:
        case Progressed() | ProgressReport():
            found = [(("output", said.step or ""), said.output), (("handle", said.step or ""), said.handle)]
            recorded: list[tuple[What, Raw | Artifact]] = [(what, value) for what, value in found if value is not UNSET]
            if isinstance(said, Progressed) and said.artifact is not None:
                recorded.append((("artifact", said.artifact.name), said.artifact))
            return recorded
        case ArtifactReport(artifact=artifact):
            return [(("artifact", artifact.name), artifact)]
        case _:
            return []


def on_record(job: Job) -> dict[What, Raw | Artifact]:
    kinds: dict[str, dict[str, Any]] = {"output": job.steps, "handle": job.handles, "artifact": job.artifacts}
    return {(kind, name): value for kind, values in kinds.items() for name, value in values.items()}


def _notice_new_jobs(done: Done) -> None:
    if isinstance(done.command, Create) and isinstance(done.answer, Accepted):
        for id in done.answer.job_ids:
            done.schedule.jobs[id] = Told(Job(id=id))


def _check_answer(done: Done, before: dict[UUID, int], jobs: dict[UUID, Job]) -> None:
    """A refused command recorded nothing, an answered one says how far the job got."""
    moved = {id for id in done.schedule.jobs if jobs[id].version != before.get(id, 0)}
    match done.answer:
        case Exception():
            assert moved == set(), f"{done.command} was refused ({done.answer!r}) and recorded something"
        case Reported(version=version, cancel_requested=cancel_requested):
            (id,) = done.command.job_ids
            assert moved <= {id}
            assert (version, cancel_requested) == (jobs[id].version, jobs[id].status == "cancelling")
        case Accepted(job_ids=(id,), view=JobView(version=version)):
            assert moved <= {id}
            assert version == jobs[id].version
        case [*claimed]:
            assert moved == {job.id for job in claimed}
            assert all(jobs[id].status == "running" for id in moved)
        case status:
            (id,) = done.command.job_ids
            assert moved == {id}
            assert status == jobs[id].status
    for told in done.schedule.jobs.values():
        if done.command in (told.last, *told.said) and not isinstance(done.answer, Crash | Conflicted):
            assert isinstance(done.answer, Reported), f"an exact repeat was refused: {done.answer!r}"
            assert moved == set(), "an exact repeat was recorded"


def _remember(done: Done, before: dict[UUID, int], jobs: dict[UUID, Job]) -> None:
    for id, told in done.schedule.jobs.items():
        told.job = jobs[id]
    if isinstance(done.command, Say) and isinstance(done.answer, Reported):
        id = done.command.report.job_id
        if jobs[id].version > before[id]:
            done.schedule.jobs[id].last = done.command


def test_a_story_with_two_ends_or_a_stranger_in_it_is_told_apart() -> None:
    """The judge of the streams can tell: what is wrong is wrong by its own account."""
    at = datetime.now(UTC)
    created = new_job().created("default", Cause(at, "key:test"), None)
    cancelled = Cancelled(reason="enough", at=at, by="key:test")
    started = Started(attempt=1, worker="w1", at=at, by="worker:w1")
    completed = Completed(attempt=1, result=Raw(b"1"), at=at, by="worker:w1")
    check_story([created, started, completed])
    wrongs: list[list[Event]] = [
        [created, started, completed, cancelled],
        [created, completed],
        [created, started, Completed(attempt=1, result=Raw(b"1"), at=at, by="worker:w2")],
        [created, started, started],
        [created, started, cancelled],
    ]
    for wrong in wrongs:
        with pytest.raises(AssertionError):
            check_story(wrong)

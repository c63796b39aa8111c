"""What holds for every job, whatever it is asked and in whatever order."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeVar
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw, UnsetType

from domain.events import (
    Artifact,
    Cancelled,
    CancelRequested,
    Completed,
    Created,
    Event,
    Failed,
    HeartbeatMissed,
    JobError,
    Progressed,
    Released,
    Requeued,
    Started,
    decode,
    encode,
)
from domain.job import Cause, Job, evolve
from domain.refusals import LeaseLost, Refused
from domain.retry import RetryPolicy

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
REPORTS = frozenset({"progressed", "complete", "fail", "release", "acknowledge_cancel"})
LAST_WORDS = REPORTS - {"progressed"}

thorough = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A command before it is known to which attempt and worker it will be spoken."""

    name: str
    clock: int
    """Seconds the clock moves before it; below zero it runs backwards."""
    speaker: tuple[int, str | None] = (0, None)
    """For which attempt (0 the current one, -1 the one before, 1 one yet to come), and who (None: its own worker)."""
    progress: float | None = None
    step: str | None = None
    message: str | None = None
    output: Raw | UnsetType = UNSET
    handle: Raw | UnsetType = UNSET
    artifact: Artifact | None = None
    error: str = "boom"
    final: bool = False
    retry_in: float | None = None
    jitter: float = 0.0
    afresh: bool = False
    again: int = 0
    """For `repeat`: which of the earlier commands is said again, word for word."""


@dataclass(frozen=True)
class Said:
    """A command as it was spoken, and what came of it."""

    wish: Wish
    attempt: int
    worker: str
    before: Job
    decided: list[Event]
    refusal: Refused | None
    after: Job
    """A copy taken when nothing but the decided events had been applied."""


T = TypeVar("T")


def maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | strategy


clocks = st.integers(min_value=-40, max_value=90)
RAWS = [Raw(b"null"), Raw(b"1"), Raw('{"größe":[1,2]}'.encode())]
FILES = [Artifact(name="page", sha256=sha256 * 32, size=2**53, media_type="text/html") for sha256 in ("ab", "cd")]
raws = st.sampled_from(RAWS)
speakers = st.sampled_from([*[(0, None)] * 8, (-1, None), (-2, None), (1, None), (0, "w1"), (0, "w2"), (-1, "w2")])
jitters = st.sampled_from([0.0, 0.3, 1.0])
spoken = {"clock": clocks, "speaker": speakers}

starting = st.builds(
    Wish, name=st.just("start"), speaker=st.sampled_from([(0, "w1"), (0, "w2")]), clock=st.integers(-10, 200)
)
progressing = st.builds(
    Wish,
    name=st.just("progressed"),
    **spoken,
    progress=st.sampled_from([None, None, 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]),
    step=st.sampled_from([None, "draw", "tell"]),
    message=st.sampled_from([None, None, "half", "nearly"]),
    output=st.sampled_from([UNSET, UNSET, *RAWS]),
    handle=st.sampled_from([UNSET, UNSET, UNSET, UNSET, *RAWS]),
    artifact=st.sampled_from([None, None, None, *FILES]),
)
completing = st.builds(Wish, name=st.just("complete"), output=raws, **spoken)
failing = st.builds(
    Wish,
    name=st.just("fail"),
    **spoken,
    error=st.sampled_from(["boom", "bang"]),
    output=st.sampled_from([UNSET, *RAWS]),
    final=st.sampled_from([False, False, False, True]),
    retry_in=st.sampled_from([None, None, 0.0, 7.5, 120.0]),
    jitter=jitters,
)
releasing = st.builds(Wish, name=st.just("release"), **spoken)
acknowledging = st.builds(Wish, name=st.just("acknowledge_cancel"), message=maybe(st.just("stopped")), **spoken)
cancelling = st.builds(Wish, name=st.just("cancel"), clock=clocks)
missing = st.builds(Wish, name=st.just("miss_heartbeat"), speaker=speakers, jitter=jitters, clock=clocks)
requeuing = st.builds(Wish, name=st.just("requeue"), afresh=st.booleans(), clock=clocks)
repeating = st.builds(Wish, name=st.just("repeat"), again=st.integers(0, 99), clock=clocks)
endings = st.one_of(failing, failing, missing, releasing, completing, acknowledging)
wild = st.one_of(starting, progressing, repeating, repeating, endings, requeuing, cancelling)
lives = st.tuples(
    starting,
    st.lists(st.one_of(progressing, progressing, progressing, progressing, cancelling, wild), max_size=4),
    endings,
)
talks = st.lists(
    st.one_of(
        lives.map(lambda life: [life[0], *life[1], life[2]]),
        lives.map(lambda life: [life[0], *life[1], life[2]]),
        st.tuples(requeuing, starting, progressing, endings).map(list),
        st.tuples(starting, progressing, cancelling, endings).map(list),
        wild.map(lambda wish: [wish]),
    ),
    min_size=5,
    max_size=14,
).map(lambda parts: [wish for part in parts for wish in part])
orders = st.builds(
    Created,
    namespace=st.just("default"),
    kind=st.just("render"),
    queue=st.just("gpu"),
    priority=st.integers(-100, 100),
    input=raws,
    run_at=st.sampled_from([START, START + timedelta(seconds=30)]),
    max_attempts=st.integers(1, 4),
    retry=st.builds(RetryPolicy, initial=st.floats(0, 30), factor=st.floats(1, 3), max=st.floats(1, 100)),
    heartbeat_timeout=st.just(30.0),
    time_limit=maybe(st.just(60.0)),
    labels=maybe(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)),
    at=st.just(START),
    by=st.just("key:shop"),
    trace=maybe(st.just("t1")),
)


def converse(order: Created, talk: Sequence[Wish]) -> tuple[list[Event], list[Said]]:
    """Every event that was recorded, and every command with what came of it."""
    job = Job.fold(ID, [order])
    events: list[Event] = [order]
    said: list[Said] = []
    clock = START
    for wish in talk:
        clock += timedelta(seconds=wish.clock)
        heard = _resolve(job, wish, said)
        if heard is None:
            continue
        wanted, attempt, worker = heard
        before = said[-1].after if said else deepcopy(job)
        refusal = None
        decided: list[Event] = []
        try:
            decided = decide(job, wanted, attempt, worker, Cause(clock, f"worker:{worker}"))
        except Refused as refused:
            refusal = refused
        assert job == before, f"{wanted} changed the job before anything was recorded"
        for event in decided:
            evolve(job, event)
        events += decided
        later = deepcopy(job) if decided else before
        said.append(Said(wanted, attempt, worker, before, decided, refusal, later))
    return events, said


def decide(job: Job, wish: Wish, attempt: int, worker: str, cause: Cause) -> list[Event]:
    match wish.name:
        case "start":
            return job.start(worker, cause)
        case "progressed":
            return job.progressed(
                attempt,
                worker,
                cause,
                progress=wish.progress,
                step=wish.step,
                message=wish.message,
                output=wish.output,
                artifact=wish.artifact,
                handle=wish.handle,
            )
        case "complete":
            assert isinstance(wish.output, Raw)
            return job.complete(attempt, worker, wish.output, cause)
        case "fail":
            error = JobError(type=wish.error, message=wish.error, detail=wish.output)
            return job.fail(attempt, worker, error, cause, jitter=wish.jitter, final=wish.final, retry_in=wish.retry_in)
        case "release":
            return job.release(attempt, worker, "deploy", cause)
        case "acknowledge_cancel":
            return job.acknowledge_cancel(attempt, worker, wish.message, cause)
        case "cancel":
            return job.cancel("too dear", cause)
        case "miss_heartbeat":
            return job.miss_heartbeat(attempt, cause.at - timedelta(seconds=30), cause, jitter=wish.jitter)
        case "requeue":
            return job.requeue("fixed", cause, afresh=wish.afresh)
        case name:
            raise AssertionError(name)


def _resolve(job: Job, wish: Wish, said: list[Said]) -> tuple[Wish, int, str] | None:
    """Whom the wish is spoken for; None for a repeat while nothing has been said."""
    if wish.name == "repeat":
        if not said:
            return None
        earlier = said[wish.again % len(said)]
        return earlier.wish, earlier.attempt, earlier.worker
    ahead, name = wish.speaker
    attempt = job.attempt + ahead
    made_by = job.attempts[attempt].worker if attempt in job.attempts else "w1"
    return wish, attempt, name or made_by


def is_terminal(event: Event) -> bool:
    return isinstance(event, Completed | Cancelled) or (isinstance(event, Failed) and event.retry_at is None)


def rounds(events: list[Event]) -> list[list[Event]]:
    parts: list[list[Event]] = [[]]
    for event in events:
        if isinstance(event, Requeued):
            parts.append([])
        parts[-1].append(event)
    return parts


@thorough
@given(orders, talks)
def test_what_any_sequence_of_commands_records_is_one_true_story(order: Created, talk: list[Wish]) -> None:
    events, said = converse(order, talk)
    _folding_the_stored_bytes_gives_the_job_that_decided_them(events, said)
    _a_round_ends_at_most_once_and_has_no_more_failures_than_it_may(events, order.max_attempts)
    _attempts_progress_and_time_only_rise(events)


@thorough
@given(orders, talks)
def test_each_command_of_any_sequence_is_judged_by_the_rules(order: Created, talk: list[Wish]) -> None:
    _, said = converse(order, talk)
    for one in said:
        _a_refused_command_records_nothing_and_leaves_the_job_as_it_was(one)
        _a_recorded_step_keeps_its_output_unless_the_job_starts_afresh(one)
        if one.wish.name in REPORTS:
            _only_the_worker_that_holds_the_attempt_moves_the_job(one)
            _a_report_is_answered_as_done_when_repeated_and_a_last_word_for_ever(one, said[-1].after)


def _folding_the_stored_bytes_gives_the_job_that_decided_them(events: list[Event], said: list[Said]) -> None:
    stored = [encode(event) for event in events]
    read = [decode(state) for state in stored]
    assert read == events
    assert [encode(event) for event in read] == stored
    folded = Job.fold(ID, read)
    assert folded == (said[-1].after if said else Job.fold(ID, events[:1]))
    assert folded.version == len(events)
    assert folded.finished == is_terminal(events[-1])


def _a_round_ends_at_most_once_and_has_no_more_failures_than_it_may(events: list[Event], max_attempts: int) -> None:
    for part in rounds(events):
        terminal = [index for index, event in enumerate(part) if is_terminal(event)]
        assert terminal in ([], [len(part) - 1])
        lost = {event.attempt for event in part if isinstance(event, Failed | HeartbeatMissed)}
        assert len(lost) < max_attempts or (len(lost) == max_attempts and terminal)


def _attempts_progress_and_time_only_rise(events: list[Event]) -> None:
    starts = [event.attempt for event in events if isinstance(event, Started)]
    assert starts == list(range(1, len(starts) + 1))
    assert all(earlier.at <= later.at for earlier, later in pairwise(events))
    assert all(event.retry_at >= event.at for event in events if isinstance(event, Failed) and event.retry_at)
    reached = 0.0
    for event in events:
        if isinstance(event, Requeued) and event.afresh:
            reached = 0.0
        if isinstance(event, Progressed):
            assert reached <= event.progress <= 1
            reached = event.progress


def _a_refused_command_records_nothing_and_leaves_the_job_as_it_was(one: Said) -> None:
    if one.refusal:
        assert one.decided == []
        assert one.after == one.before
        assert str(ID) in str(one.refusal)


def _a_recorded_step_keeps_its_output_unless_the_job_starts_afresh(one: Said) -> None:
    if one.decided and one.wish.name == "requeue" and one.wish.afresh:
        assert not one.after.steps
    else:
        assert one.before.steps.items() <= one.after.steps.items()
        assert one.before.handles.keys() <= one.after.handles.keys()


def _only_the_worker_that_holds_the_attempt_moves_the_job(one: Said) -> None:
    made_by = one.before.attempts[one.attempt].worker if one.attempt in one.before.attempts else None
    if one.worker != made_by:
        assert isinstance(one.refusal, LeaseLost)
    if one.decided:
        assert one.before.held
        assert (one.attempt, one.worker) == (one.before.attempt, one.before.worker)


def _a_report_is_answered_as_done_when_repeated_and_a_last_word_for_ever(one: Said, end: Job) -> None:
    late = Cause(START, "worker:any")
    if not one.refusal:
        assert decide(one.after, one.wish, one.attempt, one.worker, late) == []
    if one.decided and one.wish.name in LAST_WORDS:
        assert decide(end, one.wish, one.attempt, one.worker, late) == []


times = st.datetimes(timezones=st.just(UTC))
texts = st.text(max_size=5)
numbers = st.integers(-(2**63), 2**63 - 1)
tries = st.integers(-1, 3)
errors = st.builds(JobError, type=texts, message=texts, detail=st.just(UNSET) | raws)
common = {"at": times, "by": texts, "trace": maybe(texts)}
files = st.builds(Artifact, name=texts, sha256=texts, size=numbers, media_type=texts)
anything: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        Created,
        **common,
        namespace=texts,
        kind=texts,
        queue=texts,
        priority=numbers,
        input=raws,
        run_at=times,
        max_attempts=numbers,
        retry=st.builds(RetryPolicy),
        heartbeat_timeout=st.floats(allow_nan=False, allow_infinity=False),
        time_limit=maybe(st.floats(allow_nan=False, allow_infinity=False)),
        labels=maybe(st.dictionaries(texts, texts, max_size=2)),
        idempotency_key=maybe(texts),
    ),
    st.builds(Started, **common, attempt=tries, worker=texts),
    st.builds(
        Progressed,
        **common,
        attempt=tries,
        progress=st.floats(allow_nan=False, allow_infinity=False),
        step=maybe(texts),
        message=maybe(texts),
        output=st.just(UNSET) | raws,
        handle=st.just(UNSET) | raws,
        artifact=maybe(files),
    ),
    st.builds(HeartbeatMissed, **common, attempt=tries, worker=texts, last_heartbeat=times, retry_at=maybe(times)),
    st.builds(Completed, **common, attempt=tries, result=raws),
    st.builds(Failed, **common, attempt=tries, error=errors, retry_at=maybe(times)),
    st.builds(Released, **common, attempt=tries, worker=texts, reason=texts),
    st.builds(CancelRequested, **common, reason=texts),
    st.builds(Cancelled, **common, reason=texts),
    st.builds(Requeued, **common, reason=texts, afresh=st.booleans()),
)


@thorough
@given(st.lists(anything, max_size=15))
def test_evolve_never_refuses_whatever_history_says(events: list[Event]) -> None:
    job = Job.fold(ID, events)
    assert job.version == len(events)
    assert job == Job.fold(ID, [decode(encode(event)) for event in events])


@thorough
@given(anything)
def test_every_event_reads_back_from_its_bytes(event: Event) -> None:
    state = encode(event)
    assert decode(state) == event
    assert encode(decode(state)) == state

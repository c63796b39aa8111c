"""Claims: jobs are dealt out between those who ask, within bounds, and an answer that was lost is given again."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec
import pytest

from application.claims import MOST_BYTES, Claim, ClaimedJob, Claims
from application.errors import Conflicted, Unavailable
from application.ledger import Ready
from application.news import Listening, queue_topic
from domain.job import Cause, evolve
from tests.application.memory import NOW, MemoryBatch, MemoryLedger


class Told:
    """News that comes at once, whenever somebody waits for it; `then` happens before it is heard."""

    def __init__(self) -> None:
        self.listened: list[Collection[str]] = []
        self.heard_for: list[float] = []
        self.then: Any = lambda: None

    @contextmanager
    def listen(self, topics: Collection[str]) -> Iterator[Listening]:
        self.listened.append(topics)
        yield self

    async def heard(self, seconds: float) -> bool:
        self.heard_for.append(seconds)
        self.then()
        await asyncio.sleep(0)
        return True


async def no_release(worker: str, job: ClaimedJob, reason: str) -> None:
    raise AssertionError("nobody hung up")


def claim_all(ledger: MemoryLedger, *claims: Claim, news: Told | None = None) -> list[Any]:
    """The answers to claims that come together, in order."""

    async def story() -> list[Any]:
        desk = Claims(ledger, ledger, news or Told(), no_release, lambda claim, via, namespace: None, set)
        try:
            return await asyncio.gather(*(desk.claim(claim, "http") for claim in claims), return_exceptions=True)
        finally:
            desk.close()

    return asyncio.run(story())


def claim(worker: str = "w1", max: int = 1, **fields: Any) -> Claim:
    return Claim(worker=worker, queues=fields.pop("queues", ["default"]), max=max, **fields)


def ids(jobs: list[ClaimedJob]) -> list[UUID]:
    return [job.id for job in jobs]


def test_claims_that_want_the_same_are_dealt_from_one_scan() -> None:
    ledger = MemoryLedger()
    jobs = ledger.add(5)
    first, second, third = claim_all(ledger, claim("w1", 2), claim("w2", 2), claim("w3", 2))
    assert (ids(first), ids(second), ids(third)) == (jobs[:2], jobs[2:4], jobs[4:])
    assert ledger.scans == [(Ready(("default",), None), 6)]
    assert ledger.batches == 1
    assert [ledger.jobs[id].worker for id in jobs] == ["w1", "w1", "w2", "w2", "w3"]


def test_a_claim_that_comes_twice_at_once_is_answered_the_same() -> None:
    ledger = MemoryLedger()
    jobs = ledger.add(5)
    answers = claim_all(
        ledger, claim("w1", 2, claim_id="c"), claim("w1", 2, claim_id="c"), claim("w2", 2, claim_id="c")
    )
    assert [ids(answer) for answer in answers] == [jobs[:2], jobs[:2], jobs[2:4]]


def test_a_claim_that_comes_very_often_at_once_is_answered_the_same() -> None:
    ledger = MemoryLedger()
    (job,) = ledger.add()
    answers = claim_all(ledger, *[claim(claim_id="c")] * 1500)
    assert [[one.id for one in answer] for answer in answers] == [[job]] * 1500


def test_the_order_in_which_queues_and_kinds_are_named_makes_no_difference() -> None:
    ledger = MemoryLedger()
    ledger.add(2, kind="a")
    claim_all(
        ledger,
        claim(queues=["default", "gpu"], kinds=["a", "b"]),
        claim(queues=["gpu", "default", "gpu"], kinds=["b", "a"]),
    )
    assert ledger.scans == [(Ready(("default", "gpu"), ("a", "b")), 2)]


def test_claims_that_want_different_jobs_are_scanned_for_apart() -> None:
    ledger = MemoryLedger()
    (a,), (b,) = ledger.add(kind="a"), ledger.add(kind="b")
    first, second = claim_all(ledger, claim(kinds=["b"]), claim(kinds=["a"]))
    assert (ids(first), ids(second)) == ([b], [a])


def test_a_claimed_job_carries_what_its_worker_needs() -> None:
    ledger = MemoryLedger()
    (id,) = ledger.add(input=b'{"n": 1}')
    ((job,),) = claim_all(ledger, claim())
    assert (job.id, job.kind, job.attempt, bytes(job.input), job.steps) == (id, "nothing", 1, b'{"n": 1}', {})
    assert (job.lease_expires_at - NOW).total_seconds() == job.heartbeat_timeout == 30.0
    assert job.deadline is None


def test_an_answer_stays_below_sixteen_mebibytes() -> None:
    ledger = MemoryLedger()
    large = b'"' + b"x" * (256 * 1024 - 2) + b'"'
    jobs = ledger.add(100, input=large)
    first, second = claim_all(ledger, claim("w1", 70), claim("w2", 70))
    assert len(msgspec.json.encode(first)) <= MOST_BYTES
    assert 50 < len(first) < 70
    assert ids(first) + ids(second) == jobs[: len(first) + len(second)]
    assert [job.status for job in ledger.jobs.values()].count("running") == len(first) + len(second)


def test_one_job_is_given_however_large_it_is() -> None:
    ledger = MemoryLedger()
    jobs = ledger.add(2, input=b'"' + b"x" * (MOST_BYTES + 1) + b'"')
    ((job,),) = claim_all(ledger, claim(max=2))
    assert job.id == jobs[0]
    assert ledger.jobs[jobs[1]].status == "queued"


def test_a_job_that_moved_between_the_scan_and_the_lock_is_passed_over() -> None:
    ledger = MemoryLedger()
    jobs = ledger.add(2) + ledger.add(due_in=60) + ledger.add()
    (claimed,) = claim_all(ledger, claim(max=4))
    assert ids(claimed) == [*jobs[:2], jobs[3]]


def test_repeating_a_claim_answers_what_it_still_holds() -> None:
    ledger = MemoryLedger()
    jobs = ledger.add(5)
    (first,) = claim_all(ledger, claim(max=3, claim_id="c1"))
    ended = ledger.jobs[jobs[1]]
    for event in ended.release(1, "w1", "done with it", Cause(NOW, "worker:w1")):
        evolve(ended, event)
    again, other, without = claim_all(ledger, claim(max=3, claim_id="c1"), claim(max=1, claim_id="c2"), claim(max=1))
    assert ids(first) == jobs[:3]
    assert ids(again) == [jobs[0], jobs[2]]
    assert [job.attempt for job in again] == [1, 1]
    assert len(other) == len(without) == 1
    assert not set(ids(other)) & set(ids(again))


def test_a_claim_waits_for_news_of_its_queues() -> None:
    ledger, news = MemoryLedger(), Told()
    news.then = lambda: len(news.heard_for) == 3 and ledger.add()
    ((job,),) = claim_all(ledger, claim(wait=30, queues=["default", "gpu"]), news=news)
    assert job.id in ledger.jobs
    assert list(news.listened[0]) == [queue_topic("default"), queue_topic("gpu")]
    assert len(news.heard_for) == 3
    assert all(0 < seconds <= 1.0 for seconds in news.heard_for)


def test_a_claim_that_does_not_wait_is_answered_at_once() -> None:
    news = Told()
    assert claim_all(MemoryLedger(), claim(), news=news) == [[]]
    assert news.heard_for == []


@pytest.mark.parametrize(("conflicts", "claimed"), [(1, True), (2, True), (3, False)])
def test_conflicts_are_tried_again_twice(conflicts: int, claimed: bool) -> None:
    left = [conflicts]

    def at_commit(batch: MemoryBatch) -> None:
        if left[0]:
            left[0] -= 1
            raise Conflicted

    ledger = MemoryLedger(at_commit)
    jobs = ledger.add()
    (answer,) = claim_all(ledger, claim())
    if claimed:
        assert ids(answer) == jobs
    else:
        assert isinstance(answer, Unavailable)
        assert ledger.jobs[jobs[0]].status == "queued"

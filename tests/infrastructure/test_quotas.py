"""How many jobs a key may have in flight: right on all servers at once, whatever comes together."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

from msgspec import Raw

from application.bulk import Bulk, BulkFilter, MovePage, Place
from application.errors import RateLimited
from application.jobs import Accepted, Asked, Cancel, Create, Requeue
from application.ledger import IdempotencyKey, Quota
from application.reports import CompletionReport, FailureReport, ReportedError
from infrastructure.postgres.quotas import COUNT
from tests.infrastructure.nodes import ASKED, Node, ask, new_job, plan_nodes

OPERATOR = Asked(by="key:operator")


def limited(node: Node, most: int) -> Asked:
    """A new key that may have so many jobs in flight."""
    name = f"k-{uuid4().hex}"
    ((id,),) = ask(
        node.dsn,
        "INSERT INTO keys (name, role, in_flight, digest, created_by) "
        "VALUES (%s, 'client', %s, sha256(gen_random_uuid()::text::bytea), 'test') RETURNING id",
        [name, most],
    )
    return Asked(by=f"key:{name}", quota=Quota(id, name, most))


def create(asked: Asked, count: int = 1, **fields: Any) -> Create:
    return Create([new_job(**fields)] * count, asked)


def in_flight(node: Node, asked: Asked) -> int:
    assert asked.quota is not None
    ((count,),) = ask(
        node.dsn, "SELECT count(*) FROM jobs WHERE charged_to = %s AND finished_at IS NULL", [asked.quota.key_id]
    )
    assert isinstance(count, int)
    return count


def created(answer: Any) -> list[UUID]:
    assert isinstance(answer, Accepted), answer
    return list(answer.job_ids)


def test_a_key_has_as_many_jobs_in_flight_as_it_may(node: Node) -> None:
    asked = limited(node, 3)
    answers = node.execute(*[create(asked) for _ in range(5)])
    assert [isinstance(answer, Accepted) for answer in answers] == [True, True, True, False, False]
    refused = answers[3]
    assert isinstance(refused, RateLimited)
    assert refused.retry_after == 1
    assert "may have 3 jobs in flight" in str(refused)
    assert in_flight(node, asked) == 3


def test_each_way_to_finish_makes_room(node: Node) -> None:
    asked, queue = limited(node, 3), uuid4().hex
    ids = created(node.one(create(asked, 3, queue=queue, max_attempts=1)))
    assert node.claim("w1", 3, queue=queue) == ids
    assert isinstance(node.execute(create(asked))[0], RateLimited), "a job that runs is in flight"
    node.say(CompletionReport(job_id=ids[0], attempt=1))
    node.say(FailureReport(job_id=ids[1], attempt=1, error=ReportedError(type="t", message="m")))
    assert node.rescue(ids[2]) == "failed"
    (queued,) = created(node.one(create(asked)))
    node.one(Cancel(job_id=queued, reason="enough", asked=asked))
    created(node.one(create(asked, 3)))
    assert isinstance(node.execute(create(asked))[0], RateLimited)


def test_what_is_tried_again_stays_in_flight(node: Node) -> None:
    asked, queue = limited(node, 1), uuid4().hex
    (id,) = created(node.one(create(asked, queue=queue)))
    assert node.claim(queue=queue) == [id]
    node.say(FailureReport(job_id=id, attempt=1, error=ReportedError(type="t", message="m"), retry_in=0))
    assert isinstance(node.execute(create(asked))[0], RateLimited)


def test_of_a_batch_all_are_created_or_none(node: Node) -> None:
    asked = limited(node, 5)
    created(node.one(create(asked, 2)))
    assert isinstance(node.execute(create(asked, 4))[0], RateLimited)
    assert in_flight(node, asked) == 2
    created(node.one(create(asked, 3)))
    assert isinstance(node.execute(create(limited(node, 1), 2))[0], RateLimited)


def test_a_refusal_touches_nobody_else_in_the_batch(node: Node) -> None:
    full = limited(node, 1)
    answers = node.execute(create(full), create(full), create(ASKED), create(limited(node, 1)))
    assert [isinstance(answer, Accepted) for answer in answers] == [True, False, True, True]


def test_a_request_that_is_sent_again_is_not_counted_again(node: Node) -> None:
    asked = limited(node, 2)
    keyed = [
        Asked(by=asked.by, quota=asked.quota, key=IdempotencyKey("default", uuid4().hex, bytes(32))) for _ in range(3)
    ]
    ids = [created(node.one(create(one))) for one in keyed[:2]]
    assert isinstance(node.execute(create(keyed[2]))[0], RateLimited)
    for one, same in zip(keyed[:2], ids, strict=True):
        again = node.one(create(one))
        assert (again.replayed, list(again.job_ids)) == (True, same)
    node.one(Cancel(job_id=ids[0][0], reason="enough", asked=asked))
    assert not node.one(create(keyed[2])).replayed, "what was refused left its idempotency key free"


class TestRequeues:
    def test_one_by_the_key_needs_room(self, node: Node) -> None:
        asked = limited(node, 1)
        (first,) = created(node.one(create(asked)))
        node.one(Cancel(job_id=first, reason="enough", asked=asked))
        (second,) = created(node.one(create(asked)))
        again = Requeue(job_id=first, reason="again", asked=asked)
        assert isinstance(node.execute(again)[0], RateLimited)
        node.one(Cancel(job_id=second, reason="enough", asked=asked))
        node.one(again)
        assert isinstance(node.execute(create(asked))[0], RateLimited)

    def test_one_by_an_operator_counts_for_the_key_that_created_it(self, node: Node) -> None:
        asked = limited(node, 1)
        (id,) = created(node.one(create(asked)))
        node.one(Cancel(job_id=id, reason="enough", asked=OPERATOR))
        node.one(Requeue(job_id=id, reason="again", asked=OPERATOR))
        assert isinstance(node.execute(create(asked))[0], RateLimited)

    def test_what_another_created_counts_for_the_key_with_a_quota_that_asks(self, node: Node) -> None:
        asked = limited(node, 1)
        (id,) = node.create(new_job())
        node.one(Cancel(job_id=id, reason="enough", asked=OPERATOR))
        node.one(Requeue(job_id=id, reason="again", asked=asked))
        assert in_flight(node, asked) == 1
        assert isinstance(node.execute(create(asked))[0], RateLimited)

    def test_those_in_bulk_go_as_far_as_there_is_room(self, node: Node) -> None:
        asked, queue = limited(node, 3), uuid4().hex
        ids = node.create(*[new_job()] * 4)
        for id in ids:
            node.one(Cancel(job_id=id, reason="enough", asked=OPERATOR))
        bulk = Bulk(operation="requeue", filter=BulkFilter(queue=[queue]), reason="r", by=asked.by, quota=asked.quota)
        (bulk_id,) = created(node.one(Create([bulk.new_job()], asked)))
        assert node.claim(queue="bulk") == [bulk_id]
        page = MovePage(bulk_id=bulk_id, attempt=1, bulk=bulk, ids=ids, before=Place(), cursor=None, total=4)
        place = node.one(page)
        assert (place.moved.changed, place.moved.refused) == (2, {"rate-limited": 2}), "the bulk job is in flight, too"
        assert in_flight(node, asked) == 3


def test_two_servers_count_the_same_jobs(node: Node) -> None:
    """Whatever comes at the same time, singly and in batches, the key never has more than it may."""
    asked = limited(node, 20)
    together = Barrier(2)

    def ask_for_many(here: Node) -> int:
        made = 0
        for n in range(15):
            together.wait(30)
            answers = here.execute(create(asked, 1 + n % 3), create(asked))
            made += sum(len(created(answer)) for answer in answers if not isinstance(answer, RateLimited))
        return made

    with Node(node.dsn) as other, ThreadPoolExecutor(2) as threads:
        made = sum(threads.map(ask_for_many, [node, other]))
    assert made == 20
    assert in_flight(node, asked) == 20


def test_what_a_full_key_has_in_flight_is_counted_by_index(node: Node) -> None:
    """Each of its jobs costs the index entry and its row: nothing of the jobs of others, or of finished ones."""
    asked = limited(node, 300)
    ids = created(node.one(create(asked, 300)))
    node.create(*[new_job(input=Raw(b'"' + b"x" * 300 + b'"'))] * 2000)
    node.execute(*[Cancel(job_id=id, reason="enough", asked=OPERATOR) for id in ids[:150]])
    assert asked.quota is not None
    ask(node.dsn, "ANALYZE jobs")
    explained = ask(
        node.dsn,
        "EXPLAIN (ANALYZE, FORMAT JSON) " + COUNT.replace("%b", "%s"),
        [[asked.quota.key_id], [300]],
    )
    scans = [scan for scan in plan_nodes(explained[0][0][0]["Plan"]) if scan.get("Relation Name") == "jobs"]
    assert {scan["Index Name"] for scan in scans} == {"jobs_in_flight"}
    assert sum(scan["Actual Rows"] for scan in scans) == 150

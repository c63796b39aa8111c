"""Idempotency keys: the same key and request are the same job, on every server and for a day."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from application.errors import IdempotencyMismatch, Invalid
from application.jobs import Accepted, Asked, Cancel, Create, Requeue
from application.ledger import IdempotencyKey
from domain.refusals import Conflict
from tests.infrastructure.commands import created, topics, with_key
from tests.infrastructure.nodes import ASKED, Node, ask, new_job


class TestIdempotencyKeys:
    def test_two_hundred_creates_with_one_key_on_three_servers_make_one_job(self, own: str) -> None:
        with ExitStack() as stack:
            servers = [stack.enter_context(Node(own)) for _ in range(3)]
            sizes = [1, 2, 5, 12, 20] * 5
            together = threading.Barrier(len(sizes))

            def send(n: int) -> list[Any]:
                together.wait(30)
                return servers[n % 3].execute(*[with_key("same") for _ in range(sizes[n])])

            with ThreadPoolExecutor(len(sizes)) as threads:
                answers = [answer for batch in threads.map(send, range(len(sizes))) for answer in batch]
        assert len(answers) == 200
        assert len({(created(answer), answer.position) for answer in answers}) == 1
        assert [answer.replayed for answer in answers].count(False) == 1
        assert ask(own, "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM jobs)") == [(1, 1)]

    def test_a_key_is_free_again_after_a_day(self, node: Node) -> None:
        first = created(node.one(with_key("daily")))
        age(node, "daily", "23 hours 59 minutes")
        assert node.one(with_key("daily")).job_ids == (first,)
        age(node, "daily", "24 hours 1 second")
        second = node.one(with_key("daily"))
        assert not second.replayed
        assert created(second) != first
        assert node.one(with_key("daily")) == Accepted((created(second),), second.position, replayed=True)

    def test_a_key_after_a_day_takes_another_request(self, node: Node) -> None:
        first = created(node.one(with_key("other day", b"one")))
        age(node, "other day", "25 hours")
        second = created(node.one(with_key("other day", b"two")))
        assert second != first
        with pytest.raises(IdempotencyMismatch):
            node.one(with_key("other day", b"one"))

    def test_one_key_for_two_requests_is_refused_wherever_they_meet(self, nodes: Callable[[], Node]) -> None:
        one, other = nodes(), nodes()
        first, second, third = one.execute(*[with_key("two", request) for request in (b"b", b"a", b"b")])
        assert not first.replayed
        assert isinstance(second, IdempotencyMismatch)
        assert third.job_ids == first.job_ids
        with pytest.raises(IdempotencyMismatch):
            other.one(with_key("two", b"a"))

    def test_keys_of_two_namespaces_do_not_meet(self, node: Node) -> None:
        keys = [IdempotencyKey(namespace, "shared", b"same") for namespace in ("left", "right")]
        answers = node.execute(
            *[Create([new_job()], Asked(by="key:test", namespace=key.namespace, key=key)) for key in keys]
        )
        assert len({created(answer) for answer in answers}) == 2

    def test_a_refused_command_leaves_its_key_free(self, node: Node) -> None:
        (id,) = node.create(new_job())
        key = IdempotencyKey("default", "refused", b"request")
        requeue = Requeue(job_id=id, reason="again", asked=Asked(by="key:test", key=key))
        with pytest.raises(Conflict):
            node.one(requeue)
        assert ask(node.dsn, "SELECT 1 FROM idempotency_keys WHERE key = 'refused'") == []
        node.one(Cancel(job_id=id, reason="first this", asked=ASKED))
        assert not node.one(requeue).replayed
        assert node.one(requeue).replayed
        assert topics(node, id) == ["job.created", "job.cancelled", "job.requeued"]

    def test_a_bad_neighbour_leaves_a_key_usable(self, node: Node) -> None:
        good, bad = node.execute(with_key("neighbour"), Create([new_job(kind="n\0l")], ASKED))
        assert isinstance(bad, Invalid)
        assert not good.replayed
        assert node.one(with_key("neighbour")).job_ids == good.job_ids


def age(node: Node, key: str, interval: str) -> None:
    ask(node.dsn, "UPDATE idempotency_keys SET used_at = now() - %s::interval WHERE key = %s", [interval, key])

"""The ledger: its view is the fold, it tells of what moved, and one bad row harms nobody else."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any
from uuid import UUID

import msgspec
import pytest
from eventsourcing.persistence import StoredEvent

from application.errors import Invalid, UnreadableStream
from application.jobs import Accepted, Create, Requeue
from application.news import JOBS, job_topic, queue_topic
from application.reports import (
    CompletionReport,
    ReleaseReport,
    Reported,
    Say,
)
from domain.audit import GENESIS, chain
from infrastructure.postgres.batch import MOST_NAMED
from tests.infrastructure.commands import EVENTS, created, progress, topics
from tests.infrastructure.nodes import ASKED, Node, ask, new_job
from tests.infrastructure.stories import Story


class TestTheViewIsTheFold:
    @pytest.mark.parametrize("seed", range(4))
    def test_after_any_commands_every_row_equals_its_folded_stream(self, own: str, seed: int) -> None:
        with Node(own) as one, Node(own) as other:
            story = Story(random.Random(seed), [one, other])
            for _ in range(40):
                story.go_on()
                story.check()
            assert len(Counter(story.recorded())) >= 8, "the story is too dull to show anything"

    @pytest.mark.parametrize("seed", range(2))
    def test_every_hash_covers_its_predecessor_to_the_byte(self, own: str, seed: int) -> None:
        with Node(own) as one, Node(own) as other:
            story = Story(random.Random(100 + seed), [one, other])
            for _ in range(30):
                story.go_on()
            rows = ask(own, EVENTS, [story.ids])
        assert len(rows) > 30
        for _, stream in groupby(rows, key=lambda row: row[0]):
            previous, follows = GENESIS, 0
            for id, version, topic, state, hash, _ in stream:
                assert version == follows + 1
                previous, follows = chain(previous, id, version, topic, state), version
                assert hash == previous
                assert msgspec.json.decode(state)["type"] == topic


class TestNews:
    def test_who_waits_for_work_hears_only_of_work(self, node: Node) -> None:
        """Also when the jobs that moved are too many to name; each idle worker would look for work, again and again."""
        queue = "news"
        ids = node.started(*[new_job(queue=queue) for _ in range(MOST_NAMED + 3)])
        assert node.told[-2:] == [{queue_topic(queue)}, {JOBS}]
        done = [Say(report=CompletionReport(job_id=id, attempt=1), worker="w1") for id in ids]
        node.execute(*done[:2])
        assert node.told[-1] == {job_topic(id) for id in ids[:2]}
        node.execute(*[Requeue(job_id=id, reason="again", asked=ASKED) for id in ids[:2]])
        assert node.told[-1] == {queue_topic(queue), *map(job_topic, ids[:2])}
        released = [ReleaseReport(job_id=id, attempt=1, reason="later") for id in ids[2:]]
        node.execute(*[Say(report=report, worker="w1") for report in released])
        assert node.told[-1] == {queue_topic(queue), JOBS}


class TestABadRow:
    @pytest.mark.parametrize(
        "fields",
        [{"kind": "n\0l"}, {"labels": {"k": "\ud800"}}, {"kind": "\udfff"}, {"priority": 40_000}, {"queue": "\0"}],
        ids=["NUL", "a lone surrogate in a label", "a lone surrogate", "a number out of range", "NUL in the queue"],
    )
    def test_it_fails_alone_among_a_hundred(self, node: Node, fields: dict[str, Any]) -> None:
        answers = node.execute(*[Create([new_job(**(fields if n == 61 else {}))], ASKED) for n in range(100)])
        assert [n for n, answer in enumerate(answers) if not isinstance(answer, Accepted)] == [61]
        assert isinstance(answers[61], Invalid | UnicodeEncodeError)
        ids = [created(answer) for n, answer in enumerate(answers) if n != 61]
        assert [row[1:3] for row in ask(node.dsn, EVENTS, [ids])] == [(1, "job.created")] * 99
        assert all(node.views.jobs(ids))

    @pytest.mark.parametrize("text", ["n\0l", "\ud800"], ids=["NUL", "a lone surrogate"])
    def test_a_bad_report_fails_alone_and_its_job_goes_on(self, node: Node, text: str) -> None:
        ids = node.started(*[new_job(queue=f"bad-reports-{ord(text[0])}") for _ in range(20)])
        answers = node.execute(
            *[Say(report=progress(id, text if n == 7 else "fine"), worker="w1") for n, id in enumerate(ids)]
        )
        assert isinstance(answers.pop(7), Invalid | UnicodeEncodeError)
        assert answers == [Reported(version=3, cancel_requested=False)] * 19
        assert node.say(CompletionReport(job_id=ids[7], attempt=1)).version == 3
        assert topics(node, ids[7]) == ["job.created", "job.started", "job.completed"]

    def test_a_stream_that_cannot_be_read_harms_only_its_own_job(self, nodes: Callable[[], Node]) -> None:
        one, fresh = nodes(), nodes()
        ids = one.started(*[new_job(queue="unreadable") for _ in range(3)])
        from_tomorrow(one, ids[1], 3)
        for node in (one, fresh):
            answers = node.execute(*[Say(report=progress(id, str(id_of(node))), worker="w1") for id in ids])
            assert isinstance(answers[1], UnreadableStream)
            assert [type(answer) for answer in answers] == [Reported, UnreadableStream, Reported]

    def test_a_stream_that_cannot_be_read_does_not_hold_up_its_queue(self, nodes: Callable[[], Node]) -> None:
        one, fresh = nodes(), nodes()
        ids = one.create(*[new_job(queue="held up") for _ in range(3)])
        from_tomorrow(one, ids[0], 2)
        assert fresh.claim(queue="held up") == [ids[1]]
        assert fresh.claim(queue="held up") == [ids[2]]


def from_tomorrow(node: Node, id: UUID, version: int) -> None:
    state = b'{"type":"job.teleported","at":"2031-01-01T00:00:00Z","by":"key:later"}'
    node.log.recorder.insert_events([StoredEvent(id, version, "job.teleported", state)])


def id_of(node: Node) -> str:
    return f"server {id(node)}"

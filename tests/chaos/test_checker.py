"""The checker finds what it is there to find: each of these was acknowledged, or seen, and is not as it was."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec import Raw

from application.jobs import Asked, Create
from application.ledger import IdempotencyKey
from application.reports import CompletionReport, ProgressReport
from tests.chaos.checker import Checker
from tests.chaos.marks import Mark
from tests.chaos.witness import ASKED, Recorded, Witness
from tests.infrastructure.nodes import Node, migrated, new_job

KEY = "caller 0, job 1"


class Scene:
    """A job with one step that has ended, and a witness of all that was acknowledged of it."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.witness = Witness()
        self.dsn = dsn
        self._folder = folder
        with Node(dsn) as node:
            key = IdempotencyKey("default", KEY, b"1" * 32)
            accepted = node.one(Create([new_job()], Asked(by="key:test", key=key)))
            (self.id,) = map(str, accepted.job_ids)
            node.claim()
            job_id = UUID(self.id)
            node.say(ProgressReport(job_id=job_id, attempt=1, step="one", output=Raw(b'"token"')))
            node.say(CompletionReport(job_id=job_id, attempt=1, result=Raw(b'["token"]')))
        self.view = {"id": self.id, "status": "completed", "version": 4, "result": ["token"]}
        self.mark = Mark(self.id, 1, "one", "token")
        self.witness.create(KEY, self.id)
        self.witness.end(self.view)
        self.witness.recorded.append(Recorded(self.id, 1, "one", "token"))

    def differences(self, *marks: Mark) -> list[str]:
        checker = Checker(self.dsn, [], self.witness, self._folder)
        checker.read_log()
        checker.check_answers()
        checker.check_steps(list(marks or [self.mark]))
        return checker.differences


@pytest.fixture
def scene(new_database: Callable[[], str], tmp_path: Path) -> Scene:
    return Scene(migrated(new_database()), tmp_path)


def test_what_is_as_it_was_told_differs_in_nothing(scene: Scene) -> None:
    assert scene.differences() == []


def test_an_acknowledged_job_that_is_lost_is_found(scene: Scene) -> None:
    lost = str(uuid4())
    scene.witness.create("caller 0, job 2", lost)
    assert scene.differences() == [f"the acknowledged job {lost} of caller 0, job 2 is lost"]


def test_a_request_without_a_key_that_made_two_jobs_is_found(scene: Scene) -> None:
    with Node(scene.dsn) as node:
        node.create(*[new_job(labels={ASKED: "caller 0, job 2, request 1"}) for _ in range(2)])
    assert any("the key caller 0, job 2, request 1 made job" in found for found in scene.differences())


def test_a_request_without_a_key_may_have_made_a_job_when_nobody_said(scene: Scene) -> None:
    key = "caller 0, job 2, request 1"
    with Node(scene.dsn) as node:
        (id,) = node.create(new_job(labels={ASKED: key}))
        node.claim()
        node.say(CompletionReport(job_id=id, attempt=1, result=Raw(b"null")))
    assert scene.differences() == [f"the job of {key} was never acknowledged, though its caller waited"]
    scene.witness.doubt(key)
    assert scene.differences() == []


def test_a_key_that_made_two_jobs_is_found(scene: Scene) -> None:
    scene.witness.create(KEY, str(uuid4()))
    assert "was answered with job" in scene.witness.violations[0]


def test_an_end_that_was_told_and_is_another_is_found(scene: Scene) -> None:
    scene.witness.ended[scene.id] = scene.view | {"result": ["another"]}
    assert "its log says otherwise" in scene.differences()[0]


def test_an_acknowledged_step_that_is_lost_is_found(scene: Scene) -> None:
    scene.witness.recorded.append(Recorded(scene.id, 1, "two", "lost"))
    assert "the acknowledged 'two' is recorded as []" in scene.differences()[0]


def test_a_cancellation_that_was_lost_is_found(scene: Scene) -> None:
    scene.witness.cancelled.add(str(uuid4()))
    assert "was not cancelled" in scene.differences()[0]


def test_a_step_that_ran_again_after_it_was_recorded_is_found(scene: Scene) -> None:
    again = scene.mark._replace(attempt=2, token="again")
    assert "was recorded in attempt 1 and ran in [1, 2]" in scene.differences(scene.mark, again)[0]


def test_a_step_that_ran_twice_in_an_attempt_is_found(scene: Scene) -> None:
    assert "ran twice in an attempt" in scene.differences(scene.mark, scene.mark._replace(token="again"))[0]


def test_an_output_that_no_call_returned_is_found(scene: Scene) -> None:
    assert "no call of its attempt returned" in scene.differences(scene.mark._replace(token="another"))[0]


def test_a_job_that_ended_twice_or_whose_content_was_changed_is_found(scene: Scene) -> None:
    """By somebody who may switch the triggers off."""
    with psycopg.connect(scene.dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            """
            INSERT INTO events SELECT originator_id, 5, topic, state, hash, notification_id + 1, recorded_at
            FROM events WHERE originator_version = 4
            """
        )
    found = " ".join(scene.differences())
    assert "ended 2 times" in found
    assert "version 5 does not bear the hash of what it says" in found


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ([1, 2, 4], "saw 1 events of 4 not, 0 twice"),
        ([1, 2, 2, 3, 4], "saw 0 events of 4 not, 1 twice"),
        ([1, 2, 3, 4, 5], "1 that are not there"),
        ([1, 3, 2, 4], "in another order"),
    ],
)
def test_what_a_follower_missed_or_saw_twice_is_found(seen: list[int], found: str, tmp_path: Path) -> None:
    checker = Checker("", [], Witness(), tmp_path)
    checker.check_seen("who", [1, 2, 3, 4], [1, 2, 3, 4])
    assert checker.differences == []
    checker.check_seen("who", seen, [1, 2, 3, 4])
    assert found in checker.differences[0]

"""Views are built anew beside the old ones, compared with a fresh fold, and go on after what they cannot fold."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import Raw

from application.operations import ProjectionView
from application.projector import Projector
from application.reports import CompletionReport
from application.verifier import Taken, Verdict, Verifier
from domain.refusals import Conflict
from infrastructure.postgres.operations import PostgresOperations
from infrastructure.postgres.projections import VIEWS
from infrastructure.postgres.stats import Stats
from infrastructure.postgres.verifications import PostgresVerifications
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.infrastructure.views import NUL_WORKER, UNHEARD_OF, Desk, Silence, append_by_hand
from tests.waiting import eventually

BECAUSE = "because"


class Office:
    """A database of its own with a projector, a verifier and an operator."""

    def __init__(self, dsn: str) -> None:
        self.dsn = migrated(dsn)
        self.node = Node(dsn)
        self.desk = Desk(dsn)
        database = self.desk.database
        self.verifications = PostgresVerifications(database, VIEWS, silent=3600)
        self.verifier = Verifier(self.desk.views, self.desk.log, self.verifications)
        self.operator = PostgresOperations(database, database, self.desk.views, lambda topics: None)

    def close(self) -> None:
        self.node.log.close()
        self.desk.close()

    def projection(self, name: str) -> ProjectionView:
        (view,) = [view for view in self.operator.projections() if view.name == name]
        return view

    def verified(self, name: str) -> Any:
        """What a verification comes to."""
        self.operator.verify(name, "key:test", BECAUSE)
        assert self.verifier.run_once()
        verification = self.projection(name).verification
        assert verification is not None
        assert (verification.state, verification.asked_by) == ("done", "key:test")
        return verification

    def rebuilt(self, name: str) -> None:
        """Build it anew, to the end."""
        generation = self.projection(name).generation
        assert generation is not None
        self.operator.rebuild(name, "key:test", BECAUSE)

        def done() -> bool:
            self.desk.projector.build()
            self.verifier.run_once()
            return self.projection(name).generation == generation + 1

        eventually(done)


@pytest.fixture
def office(new_database: Callable[[], str]) -> Iterator[Office]:
    office = Office(new_database())
    office.node.started(*(new_job(queue="office") for _ in range(20)))
    office.desk.catch_up()
    yield office
    office.close()


@pytest.mark.parametrize("name", [view.name for view in VIEWS])
def test_a_view_that_was_tampered_with_is_found_out_and_built_anew(office: Office, name: str) -> None:
    right = office.desk.rows(name)
    assert office.verified(name).differences == 0
    column = {"failures": "count", "usage": "attempts"}.get(name, "started")
    ask(office.dsn, f"UPDATE {name} SET {column} = {column} + 1".encode())  # type: ignore[arg-type]
    if right:
        found = office.verified(name)
        assert found.differences == len(right)
        assert found.examples[0].stored[column] == found.examples[0].folded[column] + 1
    office.rebuilt(name)
    assert office.desk.rows(name) == right
    assert office.verified(name).differences == 0
    eventually(lambda: office.desk.projector.build() == 0)
    ((generations,),) = ask(office.dsn, "SELECT array_agg(generation) FROM projections WHERE name = %s", [name])
    assert generations == [2]


def test_the_old_view_serves_until_the_new_one_has_caught_up(office: Office) -> None:
    office.operator.rebuild("stats", "key:test", BECAUSE)
    with pytest.raises(Conflict):
        office.operator.rebuild("stats", "key:test", BECAUSE)
    building = office.projection("stats").rebuild
    assert building is not None
    assert (building.generation, building.state, building.events, building.begun_by) == (2, "building", 0, "key:test")
    office.desk.projector.build()
    office.node.create(new_job(queue="office"))
    office.desk.catch_up()
    assert office.projection("stats").generation == 1
    assert sum(counts.created for counts in office.desk.rows("stats").values()) == 21
    eventually(lambda: state_of_the_build(office) in ("building", "verifying"))
    assert office.verifier.run_once()
    verified = office.projection("stats").rebuild
    assert verified is not None
    assert verified.state == "verified"
    eventually(lambda: office.desk.projector.build() == 0 and office.projection("stats").generation == 2)
    assert sum(counts.created for counts in office.desk.rows("stats").values()) == 21


def state_of_the_build(office: Office) -> str:
    office.desk.projector.build()
    building = office.projection("stats").rebuild
    assert building is not None
    return building.state


def test_a_new_view_that_is_wrong_never_serves(office: Office) -> None:
    office.operator.rebuild("stats", "key:test", BECAUSE)
    eventually(lambda: state_of_the_build(office) == "verifying")
    ask(office.dsn, "UPDATE stats SET created = created + 1 WHERE generation = 2")
    assert office.verifier.run_once()
    stats = office.projection("stats")
    assert (stats.generation, stats.rebuild) == (1, None)
    assert stats.verification is not None
    assert stats.verification.differences == 1
    assert office.desk.fresh("stats") == office.desk.rows("stats")


def test_a_build_that_was_interrupted_goes_on_where_it_was(office: Office) -> None:
    office.operator.rebuild("stats", "key:test", BECAUSE)
    for events in (10, 20, 30):
        desk = Desk(office.dsn)
        projector = Projector(dict(desk.views), desk.log, desk.checkpoints, Silence(), build_page=10)
        projector.build()
        desk.close()
        building = office.projection("stats").rebuild
        assert building is not None
        assert building.events == events
    eventually(lambda: state_of_the_build(office) == "verifying")
    office.verifier.run_once()
    eventually(lambda: office.desk.projector.build() == 0 and office.projection("stats").generation == 2)
    assert office.desk.fresh("stats") == office.desk.rows("stats")


def test_a_release_that_folds_differently_builds_its_own(office: Office) -> None:
    class Newer(Stats):
        revision = 2

    newer = Desk(office.dsn, [Newer()])
    verifier = Verifier(newer.views, newer.log, PostgresVerifications(newer.database, [Newer()]))

    def done() -> bool:
        newer.projector.build()
        verifier.run_once()
        return office.projection("stats").generation == 2

    eventually(done)
    office.node.create(new_job())
    assert office.desk.projector.run_once("stats") == 0  # an older release leaves it alone
    newer.catch_up()
    assert newer.fresh("stats") == newer.rows("stats")
    newer.close()


def test_a_verifier_that_gives_no_sign_of_life_is_replaced(office: Office) -> None:
    office.operator.verify("stats", "key:test", BECAUSE)
    with pytest.raises(Conflict):
        office.operator.verify("stats", "key:test", BECAUSE)
    silent = office.verifications.take()
    assert silent is not None
    assert office.verifications.take() is None
    assert PostgresVerifications(office.desk.database, VIEWS, silent=0).take() == silent
    with pytest.raises(Taken):
        office.verifications.beat(silent, 5)
    with pytest.raises(Taken):
        office.verifications.end(silent, Verdict(compared=5))


def test_the_inline_view_is_compared_job_by_job(office: Office) -> None:
    ids = office.node.create(*(new_job(queue="inline") for _ in range(700)))
    right = office.verified("jobs")
    assert (right.compared, right.differences) == (720, 0)
    ask(office.dsn, "UPDATE jobs SET progress = 0.5, message = 'x' WHERE id = %s", [ids[3]])
    ask(office.dsn, "DELETE FROM jobs WHERE id = %s", [ids[600]])
    wrong = office.verified("jobs")
    assert wrong.differences == 2
    changed, removed = wrong.examples
    assert (changed.key, changed.stored, changed.folded) == (
        [str(ids[3])],
        {"progress": 0.5, "message": "x"},
        {"progress": 0.0, "message": None},
    )
    assert (removed.key, removed.stored, removed.folded["queue"]) == ([str(ids[600])], None, "inline")


TAMPERED = (
    "UPDATE jobs SET status = 'completed', progress = 1, finished_at = now(), version = version + 7 WHERE id = %s",
    "UPDATE jobs SET input = '{}', namespace = 'elsewhere', labels = '{\"a\": \"b\"}', priority = 9 WHERE id = %s",
    "DELETE FROM jobs WHERE id = %s",
    "UPDATE jobs SET id = gen_random_uuid() WHERE id = %s",
    "WITH gone AS (DELETE FROM leases WHERE job_id = %s RETURNING job_id) "
    "UPDATE jobs SET status = 'queued' FROM gone WHERE id = job_id",
)


def test_the_inline_view_is_rebuilt_in_place(office: Office) -> None:
    (finished,) = office.node.started(new_job(queue="office"))
    office.node.say(CompletionReport(job_id=finished, attempt=1, result=Raw(b"1")))
    right, leases = rows_of_jobs(office), leases_of_jobs(office)
    ids = [id for (id,) in ask(office.dsn, "SELECT id FROM jobs WHERE status = 'running' ORDER BY id")]
    for id, statement in zip(ids, TAMPERED, strict=False):
        ask(office.dsn, statement.encode(), [id])  # type: ignore[arg-type]
    ask(office.dsn, "UPDATE jobs SET status = 'running', finished_at = NULL WHERE id = %s", [finished])
    office.operator.rebuild("jobs", "key:test", BECAUSE)
    with pytest.raises(Conflict):
        office.operator.rebuild("jobs", "key:test", BECAUSE)
    assert office.verifier.run_once()
    told = office.projection("jobs").verification
    assert told is not None
    assert (told.state, told.mends, told.differences, told.asked_by) == ("done", True, 7, "key:test")
    assert rows_of_jobs(office) == right
    assert leases_of_jobs(office) == leases
    assert office.verified("jobs").differences == 0
    for id in ids:
        office.node.say(CompletionReport(job_id=id, attempt=1, result=Raw(b"1")))


def rows_of_jobs(office: Office) -> list[Any]:
    return ask(office.dsn, "SELECT * FROM jobs ORDER BY id")


def leases_of_jobs(office: Office) -> list[Any]:
    return ask(office.dsn, "SELECT job_id, attempt, worker, heartbeat_timeout FROM leases ORDER BY job_id")


def test_what_was_skipped_is_recorded_and_left_out(office: Office) -> None:
    (id,) = office.node.create(new_job(queue="poison"))
    append_by_hand(office.dsn, id, NUL_WORKER)
    append_by_hand(office.dsn, id, UNHEARD_OF)
    office.node.create(new_job(queue="poison"))
    office.desk.catch_up()
    parked = office.projection("workers")
    assert parked.state == "parked"
    assert parked.parked is not None
    assert (parked.parked.job_id, parked.parked.version) == (id, 2)
    assert office.projection("stats").state == "parked"

    office.operator.resume("workers", "retry", "key:test", "perhaps it can now")
    with pytest.raises(Conflict):
        office.operator.resume("workers", "retry", "key:test", "once more")
    office.desk.catch_up()
    assert office.projection("workers").parked is not None

    for name in ("workers", "workers", "stats", "failures", "totals", "usage"):
        office.operator.resume(name, "skip", "key:test", "written by hand")
        office.desk.catch_up()
    views = {view.name: view for view in office.operator.projections()}
    assert {name: (view.state, view.skipped) for name, view in views.items() if name != "jobs"} == {
        "failures": ("live", 1),
        "stats": ("live", 1),
        "totals": ("live", 1),
        "usage": ("live", 1),
        "workers": ("live", 2),
    }
    for name in ("workers", "stats"):
        assert office.verified(name).differences == 0
    query = "SELECT action, version, reason, resumed_by FROM resumptions WHERE name = 'workers' ORDER BY id"
    assert ask(office.dsn, query) == [
        ("retry", 2, "perhaps it can now", "key:test"),
        ("skip", 2, "written by hand", "key:test"),
        ("skip", 3, "written by hand", "key:test"),
    ]

"""Claims by the horizon: what comes in is still found soon, nothing is claimed twice, and it ends when it can."""

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent

from application.jobs import NewJob
from application.ledger import Batch, Ready
from application.news import queue_topic
from application.reports import FailureReport, ReleaseReport, ReportedError
from infrastructure.postgres.horizon import (
    MARGIN,
    MOST_STRAYS,
    REMEMBERED,
    STALE,
    Horizon,
    Lane,
    Look,
    Pick,
    Place,
    Stretch,
)
from infrastructure.postgres.ready import MANY, SLOW, ReadyJobs
from infrastructure.postgres.scout import PERIOD, REST, Scout
from tests.infrastructure.nodes import Node, ask, holding_a_snapshot, migrated, new_job
from tests.waiting import eventually

DEAD = """
INSERT INTO jobs (id, version, position, namespace, kind, queue, priority, status, attempt, max_attempts, progress,
  input, run_at, created_at, updated_at)
SELECT uuidv7(), 1, n, 'default', 'nothing', 'default', 0, 'queued', 0, 3, 0, '{}',
  now() - interval '1 hour', now(), now()
FROM generate_series(1, %s) AS n
"""
END = "UPDATE jobs SET status = 'completed', finished_at = now() WHERE status = 'queued'"
LOOKING = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass"
ANYTHING = Ready(("default",), None)


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = UUID(int=7)
LANE = Lane("default", "nothing", 0)


class Scouted(Node):
    """A node that goes by its horizon at once, however little there is to walk over, and looks when it is told."""

    def __init__(self, dsn: str, *, prepare: bool = True, slow: float = 0.0, many: int = -1) -> None:
        super().__init__(dsn, prepare=prepare)
        self.horizon = Horizon()
        self.ledger.ready_jobs = ReadyJobs(self.horizon, slow=slow, many=many)
        self.news: list[Collection[str]] = []
        self.scout = Scout(self.log.batches, self.horizon, self.news.append, many=many)

    def look(self) -> None:
        self.scout.run_once()

    def sees_no_more_need(self) -> bool:
        self.look()
        return not self.goes_by_the_horizon

    @property
    def goes_by_the_horizon(self) -> bool:
        return self.horizon.stretches(ANYTHING, 1, time.monotonic()) is not None


def begun(node: Scouted) -> Scouted:
    """A node that goes by its horizon, with a known lane: kind "nothing", priority 0."""
    ids = node.create(new_job(), new_job())
    assert node.claim() == ids[:1]
    node.look()
    assert node.goes_by_the_horizon
    assert node.claim() == ids[1:]
    return node


class TestTheHorizon:
    LANES = (Lane("default", "a", 5), Lane("default", "a", 0), Lane("default", "b", 0), Lane("default", "a", -5))
    EDGE = (NOON - MARGIN, UUID(int=0))

    def test_a_claim_that_found_less_than_asked_has_exhausted_its_lanes(self) -> None:
        early = (NOON - timedelta(hours=2), ID)
        horizon = looked_at(dict.fromkeys(self.LANES, early))
        claim(horizon, 3, [pick(0, NOON - timedelta(minutes=3), 1), pick(0, NOON - timedelta(minutes=2), 2)])
        first = (NOON - timedelta(minutes=3), UUID(int=1))
        assert begins(horizon) == dict(zip(self.LANES, [self.EDGE, first, first, self.EDGE], strict=True))

    def test_a_claim_that_came_back_full_did_not_look_at_lower_priorities(self) -> None:
        early = (NOON - timedelta(hours=2), ID)
        horizon = looked_at(dict.fromkeys(self.LANES, early))
        claim(horizon, 2, [pick(0, NOON - timedelta(minutes=3), 1), pick(0, NOON - timedelta(minutes=2), 2)])
        first = (NOON - timedelta(minutes=3), UUID(int=1))
        assert begins(horizon) == dict(zip(self.LANES, [self.EDGE, first, first, early], strict=True))

    def test_it_never_passes_the_last_second_in_which_jobs_may_still_come_in(self) -> None:
        horizon = looked_at(dict.fromkeys(self.LANES, (NOON - timedelta(hours=2), ID)))
        claim(horizon, 2, [pick(0, NOON, 1)])
        assert set(begins(horizon).values()) == {self.EDGE}
        horizon = looked_at({LANE: (NOON + timedelta(hours=1), ID)})
        assert begins(horizon) == {LANE: self.EDGE}

    def test_it_moves_forward_only(self) -> None:
        horizon = looked_at({LANE: (NOON - timedelta(minutes=1), ID)})
        claim(horizon, 1, [pick(0, NOON - timedelta(minutes=2), 1)])
        assert begins(horizon) == {LANE: (NOON - timedelta(minutes=1), ID)}

    def test_strays_are_scanned_for_until_they_were_tried(self) -> None:
        horizon = looked_at({LANE: (NOON - timedelta(minutes=1), ID), self.LANES[3]: (NOON - timedelta(minutes=1), ID)})
        place = (NOON - timedelta(hours=1), UUID(int=1))
        look(horizon, {LANE: place, self.LANES[3]: place}, {LANE: [place], self.LANES[3]: [place]})
        assert strays(horizon) == [Stretch(LANE, place, place), Stretch(self.LANES[3], place, place)]
        claim(horizon, 1, [pick(0, *place)])
        assert strays(horizon) == [Stretch(self.LANES[3], place, place)]
        claim(horizon, 1, [])
        assert strays(horizon) == []
        assert begins(horizon) == {LANE: self.EDGE, self.LANES[3]: self.EDGE}

    def test_a_claim_scans_for_no_more_strays_than_it_wants_jobs(self) -> None:
        horizon = looked_at({LANE: (NOON, ID)})
        early = [(NOON - timedelta(hours=2), UUID(int=n)) for n in range(1, 6)]
        look(horizon, {LANE: early[0]}, {LANE: early})
        assert [stretch.last for stretch in horizon.stretches(ANYTHING, 3, 0.0) or ()] == [None, *early[:3]]

    def test_lanes_without_jobs_and_those_nobody_asks_for_are_forgotten(self) -> None:
        horizon = looked_at({LANE: (NOON, ID)})
        look(horizon, {}, at=REMEMBERED)
        assert list(begins(horizon, REMEMBERED)) == [LANE]
        look(horizon, {}, at=REMEMBERED + 1)
        assert horizon.stretches(ANYTHING, 1, REMEMBERED + 1) == []
        assert horizon.asked(2 * REMEMBERED + 1) == ([ANYTHING], {})
        assert horizon.asked(2 * REMEMBERED + 2) == ([], {})


def looked_at(heads: dict[Lane, Place], at: float = 0.0) -> Horizon:
    """A horizon that was looked for at noon."""
    horizon = Horizon()
    horizon.ask(ANYTHING, at)
    look(horizon, heads, at=at)
    return horizon


def look(
    horizon: Horizon, heads: dict[Lane, Place], strays: dict[Lane, list[Place]] | None = None, at: float = 0.0
) -> None:
    asked, before = horizon.asked(at)
    horizon.looked(Look(NOON, asked, before, heads, strays or {}, 0), 0.0, at)


def claim(horizon: Horizon, count: int, picks: list[Pick]) -> None:
    stretches = horizon.stretches(ANYTHING, count, 0.0)
    assert stretches is not None
    horizon.claimed(stretches, count, picks, NOON)


def pick(priority: int, run_at: datetime, id: UUID | int) -> Pick:
    return Pick(id if isinstance(id, UUID) else UUID(int=id), 1, priority, run_at)


def begins(horizon: Horizon, at: float = 0.0) -> dict[Lane, Place]:
    """Where each lane begins."""
    return {stretch.lane: stretch.first for stretch in horizon.stretches(ANYTHING, 0, at) or ()}


def strays(horizon: Horizon) -> list[Stretch]:
    return [stretch for stretch in horizon.stretches(ANYTHING, 100, 0.0) or () if stretch.last]


class TestWhileASnapshotIsHeld:
    @pytest.fixture(scope="class")
    def crowded(self, dsn: str) -> Iterator[str]:
        """A database with dead entries that nobody can remove."""
        with psycopg.connect(dsn, autocommit=True) as connection, holding_a_snapshot(dsn):
            connection.execute(DEAD, [5_000])
            connection.execute(END)
            yield dsn

    @pytest.fixture
    def nodes(self, crowded: str) -> Iterator[Callable[..., Scouted]]:
        """Makes nodes, each a process; what a test left queued ends after it."""
        with ExitStack() as stack:
            yield lambda prepare=True: stack.enter_context(Scouted(crowded, prepare=prepare))
        ask(crowded, END)

    @pytest.fixture(params=[True, False], ids=["prepared", "not prepared"])
    def node(self, nodes: Callable[..., Scouted], request: pytest.FixtureRequest) -> Scouted:
        return begun(nodes(request.param))

    def test_new_jobs_of_known_lanes_are_found_at_once(self, node: Scouted) -> None:
        ids = node.create(*[new_job() for _ in range(3)])
        assert node.claim(count=2) == ids[:2]
        assert node.claim(count=2) == ids[2:]
        assert node.claim(count=2) == []
        assert node.create(new_job()) == node.claim(count=2)

    def test_a_higher_priority_is_found_by_the_next_look(self, node: Scouted) -> None:
        low = node.create(*[new_job() for _ in range(3)])
        (high,) = node.create(new_job(priority=5))
        assert node.claim() == low[:1]
        node.look()
        assert node.claim(count=3) == [high, *low[1:]]

    def test_a_new_kind_is_found_by_the_next_look_and_told_of(self, node: Scouted) -> None:
        ids = node.create(new_job(kind="new"), new_job())
        assert node.claim() == ids[1:]
        node.news.clear()
        node.look()
        assert node.news == [{queue_topic("default")}]
        assert node.claim() == ids[:1]

    def test_an_empty_claim_looks_everywhere_while_that_is_quick(self, node: Scouted) -> None:
        node.ledger.ready_jobs = ReadyJobs(node.horizon, many=1_000)
        ids = node.create(new_job(kind="new"))
        assert node.goes_by_the_horizon
        assert node.claim() == ids

    def test_a_job_that_becomes_due_is_found_at_once(self, node: Scouted) -> None:
        (id,) = node.create(new_job(run_at=datetime.now(UTC) + timedelta(seconds=0.3)))
        node.look()
        eventually(lambda: node.claim() == [id])

    def test_an_earlier_job_is_found_by_the_next_look_and_goes_first(self, node: Scouted) -> None:
        now = node.create(*[new_job() for _ in range(2)])
        early = node.create(*[new_job(run_at=datetime(2026, 1, n, tzinfo=UTC)) for n in (3, 1, 2)])
        assert node.claim() == now[:1]
        node.look()
        assert node.claim(count=2) == [early[1], early[2]]
        assert node.claim(count=2) == [early[0], now[1]]

    def test_one_early_job_does_not_send_the_claims_back(self, node: Scouted) -> None:
        before = places(node)
        (early,) = node.create(new_job(run_at=datetime(2026, 1, 1, tzinfo=UTC)))
        node.look()
        assert node.claim(count=5) == [early]
        assert all(place >= before.get(lane, place) for lane, place in places(node).items())

    def test_when_very_many_are_early_their_lane_begins_with_them(self, node: Scouted) -> None:
        early = node.create(*[new_job(run_at=datetime(2026, 1, 1, tzinfo=UTC)) for _ in range(MOST_STRAYS + 200)])
        now = node.create(new_job())
        node.look()
        assert node.claim(count=1_000) == early[:1_000]
        assert node.claim(count=1_000) == early[1_000:] + now

    def test_a_released_job_is_found_by_the_next_look(self, node: Scouted) -> None:
        ids = node.create(*[new_job(run_at=datetime.now(UTC) - timedelta(minutes=5)) for _ in range(3)])
        node.look()
        assert node.claim(count=2) == ids[:2]
        node.look()
        node.say(ReleaseReport(job_id=ids[0], attempt=1, reason="drained"))
        later = node.create(new_job())
        node.look()
        assert node.claim(count=3) == [ids[0], ids[2], *later]

    def test_a_job_tried_again_is_found_at_once(self, node: Scouted) -> None:
        (id,) = node.create(new_job())
        assert node.claim() == [id]
        error = ReportedError(type="Flaky", message="not now")
        node.say(FailureReport(job_id=id, attempt=1, error=error, retry_in=0.0))
        eventually(lambda: node.claim() == [id])

    def test_jobs_whose_claim_was_rolled_back_are_claimed_by_the_next(self, node: Scouted) -> None:
        ids = node.create(*[new_job() for _ in range(4)])
        with rolled_back(node) as batch:
            assert len(batch.ready(ANYTHING, 3)) == 3
        assert node.claim(count=5) == ids

    def test_jobs_another_claimer_held_and_gave_up_are_found_by_the_next_look(
        self, node: Scouted, nodes: Callable[..., Scouted]
    ) -> None:
        other = begun(nodes())
        ids = node.create(*[new_job(run_at=datetime.now(UTC) - timedelta(minutes=5)) for _ in range(4)])
        node.look()
        other.look()
        with rolled_back(other) as batch:
            assert [job.id for job in batch.ready(ANYTHING, 2)] == ids[:2]
            assert node.claim(count=2) == ids[2:]
            assert node.claim(count=2) == []
        node.look()
        assert node.claim(count=5) == ids[:2]

    def test_only_what_a_claim_asks_for_is_taken(self, node: Scouted) -> None:
        a, b, c = (node.create(new_job(kind=kind))[0] for kind in "abc")
        node.look()
        assert node.claim(count=5, kinds=("b", "d")) == [b]
        assert node.claim(count=5, kinds=("c",)) == [c]
        assert node.claim(count=5) == [a]

    def test_a_claim_that_was_not_looked_for_looks_at_everything(self, node: Scouted) -> None:
        ids = node.create(new_job(queue="elsewhere"), new_job())
        assert node.claim(queue="elsewhere") == ids[:1]
        assert node.claim() == ids[1:]

    def test_a_stream_that_cannot_be_read_does_not_hold_the_horizon_up(self, node: Scouted) -> None:
        bad, *ids = node.create(*[new_job() for _ in range(3)])
        state = b'{"type":"job.teleported","at":"2031-01-01T00:00:00Z","by":"key:later"}'
        node.log.recorder.insert_events([StoredEvent(bad, 2, "job.teleported", state)])
        assert node.claim() == ids[:1]
        node.look()
        assert node.claim() == ids[1:]
        assert node.claim() == []

    @pytest.mark.parametrize("seed", range(4))
    def test_whatever_happens_each_job_is_claimed_once_and_all_are(
        self, nodes: Callable[..., Scouted], seed: int
    ) -> None:
        chance = random.Random(seed)
        both = [begun(nodes()), begun(nodes(prepare=False))]
        created: list[UUID] = []
        claimed: list[UUID] = []

        def create(node: Scouted) -> None:
            created.extend(node.create(*[any_job(chance) for _ in range(chance.randint(1, 6))]))

        def claim(node: Scouted) -> None:
            claimed.extend(node.claim(count=chance.randint(1, 6)))

        def claim_in_vain(node: Scouted) -> None:
            with rolled_back(node) as batch:
                batch.ready(ANYTHING, chance.randint(1, 6))
                claim(chance.choice([other for other in both if other is not node]))

        for _ in range(80):
            chance.choice([create, claim, claim, claim_in_vain, Scouted.look])(chance.choice(both))
        for node in both * 2:
            node.look()
            while found := node.claim(count=5):
                claimed.extend(found)
        assert sorted(claimed) == sorted(created)

    @pytest.mark.parametrize("limited", ["default", "a"])
    def test_workers_of_one_namespace_and_of_all_claim_each_job_once(
        self, nodes: Callable[..., Scouted], limited: str
    ) -> None:
        chance = random.Random(limited)
        node = begun(nodes())
        created: dict[str, list[UUID]] = {"default": [], "a": [], "b": []}
        claimed: list[UUID] = []
        for _ in range(60):
            namespace = chance.choice(list(created))
            created[namespace] += node.create(*[any_job(chance) for _ in range(3)], namespace=namespace)
            found = node.claim(count=chance.randint(1, 5), namespace=limited)
            assert set(found) <= set(created[limited])
            claimed += found
            if chance.random() < 0.3:
                claimed += node.claim(count=2)
            if chance.random() < 0.3:
                node.look()
        for claimer in (limited, None, None):
            node.look()
            while found := node.claim(count=5, namespace=claimer):
                claimed += found
            if claimer == limited:
                assert set(created[limited]) <= set(claimed)
        assert sorted(claimed) == sorted(id for ids in created.values() for id in ids)


@contextmanager
def rolled_back(node: Node) -> Iterator[Batch]:
    """A batch that comes to nothing."""
    with suppress(ZeroDivisionError), node.ledger.batch() as batch:
        yield batch
        raise ZeroDivisionError


def any_job(chance: random.Random) -> NewJob:
    run_at = datetime.now(UTC) - timedelta(seconds=chance.choice([0, 0, 1, 600, 86_400]))
    return new_job(kind=chance.choice("abc"), priority=chance.choice([0, 0, 7]), run_at=run_at)


def places(node: Scouted) -> dict[Lane, Place]:
    return node.horizon.asked(time.monotonic())[1]


class TestTheScout:
    def test_when_the_snapshot_is_gone_claims_look_at_everything_again(self, new_database: Callable[[], str]) -> None:
        dsn = migrated(new_database())
        with Scouted(dsn, many=MANY) as node, psycopg.connect(dsn, autocommit=True) as connection:
            with holding_a_snapshot(dsn):
                connection.execute(DEAD, [100_000])
                connection.execute(END)
                ids = node.create(*[new_job() for _ in range(3)])
                assert node.claim() == ids[:1]
                node.look()
                assert node.goes_by_the_horizon
                node.look()
                assert node.goes_by_the_horizon
                assert node.claim() == ids[1:2]
            connection.execute("VACUUM jobs")
            node.news.clear()
            eventually(node.sees_no_more_need)
            assert node.news[-1] == {queue_topic("default")}
            assert not node.horizon.asked_for.is_set()
            (high,) = node.create(new_job(kind="new", priority=9))
            assert node.claim() == [high]

    @pytest.mark.parametrize(("took", "rest"), [(0.0, PERIOD), (2.0, 2.0 * REST)])
    def test_it_looks_for_a_quarter_of_the_time_at_most(self, dsn: str, took: float, rest: float) -> None:
        moments = iter([0.0, took])
        with Scouted(dsn) as node:
            assert Scout(node.log.batches, node.horizon, node.news.append, clock=moments.__next__).run_once() == rest

    def test_a_quick_claim_asks_for_no_look_and_a_slow_one_does(self, dsn: str) -> None:
        ticks = iter([0.0, 0.004, 1.0, 1.006])
        with Scouted(dsn) as node:
            node.ledger.ready_jobs = ReadyJobs(node.horizon, slow=SLOW, clock=lambda: next(ticks))
            node.claim()
            assert not node.horizon.asked_for.is_set()
            node.claim()
            assert node.horizon.asked_for.is_set()

    def test_claims_that_are_slow_without_much_to_walk_over_go_on_looking_at_everything(self, dsn: str) -> None:
        """As all of them are on a busy machine, where nothing may be missed for that."""
        with Scouted(dsn, many=MANY) as node:
            node.claim()
            assert node.horizon.asked_for.is_set()
            node.look()
            assert not node.horizon.asked_for.is_set()
            ids = node.create(new_job(kind="new"))
            assert node.claim() == ids
            assert node.news == [], "nobody who waits looks again for that, as slowly as before"

    def test_jobs_of_other_namespaces_are_walked_over_too(self, new_database: Callable[[], str]) -> None:
        """By workers of the default one: they are not given these entries, but read the pages."""
        dsn = migrated(new_database())
        with Scouted(dsn, many=1_000) as node:
            for many, goes_by_the_horizon in ((0, False), (20_000, True)):
                ask(dsn, DEAD.replace("'default', 'nothing'", "'other', 'nothing'"), [many])
                ids = node.create(*[new_job() for _ in range(3)])
                assert node.claim(count=2, namespace="default") == ids[:2]
                node.look()
                limited = Ready(("default",), None, "default")
                assert (node.horizon.stretches(limited, 1, time.monotonic()) is not None) == goes_by_the_horizon
                assert node.claim(namespace="default") == ids[2:]

    def test_its_thread_looks_for_whoever_asks_and_ends_when_it_is_closed(self, dsn: str) -> None:
        with Scouted(dsn) as node:
            node.scout.start()
            with closing(node.scout):
                node.create(new_job())
                node.claim()
                eventually(lambda: node.goes_by_the_horizon)
            assert node.scout.ended

    def test_closing_it_ends_a_look_that_is_under_way(self, dsn: str) -> None:
        with Scouted(dsn) as node, psycopg.connect(dsn) as other:
            other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            node.horizon.ask(ANYTHING, time.monotonic())
            node.scout.start()
            eventually(lambda: other.execute(LOOKING).fetchall())
            node.scout.close()
            assert node.scout.ended

    def test_it_looks_again_after_the_database_was_away(self, dsn: str) -> None:
        with Scouted(dsn) as node, psycopg.connect(dsn) as other:
            begun(node)
            other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            node.scout.start()
            with closing(node.scout):
                eventually(lambda: other.execute(LOOKING).fetchall())
                for (pid,) in other.execute(LOOKING).fetchall():
                    other.execute("SELECT pg_terminate_backend(%s)", [pid])
                other.commit()
                (id,) = node.create(new_job(kind="after"))
                eventually(lambda: node.claim() == [id])

    def test_nobody_claims_for_long_by_a_horizon_that_is_not_looked_for(self) -> None:
        horizon = looked_at({LANE: (NOON, ID)}, at=100.0)
        assert horizon.stretches(ANYTHING, 1, 100.0 + STALE) is not None
        assert horizon.stretches(ANYTHING, 1, 100.1 + STALE) is None

"""Reading from a replica: what may be old comes from there, what must be new does not, and nothing is read twice."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psycopg
import pytest

from infrastructure.postgres.database import Database
from infrastructure.postgres.jobs import PostgresViews
from infrastructure.postgres.recorder import POSITION_BASE
from infrastructure.postgres.replica import Replica
from tests.conftest import Start
from tests.followers import Follower
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.standbys import Standby
from tests.waiting import eventually

WRITERS = 6
EACH = 40


@pytest.fixture(scope="module")
def standby(postgres: str, dsn: str) -> Iterator[Standby]:
    """A standby of the run's server, and so of the module's database."""
    with Standby(dsn) as standby:
        standby.caught_up()
        yield standby


def test_nothing_is_missed_or_seen_twice_by_who_reads_here_and_there(dsn: str, standby: Standby) -> None:
    """Writers commit out of order, by transactions that are open for longer than those that begin after them."""
    ended = threading.Event()
    rng = random.Random(8)

    def write(number: int) -> None:
        with psycopg.connect(dsn) as connection, Node(dsn) as node:
            for n in range(EACH):
                if rng.random() < 0.5:
                    node.create(new_job(queue="order"), new_job(queue="order"))
                    continue
                connection.execute(POSITION_BASE)  # its place is taken; others overtake it
                ended.wait(rng.random() / 50)
                (connection.rollback if n % 3 == 0 else connection.commit)()

    primary, replica = Database(dsn), Database(standby.dsn)
    places = [PostgresViews(primary), PostgresViews(replica)]
    seen: list[int] = []

    def read() -> None:
        page = rng.choice(places).log(seen[-1] if seen else 0, rng.randrange(1, 30), None)
        seen.extend(entry.position for entry in page)

    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write, number) for number in range(WRITERS)]
        while not all(writer.done() for writer in writers):
            read()
        for writer in writers:
            writer.result()
    everything = [position for (position,) in ask(dsn, "SELECT notification_id FROM events ORDER BY 1")]
    standby.caught_up()

    def complete() -> bool:
        read()
        return len(seen) >= len(everything)

    eventually(complete, 60, "the end of the log")
    assert seen == everything
    primary.close()
    replica.close()


def test_a_transaction_that_is_open_on_the_primary_holds_readers_of_the_replica_back(
    dsn: str, standby: Standby
) -> None:
    replica = Database(standby.dsn)
    views = PostgresViews(replica)
    with Node(dsn) as node, psycopg.connect(dsn) as writer:
        node.create(new_job(queue="before"))
        writer.execute(POSITION_BASE)
        node.create(new_job(queue="after"))
        standby.caught_up()
        queues = [e.event.data["queue"] for e in views.log(0, 100_000, None) if e.event.type == "job.created"]
        assert "after" not in queues
        writer.rollback()
        node.create(new_job(queue="later"))
        standby.caught_up()
        eventually(lambda: "after" in [e.event.data.get("queue") for e in views.log(0, 100_000, None)])
    replica.close()


def test_a_replica_of_another_database_is_passed_over(dsn: str, new_database: object, postgres: str) -> None:
    other = migrated(new_database())  # type: ignore[operator]
    database, primary = Database(other), Database(dsn)
    replica = Replica(database, primary)
    with pytest.raises(Exception, match="the replica is away") as refused:
        replica.behind()
    assert "another database" in str(refused.value.__cause__)
    database.close()
    primary.close()


def test_lists_and_the_log_come_from_the_replica_and_what_must_be_new_from_the_primary(
    dsn: str, standby: Standby, start: Start
) -> None:
    api = start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_READ_URL=standby.dsn)
    with httpx2.Client(base_url=api.url, timeout=30) as http, Follower(f"{api.url}/v1/events") as follower:

        def create() -> str:
            answer = http.post("/v1/jobs", json={"kind": "nobody", "queue": "listed", "input": {}})
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        def listed() -> list[str]:
            return [job["id"] for job in http.get("/v1/jobs?queue=listed&limit=1000").json()["items"]]

        first = create()
        eventually(lambda: first in listed())
        standby.pause()
        hidden = create()
        assert http.get(f"/v1/jobs/{hidden}").json()["status"] == "queued"
        assert [e["version"] for e in http.get(f"/v1/jobs/{hidden}/events").json()["items"]] == [1]
        (claimed,) = http.post("/v1/claims", json={"worker": "w", "queues": ["listed"]}).json()["jobs"]
        assert claimed["id"] == first
        assert [e["version"] for e in http.get(f"/v1/jobs/{first}/events").json()["items"]] == [1, 2]
        assert hidden not in listed()
        assert "jobledger_replica_lag_seconds" in http.get("/metrics").text
        standby.resume()
        eventually(lambda: hidden in listed())

        standby.kill()
        more = [create() for _ in range(5)]
        eventually(lambda: set(more) <= set(listed()), what="lists from the primary")
        warned = http.get("/readyz").json()
        assert (warned["status"], "from the primary" in " ".join(warned["warnings"])) == ("ready", True)
        assert "jobledger_replica_lag_seconds" not in http.get("/metrics").text
        standby.start()
        more += [create() for _ in range(5)]
        eventually(lambda: http.get("/readyz").json()["warnings"] == [], 60, "the replica, again")
        log = [int(e["position"]) for e in http.get("/v1/events?limit=10000").json()["items"]]
        eventually(lambda: len(http.get("/v1/events?limit=10000").json()["items"]) >= len(log))
        count = ask(dsn, "SELECT count(*) FROM events")[0][0]
        follower.wait_for(count, 60)
        positions = [position for (position,) in ask(dsn, "SELECT notification_id FROM events ORDER BY 1")]
        assert [int(message.id) for message in follower.messages] == positions


def test_a_follower_from_far_back_passes_over_nothing_that_the_replica_lacks(
    dsn: str, standby: Standby, start: Start
) -> None:
    """The end of the log is read at the primary; what lies before it, at a replica that is behind."""
    with Node(dsn) as node:
        standby.pause()
        node.create(*[new_job(queue="far") for _ in range(300)])
        api = start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_READ_URL=standby.dsn)
        url = f"{api.url}/v1/events?type=job.created"
        positions = [
            p for (p,) in ask(dsn, "SELECT notification_id FROM events WHERE topic = 'job.created' ORDER BY 1")
        ]
        with Follower(f"{api.url}/v1/events") as first, Follower(url) as follower, Follower(url) as another:
            first.wait_for(len(positions), 60)
            for each in (follower, another):
                each.wait_for(len(positions), 60)
                assert [int(message.id) for message in each.messages] == positions
        standby.resume()

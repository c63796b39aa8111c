"""News goes from one server to the others, and a lost connection loses nothing for good."""

from collections.abc import Callable, Collection, Iterator

import pytest
import structlog
from psycopg import Connection
from structlog.testing import capture_logs

from application.news import ANY, JOBS, job_topic, queue_topic
from domain.ids import job_ids
from infrastructure.postgres.database import Database
from infrastructure.postgres.notifications import CHANNEL, MOST_MESSAGES, MOST_TOPICS, Listener, Notifier
from tests.infrastructure.nodes import Node, ask, new_job
from tests.infrastructure.proxies import Proxy
from tests.waiting import eventually


class Ear:
    """What a listener heard, in order."""

    def __init__(self) -> None:
        self.heard: list[Collection[str]] = []

    def topics(self) -> set[str]:
        return {topic for topics in self.heard for topic in topics}


@pytest.fixture
def ear(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    """Of a server that listens already."""
    monkeypatch.setattr("infrastructure.postgres.notifications.LOOK_SECONDS", 0.05)  # how long closing takes
    ear = Ear()
    listener = Listener(Database(dsn), ear.heard.append)
    eventually(lambda: ear.heard)
    assert ear.heard == [{ANY}]
    ear.heard.clear()
    yield ear
    listener.close()


@pytest.fixture
def notifier(dsn: str) -> Iterator[Notifier]:
    database = Database(dsn)
    notifier = Notifier(database)
    yield notifier
    notifier.close()
    database.close()


def test_what_one_server_tells_another_hears(ear: Ear, notifier: Notifier) -> None:
    notifier.tell({queue_topic("default"), queue_topic("żółw")})
    eventually(lambda: ear.topics() >= {queue_topic("default"), queue_topic("żółw")})
    notifier.tell({queue_topic("later")})
    eventually(lambda: queue_topic("later") in ear.topics())
    assert ANY not in ear.topics()


def test_every_server_hears_it(ear: Ear, notifier: Notifier, dsn: str) -> None:
    other = Ear()
    listener = Listener(Database(dsn), other.heard.append)
    eventually(lambda: other.heard)
    notifier.tell({queue_topic("everywhere")})
    eventually(lambda: queue_topic("everywhere") in ear.topics() & other.topics())
    listener.close()


@pytest.mark.parametrize("count", [1, MOST_TOPICS, MOST_TOPICS * 3 + 1])
def test_many_jobs_are_told_by_name(ear: Ear, notifier: Notifier, dsn: str, count: int) -> None:
    (at,) = ask(dsn, "SELECT now()")[0]
    topics = {job_topic(id) for id in job_ids(count, at)}
    notifier.tell(topics)
    eventually(lambda: ear.topics() >= topics or ANY in ear.topics())
    assert ear.topics() == topics


@pytest.mark.parametrize(
    "topics",
    [
        {queue_topic(str(n)) for n in range(MOST_TOPICS * MOST_MESSAGES + 1)},
        {queue_topic(f"{n} " + "ż" * 190) for n in range(100)},
    ],
    ids=["too many", "too long"],
)
def test_what_is_too_much_to_name_is_told_as_anything(ear: Ear, notifier: Notifier, topics: set[str]) -> None:
    notifier.tell(topics)
    eventually(lambda: ear.heard)
    assert ear.topics() == {ANY}


def test_jobs_that_are_too_many_to_name_leave_the_names_of_queues(ear: Ear, notifier: Notifier, dsn: str) -> None:
    (at,) = ask(dsn, "SELECT now()")[0]
    notifier.tell({queue_topic("default"), *map(job_topic, job_ids(MOST_TOPICS * MOST_MESSAGES, at))})
    eventually(lambda: ear.heard)
    assert ear.topics() == {queue_topic("default"), JOBS}


def test_a_message_nobody_understands_counts_as_anything(ear: Ear, dsn: str) -> None:
    ask(dsn, "SELECT pg_notify(%s, 'no json')", [CHANNEL])
    eventually(lambda: ear.heard)
    assert ear.topics() == {ANY}


def test_a_listener_whose_connection_broke_listens_again_and_takes_it_for_news(ear: Ear, dsn: str) -> None:
    database = Database(dsn)
    notifier = Notifier(database)
    ended = ask(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND query LIKE 'LISTEN%%' AND pid <> pg_backend_pid()",
        [],
    )
    assert ended == [(True,)]
    eventually(lambda: ear.heard == [{ANY}])
    notifier.tell({queue_topic("afterwards")})
    eventually(lambda: queue_topic("afterwards") in ear.topics())
    notifier.close()
    database.close()


def test_an_outage_is_logged_once_and_its_end(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.postgres.notifications.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("infrastructure.postgres.notifications.LOOK_SECONDS", 0.05)
    with Proxy(dsn) as proxy, capture_logs() as logged:
        monkeypatch.setattr("infrastructure.postgres.notifications.log", structlog.get_logger())  # not one that is kept
        database = Counting(proxy.dsn)
        ear = Ear()
        listener = Listener(database, ear.heard.append)
        eventually(lambda: ear.heard)
        for outage in (1, 2):
            tried = database.connections
            proxy.refuse()
            eventually(lambda tried=tried: database.connections > tried + 5)  # type: ignore[misc]
            heard = len(ear.heard)
            proxy.accept_again()
            eventually(lambda heard=heard: len(ear.heard) > heard)  # type: ignore[misc]
            assert [entry["event"] for entry in logged] == ["listener.lost", "listener.resumed"] * outage
        listener.close()


class Counting(Database):
    """A database that knows how often it was connected to."""

    connections = 0

    def connect(self) -> Connection:
        self.connections += 1
        return super().connect()


def test_a_notifier_whose_connection_broke_tells_the_next_news(ear: Ear, dsn: str) -> None:
    database = Database(dsn)
    notifier = Notifier(database)
    notifier.tell({queue_topic("first")})
    eventually(lambda: queue_topic("first") in ear.topics())
    ask(
        dsn,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() "
        "AND query LIKE '%%pg_notify%%' AND pid <> pg_backend_pid()",
        [],
    )

    def told_again() -> bool:
        notifier.tell({queue_topic("second")})
        return queue_topic("second") in ear.topics()

    eventually(told_again)
    notifier.close()
    database.close()


def test_the_ledger_tells_of_jobs_after_they_were_recorded(dsn: str, new_database: Callable[[], str]) -> None:
    with Node(dsn) as node:
        (id,) = node.create(new_job(queue="told"))
        assert queue_topic("told") in node.told[-1]
        node.claim(queue="told")
        assert job_topic(id) in node.told[-1]
        assert queue_topic("told") not in node.told[-1]

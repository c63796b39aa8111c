"""Claims whose callers hang up: no job is left with nobody, and none loses an attempt."""

import socket
from typing import TYPE_CHECKING, Any

import psycopg

from tests.followers import PATIENCE
from tests.interfaces.followed import SILENCE, unread
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any


def claiming(service: "Service", queue: str, **fields: Json) -> socket.socket:
    return unread(service.url, "/v1/claims", {"worker": "hasty", "queues": [queue], "wait": 30, **fields})


def silent(connection: socket.socket) -> bool:
    """Whether nothing comes on a connection for a while."""
    connection.settimeout(SILENCE)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    return False


def test_a_claim_that_was_hung_up_while_it_waited_takes_no_job(
    service: "Service", other: "Service", queue: str
) -> None:
    waiting = [claiming(service, queue) for _ in range(20)]
    assert silent(waiting[-1])
    for connection in waiting:
        connection.close()
    for _ in range(20):
        id = other.create(queue=queue)["id"]
        [job] = other.claim(queue, "patient", wait=5)
        assert (job["id"], job["attempt"]) == (id, 1)
        assert other.types(id) == ["job.created", "job.started"]


def test_a_claim_that_was_hung_up_while_it_was_recorded_is_given_back_and_costs_no_attempt(
    service: "Service", other: "Service", dsn: str, queue: str
) -> None:
    id = service.create(queue=queue, max_attempts=1)["id"]
    with psycopg.connect(dsn) as holding, psycopg.connect(dsn, autocommit=True) as looking:
        holding.execute("LOCK TABLE events IN SHARE MODE")
        connection = claiming(service, queue)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
        eventually(lambda: looking.execute(waits).fetchone() == (1,), PATIENCE)
        connection.close()
        assert service.http.get("/livez").status_code == 200
    [job] = other.claim(queue, "patient", wait=20)
    assert (job["id"], job["attempt"]) == (id, 2)
    assert other.types(id) == ["job.created", "job.started", "job.released", "job.started"]
    error = {"type": "Broken", "message": "the only attempt that counts"}
    other.report({"job_id": id, "attempt": 2, "type": "failed", "error": error}, worker="patient")
    assert other.job(id)["status"] == "failed"


def test_claims_that_hang_up_at_once_leave_no_job_behind(service: "Service", other: "Service", queue: str) -> None:
    ids = {service.create(queue=queue, max_attempts=1)["id"] for _ in range(20)}
    for n in range(60):
        claiming((service, other)[n % 2], queue).close()
    taken: set[str] = set()
    while len(taken) < len(ids):
        jobs = other.claim(queue, "patient", wait=20, max=20)
        assert jobs, f"{len(ids) - len(taken)} jobs are held by nobody"
        taken |= {job["id"] for job in jobs}
    assert taken == ids


def test_what_a_repeated_claim_is_answered_is_not_given_back_for_the_first_that_hung_up(
    service: "Service", queue: str
) -> None:
    def end(jobs: list[Json]) -> set[str]:
        """Their ids; each is a job that is held."""
        for type in ("heartbeat", "completed"):
            reports = [{"job_id": job["id"], "attempt": job["attempt"], "type": type} for job in jobs]
            assert all(result["ok"] for result in service.report(*reports, worker="hasty"))
        return {job["id"] for job in jobs}

    for n in range(30):
        left = {service.create(queue=queue, max_attempts=1)["id"] for _ in range(2)}
        claiming(service, queue, max=2, claim_id=f"cut-{n}").close()
        claim_id: str | None = f"cut-{n}"
        while left:  # one may be with a claim of before that hung up and has not been given back yet
            jobs = service.claim(queue, "hasty", max=2, claim_id=claim_id, wait=20)
            assert jobs, "what is not held is there to be claimed"
            left -= end(jobs)
            claim_id = None


def test_a_claim_whose_answer_was_lost_is_repeated_on_another_server(
    service: "Service", other: "Service", queue: str
) -> None:
    ids = {service.create(queue=queue)["id"] for _ in range(3)}
    with claiming(service, queue, max=3, claim_id="lost") as connection:
        assert connection.recv(1)
    again = other.claim(queue, "hasty", max=3, claim_id="lost")
    assert {job["id"] for job in again} == ids
    assert {job["attempt"] for job in again} == {1}

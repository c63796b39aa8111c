"""A bulk requeue whose worker is killed midway: every job is requeued once, and the numbers are right."""

from collections.abc import Callable
from typing import Any

import httpx2
import psycopg

JOBS = 2_000
Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]


def failed_jobs(http: httpx2.Client) -> list[str]:
    job = {"kind": "broken", "input": None, "queue": "broken", "heartbeat_timeout": 3600}
    ids: list[str] = http.post("/v1/jobs/batch", json={"jobs": [job] * JOBS}).json()["ids"]
    for _ in range(JOBS // 1000):
        claimed = http.post("/v1/claims", json={"worker": "w", "queues": ["broken"], "max": 1000}).json()["jobs"]
        error = {"type": "Broken", "message": "it broke"}
        reports = [
            {"job_id": job["id"], "attempt": 1, "type": "failed", "error": error, "final": True} for job in claimed
        ]
        results = http.post("/v1/reports", json={"worker": "w", "reports": reports}).json()["results"]
        assert len(results) == 1000
        assert all(result["ok"] for result in results)
    return ids


def test_killed_worker_of_a_bulk_requeue_leaves_no_job_out_and_moves_none_twice(
    start: Start, dsn: str, wait_until: WaitUntil
) -> None:
    with httpx2.Client(base_url=start("api", "--port", "0", DATABASE_URL=dsn).url, timeout=60) as http:
        ids = failed_jobs(http)
        worker = start("worker", DATABASE_URL=dsn)
        body = {"filter": {"status": ["failed"], "kind": ["broken"]}, "reason": "it is mended", "dry_run": False}
        with psycopg.connect(dsn) as connection:  # the worker gets no further than to this job's page
            connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (ids[JOBS // 2 + 100],))
            place = f"/v1/jobs/{http.post('/v1/jobs/requeues', json=body).json()['id']}"
            wait_until(lambda: http.get(place).json()["message"] == f"{JOBS // 2} of {JOBS}", "half of it")
            worker.kill()
        start("worker", DATABASE_URL=dsn)
        wait_until(lambda: http.get(place).json()["finished_at"], "the end of the bulk job")
        bulk = http.get(place).json()
        assert (bulk["status"], bulk["attempt"]) == ("completed", 2)
        assert bulk["result"] == {"matched": JOBS, "changed": JOBS, "refused": {}}
        types = [event["type"] for event in http.get(f"{place}/events").json()["items"]]
        assert types.count("job.heartbeat_missed") == 1
        with psycopg.connect(dsn) as connection:
            requeued = connection.execute(
                "SELECT originator_id::text, count(*) FROM events WHERE topic = 'job.requeued' GROUP BY 1"
            ).fetchall()
        assert dict(requeued) == dict.fromkeys(ids, 1)

"""Metrics, judged by Prometheus's own parser and by promtool; what `/readyz` warns of."""

import shutil
import subprocess
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from infrastructure.postgres.schema import MONTHS_AHEAD
from tests.conftest import Start
from tests.infrastructure.nodes import ask
from tests.infrastructure.views import UNHEARD_OF, append_by_hand
from tests.interfaces.conftest import Service
from tests.waiting import eventually

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module", autouse=True)
def projector(dsn: str, start_for_module: Start) -> None:
    start_for_module("projector", DATABASE_URL=dsn).wait_for_line("following the log")


def samples(service: Service) -> Samples:
    answer = service.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, tuple(sorted(labels.items()))))


def test_counters_come_from_the_log_and_survive_a_new_server(
    service: Service, dsn: str, start: Start, queue: str
) -> None:
    service.completed(queue)
    service.create(queue=queue)
    lane = {"namespace": "default", "queue": queue, "kind": "test"}

    def created() -> float | None:
        return value(samples(service), "jobledger_job_events_total", **lane, event="created")

    eventually(lambda: created() == 2)
    found = samples(service)
    assert value(found, "jobledger_jobs", **lane, status="queued") == 1
    assert value(found, "jobledger_jobs", **lane, status="completed") == 1
    assert value(found, "jobledger_attempts_ended_total", **lane) == 1
    assert (value(found, "jobledger_attempt_run_seconds_total", **lane) or 0) > 0
    assert value(found, "jobledger_database_up") == 1
    assert value(found, "jobledger_projection_parked", projection="stats") == 0
    assert (value(found, "jobledger_append_seconds_count") or 0) >= 4
    assert (value(found, "jobledger_append_events_sum") or 0) >= 4
    assert (value(found, "jobledger_database_connections", state="idle") or 0) >= 1
    fresh = Service(start("api", "--port", "0", DATABASE_URL=dsn).url, dsn)
    anew = samples(fresh)
    assert value(anew, "jobledger_job_events_total", **lane, event="created") == 2
    assert value(anew, "jobledger_append_seconds_count") == 0
    fresh.close()


def test_who_holds_readers_back_is_named(service: Service, dsn: str) -> None:
    with psycopg.connect(dsn, options="-c idle_in_transaction_session_timeout=0") as connection:
        connection.execute("SELECT pg_current_xact_id()")
        pid = str(connection.info.backend_pid)
        eventually(lambda: (value(samples(service), "jobledger_safe_position_stall_seconds", pid=pid) or 0) > 0)


def test_what_waits_and_what_nobody_rescued_is_measured(service: Service, dsn: str, queue: str) -> None:
    service.create(queue=queue, run_at="2026-01-01T00:00:00Z")
    service.create(queue=f"{queue}-later", run_at="2999-01-01T00:00:00Z")
    held = service.running(f"{queue}-held")["id"]
    assert service.http.post(f"/v1/queues/{queue}/pauses", json={"reason": "a test"}).status_code in (200, 201, 202)
    found = samples(service)
    assert (value(found, "jobledger_queue_oldest_seconds", queue=queue) or 0) > 86400
    assert value(found, "jobledger_queue_oldest_seconds", queue=f"{queue}-later") == 0
    assert value(found, "jobledger_queue_paused", queue=queue) == 1
    assert value(found, "jobledger_queue_paused", queue=f"{queue}-later") is None
    assert value(found, "jobledger_leases_overdue") == 0
    late = "UPDATE leases SET expires_at = expires_at - interval '90 minutes' WHERE job_id = %s"
    ask(dsn, late, [held])
    assert value(samples(service), "jobledger_leases_overdue") == 0, "a node that has just come waits for as long again"
    ask(dsn, late, [held])
    overdue = samples(service)
    assert value(overdue, "jobledger_leases_overdue") == 1
    assert (value(overdue, "jobledger_lease_overdue_seconds") or 0) > 3000
    months = value(found, "jobledger_partition_months_ahead") or 0  # this one and 24 more, which may be long ones
    assert MONTHS_AHEAD - 1 < months < MONTHS_AHEAD + 2
    assert 0 < (value(found, "jobledger_disk_free_bytes") or 0) <= (value(found, "jobledger_disk_bytes") or 0)


def test_promtool_finds_nothing_amiss(service: Service, queue: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    service.completed(queue)
    text = service.http.get("/metrics").content
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_a_parked_projection_is_warned_of(service: Service, dsn: str, queue: str) -> None:
    id = service.create(queue=queue)["id"]
    append_by_hand(dsn, id, UNHEARD_OF)

    def parked() -> Any:
        return value(samples(service), "jobledger_projection_parked", projection="stats")

    eventually(lambda: parked() == 1)
    ready = service.http.get("/readyz")
    assert ready.status_code == 200
    [said] = [warning for warning in ready.json()["warnings"] if "'stats' is parked" in warning]
    assert "GET /v1/projections" in said
    assert {"code": "projection-parked", "message": said} in ready.json()["findings"]
    assert id not in ready.text, "anybody may ask"
    assert value(samples(service), "jobledger_finding", code="projection-parked") == 1
    assert value(samples(service), "jobledger_finding", code="seal-refused") == 0
    assert value(samples(service), "jobledger_ready") == 1
    body = {"action": "skip", "reason": "by hand"}
    for name, _ in ask(dsn, "SELECT name, generation FROM projections WHERE parked_at IS NOT NULL"):
        assert service.http.post(f"/v1/projections/{name}/resumptions", json=body).status_code == 202
    eventually(lambda: parked() == 0)

"""What keys open: each role makes its own calls and sees its own figures, and no foreign page uses a cookie."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest
from msgspec.structs import replace

from application.keys import ROLES
from application.operations import ParkedView, ProjectionView
from interfaces.http.contract import OPERATIONS
from interfaces.http.guard import ADMIN, ANYONE, AUDITOR, CLIENT, COOKIE, OPERATOR, READER, WORKER
from tests.interfaces.closed import Closed, path_of
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import Start

Json = Any
ALLOWED = {
    "create_job": CLIENT,
    "create_jobs": CLIENT,
    "cancel_job": CLIENT,
    "retry_job": CLIENT,
    "create_visualization": CLIENT,
    "list_jobs": READER,
    "get_job": READER,
    "diff_job": READER,
    "why_job": READER,
    "list_events": READER,
    "list_artifacts": READER,
    "get_artifact": (*READER, "worker"),
    "get_visualization": READER,
    "get_visualization_page": READER,
    "claim_jobs": WORKER,
    "report": WORKER,
    "put_artifact": WORKER,
    "list_log": AUDITOR,
    "get_checkpoint": AUDITOR,
    "get_tile": AUDITOR,
    "get_consistency": AUDITOR,
    "get_inclusion": AUDITOR,
    "get_inclusion_in_job": AUDITOR,
    "list_sealing_keys": AUDITOR,
    "get_bundle": AUDITOR,
    "list_accesses": AUDITOR,
    "list_archives": AUDITOR,
    "requeue_jobs": OPERATOR,
    "list_projections": OPERATOR,
    "rebuild_projection": OPERATOR,
    "verify_projection": OPERATOR,
    "resume_projection": OPERATOR,
    "list_queues": OPERATOR,
    "pause_queue": OPERATOR,
    "unpause_queue": OPERATOR,
    "list_workers": OPERATOR,
    "list_failures": OPERATOR,
    "get_usage": OPERATOR,
    "get_stats": OPERATOR,
    "get_metrics": ANYONE,
    "cancel_jobs": OPERATOR,
    "create_key": ADMIN,
    "list_keys": ADMIN,
    "revoke_key": ADMIN,
    "create_presentation": CLIENT,
    "get_presentation": READER,
    "get_presentation_video": READER,
    "get_presentation_thumbnail": READER,
    "get_presentation_slide": READER,
    "poll_presentation": READER,
    "poll_visualization": READER,
    "live": ANYONE,
    "ready": ANYONE,
}
"""Who may make which call; one that is missing here fails the test below."""


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_each_role_makes_its_own_calls_only(closed: Closed, operation: Any) -> None:
    allowed = ALLOWED[operation.id]
    for role in (None, *ROLES):
        with closed.http(role) as http:
            answer = http.request(operation.method, path_of(operation), content=b"{}")
        if allowed == ANYONE:
            assert answer.status_code in (200, 503)
        elif role is None:
            assert answer.status_code == 401
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"].startswith("Bearer")
        elif role in allowed:
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert answer.status_code == 403
            assert answer.json()["code"] == "forbidden"
            assert role in answer.json()["detail"]


@pytest.mark.parametrize("name", [None, "client", "worker"])
def test_what_an_address_takes_is_told_to_anybody(closed: Closed, name: str | None) -> None:
    with closed.http(name) as http:
        answer = http.options("/v1/jobs")
        assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
        assert http.options("/v1/keys").status_code == 204


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer jl_client_" + "x" * 43)],
        [("Authorization", "Bearer")],
        [("Authorization", "Basic YTpi")],
        [("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
        [("Authorization", "Bearer " + "y" * 5000)],
        [("Authorization", "Bearer ü".encode("latin-1"))],
        [("Cookie", f"{COOKIE}=nonsense")],
        [("Cookie", "=;;; a b c")],
    ],
)
def test_what_is_no_key_opens_nothing(closed: Closed, headers: Any) -> None:
    answer = httpx2.get(f"{closed.urls[0]}/v1/jobs", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


COUNTED = {
    "jobledger_jobs",
    "jobledger_job_events_total",
    "jobledger_job_wait_seconds_total",
    "jobledger_attempts_ended_total",
    "jobledger_attempt_run_seconds_total",
    "jobledger_queue_oldest_seconds",
    "jobledger_projection_events_total",
    "jobledger_projection_lag_events",
    "jobledger_unsealed_events",
    "jobledger_leases_overdue",
    "jobledger_append_events_sum",
    "jobledger_append_seconds_count",
}
"""Metrics that grow with what anybody of any namespace does."""
WELL = {
    "jobledger_ready",
    "jobledger_database_up",
    "jobledger_finding",
    "jobledger_projection_lag_seconds",
    "jobledger_projection_parked",
    "jobledger_seal_lag_seconds",
    "jobledger_lease_overdue_seconds",
    "jobledger_partition_months_ahead",
    "jobledger_disk_free_bytes",
}
"""What says whether the service is well, to whoever asks."""


def test_metrics_count_what_operators_may_see_and_tell_others_whether_the_service_is_well(
    closed: Closed, start: "Start"
) -> None:
    start("projector", DATABASE_URL=closed.dsn).wait_for_line("following the log")
    for name in ("of-a", "of-b"):
        with closed.http(name) as http:
            assert http.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "measured"}).status_code == 202

    def measured(name: str | None) -> str:
        with closed.http(name) as http:
            return http.get("/metrics").text

    def names(text: str) -> set[str]:
        return {re.split("[ {]", line)[0] for line in text.splitlines() if not line.startswith("#")}

    def queued(name: str) -> list[str]:
        """The namespaces in which a job waits in that queue."""
        return re.findall(
            r'^jobledger_jobs{kind="k",namespace="(.*)",queue="measured",status="queued"} 1.0$', measured(name), re.M
        )

    for name, seen in (("operator", ["a", "b"]), ("admin", ["a", "b"]), ("runs-a", ["a"])):
        eventually(lambda name=name, seen=seen: sorted(queued(name)) == seen, 20, name)  # type: ignore[misc]
    assert names(measured("operator")) >= COUNTED | WELL
    limited = measured("runs-a")
    assert set(re.findall('namespace="(.*?)"', limited)) == {"a"}
    assert names(limited) & COUNTED == {name for name in COUNTED if re.search("_(jobs|job_.*|attempt.*)$", name)}
    for other in (None, "client", "of-a", "worker", "auditor", "reads-a"):
        text = measured(other)
        assert not re.findall('(?:namespace|queue|kind)="', text), other
        assert not names(text) & COUNTED, other
        assert names(text) >= WELL, other
    refused = httpx2.get(f"{closed.urls[0]}/metrics", headers={"Authorization": "Bearer jl_operator_nonsense"})
    assert refused.status_code == 401, "who sends a key wants to know that it is of no use"


def test_projections_tell_a_key_of_a_namespace_how_they_are_and_nothing_of_the_jobs_of_others(closed: Closed) -> None:
    def told(name: str) -> Json:
        with closed.http(name) as http:
            return {view["name"]: view for view in http.get("/v1/projections").json()["items"]}

    assert told("operator")["totals"]["events"] is not None
    assert {(view["events"], view["parked"]) for view in told("runs-a").values()} == {(None, None)}


def test_a_parked_projection_names_its_job_to_keys_of_all_namespaces_only() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    parked = ParkedView(at=at, position="7", job_id=uuid4(), version=2, error="of b")
    view = ProjectionView(
        name="stats",
        kind="async",
        state="parked",
        generation=1,
        checkpoint="6",
        events=6,
        lag_events=1,
        lag_seconds=2.0,
        skipped=0,
        parked=parked,
        rebuild=None,
        verification=None,
    )
    assert view.limited() == replace(view, events=None, parked=None)


def test_a_worker_reads_the_files_of_jobs_that_run(closed: Closed) -> None:
    with closed.http("client") as client, closed.http("worker") as worker:
        id = client.post("/v1/jobs", json={"kind": "k", "input": 1, "queue": "files"}).json()["id"]
        worker.post("/v1/claims", json={"worker": "w", "queues": ["files"], "wait": 5}).raise_for_status()
        worker.put(f"/v1/jobs/{id}/attempts/1/artifacts/a.txt?worker=w", content=b"a").raise_for_status()
        assert worker.get(f"/v1/jobs/{id}/artifacts/a.txt").content == b"a"
        said = {"job_id": id, "attempt": 1, "type": "completed"}
        worker.post("/v1/reports", json={"worker": "w", "reports": [said]}).raise_for_status()
        refused = worker.get(f"/v1/jobs/{id}/artifacts/a.txt")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert client.get(f"/v1/jobs/{id}/artifacts/a.txt").content == b"a"


def test_a_cookie_changes_nothing_for_a_page_of_another_origin(closed: Closed) -> None:
    cookie = {"Cookie": f"{COOKIE}={closed.secrets['client']}"}
    url, own = f"{closed.urls[0]}/v1/jobs", {"Origin": closed.urls[0]}
    body = {"kind": "k", "input": 1, "queue": "cookies"}
    assert httpx2.get(url, headers=cookie).status_code == 200
    assert httpx2.post(url, json=body, headers={**cookie, **own}).status_code == 202
    for foreign in ({}, {"Origin": "https://example.org"}, {"Origin": "null"}, {"Origin": "http://["}):
        assert httpx2.post(url, json=body, headers={**cookie, **foreign}).status_code == 403


@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if operation.method != "get"],
    ids=lambda operation: operation.id,
)
def test_no_call_that_changes_something_is_made_for_another_page(closed: Closed, operation: Any) -> None:
    """Browsers send the cookie of somebody who is signed in unasked; it counts for the console's own pages only."""
    cookie = {"Cookie": f"{COOKIE}={closed.secrets['admin']}"}
    url = f"{closed.urls[0]}{path_of(operation)}"
    for origin in (None, "https://example.org", "null", f"{closed.urls[0]}.example.org", closed.urls[1]):
        headers = cookie if origin is None else {**cookie, "Origin": origin}
        refused = httpx2.request(operation.method, url, content=b"{}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), origin
        assert "a page of this service only" in refused.json()["detail"]
    own = httpx2.request(operation.method, url, content=b"{}", headers={**cookie, "Origin": closed.urls[0]})
    assert own.status_code not in (401, 403), own.text


def test_pages_of_configured_origins_may_call(start: "Start", dsn: str, closed: Closed) -> None:
    server = start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_ORIGINS="https://shop.example.org")
    asked = {"Origin": "https://shop.example.org", "Access-Control-Request-Method": "POST"}
    preflight = httpx2.options(f"{server.url}/v1/jobs", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example.org"
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    other = httpx2.options(f"{server.url}/v1/jobs", headers={**asked, "Origin": "https://example.org"})
    assert "access-control-allow-origin" not in other.headers
    headers = {"Authorization": f"Bearer {closed.secrets['client']}", "Origin": "https://shop.example.org"}
    answer = httpx2.get(f"{server.url}/v1/jobs", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example.org"

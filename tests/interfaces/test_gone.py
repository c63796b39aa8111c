"""Jobs of a month that left the log are answered 410 wherever one asks, with the archive's name, and are touched by
nothing; the server runs as the role that may read of archives and not move them.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import psycopg
import pytest

from interfaces.http.contract import OLDER_POLLERS, OPERATIONS
from interfaces.http.openapi import describe
from interfaces.http.operation import Operation
from tests.conftest import Start
from tests.interfaces.test_openapi import checker
from tests.keeping import MONTH, Kept

ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"
QUERIES: dict[str, dict[str, Any]] = {
    "diff_job": {"from": 1, "to": 2},
    "get_inclusion_in_job": {"version": 1},
    "put_artifact": {"worker": "w1"},
}
OF_A_JOB = [operation for operation in OPERATIONS if "{job_id}" in operation.path]


class Archived:
    """A server over a log of which a month was archived."""

    def __init__(self, kept: Kept, url: str) -> None:
        self.kept = kept
        self.id = str(kept.old[0])
        self.http = httpx2.Client(base_url=url, timeout=60)

    def gone(self, answer: httpx2.Response) -> None:
        assert answer.status_code == 410, answer.text
        self.is_gone(answer.json())

    def is_gone(self, told: Any) -> None:
        name = self.kept.file.name
        assert (told["code"], told["status"]) == ("gone", 410)
        assert (told["archive"]["name"], told["archive"]["month"]) == (name, str(MONTH))
        assert told["archive"]["archived_at"] > str(MONTH)
        assert name in told["detail"]
        assert f"retention restore {MONTH:%Y-%m}" in told["detail"]


@pytest.fixture
def kept(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(new_database(), tmp_path)
    yield kept
    kept.close()


@pytest.fixture
def archived(kept: Kept, start: Start) -> Iterator[Archived]:
    with psycopg.connect(kept.dsn) as connection:
        connection.execute(ROLES.read_bytes())
    kept.retention.archive(MONTH)
    app = urlunsplit(urlsplit(kept.dsn)._replace(netloc="jobledger_app@"))
    one = Archived(kept, start("api", "--port", "0", DATABASE_URL=app, MIGRATION_DATABASE_URL=kept.dsn).url)
    yield one
    one.http.close()


def asked(operation: Operation, id: str) -> tuple[str, str, dict[str, Any]]:
    path = operation.path.format(job_id=id, attempt=1, name="a.txt", n=1)
    sent: dict[str, Any] = {"params": QUERIES.get(operation.id, {})}
    if operation.body is not None:
        sent["json"] = operation.example
    elif operation.file:
        sent |= {"content": b"x", "headers": {"Content-Type": "text/plain"}}
    return operation.method, path, sent


def test_every_call_about_a_job_says_so(archived: Archived) -> None:
    before = {table: archived.kept.rows(table) for table in ("jobs", "events", "leases", "artifact_contents")}
    description = describe()
    for operation in OF_A_JOB:
        method, path, sent = asked(operation, archived.id)
        answer = archived.http.request(method.upper(), path, **sent)
        responses = description["paths"][operation.path][operation.method]["responses"]
        ((_, described),) = responses["410"]["content"].items()
        checker(description, described["schema"]).validate(answer.json())
        if operation.tag == OLDER_POLLERS:
            assert answer.status_code == 410, (operation.id, answer.text)
            assert not answer.json()["success"]
            assert archived.kept.file.name in answer.json()["error"]
        else:
            assert answer.status_code == 410, (operation.id, answer.text)
            archived.gone(answer)
    assert len(OF_A_JOB) > 15
    assert {table: archived.kept.rows(table) for table in before} == before


def test_so_do_its_other_forms(archived: Archived) -> None:
    here = f"/v1/jobs/{archived.id}"
    for path, headers in (
        (f"{here}/events", {"Accept": "text/event-stream"}),
        (f"{here}/events", {"Accept": "text/event-stream", "Last-Event-ID": "1"}),
        (f"{here}/events", {"Accept": "application/x-ndjson"}),
        (f"{here}?at_version=1", {}),
        (f"{here}?as_of={MONTH}T00:00:00Z", {}),
        (here, {"Prefer": "wait=5"}),
        (here, {"If-None-Match": '"3"'}),
        ("/v1/audit/tiles/entries/000.p/2", {}),
    ):
        archived.gone(archived.http.get(path, headers=headers))
    page = archived.http.get(f"/jobs/{archived.id}")
    assert page.status_code == 410
    assert archived.kept.file.name in page.text


def test_reports_and_heartbeats_are_told_each_by_itself(archived: Archived) -> None:
    reports = [
        {"job_id": archived.id, "attempt": 1, "type": "heartbeat"},
        {"job_id": archived.id, "attempt": 1, "type": "completed", "result": 1},
        {"job_id": str(archived.kept.live), "attempt": 1, "type": "heartbeat"},
    ]
    answer = archived.http.post("/v1/reports", json={"worker": "w1", "reports": reports})
    beat, completed, live = answer.json()["results"]
    archived.is_gone(beat["problem"])
    archived.is_gone(completed["problem"])
    assert live["problem"]["code"] == "lease-lost"


def test_lists_leave_it_out_and_the_others_are_there(archived: Archived) -> None:
    listed = {job["id"] for job in archived.http.get("/v1/jobs").json()["items"]}
    assert listed == {str(id) for id in [*archived.kept.ids[6:], archived.kept.live]}
    in_log = {event["job_id"] for event in archived.http.get("/v1/events").json()["items"]}
    assert in_log == listed
    assert archived.http.get(f"/v1/jobs/{archived.kept.ids[6]}").status_code == 200
    unknown = archived.http.get(f"/v1/jobs/{str(archived.kept.live)[:-4]}0000")
    assert unknown.status_code == 404


def test_readers_of_the_whole_log_are_led_to_what_left_it(archived: Archived) -> None:
    (listed,) = archived.http.get("/v1/audit/archives").json()["items"]
    content = archived.kept.file.read_bytes()
    assert (listed["month"], listed["name"]) == (str(MONTH), archived.kept.file.name)
    assert (listed["sha256"], listed["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (listed["jobs"], listed["events"]) == (6, 20)
    before, last = int(listed["last_position"]) - 1, listed["last_position"]
    assert int(listed["first_position"]) < before
    for media_type in ("application/json", "application/x-ndjson", "text/event-stream"):
        headers = {"Accept": media_type}
        with archived.http.stream("GET", "/v1/events", params={"after": before}, headers=headers) as answer:
            assert answer.headers["Link"] == f'</v1/audit/archives?after={before}>; rel="archives"'
        with archived.http.stream("GET", "/v1/events", params={"after": last}, headers=headers) as answer:
            assert "Link" not in answer.headers
    assert archived.http.get("/v1/audit/archives", params={"after": last}).json() == {"items": [], "next": None}


def test_by_its_position_it_is_gone_and_comes_back(archived: Archived) -> None:
    kept = archived.kept
    ((first,),) = [row[:1] for row in kept.ask("SELECT first_position FROM archives")]
    archived.gone(archived.http.get("/v1/audit/inclusion", params={"position": str(first)}))
    kept.retention.restore(MONTH)
    assert archived.http.get("/v1/audit/inclusion", params={"position": str(first)}).status_code == 200
    job = archived.http.get(f"/v1/jobs/{archived.id}")
    assert (job.status_code, job.json()["status"]) == (200, "completed")
    again = archived.http.post(f"/v1/jobs/{archived.id}/retries", json={"reason": "once more"})
    assert (again.status_code, again.json()["status"]) == (202, "queued")

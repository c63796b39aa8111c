"""From an empty folder to a page, and through every plug that can be pulled, with real processes."""

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from infrastructure.chromium import find_chromium

QUESTION = Path(__file__).parents[2] / "examples" / "question.txt"
Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def create(url: str, kind: str, **fields: Any) -> str:
    answer = httpx2.post(f"{url}/v1/jobs", json={"kind": kind, "input": {}, **fields}, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(url: str, id: str) -> Any:
    return httpx2.get(f"{url}/v1/jobs/{id}", timeout=30).json()


def events(url: str, id: str) -> list[Any]:
    return list(httpx2.get(f"{url}/v1/jobs/{id}/events", timeout=30).json()["items"])


def _replaced(children: Callable[[int, str], list[Any]], pid: int, role: str, before: int) -> bool:
    return any(child.pid != before for child in children(pid, role))


def up(start: Start, data: Path, **environment: str) -> Any:
    return start("up", "--port", "0", "--data", str(data), **environment)


def test_a_question_in_a_file_becomes_a_page_from_an_empty_folder(start: Start, jobledger: Run, tmp_path: Path) -> None:
    service = up(start, tmp_path / "new" / "data")
    submitted = jobledger("submit", "visualization", str(QUESTION), "--follow", "--json", "--url", service.url)
    assert submitted.returncode == 0, submitted.stderr
    done = json.loads(submitted.stdout)
    assert done["status"] == "completed"
    assert done["result"]["provider"] == "offline"
    page = httpx2.get(f"{service.url}/v1/visualizations/{done['id']}/html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in page.headers["content-security-policy"]
    assert page.headers["etag"] == f'"{done["artifacts"][0]["sha256"]}"'
    recorded = {
        e["data"]["step"]: e["data"]["output"] for e in events(service.url, done["id"]) if "output" in e["data"]
    }
    assert list(recorded) == ["analysis", "story", "page", "check"]
    assert recorded["check"]["findings"] == []
    assert (recorded["check"]["browser"] is not None) == (find_chromium() is not None)
    assert service.stop() == 0


def test_after_kill_9_of_everything_every_job_is_there_and_the_interrupted_one_goes_on(
    start: Start, handlers: Any, wait_until: WaitUntil, kill_tree: Callable[[int], None], tmp_path: Path
) -> None:
    service = up(start, tmp_path / "data", **handlers.environment)
    interrupted = create(service.url, "three-steps", heartbeat_timeout=1)
    acknowledged = [create(service.url, "nobody-handles-this") for _ in range(20)]
    wait_until(lambda: "two" in handlers.calls, "the second step")
    kill_tree(service.process.pid)

    handlers.go()
    service = up(start, tmp_path / "data", **handlers.environment)
    wait_until(lambda: job(service.url, interrupted)["status"] == "completed", "the interrupted job's end")
    assert handlers.calls == ["one", "two", "two", "three"]
    assert job(service.url, interrupted)["result"] == ["one", "two", "three"]
    told = [event["type"] for event in events(service.url, interrupted)]
    assert told.count("job.heartbeat_missed") == 1
    assert told.count("job.completed") == 1
    assert [job(service.url, id)["status"] for id in acknowledged] == ["queued"] * 20


def test_a_killed_worker_or_api_is_started_again_and_no_job_is_lost(
    start: Start,
    handlers: Any,
    wait_until: WaitUntil,
    children: Callable[[int, str], list[Any]],
    tmp_path: Path,
) -> None:
    service = up(start, tmp_path / "data", **handlers.environment)
    url, pid = service.url, service.process.pid
    id = create(url, "three-steps", heartbeat_timeout=1)
    wait_until(lambda: "two" in handlers.calls, "the second step")
    for role in ("worker", "api"):
        (before,) = children(pid, role)
        before.kill()
        wait_until(partial(_replaced, children, pid, role, before.pid), f"a new {role}")
    handlers.go()
    wait_until(lambda: job(url, id)["status"] == "completed", "the job's end")
    assert handlers.calls.count("one") == 1
    assert job(url, id)["attempt"] == 2


def test_a_killed_postgres_is_started_again_and_no_job_is_lost_nor_costs_one_an_attempt(
    start: Start,
    handlers: Any,
    wait_until: WaitUntil,
    children: Callable[[int, str], list[Any]],
    tmp_path: Path,
) -> None:
    """Handlers go on meanwhile, in the processes that they were in."""
    service = up(start, tmp_path / "data", **handlers.environment)
    url, pid = service.url, service.process.pid
    id = create(url, "nobody-handles-this")
    running = create(url, "three-steps", heartbeat_timeout=60)
    wait_until(lambda: "two" in handlers.calls, "the second step")
    before = {role: [child.pid for child in children(pid, role)] for role in ("worker", "api", "projector")}
    (postmaster,) = [c for c in children(pid, "-D") if Path(c.cmdline()[0]).name == "postgres"]
    postmaster.kill()
    wait_until(lambda: job(url, id)["status"] == "queued", "the job's status after the crash")
    handlers.go()
    wait_until(lambda: job(url, running)["status"] == "completed", "the running job's end")
    assert handlers.calls == ["one", "two", "three"]
    assert job(url, running)["attempt"] == 1
    assert create(url, "another")
    assert {role: [child.pid for child in children(pid, role)] for role in before} == before


def test_a_second_up_on_the_same_folder_says_so_and_leaves_the_first_alone(start: Start, tmp_path: Path) -> None:
    first = up(start, tmp_path / "data")
    assert first.url
    second = up(start, tmp_path / "data")
    assert second.process.wait(60) == 1
    line = second.wait_for_line("already runs in")
    assert str(tmp_path / "data") in line
    assert str(first.process.pid) in line
    assert httpx2.get(f"{first.url}/readyz").status_code == 200


def test_a_port_in_use_is_said_so(start: Start, tmp_path: Path) -> None:
    first = up(start, tmp_path / "data")
    port = first.url.rsplit(":", 1)[1]
    second = start("up", "--port", port, "--data", str(tmp_path / "other"))
    assert second.process.wait(60) == 1
    assert "choose another --port" in second.wait_for_line("cannot listen on")


def test_stopping_lets_running_jobs_end(start: Start, handlers: Any, wait_until: WaitUntil, tmp_path: Path) -> None:
    service = up(start, tmp_path / "data", **handlers.environment)
    id = create(service.url, "three-steps")
    wait_until(lambda: "two" in handlers.calls, "the second step")
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(service.stop)
        service.wait_for_line("worker.draining")
        handlers.go()
        assert stopped.result() == 0
    again = up(start, tmp_path / "data", **handlers.environment)
    assert job(again.url, id)["status"] == "completed"
    assert job(again.url, id)["attempt"] == 1


def test_a_worker_that_is_told_to_stop_gives_its_job_back_and_it_costs_no_attempt(
    start: Start, handlers: Any, wait_until: WaitUntil, dsn: str
) -> None:
    url = start("api", "--port", "0", DATABASE_URL=dsn).url
    first = start("worker", "--grace", "0.1", DATABASE_URL=dsn, **handlers.environment)
    id = create(url, "three-steps", max_attempts=1)
    wait_until(lambda: "two" in handlers.calls, "the second step")
    assert first.stop() == 0
    assert job(url, id)["status"] == "queued"
    handlers.go()
    start("worker", DATABASE_URL=dsn, **handlers.environment)
    wait_until(lambda: job(url, id)["status"] == "completed", "the job's end")
    assert handlers.calls == ["one", "two", "two", "three"]
    assert [e["type"] for e in events(url, id)].count("job.released") == 1


def test_three_servers_tell_the_same_story_and_one_key_makes_one_job(
    start: Start, new_database: Callable[[], str]
) -> None:
    database = new_database()
    servers = [start("api", "--port", "0", DATABASE_URL=database) for _ in range(3)]
    urls = [server.url for server in servers]
    key = {"Idempotency-Key": str(uuid4())}
    body = {"kind": "nobody-handles-this", "input": {"n": 1}}

    def create_again(n: int) -> httpx2.Response:
        return httpx2.post(f"{urls[n % 3]}/v1/jobs", json=body, headers=key, timeout=60)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(create_again, range(200)))
    assert {answer.status_code for answer in answers} == {202}
    (id,) = {answer.json()["id"] for answer in answers}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    for path in (f"/v1/jobs/{id}", f"/v1/jobs/{id}/events", "/v1/jobs"):
        stories = {httpx2.get(f"{url}{path}").text for url in urls}
        assert len(stories) == 1
    assert len(httpx2.get(f"{urls[0]}/v1/jobs").json()["items"]) == 1


@pytest.mark.parametrize("command", [["migrate"], ["worker"], ["api", "--port", "0"]])
def test_without_a_database_a_role_says_which_setting_is_missing(jobledger: Run, command: list[str]) -> None:
    done = jobledger(*command)
    assert done.returncode == 2
    assert "DATABASE_URL is not set" in done.stderr


def test_migrate_says_what_it_did(
    jobledger: Run, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", new_database())
    assert "applied 0001_log.sql" in jobledger("migrate").stdout
    assert jobledger("migrate").stdout == "the schema is up to date\n"


def test_submit_says_when_nothing_answers(jobledger: Run) -> None:
    done = jobledger("submit", "visualization", str(QUESTION), "--url", "http://127.0.0.1:9", "--patience", "0")
    assert done.returncode == 3
    assert "jobledger up" in done.stderr

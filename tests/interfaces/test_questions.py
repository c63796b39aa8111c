"""`jobledger jobs`, `events`, `why`, … ask a running service: tables, JSON, and exit statuses."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from interfaces.cli.main import main
from tests.conftest import Start
from tests.interfaces.conftest import Service
from tests.waiting import eventually

Json = Any
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def projector(dsn: str, start_for_module: Start) -> None:
    start_for_module("projector", DATABASE_URL=dsn).wait_for_line("following the log")


@pytest.fixture
def run(api: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against the module's server: its exit status, what it printed, and its complaints."""
    monkeypatch.setenv("JOBLEDGER_URL", api)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def told(run: Run, *arguments: str) -> Json:
    status, out, _ = run(*arguments, "--json")
    assert status == 0
    return json.loads(out)


def test_jobs_are_listed_as_asked_for(run: Run, service: Service, queue: str) -> None:
    done = service.completed(queue)
    waiting = service.create(queue=queue, labels={"colour": "[red]"})
    assert [job["id"] for job in told(run, "jobs", "--queue", queue)["items"]] == [waiting["id"], done["id"]]
    assert [job["id"] for job in told(run, "jobs", "--queue", queue, "--status", "queued")["items"]] == [waiting["id"]]
    assert [job["id"] for job in told(run, "jobs", "--label", "colour:[red]")["items"]] == [waiting["id"]]
    status, out, _ = run("jobs", "--queue", queue, "--limit", "1")
    assert status == 0
    assert waiting["id"] in out
    assert "queued" in out
    assert "there are more" in out


def test_a_job_is_told_of_stopped_and_sent_round_again(run: Run, service: Service, queue: str) -> None:
    id = service.create(queue=queue)["id"]
    assert [event["type"] for event in told(run, "events", id)["items"]] == ["job.created"]
    assert "job.created" in run("events", id)[1]
    assert told(run, "events", "--limit", "1")["items"][0]["version"] == 1
    assert f'no worker subscribes to queue "{queue}"' in run("why", id)[1]
    assert run("cancel", id, "--reason", "enough")[0] == 0
    assert service.job(id)["error"]["message"] == "enough"
    status, out, _ = run("retry", id)
    assert (status, out) == (0, f"job {id} (test) is queued\n")


def test_queues_are_paused_and_opened(run: Run, service: Service, queue: str) -> None:
    service.create(queue=queue)
    [paused] = [q for q in told(run, "queues", "pause", queue, "--reason", "ink")["items"] if q["name"] == queue]
    assert paused["paused"]["reason"] == "ink"
    assert "by anonymous: ink" in run("queues")[1]
    [opened] = [q for q in told(run, "queues", "unpause", queue)["items"] if q["name"] == queue]
    assert opened["paused"] is None


def test_what_happened_is_shown_in_tables(run: Run, service: Service, queue: str) -> None:
    service.completed(queue, kind=queue)
    eventually(lambda: any(lane["kind"] == queue for lane in told(run, "usage")["items"]))
    eventually(lambda: any(lane["run"]["count"] for lane in told(run, "stats", "--kind", queue)["items"]))
    assert queue in run("stats", "--minutes", "5")[1]
    assert queue in run("usage", "--group", "kind")[1]
    assert "w1" in run("workers")[1]
    job = service.running(queue, kind=queue)
    error = {"type": "Torn", "message": "[b]no paper[/b]"}
    service.report({"job_id": job["id"], "attempt": 1, "type": "failed", "error": error, "final": True})
    eventually(lambda: any(item["kind"] == queue for item in told(run, "failures")["items"]))
    assert "[b]no paper[/b]" in run("failures")[1]


def test_projections_are_verified_and_rebuilt(run: Run, service: Service, queue: str) -> None:
    service.completed(queue)
    assert "events behind" in run("projections")[1]

    def usage() -> Json:
        return next(one for one in told(run, "projections")["items"] if one["name"] == "usage")

    assert run("projections", "verify", "usage", "--reason", "to be sure")[0] == 0
    eventually(lambda: usage()["verification"]["state"] == "done", 60)
    assert usage()["verification"]["differences"] == 0
    assert "verification is done, 0 differences" in run("projections")[1]
    assert run("projections", "rebuild", "usage", "--reason", "to be sure")[0] == 0
    eventually(lambda: usage()["generation"] == 2, 60)


def test_exit_statuses_tell_refused_from_wrong_from_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run("why", "01a20032-d14b-79ae-8f97-c9b5fd507266")
    assert (status, out) == (1, "")
    assert "there is no job" in err
    assert run("projections", "skip", "stats", "--reason", "x")[0] == 1
    assert run("projections", "rebuild", "stats")[0] == 2
    assert run("queues", "pause")[0] == 2
    assert run("queues", "pause", "gpu")[0] == 2
    assert run("stats", "--minutes", "0")[0] == 2
    assert run("jobs", "--status", "lost")[0] == 2
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    status, out, err = run("jobs", "--url", f"http://127.0.0.1:{port}")
    assert (status, out) == (3, "")
    assert "does not answer" in err
    assert err.count("Connection refused") == 1

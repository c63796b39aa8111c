"""What the command line makes of answers that are not the service's, of addresses that are none, and of odd texts."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from interfaces.cli.main import main
from tests.interfaces.conftest import Service

ROOT = Path(__file__).parents[2]
Answer = tuple[int, dict[str, str], bytes]
Run = Callable[..., tuple[int, str, str]]
PAGE = {"Content-Type": "text/html; charset=utf-8"}
JSON = {"Content-Type": "application/json"}
LIMITED = {"type": "/problems/rate-limited", "title": "Too many requests", "status": 429, "detail": "slowly"}
JOB = {
    "id": "01a20032-d14b-79ae-8f97-c9b5fd507266",
    "kind": "mail",
    "status": "running",
    "progress": 0.5,
    "message": "[/b] \x1b]0;title\x07",
    "error": None,
    "artifacts": [],
    "links": {"self": "/v1/jobs/x", "events": "/v1/jobs/x/events"},
}


@contextmanager
def answering(*answers: Answer) -> Iterator[str]:
    """The address of a server that gives these answers in turn, and the last one from then on."""
    left = list(answers)

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command: its exit status, what it printed, and its complaints."""
    monkeypatch.setenv("JOBLEDGER_DATA", str(tmp_path))
    monkeypatch.delenv("JOBLEDGER_KEY", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def order(tmp_path: Path) -> str:
    file = tmp_path / "order.json"
    file.write_text('{"order": 1}')
    return str(file)


@pytest.mark.parametrize(
    "answer",
    [
        (200, PAGE, b"<html>Welcome to our network</html>"),
        (200, JSON, b""),
        (200, JSON, b"[1]"),
        (200, JSON, b"\xff\xfe\x00"),
        (302, {**PAGE, "Location": "https://login.example.org/"}, b""),
        (401, PAGE, b"<html>Proxy</html>"),
        (403, PAGE, b"<html>Blocked</html>"),
        (404, JSON, b'{"detail": "Not Found"}'),
        (429, PAGE, b"slow down"),
    ],
    ids=lambda answer: f"{answer[0]} {answer[2][:9]!r}",
)
@pytest.mark.parametrize(
    "command", ["jobs", "why x", "cancel x", "queues --json", "submit mail ORDER --follow", "demo"]
)
def test_an_answer_that_is_not_the_services_is_told_at_once(run: Run, order: str, answer: Answer, command: str) -> None:
    """By the sign-in page of a network, a proxy's refusal, or another program at that port."""
    with answering(answer) as url:
        status, out, err = run(*command.replace("ORDER", order).split(), "--url", url)
    assert (status, out) == (3, "")
    assert err.startswith(f"jobledger: {url} does not answer as jobledger (HTTP {answer[0]}, ")
    assert err.endswith("is the address right, and does a proxy in between let this through?\n")


def test_who_follows_waits_for_as_long_as_it_is_asked_to(run: Run, order: str) -> None:
    """A key with a rate is told to ask less often, which does not end what it follows."""

    def told(**changes: Any) -> Answer:
        return 200, JSON, json.dumps({**JOB, **changes}).encode()

    limited = (429, {"Content-Type": "application/problem+json", "Retry-After": "0"}, json.dumps(LIMITED).encode())
    with answering(limited, told(), limited, told(), limited, told(status="completed")) as url:
        status, out, _ = run("submit", "mail", order, "--follow", "--url", url)
    assert (status, out.splitlines()[0]) == (0, f"job       {JOB['id']}  (mail, completed)")
    with answering(limited) as url:
        assert run("submit", "mail", order, "--patience", "0", "--url", url)[::2] == (
            1,
            "jobledger: Too many requests: slowly\n",
        )


def test_who_waits_for_a_service_that_is_away_knows_it(run: Run, order: str) -> None:
    away, done = (503, PAGE, b""), (200, JSON, json.dumps({**JOB, "status": "completed"}).encode())
    with answering(away, away, away, done) as url:
        status, out, err = run("submit", "mail", order, "--url", url)
    assert (status, out.splitlines()[0]) == (0, f"job       {JOB['id']}  (mail, completed)")
    assert err == f"jobledger: {url} does not answer (HTTP 503); is `jobledger up` running? Trying again…\n"


@pytest.mark.parametrize(
    "url", ["", "foo", "ftp://127.0.0.1", "http://", "http://[::1", "http://h:99999", "http://a b"]
)
@pytest.mark.parametrize("command", ["jobs", "demo", "keys list", "worker"])
def test_an_address_that_is_none_is_wrong_usage(run: Run, url: str, command: str) -> None:
    status, out, err = run(*command.split(), "--url", url)
    assert (status, out) == (2, "")
    assert err == f"jobledger: JOBLEDGER_URL: {url!r} is no address of a service, such as http://127.0.0.1:8000\n"


@pytest.mark.parametrize("key", ["schlüssel", "two words", "a\nb"])
def test_a_key_that_is_none_is_wrong_usage_and_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("JOBLEDGER_KEY", key)
    status, out, err = run("jobs")
    assert (status, out) == (2, "")
    assert err.startswith("jobledger: JOBLEDGER_KEY: it is no key")
    assert key not in err


@pytest.mark.parametrize(("key", "says"), [(None, "JOBLEDGER_KEY is not set: set it to your key"), ("jl_x", "that of")])
def test_whose_key_was_refused_is_said(run: Run, monkeypatch: pytest.MonkeyPatch, key: str | None, says: str) -> None:
    if key:
        monkeypatch.setenv("JOBLEDGER_KEY", key)
    problem = {"type": "/problems/unauthenticated", "title": "A key is needed", "status": 401, "detail": "no"}
    with answering((401, {"Content-Type": "application/problem+json"}, json.dumps(problem).encode())) as url:
        status, _, err = run("jobs", "--url", url)
    assert status == 1
    assert err.startswith("jobledger: A key is needed: no (")
    assert says in err


@pytest.mark.parametrize("flag", ["--key", "--checkpoint"])
def test_what_cannot_verify_a_log_is_wrong_usage_and_no_difference(run: Run, order: str, flag: str) -> None:
    status, out, err = run("audit", "verify", flag, order)
    assert (status, out) == (2, "")
    assert err.startswith(f"jobledger: {flag}: this is no ")


def test_a_span_of_time_that_nothing_has_is_wrong_usage(run: Run) -> None:
    for minutes in ("0", "99999999999"):
        assert run("stats", "--minutes", minutes)[0] == 2


def test_a_terminal_acts_on_nothing_that_a_caller_wrote(run: Run, service: Service, queue: str) -> None:
    kind = "[/b]\\[/i] \x1b[31m\x9b2J\x07\u202e גמור"
    id = service.running(queue, kind=kind)["id"]
    shown = r"[/b]\[/i] \x1b[31m\x9b2J\x07\u202e גמור"
    at = ("--url", f"{service.url}/")
    status, out, _ = run("jobs", "--queue", queue, *at)
    assert status == 0
    assert shown in out
    assert run("cancel", id, *at)[1] == f"job {id} ({shown}) is cancelling\n"
    status, out, _ = run("jobs", "--queue", queue, "--json", *at)
    assert json.loads(out)["items"][0]["kind"] == kind
    assert r"\u009b2J" in out


@pytest.mark.parametrize("command", [["check"], ["jobs", "--limit", "1000", "--json"]], ids=lambda given: given[0])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(
    service: Service, queue: str, tmp_path: Path, command: list[str]
) -> None:
    """As `| head -1` does: more than a pipe holds is left."""
    for _ in range(3):
        service.create(queue=queue, input="x" * 60_000)
    running = subprocess.Popen(
        [sys.executable, "-m", "interfaces.cli.main", *command],
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "JOBLEDGER_URL": service.url, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stdout is not None
        running.stdout.close()
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (141, "")

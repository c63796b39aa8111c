"""Caddy, as deploy/Caddyfile has it, before a real server: TLS, who asked, events as they come, uploads, restarts."""

import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Process, Start
from tests.ports import free_port
from tests.waiting import eventually

CADDYFILE = Path(__file__).parents[2] / "deploy" / "Caddyfile"
PROXY = "127.0.0.1"
Json = Any


class Caddy:
    """Caddy with our Caddyfile, on ports of the test's own and with a certificate that it signs itself."""

    def __init__(self, program: str, folder: Path, upstream: str) -> None:
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self._certificate = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "SITE": f"localhost:{self.port}",
            "UPSTREAM": upstream,
        }
        self._log = folder / "caddy.log"
        (folder / "config.json").write_text(json.dumps(self._config(program)))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "run", "--config", folder / "config.json"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._answers, 60, "Caddy's first answer")
        self.trusted = ssl.create_default_context(cafile=self._certificate)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def _config(self, program: str) -> Json:
        """What Caddy makes of the file, without what it opens at ports of its own."""
        adapt = [program, "adapt", "--adapter", "caddyfile", "--config", str(CADDYFILE)]
        done = subprocess.run(adapt, env=self._environment, capture_output=True, text=True, timeout=60, check=True)
        config = json.loads(done.stdout)
        config["admin"] = {"disabled": True}
        config["apps"]["http"]["https_port"] = self.port
        config["apps"]["http"]["servers"]["srv0"]["automatic_https"] = {"disable_redirects": True}
        return config

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with suppress(httpx2.TransportError, OSError, ssl.SSLError):
            trusted = ssl.create_default_context(cafile=self._certificate)
            return httpx2.get(f"{self.url}/livez", verify=trusted, timeout=5).status_code == 200
        return False


@pytest.fixture(scope="module")
def server(dsn: str, start_for_module: Start) -> Process:
    return start_for_module("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_PROXIES=PROXY)


@pytest.fixture(scope="module")
def caddy(server: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caddy]:
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("no Caddy on the PATH: install caddy, so that the service is run behind it")
    with closing(Caddy(program, tmp_path_factory.mktemp("caddy"), server.url.removeprefix("http://"))) as caddy:
        yield caddy


@pytest.fixture
def http(caddy: Caddy) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=caddy.url, verify=caddy.trusted, timeout=30) as http:
        yield http


def test_links_and_redirects_are_those_that_the_browser_asked_by(http: httpx2.Client, caddy: Caddy) -> None:
    created = http.post("/v1/jobs", json={"kind": "nobody", "input": {}})
    assert created.status_code == 202, created.text
    assert created.headers["strict-transport-security"] == "max-age=31536000"
    assert httpx2.get(f"{caddy.url}{created.headers['location']}", verify=caddy.trusted).status_code == 200


def test_what_a_client_says_of_itself_is_replaced(http: httpx2.Client) -> None:
    lies = {"X-Forwarded-Proto": "gopher", "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": "elsewhere"}
    answer = http.post("/v1/jobs", json={"kind": "nobody", "input": {}}, headers=lies)
    assert answer.status_code == 202
    page = http.get("/", headers=lies)
    assert page.status_code in (200, 303)
    assert "gopher" not in page.text + str(page.headers)


def test_events_pass_as_they_come(http: httpx2.Client) -> None:
    id = http.post("/v1/jobs", json={"kind": "nobody", "input": {}, "queue": "watched"}).json()["id"]
    compressed = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    with http.stream("GET", f"/v1/jobs/{id}/events", headers=compressed) as events:
        lines = events.iter_lines()
        assert read_types(lines, 1) == ["job.created"]
        (job,) = http.post("/v1/claims", json={"worker": "w", "queues": ["watched"]}).json()["jobs"]
        assert read_types(lines, 1) == ["job.started"]
        said = {"worker": "w", "reports": [{"job_id": job["id"], "attempt": 1, "type": "completed"}]}
        assert http.post("/v1/reports", json=said).json()["results"][0]["ok"]
        assert read_types(lines, 1) == ["job.completed"]
        assert [line for line in lines if line.startswith("event")] == []


def read_types(lines: Iterator[str], count: int) -> list[str]:
    types: list[str] = []
    while len(types) < count:
        line = next(lines)
        if line.startswith("event: "):
            types.append(line.removeprefix("event: "))
    return types


def test_answers_of_the_service_come_through_with_their_reasons(http: httpx2.Client) -> None:
    unknown = http.get("/v1/jobs/01890000-0000-7000-8000-000000000000")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    large = http.post("/v1/jobs", content=b" " * (2 << 20), headers={"Content-Type": "application/json"})
    assert (large.status_code, large.json()["code"]) == (413, "too-large")


def test_requests_pass_to_the_other_server_when_one_is_stopped(
    http: httpx2.Client, dsn: str, start: Start, tmp_path: Path
) -> None:
    program = shutil.which("caddy")
    assert program is not None
    first, second = (start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_PROXIES=PROXY) for _ in range(2))
    both = f"{first.url} {second.url}".replace("http://", "")
    with (
        closing(Caddy(program, tmp_path, both)) as caddy,
        httpx2.Client(base_url=caddy.url, verify=caddy.trusted, timeout=30) as through,
    ):
        assert first.stop() == 0
        for _ in range(20):
            assert through.get("/v1/jobs").status_code == 200
        answer = through.post("/v1/jobs", json={"kind": "nobody", "input": {}})
        assert answer.status_code == 202, answer.text

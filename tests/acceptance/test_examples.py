"""The poller and the follower in plain JavaScript, in node and Chromium, while the server is killed and restarted."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.acceptance.test_first_light import create, events

Start = Callable[..., Any]
EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 120.0
POLL = """
import {{ poll }} from "{examples}/poll.mjs";
const job = await poll("{url}/v1/jobs/{id}", (job) => console.log(`${{job.version}}`));
console.log(job.status);
"""
FOLLOW = """
import {{ follow }} from "{examples}/follow.mjs";
for await (const event of follow("{url}/v1/jobs/{id}/events")) console.log(`${{event.version}}`);
console.log("over");
"""
REFUSED = """
import {{ poll, Refused }} from "{examples}/poll.mjs";
import {{ follow }} from "{examples}/follow.mjs";
const of = async (wait) => wait.then(() => "none", (error) => error instanceof Refused && error.status);
console.log(await of(poll("{url}/v1/jobs/{id}")), await of(follow("{url}/v1/jobs/{id}/events").next()));
"""


class Script:
    """An ES module in node, whose lines are read one by one."""

    def __init__(self, node: str, source: str) -> None:
        command = [node, "--input-type=module", "--eval", source]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout
        self._lines = iter(self._process.stdout.readline, "")

    def line(self) -> str:
        return next(self._lines, "").strip()

    def rest(self) -> list[str]:
        """The lines that are left, once it has ended well."""
        lines = [line.strip() for line in self._lines]
        assert self._process.wait(PATIENCE) == 0, lines
        return lines

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on the PATH: install nodejs, so that the examples in JavaScript are run")
    return found


@pytest.fixture
def run(node: str) -> Iterator[Callable[..., Script]]:
    scripts = []

    def begin(source: str, url: str, id: str) -> Script:
        scripts.append(Script(node, source.format(examples=EXAMPLES.as_uri(), url=url, id=id)))
        return scripts[-1]

    yield begin
    for script in scripts:
        script.close()


def said(url: str, id: str, **report: Any) -> None:
    body = {"worker": "w1", "reports": [{"job_id": id, "attempt": 1, **report}]}
    [answer] = httpx2.post(f"{url}/v1/reports", json=body, timeout=60).raise_for_status().json()["results"]
    assert answer["ok"], answer


def running(url: str) -> str:
    """A job that this test holds as its worker."""
    id = create(url, "nobody-handles-this", queue="examples", heartbeat_timeout=3600)
    [claimed] = httpx2.post(f"{url}/v1/claims", json={"worker": "w1", "queues": ["examples"]}, timeout=60).json()[
        "jobs"
    ]
    assert claimed["id"] == id
    return id


def test_poller_and_follower_outlast_kill_9_and_miss_nothing(
    start: Start, dsn: str, run: Callable[..., Script]
) -> None:
    server = start("api", "--port", "0", DATABASE_URL=dsn)
    url = server.url
    id = running(url)
    poller, follower = run(POLL, url, id), run(FOLLOW, url, id)
    assert (poller.line(), follower.line(), follower.line()) == ("2", "1", "2")
    said(url, id, type="progressed", progress=0.25)
    assert (poller.line(), follower.line()) == ("3", "3")
    for version in (4, 5):
        server.kill()
        server = start("api", "--port", str(urlsplit(url).port), DATABASE_URL=dsn)
        server.wait_for_line("listening")
        said(url, id, type="progressed", progress=0.1 * version, message=f"after restart {version}")
        assert (poller.line(), follower.line()) == (str(version), str(version))
    server.kill()
    server = start("api", "--port", str(urlsplit(url).port), DATABASE_URL=dsn)
    server.wait_for_line("listening")
    said(url, id, type="completed", result=42)
    assert poller.rest() == ["6", "completed"]
    assert follower.rest() == ["6", "over"]
    assert len(events(url, id)) == 6


def test_follower_of_a_finished_job_ends_at_once_and_an_unknown_one_is_refused(
    start: Start, dsn: str, run: Callable[..., Script]
) -> None:
    url = start("api", "--port", "0", DATABASE_URL=dsn).url
    id = running(url)
    said(url, id, type="failed", error={"type": "E", "message": "no"}, final=True)
    assert run(FOLLOW, url, id).rest() == ["1", "2", "3", "over"]
    assert run(POLL, url, id).rest() == ["3", "failed"]
    assert run(REFUSED, url, "019371a0-0000-7000-8000-000000000001").rest() == ["404 404"]


def test_follower_runs_in_a_browser(start: Start, dsn: str, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    server = start("api", "--port", "0", DATABASE_URL=dsn)
    url = server.url
    id = running(url)
    modules = {name: (EXAMPLES / name).read_text() for name in ("patience.mjs", "follow.mjs")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page(bypass_csp=True)  # what is no page of ours runs no scripts
            page.goto(f"{url}/livez")  # this origin, as open mode wants it
            page.evaluate(FOLLOW_IN_A_PAGE, [modules, f"/v1/jobs/{id}/events"])
            page.wait_for_function("seen.length === 2")
            server.kill()
            server = start("api", "--port", str(urlsplit(url).port), DATABASE_URL=dsn)
            server.wait_for_line("listening")
            said(url, id, type="completed", result=42)
            page.wait_for_function("over", timeout=PATIENCE * 1000)
            assert json.loads(page.evaluate("JSON.stringify(seen)")) == ["job.created", "job.started", "job.completed"]
        finally:
            browser.close()


FOLLOW_IN_A_PAGE = """async ([modules, address]) => {
  const place = (text) => URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const patience = place(modules["patience.mjs"]);
  const { follow } = await import(place(modules["follow.mjs"].replace("./patience.mjs", patience)));
  window.seen = [];
  window.over = false;
  (async () => {
    for await (const event of follow(address)) window.seen.push(event.type);
    window.over = true;
  })();
}"""

"""What the tests of the console share: a service, and a browser that tells when a page misbehaves."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

Json = Any
expect.set_options(timeout=30_000)
Theme = Literal["light", "dark"]
PATIENCE = 30_000
"""Milliseconds a page waits for what must come."""


class Console:
    """A service whose console is looked at, as its API tells of it."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx2.Client(base_url=url, timeout=60, headers=headers)

    def create(self, **fields: Json) -> str:
        """A new job of kind `test`, unless told otherwise, in a queue that only the test asks for."""
        job = {"kind": "test", "queue": "by-hand", "input": {"n": 1}, "heartbeat_timeout": 3600, **fields}
        answer = self.http.post("/v1/jobs", json=job)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def claim(self, queue: str = "by-hand") -> None:
        answer = self.http.post("/v1/claims", json={"worker": "w1", "queues": [queue]})
        assert len(answer.json()["jobs"]) == 1, answer.text

    def report(self, id: str, type: str, **fields: Json) -> None:
        report = {"job_id": id, "attempt": 1, "type": type, **fields}
        answer = self.http.post("/v1/reports", json={"worker": "w1", "reports": [report]})
        assert answer.json()["results"][0]["ok"], answer.text

    def job(self, id: str) -> Json:
        return self.http.get(f"/v1/jobs/{id}").json()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A browser that ends with the module: while it runs, its event loop is that of the thread all tests run in."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


Look = Callable[..., Page]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Opens pages; after the test, none may have complained or asked for anything outside."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def opened(url: str, *, theme: Theme = "light", width: int = 1280, strict: bool = True) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        host = urlsplit(url).netloc
        context.on("request", lambda asked: must_be_of(host, asked.url))
        if strict:
            page.on("console", must_be_calm)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    def must_be_of(host: str, url: str) -> None:
        if urlsplit(url).netloc != host and not url.startswith(("data:", "blob:", "about:")):
            complaints.append(f"asked for {url}")

    def must_be_calm(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            complaints.append(said.text)

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="module")
def console(dsn: str, start_for_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """An open service with a worker and a projector."""
    environment = {"DATABASE_URL": dsn, "JOBLEDGER_ARTIFACTS": str(tmp_path_factory.mktemp("artifacts"))}
    server = start_for_module("api", "--port", "0", **environment)
    start_for_module("worker", **environment)
    start_for_module("projector", **environment)
    opened = Console(server.url)
    yield opened
    opened.http.close()


@pytest.fixture
def port() -> int:
    """A port that a server can be started on, and started again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
    return free


@pytest.fixture
def question_file(tmp_path: Path) -> Path:
    path = tmp_path / "question.md"
    path.write_text("What is 15 % of 80?\n")
    return path


def tab_to(page: Page, wanted: Locator, most: int = 100) -> None:
    """Go on with the keyboard, by so many at the most, until the focus, which is seen, is there."""
    expect(wanted).to_be_visible()
    for _ in range(most):
        page.keyboard.press("Tab")
        if wanted.evaluate("wanted => wanted === document.activeElement"):
            assert wanted.evaluate("wanted => getComputedStyle(wanted).outlineStyle") != "none"
            return
    pytest.fail(f"the focus never comes to {wanted}")

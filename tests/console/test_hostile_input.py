"""What others name their things, however hostile, long or many: it is shown as text, and pages stay usable."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from interfaces.console.frame import PLACES
from tests.console.conftest import Console, Look
from tests.infrastructure.nodes import ask
from tests.waiting import eventually

SCRIPT = "<script>window.owned=1</script>"
HOSTILE = (
    SCRIPT,
    '"><img src=x onerror=window.owned=1>',
    "'-window.owned=1-'",
    "</title></textarea></pre><svg onload=window.owned=1>",
    "javascript:window.owned=1",
    "{{ 7*7 }}{% raise %}${7*7}",
    "\u202eright to left\u202c שלום مرحبا",
    "👩🏽\u200d🚀🧪" * 8,
    "W" * 200,
    "a/b?c=d&e#f%2F..",
)
MANY = 10_000


@pytest.fixture(scope="module")
def hostile(console: Console) -> list[str]:
    """A job of each name: its kind, queue, worker, step, message, error, label and file are called so."""
    ids = []
    for n, name in enumerate(HOSTILE):
        short = name[:60]
        queue, worker = name[:180] + str(n), name
        id = console.create(kind=name, queue=queue, labels={short: name}, input={name: name}, max_attempts=1)
        ids.append(id)
        claim = {"worker": worker, "queues": [queue]}
        assert len(console.http.post("/v1/claims", json=claim).raise_for_status().json()["jobs"]) == 1
        told = {"job_id": id, "attempt": 1}
        reports: list[Any] = [
            {**told, "type": "progressed", "progress": 0.5, "step": name, "message": name, "output": name}
        ]
        if n % 2:
            reports.append({**told, "type": "failed", "error": {"type": name, "message": name}, "final": True})
        answer = console.http.post("/v1/reports", json={"worker": worker, "reports": reports}).json()
        assert all(result["ok"] for result in answer["results"]), answer
        reason = {"reason": name}
        if not n % 2:
            console.http.post(f"/v1/jobs/{id}/cancellations", json=reason).raise_for_status()
    eventually(lambda: SCRIPT in {worker["name"] for worker in console.http.get("/v1/workers").json()["items"]}, 60)
    return ids


def harmless(page: Page) -> None:
    assert page.evaluate("window.owned") is None
    assert page.locator("main img[src=x], main svg[onload]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]  # type: ignore[index]


def test_names_are_text_on_every_page(console: Console, look: Look, hostile: list[str]) -> None:
    page = look(f"{console.url}/new", width=360)
    for path in (*(place.path for place in PLACES), *(f"/jobs/{id}" for id in hostile), "/jobs?limit=1000"):
        page.goto(f"{console.url}{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        harmless(page)
    page.goto(f"{console.url}/workers")
    expect(page.get_by_role("heading", name=SCRIPT, exact=True)).to_be_visible()
    page.goto(f"{console.url}/log?minutes=60")
    expect(page.locator(".row.event", has_text=SCRIPT).first).to_be_visible()
    harmless(page)
    for name in HOSTILE:
        page.goto(f"{console.url}/jobs")
        page.get_by_text("Filter", exact=True).first.click()
        page.locator("input[name=kind]").first.fill(name)
        page.get_by_role("button", name="Filter", exact=True).click()
        expect(page.locator("#rows .row")).to_have_count(1)
        expect(page.locator("input[name=kind]").first).to_have_value(name)
        harmless(page)


def test_a_queue_of_any_name_is_paused(console: Console, look: Look, hostile: list[str]) -> None:
    page = look(f"{console.url}/queues?limit=1000")
    for n, name in enumerate(HOSTILE):
        queue = name[:180] + str(n)
        row = page.locator(".row", has=page.get_by_role("heading", name=queue, exact=True))
        row.locator("summary").click()
        row.get_by_role("textbox", name="Reason").fill(SCRIPT)
        row.get_by_role("button", name="Pause").click()
        expect(row).to_contain_text(SCRIPT)
        row.get_by_role("button", name="Go on").click()
        expect(row.locator(".badge")).to_have_text("live")
    harmless(page)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_queue_that_no_address_can_name_says_so(console: Console, look: Look, dsn: str, name: str) -> None:
    """Such ones may be there from before they were refused."""
    id = console.create(queue=f"once{name}", run_at="2999-01-01T00:00:00Z")
    ask(dsn, "UPDATE jobs SET queue = %s WHERE id = %s", [name, id])
    page = look(f"{console.url}/queues")
    row = page.locator(".row", has=page.get_by_role("heading", name=name, exact=True))
    expect(row).to_contain_text("cannot be paused from here")
    expect(row.locator("form")).to_have_count(0)


def test_a_deck_of_hostile_titles_is_a_video(console: Console, look: Look) -> None:
    slides = [{"title": name[:100], "bullets": [name[:100]], "seconds": 0.5} for name in HOSTILE[:3]]
    deck = {"title": SCRIPT, "slides": slides, "size": "720p"}
    id = console.http.post("/v1/presentations", json=deck).raise_for_status().json()["id"]
    page = look(f"{console.url}/jobs/{id}")
    expect(page.locator("#state .badge")).to_have_text("completed", timeout=90_000)
    expect(page.locator("video")).to_be_visible()
    harmless(page)


def test_as_many_labels_as_there_may_be_are_shown(console: Console, look: Look) -> None:
    labels = {f"label-{n:03}-{'l' * 80}": f"value of {n} {'v' * 400}" for n in range(65)}
    refused = console.http.post("/v1/jobs", json={"kind": "many", "input": 1, "labels": labels})
    assert refused.json()["errors"][0]["field"] == "labels"
    labels.popitem()
    page = look(f"{console.url}/jobs/{console.create(labels=labels)}", width=360)
    expect(page.locator("#facts dd", has_text="value of 63")).to_be_visible()
    harmless(page)


class TestAJobOfTenThousandEvents:
    @pytest.fixture(scope="class")
    def long(self, console: Console) -> str:
        id = console.create(queue="very-long", labels={"a": "b"})
        console.claim("very-long")
        for begin in range(0, MANY, 1000):
            reports = [
                {"job_id": id, "attempt": 1, "type": "progressed", "progress": n / MANY, "message": f"row {n}"}
                for n in range(begin, begin + 1000)
            ]
            answer = console.http.post("/v1/reports", json={"worker": "w1", "reports": reports}).json()
            assert all(result["ok"] for result in answer["results"])
        return id

    def test_its_page_is_small_and_the_slider_leads_anywhere(self, console: Console, look: Look, long: str) -> None:
        last = console.job(long)["version"]
        assert last == MANY + 2
        assert len(console.http.get(f"/jobs/{long}").content) < 400_000
        page = look(f"{console.url}/jobs/{long}")
        expect(page.locator("#version-shown")).to_have_text(f"{last} of {last}")
        expect(page.locator("#events li")).to_have_count(100)
        assert page.locator("svg.timeline circle").count() <= 510
        timeline, earlier = page.locator("#timeline"), page.get_by_role("link", name="Earlier", exact=True)
        expect(timeline).to_contain_text(f"Drawn from events {last - 499} to {last} of {last}")
        earlier.click()
        expect(timeline).to_contain_text(f"Drawn from events {last - 999} to {last - 500} of {last}")
        page.get_by_role("link", name="Later", exact=True).click()
        expect(timeline).to_contain_text(f"Drawn from events {last - 499} to {last} of {last}")
        expect(page.locator("#events")).to_contain_text("the API has them, 10000 at a time")
        slider = page.get_by_label("Version", exact=True)
        slider.fill("5000")
        expect(page.locator("#travel")).to_contain_text("row 4997")
        expect(page.locator("#event-5000")).to_be_visible()
        page.get_by_role("button", name="Later version").click()
        expect(page.locator("#version-shown")).to_have_text(f"5001 of {last}")
        expect(page.locator("#travel")).to_contain_text("row 4998")
        slider.press("ArrowLeft")
        expect(page).to_have_url(f"{console.url}/jobs/{long}?at_version=5000")
        slider.press("Home")
        expect(page.locator("#travel")).to_contain_text("With this event the job began")
        expect(timeline).to_contain_text(f"Drawn from events 1 to 500 of {last}")
        expect(earlier).to_have_count(0)
        expect(page.locator("#event-1")).to_be_visible()
        page.locator("#event-1 summary").click()
        expect(page.locator("#event-1 pre")).to_contain_text('"type": "job.created"')


class TestVeryManyQueuesAndWorkers:
    @pytest.fixture(scope="class")
    def many(self, console: Console) -> int:
        jobs = [{"kind": "crowd", "queue": f"crowd-{n:03}", "input": n, "heartbeat_timeout": 3600} for n in range(500)]
        console.http.post("/v1/jobs/batch", json={"jobs": jobs}).raise_for_status()
        for n in range(500):
            claim = {"worker": f"crowd-{n:03}", "queues": [f"crowd-{n:03}"]}
            assert console.http.post("/v1/claims", json=claim).raise_for_status().json()["jobs"]
        eventually(lambda: len(console.http.get("/v1/workers?limit=1000").json()["items"]) >= 500, 60)
        return 500

    @pytest.mark.parametrize("path", ["/queues", "/workers"])
    def test_pages_lead_through_all(self, console: Console, look: Look, many: int, path: str) -> None:
        page = look(f"{console.url}{path}")
        seen: list[str] = []
        for _ in range(40):
            expect(page.locator(".rows .row").first).to_be_visible()
            seen += page.locator(".rows h2").all_inner_texts()
            following = page.get_by_role("link", name="Next page")
            if not following.count():
                break
            address = page.url
            following.click()
            expect(page).not_to_have_url(address)
        assert len(seen) == len(set(seen))
        assert {f"crowd-{n:03}" for n in range(many)} <= set(seen)

    def test_the_overview_shows_some_and_leads_to_all(self, console: Console, look: Look, many: int) -> None:
        page = look(f"{console.url}/overview", width=360)
        page.get_by_role("link", name="All queues").click()
        expect(page).to_have_url(f"{console.url}/queues")
        assert not Axe().run(page).violations_count

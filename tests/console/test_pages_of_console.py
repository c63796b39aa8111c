"""Every page of the console: fit for a keyboard, a screen reader, a telephone and the dark; and what operators do."""

import re
from typing import Any
from uuid import UUID

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from interfaces.console.frame import HEADERS, PLACES
from tests.console.conftest import Console, Look, Theme, tab_to
from tests.infrastructure.views import UNHEARD_OF, append_by_hand
from tests.waiting import eventually

NARROW = 360
TIGHT = """all => all.filter((part) => {
    const text = document.createRange();
    text.selectNodeContents(part);
    const room = part.getBoundingClientRect().right - parseFloat(getComputedStyle(part).paddingRight);
    return part.checkVisibility() && text.getBoundingClientRect().right > room + 1;
}).map((part) => part.textContent)"""
"""Those among elements whose text needs more room than they have."""


@pytest.fixture(scope="module")
def story(console: Console) -> dict[str, str]:
    """Jobs in many states: one that ran twice and failed, one that runs, one that waits, one of long words."""
    failed = console.create(queue="story", max_attempts=1)
    console.claim("story")
    console.report(failed, "progressed", progress=0.5, step="weigh", output={"kg": 3})
    console.report(failed, "failed", error={"type": "ScaleBroken", "message": "it shows 7 kg for nothing"}, final=True)
    running = console.create(queue="story")
    console.claim("story")
    console.report(running, "progressed", progress=0.25, step="weigh", message="weighing")
    waiting = console.create(queue="story", labels={"shelf": "a"})
    long = console.create(kind="k" * 200, queue="q" * 200, labels={"l" * 100: "v" * 500}, input="i" * 5000)
    worker, error = "w" * 200, {"type": "E" * 200, "message": "e" * 2000}
    console.http.post("/v1/claims", json={"worker": worker, "queues": ["q" * 200]}).raise_for_status()
    said = {"job_id": long, "attempt": 1}
    told = {**said, "type": "progressed", "progress": 0.5, "step": "s" * 200, "message": "m" * 2000}
    reports = [told, {**said, "type": "failed", "error": error, "final": True}]
    answer = console.http.post("/v1/reports", json={"worker": worker, "reports": reports}).json()
    assert [result["ok"] for result in answer["results"]] == [True, True], answer
    products = {
        "page": ("visualizations", {"question": "What is 15 % of 80?"}),
        "video": ("presentations", {"title": "t", "slides": [{"title": "s", "seconds": 1}], "size": "720p"}),
    }
    made = {name: console.http.post(f"/v1/{path}", json=body).json()["id"] for name, (path, body) in products.items()}
    eventually(lambda: {console.job(id)["status"] for id in made.values()} == {"completed"}, 90)
    return {"failed": failed, "running": running, "waiting": waiting, "long": long, **made}


def paths(story: dict[str, str]) -> list[str]:
    jobs = [f"/jobs/{story[name]}" for name in ("failed", "running", "waiting", "long", "page", "video")]
    return [
        *(place.path for place in PLACES),
        *jobs,
        "/jobs?queue=story&status=queued",
        "/jobs?queue=nowhere",
        "/jobs/nonsense",
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(console: Console, look: Look, story: dict[str, str], theme: Theme) -> None:
    axe, page = Axe(), look(f"{console.url}/new", theme=theme, strict=False)
    found = []
    for path in paths(story):
        shown(page, console, path)
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        results = axe.run(page)
        if results.violations_count:
            found.append(f"{path}\n{results.generate_report()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_a_telephone_and_asks_for_nothing_outside(
    console: Console, look: Look, story: dict[str, str], theme: Theme
) -> None:
    page = look(f"{console.url}/new", width=NARROW, theme=theme)
    wide, broken = {}, {}
    for path in paths(story)[:-1]:  # a refused address is an error to the browser
        shown(page, console, path)
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        if (width := page.evaluate("document.documentElement.scrollWidth")) != NARROW:
            wide[path] = width
        whole = "all => all.filter((part) => part.getClientRects().length > 1).map((part) => part.textContent)"
        parts = page.locator("time, .short").evaluate_all(whole) + page.locator("button, .badge").evaluate_all(TIGHT)
        if parts:
            broken[path] = parts
    assert (wide, broken) == ({}, {})


def test_the_first_key_skips_to_the_content(console: Console, look: Look) -> None:
    page = look(f"{console.url}/jobs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{console.url}/jobs#main")


def test_pages_are_guarded_by_their_headers(console: Console) -> None:
    for path, status in (("/jobs", 200), ("/jobs?kind=", 303), ("/sign-in", 303), ("/jobs/nonsense", 400)):
        answer = httpx2.get(f"{console.url}{path}")
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS), path
    page = httpx2.get(f"{console.url}/jobs").text
    assert "<script>" not in page
    assert " style=" not in page
    assert " onclick=" not in page


def test_files_of_the_console_are_kept_by_browsers(console: Console) -> None:
    first = httpx2.get(f"{console.url}/static/console.css")
    again = httpx2.get(f"{console.url}/static/console.css", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert httpx2.get(f"{console.url}/static/..%2Fframe.py").status_code == 404


def test_an_empty_installation_says_what_to_do_first(new_database: Any, start: Any, look: Look) -> None:
    server = start("api", "--port", "0", DATABASE_URL=new_database())
    page = look(f"{server.url}/jobs")
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    page.get_by_role("link", name="make something new").click()
    expect(page.get_by_role("textbox", name="Question")).to_be_visible()
    for path, says in (
        ("overview", "No queue yet"),
        ("workers", "jobledger worker"),
        ("failures", "Nothing has failed"),
        ("queues", "A queue is there as soon as a job names it"),
        ("log", "what happens is shown here as it happens"),
        ("audit", "Nobody yet."),
        ("keys", "jobledger keys create --name anna --role admin"),
    ):
        page.goto(f"{server.url}/{path}")
        expect(page.get_by_text(says).first).to_be_visible()


def test_a_parked_projection_is_told_of_in_words_and_goes_on(
    start: Any, new_database: Any, look: Look, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dsn = new_database()
    console = Console(start("api", "--port", "0", DATABASE_URL=dsn).url)
    start("projector", DATABASE_URL=dsn).wait_for_line("following the log")
    id = console.create()
    append_by_hand(dsn, UUID(id), UNHEARD_OF)
    page = look(f"{console.url}/overview")
    health = page.locator(".card", has=page.get_by_role("heading", name="Health"))
    expect(health).to_contain_text("Projection stats is parked")
    expect(health.locator(".badge")).to_have_text("ready")
    page.goto(f"{console.url}/projections")
    for name in ("stats", "workers"):
        row = page.locator(".row", has=page.get_by_role("heading", name=name, exact=True))
        expect(row.locator(".badge").first).to_have_text("parked")
        expect(row.get_by_role("link", name=f"version 2 of …{id[-8:]}")).to_be_visible()
        form = row.get_by_role("form", name=f"Resume {name}")
        form.get_by_role("combobox").select_option("skip")
        form.get_by_role("textbox", name="Reason").fill("written by hand")
        form.get_by_role("button", name="Resume").click()
        expect(row.locator(".badge").first).to_have_text("live")
        expect(row).to_contain_text("1 skipped")
    console.http.close()


def test_a_job_is_asked_for_and_cancelled_with_the_keyboard_alone(console: Console, look: Look) -> None:
    page = look(f"{console.url}/jobs")
    tab_to(page, page.get_by_role("link", name="New").last)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New", level=1)).to_be_visible()
    tab_to(page, page.get_by_role("textbox", name="Question"))
    page.keyboard.type("What is 25 % of 60?")
    tab_to(page, page.get_by_role("button", name="Make a page"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*")
    expect(page.locator("#state .badge")).to_have_text("completed")
    tab_to(page, page.get_by_role("textbox", name="Reason"))
    page.keyboard.type("once more")
    tab_to(page, page.get_by_role("button", name="Requeue"))
    page.keyboard.press("Enter")
    expect(page.locator("#events")).to_contain_text("once more")
    page.goto(f"{console.url}/jobs/{console.create(queue='by-keyboard')}")
    tab_to(page, page.get_by_role("textbox", name="Reason"))
    page.keyboard.type("asked twice")
    page.keyboard.press("Enter")
    expect(page.locator("#state .badge")).to_have_text("cancelled")
    expect(page.locator("#actions")).to_be_focused()
    tab_to(page, page.get_by_role("textbox", name="Reason"), 2)
    page.keyboard.type("needed after all")
    tab_to(page, page.get_by_role("button", name="Requeue"), 2)
    page.keyboard.press("Space")
    expect(page.locator("#state .badge")).to_have_text("queued")
    expect(page.locator("#actions")).to_be_focused()


def test_jobs_are_filtered_and_moved_and_the_log_paused_with_the_keyboard_alone(console: Console, look: Look) -> None:
    for _ in range(2):
        console.create(queue="keys-only")
    page = look(f"{console.url}/jobs")
    tab_to(page, page.locator("#filters summary"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("checkbox", name="queued"))
    page.keyboard.press("Space")
    tab_to(page, page.get_by_role("textbox", name="Queue"))
    page.keyboard.type("keys-only")
    page.keyboard.press("Enter")
    expect(page.locator("#rows .row")).to_have_count(2)
    tab_to(page, page.locator("#bulk summary"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("textbox", name="Reason"))
    page.keyboard.type("not needed")
    count = page.get_by_role("button", name="Count")
    tab_to(page, count)
    page.keyboard.press("Enter")
    expect(page.locator("#bulk .answer")).to_have_text("Found 2 jobs.")
    expect(count).to_be_focused()
    tab_to(page, page.get_by_role("button", name="Cancel 2 jobs"), 1)
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/0*")
    expect(page.locator("#state .badge")).to_have_text("completed")
    page.goto(f"{console.url}/log?type=job.created&kind=keys-only")
    tab_to(page, page.get_by_role("button", name="Pause"))
    page.keyboard.press("Space")
    console.create(kind="keys-only")
    expect(page.get_by_role("button", name="Go on (1 held)")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator(".row.event")).to_have_count(1)


def test_the_overview_counts_and_shows_what_runs(console: Console, look: Look, story: dict[str, str]) -> None:
    page = look(f"{console.url}/")
    expect(page).to_have_url(f"{console.url}/overview")
    expect(page.locator(".line", has_text="weighing")).to_be_visible()
    expect(page.locator(".tile", has_text="failed this hour").locator("b")).not_to_have_text("0")
    assert "failed" in str(page.locator("svg.chart").get_attribute("aria-label"))
    expect(page.locator(".badge.ready")).to_be_visible()


def test_failures_and_workers_are_listed(console: Console, look: Look, story: dict[str, str]) -> None:
    page = look(f"{console.url}/failures")
    row = page.locator(".row", has_text="ScaleBroken")
    expect(row).to_contain_text("it shows 7 kg for nothing")
    row.get_by_role("link").first.click()
    expect(page).to_have_url(f"{console.url}/jobs/{story['failed']}")
    page.goto(f"{console.url}/workers")
    expect(page.locator(".row", has_text="w1")).to_contain_text("started")


def test_a_queue_is_paused_and_goes_on(console: Console, look: Look, story: dict[str, str]) -> None:
    page = look(f"{console.url}/queues")
    row = page.locator(".row", has_text="story")
    row.get_by_text("Pause story").click()
    row.get_by_role("textbox", name="Reason").fill("the scales are broken")
    row.get_by_role("button", name="Pause").click()
    expect(row).to_contain_text("the scales are broken")
    [paused] = [q for q in console.http.get("/v1/queues").json()["items"] if q["name"] == "story"]
    assert paused["paused"]["reason"] == "the scales are broken"
    row.get_by_role("button", name="Go on").click()
    expect(row.locator(".badge")).to_have_text("live")


def test_a_projection_is_verified_and_rebuilt(console: Console, look: Look, story: dict[str, str]) -> None:
    page = look(f"{console.url}/projections")
    row = page.locator(".row", has_text="generation").filter(has=page.get_by_role("heading", name="failures"))
    row.get_by_text("Rebuild or verify failures").click()
    row.get_by_role("form", name="Verify failures").get_by_role("textbox").fill("a look")
    row.get_by_role("button", name="Verify").click()
    expect(row).to_contain_text("0 differences")
    row.get_by_role("form", name="Rebuild failures").get_by_role("textbox").fill("another look")
    row.get_by_role("button", name="Rebuild").click()
    expect(row).to_contain_text("generation 2")


def test_the_log_is_followed_filtered_and_paused(console: Console, look: Look) -> None:
    page = look(f"{console.url}/log?type=job.created&kind=tailed")
    expect(page.locator("#quiet")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("live")
    id = console.create(kind="tailed")
    rows = page.locator(".row.event")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    console.create(kind="tailed")
    expect(page.get_by_role("button", name="Go on (1 held)")).to_be_visible()
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Go on (1 held)").click()
    expect(rows).to_have_count(2)
    rows.last.get_by_role("link").click()
    expect(page).to_have_url(f"{console.url}/jobs/{id}?at_version=1")


def test_the_columns_of_the_log_stand_one_below_the_other(console: Console, look: Look) -> None:
    id = console.create(kind="columns", queue="columns")
    console.claim("columns")
    console.http.post(f"/v1/jobs/{id}/cancellations", json={"reason": "the longest name of a type"}).raise_for_status()
    page = look(f"{console.url}/log?kind=columns")
    expect(page.locator(".row.event .type")).to_have_text(["job.cancel_requested", "job.started", "job.created"])
    for column in (".type", "a", ".grow"):
        places = page.locator(f".row.event {column}").evaluate_all("all => all.map((e) => e.getBoundingClientRect().x)")
        assert len(set(places)) == 1, column


def test_the_audit_page_shows_the_checkpoint(console: Console, look: Look, story: dict[str, str]) -> None:
    page = look(f"{console.url}/audit")
    expect(page.get_by_role("heading", name="Signed checkpoint")).to_be_visible()
    expect(page.locator("#checkpoint pre")).to_contain_text("jobledger/")


def test_a_browser_verifies_that_the_log_goes_on_from_what_it_saw(
    console: Console, look: Look, story: dict[str, str]
) -> None:
    page = look(f"{console.url}/audit", strict=False)
    verify, answer = page.get_by_role("button", name="Verify in this browser"), page.locator(".answer")
    verify.click()
    expect(answer).to_contain_text("for the first time")
    for _ in range(3):  # trees of other shapes
        before = sealed(console)
        console.create(queue="sealed-next")
        eventually(lambda before=before: sealed(console) > before, 60, "the seal")  # type: ignore[misc]
        verify.click()
        expect(answer).to_contain_text(re.compile("Verified: .* that this browser saw on"))
    forge = "(seen) => { const [log] = Object.values(seen); %s; localStorage['jobledger.seen'] = JSON.stringify(seen) }"
    kept = page.evaluate("JSON.parse(localStorage['jobledger.seen'])")
    for forged in ("log.size -= 1", "log.size += 1000", "log.root = '00'.repeat(32)"):
        page.evaluate(forge % forged, kept)
        verify.click()
        expect(answer).to_contain_text("NOT verified: the log is not what this browser saw")
        expect(answer).to_have_class("answer bad")
    page.evaluate(forge % "", kept)
    page.route("**/v1/audit/keys", lambda route: route.fulfill(json={"items": []}))
    verify.click()
    expect(answer).to_contain_text("no key that is listed here signed")


def sealed(console: Console) -> int:
    return int(console.http.get("/v1/audit/checkpoint").text.splitlines()[1])


def shown(page: Page, console: Console, path: str) -> None:
    page.goto(f"{console.url}{path}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()

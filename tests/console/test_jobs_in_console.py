"""Jobs in a browser: asked for, watched through a crash, looked at as they were, cancelled and requeued."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.console.conftest import Console, Look
from tests.waiting import eventually


def test_a_question_is_typed_and_its_page_is_shown(console: Console, look: Look) -> None:
    page = look(f"{console.url}/new")
    page.get_by_role("textbox", name="Question").fill("What is 15 % of 80?")
    page.get_by_role("button", name="Make a page").click()
    page.wait_for_url("**/jobs/*")
    expect(page.locator("#state .badge")).to_have_text("completed")
    frame = page.frame_locator("iframe[title='The page']")
    expect(frame.get_by_text("15 %").first).to_be_visible()
    assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts"
    expect(page.locator("svg.timeline .lane").nth(1)).to_contain_text("attempt 1")
    page.get_by_role("button", name="Verify in this browser").click()
    expect(page.locator("#seal .answer")).to_contain_text("Verified")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the bundle").click()
    assert download.value.suggested_filename.endswith(".json")


def test_a_file_is_a_question_too(console: Console, look: Look, question_file: Path) -> None:
    page = look(f"{console.url}/new")
    page.locator("#file").set_input_files(question_file)
    page.get_by_role("button", name="Make a page").click()
    page.wait_for_url("**/jobs/*")
    assert console.job(page.url.rsplit("/", 1)[1])["input"] == {"question": "What is 15 % of 80?"}


def test_a_file_is_dropped(console: Console, look: Look) -> None:
    page = look(f"{console.url}/new")
    dropped = page.evaluate_handle("""() => {
        const carried = new DataTransfer();
        carried.items.add(new File(["What is 20 % of 60?"], "question.txt", { type: "text/plain" }));
        return carried;
    }""")
    card = page.locator("section.card", has=page.locator("form[data-question]"))
    card.dispatch_event("dragover", {"dataTransfer": dropped})
    expect(card).to_have_class("card over")
    card.dispatch_event("drop", {"dataTransfer": dropped})
    expect(card).to_have_class("card")
    page.get_by_role("button", name="Make a page").click()
    page.wait_for_url("**/jobs/*")
    assert console.job(page.url.rsplit("/", 1)[1])["input"] == {"question": "What is 20 % of 60?"}
    expect(page.locator("#state .badge")).to_have_text("completed")


@pytest.mark.parametrize("given", ["typed", "a file"])
def test_a_deck_is_given_as_json(console: Console, look: Look, tmp_path: Path, given: str) -> None:
    deck = {"title": "As JSON", "slides": [{"title": "One", "bullets": ["a"], "seconds": 1}], "size": "720p"}
    page = look(f"{console.url}/new")
    page.get_by_text("Or as JSON").click()
    if given == "typed":
        page.get_by_label("Deck", exact=True).fill(json.dumps(deck))
    else:
        file = tmp_path / "deck.json"
        file.write_text(json.dumps(deck))
        page.get_by_label("Or a .json file").set_input_files(file)
        expect(page.get_by_label("Deck", exact=True)).to_have_value(json.dumps(deck))
    page.get_by_role("button", name="Make a video").click()
    page.wait_for_url("**/jobs/*")
    expect(page.locator("video")).to_be_visible()
    asked = console.job(page.url.rsplit("/", 1)[1])["input"]
    assert (asked["title"], asked["size"]) == ("As JSON", "720p")
    assert [(slide["title"], slide["bullets"]) for slide in asked["slides"]] == [("One", ["a"])]


def test_json_that_is_none_is_told(console: Console, look: Look) -> None:
    page = look(f"{console.url}/new", strict=False)  # a refused request is an error to the browser
    page.get_by_text("Or as JSON").click()
    page.get_by_label("Deck", exact=True).fill('{"title": ')
    page.get_by_role("button", name="Make a video").click()
    expect(page.locator("form[data-deck] .answer")).not_to_be_empty()
    expect(page).to_have_url(f"{console.url}/new")


def test_a_deck_is_filled_in_and_its_video_plays(console: Console, look: Look) -> None:
    page = look(f"{console.url}/new")
    form = page.locator("form[data-deck]")
    form.locator("#title").fill("Two facts")
    form.get_by_label("Size").select_option("720p")
    form.locator("[name=slide-title]").fill("First")
    form.locator("[name=slide-bullets]").fill("one\ntwo")
    form.get_by_role("button", name="Add a slide").click()
    form.locator("[name=slide-title]").nth(1).fill("Second")
    form.get_by_role("button", name="Make a video").click()
    page.wait_for_url("**/jobs/*")
    video = page.locator("video")
    expect(video).to_be_visible()
    eventually(lambda: video.evaluate("video => video.readyState >= 1"))  # waiting in the page itself needs eval
    assert video.evaluate("async (video) => { video.muted = true; await video.play(); return video.duration }") > 4
    asked = console.job(page.url.rsplit("/", 1)[1])["input"]
    assert [slide["title"] for slide in asked["slides"]] == ["First", "Second"]
    assert asked["slides"][0]["bullets"] == ["one", "two"]


def test_what_is_wrong_with_a_deck_is_told(console: Console, look: Look) -> None:
    page = look(f"{console.url}/new", strict=False)  # a refused request is an error to the browser
    page.get_by_role("button", name="Make a video").click()
    expect(page.locator("form[data-deck] .answer")).to_contain_text("title")


def test_a_page_lives_through_the_crash_of_its_server(dsn: str, start: Any, look: Look, port: int) -> None:
    server = start("api", "--port", str(port), DATABASE_URL=dsn)
    console = Console(server.url)
    id = console.create(queue="crash")
    console.claim("crash")
    page = look(f"{console.url}/jobs/{id}", strict=False)
    console.report(id, "progressed", progress=0.25, step="first", output=1)
    expect(page.locator("#state .says")).to_contain_text("25 %")
    expect(page.locator("#connection")).to_have_text("live")
    server.kill()
    expect(page.locator("#connection")).to_have_text("reconnecting…")
    again = start("api", "--port", str(port), DATABASE_URL=dsn)
    assert again.url == console.url
    console.report(id, "progressed", progress=0.5, step="second", output=2)
    expect(page.locator("#state .says")).to_contain_text("second")
    expect(page.locator("#connection")).to_have_text("live")
    console.report(id, "completed", result={"ok": True})
    expect(page.locator("#state .badge")).to_have_text("completed")
    expect(page.locator("#events .version")).to_have_text(["1", "2", "3", "4", "5"])
    expect(page.locator("#timeline .stretch.step")).to_have_count(2)
    console.http.close()


def test_what_happens_while_the_server_of_a_page_is_dead_is_shown_once(
    dsn: str, start: Any, look: Look, port: int
) -> None:
    """The worker's server lives on, so steps are made that the page's server can only tell of when it is back."""
    server = start("api", "--port", str(port), DATABASE_URL=dsn)
    other = Console(start("api", "--port", "0", DATABASE_URL=dsn).url)
    kind = f"dead-{port}"
    id = other.create(kind=kind, queue=kind)
    other.claim(kind)
    page = look(f"{server.url}/jobs/{id}", strict=False)
    log = look(f"{server.url}/log?kind={kind}", strict=False)
    told = log.locator(".row.event b")
    for n in range(1, 4):
        other.report(id, "progressed", progress=n / 10, step=f"step-{n}", output=n)
    expect(page.locator("#events .version")).to_have_text(["1", "2", "3", "4", "5"])
    expect(told).to_have_count(5)
    server.kill()
    expect(page.locator("#connection")).to_have_text("reconnecting…")
    expect(log.locator("#connection")).to_have_text("reconnecting…")
    for n in range(4, 8):
        other.report(id, "progressed", progress=n / 10, step=f"step-{n}", output=n)
    again = start("api", "--port", str(port), DATABASE_URL=dsn)
    assert again.url == server.url
    expect(page.locator("#timeline .stretch.step")).to_have_count(7)
    other.report(id, "completed", result=7)
    expect(page.locator("#state .badge")).to_have_text("completed")
    expect(page.locator("#events .version")).to_have_text([str(n) for n in range(1, 11)])
    expect(page.locator("#timeline .stretch.step")).to_have_count(7)
    expect(told).to_have_text(["job.completed", *["job.progressed"] * 7, "job.started", "job.created"])
    expect(log.locator(".row.event a")).to_have_text([re.compile(f" v{n}$") for n in range(10, 0, -1)])
    other.http.close()


def test_a_slider_that_was_moved_before_its_script_was_there_travels_all_the_same(console: Console, look: Look) -> None:
    id = console.create(queue="early")
    console.claim("early")
    page = look(f"{console.url}/jobs")
    script: list[Route] = []
    page.route("**/travel.js*", lambda route: script.append(route))
    with page.expect_request("**/travel.js*"):
        page.goto(f"{console.url}/jobs/{id}", wait_until="commit")
    page.get_by_role("slider", name="Version").fill("1")
    expect(page.locator("#travel .badge")).to_have_text("running")
    eventually(lambda: page.evaluate("1") and script)
    script[0].continue_()
    expect(page.locator("#travel .badge")).to_have_text("queued")


def test_the_slider_travels_through_the_versions(console: Console, look: Look) -> None:
    id = console.create(queue="travel")
    console.claim("travel")
    console.report(id, "progressed", progress=0.5, step="half")
    console.report(id, "completed", result="done")
    page = look(f"{console.url}/jobs/{id}")
    slider = page.get_by_role("slider", name="Version")
    slider.focus()
    slider.press("Home")
    expect(page.locator("#travel .badge")).to_have_text("queued")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    expect(page.locator("#travel")).to_contain_text("half")
    expect(page.locator("#travel .changes")).to_contain_text("progress")
    expect(page.locator("#travel .badge")).to_have_text("running")
    expect(page).to_have_url(f"{console.url}/jobs/{id}?at_version=3")
    page.reload()
    expect(page.locator("#travel .badge")).to_have_text("running")
    expect(page.locator("#state .badge")).to_have_text("completed")
    slider.press("End")
    expect(page.locator("#travel .badge")).to_have_text("completed")


def test_a_step_of_the_slider_that_gets_no_answer_is_asked_again(console: Console, look: Look) -> None:
    id = console.create(queue="asked-again")
    console.http.post(f"/v1/jobs/{id}/cancellations", json={"reason": "a test"}).raise_for_status()
    page = look(f"{console.url}/jobs/{id}", strict=False)  # a request without an answer is an error to the browser
    expect(page.locator("#travel .badge")).to_have_text("cancelled")
    expect(page.locator("#seal[data-again]")).to_have_count(0)  # from now on nothing else asks
    page.route("**/jobs/*?at_version=1", lambda route: route.abort(), times=1)
    page.get_by_role("slider", name="Version").press("Home")
    expect(page.locator("#travel .badge")).to_have_text("queued")


def test_a_job_is_cancelled_and_requeued_with_a_reason(console: Console, look: Look) -> None:
    id = console.create(queue="courses")
    page = look(f"{console.url}/jobs/{id}")
    page.get_by_role("textbox", name="Reason").fill("asked twice")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state .badge")).to_have_text("cancelled")
    expect(page.locator("#events")).to_contain_text("asked twice")
    page.get_by_role("textbox", name="Reason").fill("needed after all")
    page.get_by_label("afresh").check()
    page.get_by_role("button", name="Requeue").click()
    expect(page.locator("#state .badge")).to_have_text("queued")
    events = console.http.get(f"/v1/jobs/{id}/events").json()["items"]
    assert (events[-1]["type"], events[-1]["data"]) == (
        "job.requeued",
        {"reason": "needed after all", "afresh": True},
    )
    console.claim("courses")  # the page follows a job that was sent round again
    expect(page.locator("#state .badge")).to_have_text("running")


def test_the_list_filters_pages_and_lives(console: Console, look: Look) -> None:
    ids = [console.create(queue="listed", labels={"shelf": "a"}) for _ in range(3)]
    page = look(f"{console.url}/jobs")
    page.get_by_text("Filter", exact=True).first.click()
    page.get_by_role("checkbox", name="queued").check()
    page.get_by_role("textbox", name="Queue").fill("listed")
    page.get_by_role("textbox", name="Label").fill("shelf:a")
    page.get_by_label("Created after").fill("2020-01-01T00:00")
    page.get_by_label("On a page").fill("2")
    page.get_by_role("button", name="Filter").click()
    for asked in (
        "status=queued",
        "queue=listed",
        "label=shelf%3Aa",
        "limit=2",
        "created_after=2020-01-01T00%3A00%3A00Z",
    ):
        expect(page).to_have_url(re.compile(re.escape(asked)))
    assert "kind=" not in page.url
    expect_jobs(page, ids[2], ids[1])
    page.get_by_role("link", name="Next page").click()
    expect_jobs(page, ids[0])
    console.claim("listed")
    expect(page.get_by_text("No job matches")).to_be_visible()


def test_the_slider_grows_while_it_stands_in_the_past(console: Console, look: Look) -> None:
    id = console.create(queue="grows")
    page = look(f"{console.url}/jobs/{id}?at_version=1")
    console.claim("grows")
    expect(page.locator("#version-shown")).to_have_text("1 of 2")
    expect(page.locator("#state .badge")).to_have_text("running")
    expect(page.locator("#travel .badge")).to_have_text("queued")


def test_all_jobs_that_match_are_counted_and_cancelled(console: Console, look: Look) -> None:
    ids = [console.create(queue="bulk-test") for _ in range(3)]
    page = look(f"{console.url}/jobs?queue=bulk-test")
    page.get_by_text("Cancel or requeue all that match").click()
    page.get_by_role("textbox", name="Reason").fill("the shelf is closed")
    page.get_by_role("button", name="Count").click()
    page.get_by_role("button", name="Cancel 3 jobs").click()
    page.wait_for_url("**/jobs/0*")
    expect(page.locator("#state h1")).to_have_text("bulk")
    expect(page.locator("#state .badge")).to_have_text("completed")
    assert {console.job(id)["status"] for id in ids} == {"cancelled"}


def test_all_jobs_that_match_are_requeued(console: Console, look: Look) -> None:
    ids = [console.create(queue="bulk-again") for _ in range(2)]
    for id in ids:
        console.http.post(f"/v1/jobs/{id}/cancellations", json={"reason": "a test"}).raise_for_status()
    page = look(f"{console.url}/jobs?queue=bulk-again&status=cancelled")
    page.get_by_text("Cancel or requeue all that match").click()
    page.get_by_label("What").select_option("Requeue")
    page.get_by_role("textbox", name="Reason").fill("needed after all")
    page.get_by_role("button", name="Count").click()
    page.get_by_role("button", name="Requeue 2 jobs").click()
    page.wait_for_url("**/jobs/0*")
    expect(page.locator("#state .badge")).to_have_text("completed")
    for id in ids:
        last = console.http.get(f"/v1/jobs/{id}/events").json()["items"][-1]
        assert (last["type"], last["data"]["reason"]) == ("job.requeued", "needed after all")


@pytest.mark.parametrize("path", ["/jobs/not-an-id", "/jobs/0199e1b2-7a11-7d6f-9f6e-0123456789ab", "/jobs?color=red"])
def test_an_error_is_a_page(console: Console, look: Look, path: str) -> None:
    page = look(f"{console.url}{path}", strict=False)
    expect(page.get_by_role("heading", level=1)).not_to_be_empty()
    page.get_by_role("link", name="Back to the first page").click()
    expect(page).to_have_title("Overview · jobledger")


def expect_jobs(page: Page, *ids: str) -> None:
    links = page.locator("#rows .row .name")
    expect(links).to_have_count(len(ids))
    for link, id in zip(links.all(), ids, strict=True):
        expect(link).to_have_attribute("href", f"/jobs/{id}")

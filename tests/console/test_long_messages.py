"""Messages of thousands of characters: beside others they are cut, and where they are told whole, the page goes on."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.console.conftest import Console, Look

NARROW, SCREEN = 360, 800
MESSAGE = "the end is far away " * 450
SHOWN = MESSAGE[:240] + "…"


@pytest.fixture(scope="module")
def failed(console: Console) -> str:
    id = console.create(kind="wordy", queue="wordy", max_attempts=1)
    console.claim("wordy")
    console.report(id, "progressed", progress=0.5, message=MESSAGE[:2000])
    console.report(id, "failed", error={"type": "Wordy", "message": MESSAGE}, final=True)
    return id


def test_failures_and_the_log_show_how_it_begins(console: Console, look: Look, failed: str) -> None:
    page = look(f"{console.url}/failures", width=NARROW)
    expect(page.locator(".row", has_text="Wordy").locator("p").first).to_have_text(SHOWN)
    page = look(f"{console.url}/log?kind=wordy&type=job.failed", width=NARROW)
    expect(page.locator(".row.event small.grow")).to_have_text(SHOWN)


def test_why_tells_all_of_it_in_a_box_of_its_own(console: Console, look: Look, failed: str) -> None:
    page = look(f"{console.url}/jobs/{failed}", width=NARROW)
    expect(page.locator("#why")).to_contain_text(MESSAGE.strip())
    box = page.locator("#why").bounding_box()
    assert box is not None
    assert box["height"] < SCREEN / 2
    expect(page.locator("#events summary", has_text="job.failed")).to_contain_text(SHOWN)
    assert Axe().run(page).violations_count == 0


def test_what_runs_now_is_told_in_a_few_lines(console: Console, look: Look) -> None:
    id = console.create(kind="wordy", queue="wordy-too")
    console.claim("wordy-too")
    console.report(id, "progressed", progress=0.5, message=MESSAGE[:2000])
    page = look(f"{console.url}/overview", width=NARROW)
    expect(page.locator(".line", has_text=id[-8:]).locator("small")).to_have_text(SHOWN)

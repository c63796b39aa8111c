"""The page of a job: what can be done stands first, at every width in the order of its source; and it stays bounded."""

from itertools import pairwise
from typing import TypeAlias

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FloatRect, Page, expect

from interfaces.console.drawn import MOST_LANES
from tests.console.conftest import Console, Look, tab_to

Boxes: TypeAlias = dict[str, FloatRect]
WIDE, NARROW, SCREEN = 1280, 360, 800
"""Pixels: how wide a window and a telephone are, and how high that is."""
ATTEMPTS = 300


@pytest.fixture(scope="module")
def rich(console: Console) -> str:
    """A job that has everything on its page: a result, a file, labels, a seal."""
    id = console.create(queue="rich", labels={"shelf": "a"}, max_attempts=2)
    console.claim("rich")
    console.report(id, "progressed", progress=0.5, step="pack", message="two parcels", output={"parcels": 2})
    path = f"/v1/jobs/{id}/attempts/1/artifacts/label.txt?worker=w1"
    console.http.put(path, content=b"A-1041", headers={"Content-Type": "text/plain"}).raise_for_status()
    console.report(id, "completed", result={"parcels": 2})
    return id


def boxes(page: Page) -> Boxes:
    """Where each card of a page that is shown stands, in the order of the source."""
    cards: list[tuple[str, FloatRect]] = page.evaluate(
        """() => [...document.querySelectorAll("main .card")]
            .filter((card) => card.checkVisibility())
            .map((card) => {
                const { x, y, width, height } = card.getBoundingClientRect();
                return [card.id || "travels", { x, y: y + scrollY, width, height }];
            })"""
    )
    return dict(cards)


def beneath(upper: FloatRect, lower: FloatRect) -> bool:
    return lower["y"] >= upper["y"] + upper["height"]


def beside(left: FloatRect, right: FloatRect) -> bool:
    return right["x"] >= left["x"] + left["width"]


def test_on_a_telephone_what_can_be_done_stands_before_what_happened(console: Console, look: Look, rich: str) -> None:
    page = look(f"{console.url}/jobs/{rich}", width=NARROW)
    expect(page.get_by_role("link", name="Download the bundle")).to_be_visible()
    cards = boxes(page)
    order = ["state", "actions", "why", "result", "facts", "artifacts", "seal", "timeline", "travels", "events"]
    assert list(cards) == order  # in the source, and so for whoever listens or uses the keyboard
    assert all(beneath(cards[upper], cards[lower]) for upper, lower in pairwise(order))
    actions = cards["actions"]
    assert actions["y"] + actions["height"] <= SCREEN
    box = page.get_by_role("link", name="label.txt", exact=True).bounding_box()
    assert box is not None
    assert beneath(box, cards["timeline"])
    box = page.get_by_role("link", name="Download the bundle", exact=True).bounding_box()
    assert box is not None
    assert beneath(box, actions)
    page.locator("#main").focus()
    tab_to(page, page.get_by_role("link", name="Download the bundle"), 1)
    tab_to(page, page.get_by_role("textbox", name="Reason"), 1)
    tab_to(page, page.get_by_role("button", name="Requeue"), 1)


def test_a_long_message_and_error_do_not_push_the_actions_out_of_sight(console: Console, look: Look) -> None:
    id = console.create(queue="long-words", max_attempts=1)
    console.claim("long-words")
    error = {"type": "Long", "message": "the end of the error is " + "far away " * 200}
    console.report(id, "progressed", progress=0.5, message="word " * 400)
    console.report(id, "failed", error=error, final=True)
    page = look(f"{console.url}/jobs/{id}", width=NARROW)
    expect(page.get_by_role("link", name="Download the bundle")).to_be_visible()
    assert boxes(page)["actions"]["y"] <= SCREEN
    expect(page.locator("#why")).to_contain_text(error["message"].strip())


def test_in_a_window_a_job_has_two_columns(console: Console, look: Look, rich: str) -> None:
    page = look(f"{console.url}/jobs/{rich}", width=WIDE)
    expect(page.get_by_role("link", name="Download the bundle")).to_be_visible()
    cards = boxes(page)
    assert beside(cards["state"], cards["actions"])
    assert cards["state"]["y"] == cards["actions"]["y"]
    assert cards["state"]["height"] == cards["actions"]["height"]
    for column in (
        ["state", "why", "result", "timeline", "travels", "events"],
        ["actions", "facts", "artifacts", "seal"],
    ):
        assert all(beneath(cards[upper], cards[lower]) for upper, lower in pairwise(column))
    for left in ("result", "timeline", "travels", "events"):
        assert all(beside(cards[left], cards[right]) for right in ("facts", "artifacts", "seal"))
    assert cards["result"]["y"] == cards["facts"]["y"]
    assert cards["timeline"]["y"] - cards["result"]["y"] - cards["result"]["height"] < 20  # whatever stands beside it
    assert {cards[name]["x"] for name in ("actions", "facts", "artifacts", "seal")} == {cards["actions"]["x"]}


def test_a_job_without_a_result_begins_with_its_timeline(console: Console, look: Look) -> None:
    cards = boxes(look(f"{console.url}/jobs/{console.create(queue='waits')}", width=WIDE))
    assert "result" not in cards
    assert cards["timeline"]["y"] == cards["facts"]["y"]
    assert beside(cards["timeline"], cards["facts"])


class TestAJobOfManyAttempts:
    @pytest.fixture(scope="class")
    def stubborn(self, console: Console) -> str:
        """A job that failed again and again, and runs once more."""
        id = console.create(queue="stubborn", max_attempts=ATTEMPTS)
        error = {"type": "ScaleBroken", "message": "it shows 7 kg for nothing"}
        for attempt in range(1, ATTEMPTS):
            console.claim("stubborn")
            console.report(id, "failed", attempt=attempt, error=error, retry_in=0)
        console.claim("stubborn")
        return id

    @pytest.mark.parametrize("width", [WIDE, NARROW])
    def test_its_timeline_shows_the_newest_and_leads_to_the_earlier_ones(
        self, console: Console, look: Look, stubborn: str, width: int
    ) -> None:
        page = look(f"{console.url}/jobs/{stubborn}", width=width)
        timeline, lanes = page.locator("#timeline"), page.locator("svg.timeline .lane")
        newest = 2 * ATTEMPTS  # its version: created, then a start and an end of each attempt, but for the last
        expect(lanes).to_have_count(1 + MOST_LANES)  # and the lane of those who asked
        expect(lanes.last).to_contain_text(f"attempt {ATTEMPTS} · running")
        text = f"Drawn from events {newest - 38} to {newest} of {newest}: attempts 281 to 300, after 280 earlier ones."
        expect(timeline).to_contain_text(text)
        assert boxes(page)["timeline"]["height"] < 1_400
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.get_by_role("link", name="Earlier", exact=True).click()
        expect(timeline).to_contain_text("attempts 261 to 280, after 260 earlier and before 20 later ones.")
        expect(timeline).to_be_in_viewport()
        page.get_by_role("link", name="Later", exact=True).click()
        expect(timeline).to_contain_text(text)
        expect(page.get_by_role("link", name="Later", exact=True)).to_have_count(0)

    def test_the_ways_lead_through_all_and_every_page_is_small(
        self, console: Console, look: Look, stubborn: str
    ) -> None:
        page = look(f"{console.url}/jobs/{stubborn}?at_version=1")
        lanes, found = page.locator("svg.timeline .lane"), list[str]()
        for begin in range(1, ATTEMPTS, MOST_LANES):
            expect(lanes.nth(1)).to_contain_text(f"attempt {begin} ")
            expect(lanes).to_have_count(1 + MOST_LANES)
            found += lanes.all_text_contents()[1:]
            assert len(console.http.get(page.url).content) < 200_000
            if begin + MOST_LANES <= ATTEMPTS:
                page.get_by_role("link", name="Later", exact=True).click()
        assert [text.split(" ·")[0] for text in found] == [f"attempt {n}" for n in range(1, ATTEMPTS + 1)]

    def test_axe_finds_nothing_on_it(self, console: Console, look: Look, stubborn: str) -> None:
        page = look(f"{console.url}/jobs/{stubborn}?at_version=300", width=NARROW)
        expect(page.locator("#timeline")).to_contain_text("earlier and before")
        results = Axe().run(page)
        assert not results.violations_count, results.generate_report()

"""Every page of the offline model is opened in Chromium and stepped through by keyboard, wide and narrow."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Page, Route, ViewportSize, sync_playwright

from application.language import Question
from application.page import PAGE_POLICY
from tests.infrastructure.questions import QUESTIONS, Asked
from tests.infrastructure.test_offline_subjects import story_and_page

ADDRESS = "http://page.test/"
NARROW, WIDE = ViewportSize(width=360, height=740), ViewportSize(width=1440, height=900)


def page_of(question: str) -> str:
    """Made in a thread of its own, since the browser's driver keeps an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        _, html = pool.submit(story_and_page, Question(question)).result()
    return html


class Window:
    """A window of a browser: opens a page under the policy it is served with, and keeps what it asks for and complains
    about.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._html = ""
        page.route("**/*", self._answer)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, question: str) -> None:
        self._html = page_of(question)
        self.requests.clear()
        self.complaints.clear()
        self.page.set_viewport_size(NARROW)
        self.page.goto(ADDRESS)

    def _answer(self, route: Route) -> None:
        self.requests.append(route.request.url)
        if self.requests == [ADDRESS]:
            policy = {"Content-Security-Policy": PAGE_POLICY}
            route.fulfill(body=self._html, content_type="text/html; charset=utf-8", headers=policy)
        else:
            route.abort()

    @property
    def quiet(self) -> bool:
        return self.requests == [ADDRESS] and not self.complaints

    def steps(self) -> int:
        return int(self.page.get_attribute("#place", "max") or 0)

    def seen(self) -> tuple[str, str, bool]:
        """The step's number, its text, and whether all of the page is within the width of the window."""
        number, said, within = self.page.evaluate(
            "[part('count').textContent, now.textContent, document.documentElement.scrollWidth <= innerWidth]"
        )
        return number, said, within


@pytest.fixture(scope="module")
def window(chromium: str) -> Iterator[Window]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield Window(browser.new_page(viewport=NARROW))
        browser.close()


@pytest.mark.parametrize("asked", QUESTIONS, ids=[f"{n}-{asked.subject or 'map'}" for n, asked in enumerate(QUESTIONS)])
def test_page_is_stepped_through_by_keyboard_to_its_answer(window: Window, asked: Asked) -> None:
    window.open(asked.question)
    count = window.steps()
    seen = [window.seen()]
    for _ in range(count - 1):
        window.page.keyboard.press("ArrowRight")
        seen.append(window.seen())
    assert [number for number, _, _ in seen] == [f"{at + 1} of {count}" for at in range(count)]
    assert all(said and within for _, said, within in seen)
    assert asked.answer in seen[-1][1]
    assert window.page.locator("#stage .shape").count() > 1
    window.page.set_viewport_size(WIDE)
    assert window.seen() == seen[-1]
    window.page.keyboard.press("Home")
    assert window.seen() == seen[0]
    assert window.quiet


def test_every_control_is_reached_by_keyboard_and_shows_its_focus(window: Window) -> None:
    window.page.emulate_media(reduced_motion="reduce", color_scheme="dark")
    window.open(QUESTIONS[0].question)
    reached = []
    for _ in range(6):
        window.page.keyboard.press("Tab")
        focused = "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        id, outline = window.page.evaluate(focused)
        assert outline == "solid"
        reached.append(id)
    assert reached == ["", "place", "back", "next", "play", "all"]
    window.page.focus("#next")
    window.page.keyboard.press("Enter")
    assert window.seen()[0].startswith("2 of ")
    window.page.focus("#place")
    window.page.keyboard.press("ArrowRight")
    assert window.seen()[0].startswith("3 of ")
    assert window.page.get_attribute("#now", "aria-live") == "polite"
    window.page.focus("#all")
    window.page.keyboard.press("Enter")
    assert window.page.locator(".steps li").last.is_visible()
    shape = "getComputedStyle(document.querySelector('#stage .shape')).transitionDuration"
    assert window.page.evaluate(shape) == "0s"
    window.page.emulate_media(reduced_motion="no-preference", color_scheme="light")
    assert window.page.evaluate(shape) != "0s"


def test_steps_play_by_themselves_and_stop_at_a_key(window: Window) -> None:
    window.open(QUESTIONS[0].question)
    window.page.click("#play")
    assert window.page.inner_text("#play") == "Pause"
    window.page.get_by_text("3 of ").wait_for(timeout=60_000)
    window.page.keyboard.press("End")
    assert window.page.inner_text("#play") == "Play"
    assert QUESTIONS[0].answer in window.seen()[1]


@pytest.mark.parametrize(
    "question",
    [
        'What is <script>alert(1)</script> </style></title> "><img src=x onerror=alert(2)> <svg onload=alert(4)> ?',
        "Sort the words amp, lt and gt with bubble sort. </script><script>alert(1)</script>",
        "ما هي عاصمة فرنسا؟ \u202e 🙂 一个班有40名学生。女生有多少人？",
        "What does `background: url(https://example.com/x.png)` do? background is a property.",
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft " * 20,
        "???",
    ],
)
def test_hostile_page_is_as_quiet_as_any_other(window: Window, question: str) -> None:
    window.open(question)
    for _ in range(window.steps()):
        assert window.seen()[2]
        window.page.keyboard.press("ArrowRight")
    assert window.quiet

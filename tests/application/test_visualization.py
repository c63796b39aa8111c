"""A visualization takes three steps, each recorded, so that no answer is bought twice."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints
from uuid import UUID

import msgspec
import pytest

from application.handlers import MAX_OUTPUT, Artifact, GiveUp, JobContext, RetryLater, handles, registry
from application.language import (
    Analysis,
    LanguageModelBusy,
    LanguageModelRefused,
    Page,
    Question,
    Rejected,
    ReportProgress,
    Story,
    Usage,
)
from application.page import MAX_PAGE, Opened
from application.payload import LARGEST
from application.visualization import PAGE, REJECTED, Checked, Drawn, Visualization, visualization_handler

T = TypeVar("T")
QUESTION = Question("Why is the sky blue?")
ANALYSIS = Analysis(type="science", subject="light", difficulty="medium", concepts=["sky", "blue"])
STORY = Story(title="The long way of the light", text="Once a ray of light set out.")
USAGE = Usage("model-of-the-test", 100, 2000)
HTML = "<!doctype html><html><body><p>sky</p></body></html>\n"
FAULTY = HTML.replace("sky", "<img src='sky.png'>")
FAULT = "src of <img> leads outside the page: sky.png"


class Model:
    """Answers as it is told to, and counts what it is asked."""

    provider = "told"

    def __init__(self, *pages: str, error: Exception | None = None) -> None:
        self.pages = list(pages or [HTML])
        self.rejected: list[Rejected | None] = []
        self.error = error
        self.asked: list[str] = []

    async def analyse(self, question: Question) -> Analysis:
        self.asked.append("analyse")
        return ANALYSIS

    async def tell(self, question: Question, analysis: Analysis) -> Story:
        self.asked.append("tell")
        return STORY

    async def draw(
        self,
        question: Question,
        analysis: Analysis,
        story: Story,
        progress: ReportProgress,
        rejected: Rejected | None = None,
    ) -> Page:
        self.asked.append("draw")
        self.rejected.append(rejected)
        if self.error:
            raise self.error
        await progress(0.5)
        return Page(self.pages.pop(0), USAGE)


class Blind:
    """A browser that is not there, or says what it is told to."""

    def __init__(self, opened: Opened | None = None) -> None:
        self.opened = opened
        self.asked: list[str] = []

    async def open(self, html: str) -> Opened | None:
        self.asked.append(html)
        return self.opened


class RecordedJob:
    """A job in memory: its steps are kept as JSON and read back as the annotated type."""

    id = UUID("019371a0-0000-7000-8000-000000000001")
    cancelled = False

    def __init__(self) -> None:
        self.attempt = 1
        self.steps: dict[str, bytes] = {}
        self.fractions: list[float] = []
        self.artifacts: dict[str, bytes] = {}

    async def step(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        if name not in self.steps:
            self.steps[name] = msgspec.json.encode(await fn(*args))
        output: T = msgspec.json.decode(self.steps[name], type=get_type_hints(fn)["return"])
        return output

    async def submit(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        raise AssertionError("a visualization orders nothing")

    async def progress(self, fraction: float, message: str | None = None) -> None:
        self.fractions.append(fraction)

    async def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact:
        assert isinstance(content, bytes)
        self.artifacts[name] = content
        sha256 = hashlib.sha256(content).hexdigest()
        return Artifact(name=name, sha256=sha256, size=len(content), media_type=media_type)

    async def read_artifact(self, artifact: Artifact) -> bytes:
        content = self.artifacts[artifact.name]
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
        return content


def visualized(
    job: JobContext, model: Model, question: Question = QUESTION, browser: Blind | None = None
) -> Visualization:
    async def run() -> Visualization:
        result = await visualization_handler(model, browser or Blind())(job, question)
        assert isinstance(result, Visualization)
        return result

    return asyncio.run(run())


def test_question_becomes_a_page_in_four_recorded_steps() -> None:
    job = RecordedJob()
    result = visualized(job, Model())
    assert list(job.steps) == ["analysis", "story", "page", "check"]
    assert job.artifacts == {PAGE: HTML.encode()}
    assert result.page.media_type == "text/html; charset=utf-8"
    assert (result.analysis, result.story) == (ANALYSIS, STORY)
    assert result.provider == "told"


def test_page_step_records_the_reference_and_not_the_page() -> None:
    job = RecordedJob()
    result = visualized(job, Model())
    recorded = msgspec.json.decode(job.steps["page"], type=Drawn)
    assert recorded == result.page
    assert (recorded.provider, recorded.usage) == ("told", USAGE)


def test_steps_that_earlier_releases_recorded_still_read() -> None:
    job = RecordedJob()
    job.steps = {
        "analysis": b'{"type":"science","subject":"light","difficulty":"easy","concepts":["sky"],"asked":""}',
        "story": b'{"title":"Light","text":"Once."}',
        "page": b'{"name":"page.html","sha256":"00","size":5,"media_type":"text/html; charset=utf-8"}',
        "check": b'{"findings":[]}',
    }
    result = visualized(job, Model())
    assert (result.story.setting, result.story.mapping, result.story.usage) == ("", [], None)
    assert (result.page.sha256, result.page.usage) == ("00", None)


def test_progress_rises_to_one() -> None:
    job = RecordedJob()
    visualized(job, Model())
    assert job.fractions == sorted(job.fractions)
    assert job.fractions[-1] == 1.0
    assert any(0.45 < fraction < 0.84 for fraction in job.fractions)


def test_recorded_steps_are_never_asked_for_again() -> None:
    job = RecordedJob()
    first = visualized(job, Model())
    again = Model()
    assert visualized(job, again) == first
    assert again.asked == []


def test_attempt_after_a_failed_page_draws_only_the_page() -> None:
    job = RecordedJob()
    with pytest.raises(RetryLater):
        visualized(job, Model(error=LanguageModelBusy(7, "busy (429)")))
    again = Model()
    visualized(job, again)
    assert again.asked == ["draw"]


def test_refusing_model_fails_the_job_for_good() -> None:
    with pytest.raises(GiveUp, match="check OPENAI_API_KEY"):
        visualized(RecordedJob(), Model(error=LanguageModelRefused("check OPENAI_API_KEY")))


def test_busy_model_is_asked_again_after_its_delay() -> None:
    with pytest.raises(RetryLater, match=r"busy \(429\)") as raised:
        visualized(RecordedJob(), Model(error=LanguageModelBusy(7, "busy (429)")))
    assert raised.value.delay == 7


def test_a_page_with_faults_goes_back_once_with_what_was_found() -> None:
    job, model = RecordedJob(), Model(FAULTY, HTML)
    result = visualized(job, model)
    assert list(job.steps) == ["analysis", "story", "page", "check", "redraw", "recheck"]
    assert model.rejected == [None, Rejected(FAULTY, [FAULT])]
    assert job.artifacts == {PAGE: HTML.encode(), REJECTED: FAULTY.encode()}
    assert result.page.sha256 == hashlib.sha256(HTML.encode()).hexdigest()
    assert job.fractions == sorted(job.fractions)


def test_a_page_that_is_faulty_twice_fails_the_job_for_good_with_what_was_found() -> None:
    job, model = RecordedJob(), Model(FAULTY, FAULTY.replace("sky.png", "https://sky.example/blue.png"))
    with pytest.raises(GiveUp, match=r"leads outside the page: https://sky\.example/blue\.png"):
        visualized(job, model)
    again = Model()
    with pytest.raises(GiveUp):
        visualized(job, again)
    assert (model.asked.count("draw"), again.asked) == (2, [])


@pytest.mark.parametrize("recorded", range(7))
def test_wherever_an_attempt_ends_nothing_is_bought_twice(recorded: int) -> None:
    """All steps up to one are on record, and perhaps the artifact of the next, when the attempt is gone."""
    whole = RecordedJob()
    visualized(whole, Model(FAULTY, HTML))
    job = RecordedJob()
    job.steps = dict(list(whole.steps.items())[:recorded])
    job.artifacts = {PAGE: HTML.encode() if recorded >= 4 else FAULTY.encode(), REJECTED: FAULTY.encode()}
    model = Model(*([FAULTY] if recorded < 3 else []), HTML)
    visualized(job, model)
    bought = {"analysis": "analyse", "story": "tell", "page": "draw", "redraw": "draw"}
    assert model.asked == [bought[step] for step in list(whole.steps)[recorded:] if step in bought]


def test_what_the_browser_says_is_a_finding_and_which_one_it_was_is_recorded() -> None:
    job = RecordedJob()
    with pytest.raises(GiveUp, match="nope is not defined"):
        visualized(job, Model(HTML, HTML), browser=Blind(Opened("Chrome/1", ["nope is not defined"])))
    job = RecordedJob()
    visualized(job, Model(), browser=Blind(Opened("Chrome/1", [])))
    assert msgspec.json.decode(job.steps["check"], type=Checked) == Checked(findings=[], browser="Chrome/1")


def test_page_may_have_512_kib_and_no_byte_more() -> None:
    largest = HTML.replace("sky", "x" * (MAX_PAGE - len(HTML) + 3))
    assert visualized(RecordedJob(), Model(largest)).page.size == MAX_PAGE
    with pytest.raises(GiveUp, match="more than 524288"):
        visualized(RecordedJob(), Model(largest + " ", largest + " "))


def test_result_of_the_longest_question_is_small_enough_to_be_recorded() -> None:
    result = visualized(RecordedJob(), Model(), Question("x" * LARGEST))
    assert len(msgspec.json.encode(result)) < MAX_OUTPUT


def test_handler_is_fit_to_be_registered() -> None:
    kept = dict(registry)
    try:
        handles("a visualization of the tests")(visualization_handler(Model(), Blind()))
        handler = registry["a visualization of the tests"]
        assert (handler.input_type, handler.result_type) == (Question, Visualization)
    finally:
        registry.clear()
        registry.update(kept)


def test_question_is_stripped_of_blanks_and_byte_order_mark() -> None:
    assert msgspec.convert({"question": "\ufeff \n Why?\r\n"}, Question) == Question("Why?")


@pytest.mark.parametrize("question", ["", " \ufeff\n", "a\0b"])
def test_unfit_question_is_refused(question: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.question"):
        msgspec.convert({"question": question}, Question)


def test_options_follow_the_question_under_their_labels_or_letters() -> None:
    assert Question("Which?", options=["red", "blue"]).whole == "Which?\nA) red\nB) blue"
    assert Question("Which?", options=["1. red", "2. blue"], answer="2").whole == "Which?\n1. red\n2. blue\nAnswer: 2"


@pytest.mark.parametrize("unfit", [{"options": [" "]}, {"options": ["a\0"]}, {"answer": ""}, {"options": ["a"] * 27}])
def test_unfit_options_are_refused(unfit: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"question": "Which?", **unfit}, Question)


def test_unknown_field_of_a_question_is_refused_by_name() -> None:
    with pytest.raises(msgspec.ValidationError, match="difficulty"):
        msgspec.convert({"question": "Why?", "difficulty": "easy"}, Question)

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
    MAX_QUESTION,
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
from application.visualization import MAX_PAGE, PAGE, Drawn, Visualization, visualization_handler

T = TypeVar("T")
QUESTION = Question("Why is the sky blue?")
ANALYSIS = Analysis(type="science", subject="light", difficulty="medium", concepts=["sky", "blue"])
STORY = Story(title="The long way of the light", text="Once a ray of light set out.")
USAGE = Usage("model-of-the-test", 100, 2000)
HTML = "<!doctype html><html><body>sky</body></html>\n"


class Model:
    """Answers as it is told to, and counts what it is asked."""

    provider = "told"

    def __init__(self, page: str = HTML, error: Exception | None = None) -> None:
        self.page = page
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
        if self.error:
            raise self.error
        await progress(0.5)
        return Page(self.page, USAGE)


class RecordedJob:
    """A job in memory: its steps are kept as JSON and read back as the annotated type."""

    id = UUID("019371a0-0000-7000-8000-000000000001")

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


def visualized(job: JobContext, model: Model, question: Question = QUESTION) -> Visualization:
    async def run() -> Visualization:
        result = await visualization_handler(model)(job, question)
        assert isinstance(result, Visualization)
        return result

    return asyncio.run(run())


def test_question_becomes_a_page_in_three_recorded_steps() -> None:
    job = RecordedJob()
    result = visualized(job, Model())
    assert list(job.steps) == ["analysis", "story", "page"]
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
    }
    result = visualized(job, Model())
    assert (result.story.setting, result.story.mapping, result.story.usage) == ("", [], None)
    assert (result.page.sha256, result.page.usage) == ("00", None)


def test_progress_rises_to_one() -> None:
    job = RecordedJob()
    visualized(job, Model())
    assert job.fractions == sorted(job.fractions)
    assert job.fractions[-1] == 1.0
    assert 0.75 in job.fractions


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


def test_page_may_have_512_kib_and_no_byte_more() -> None:
    assert visualized(RecordedJob(), Model(page="x" * MAX_PAGE)).page.size == MAX_PAGE
    job = RecordedJob()
    with pytest.raises(GiveUp, match="more than 524288"):
        visualized(job, Model(page="x" * (MAX_PAGE + 1)))
    assert job.artifacts == {}


def test_result_of_the_longest_question_is_small_enough_to_be_recorded() -> None:
    result = visualized(RecordedJob(), Model(), Question("x" * MAX_QUESTION))
    assert len(msgspec.json.encode(result)) < MAX_OUTPUT


def test_handler_is_fit_to_be_registered() -> None:
    kept = dict(registry)
    try:
        handles("a visualization of the tests")(visualization_handler(Model()))
        handler = registry["a visualization of the tests"]
        assert (handler.input_type, handler.result_type) == (Question, Visualization)
    finally:
        registry.clear()
        registry.update(kept)


def test_question_is_stripped_of_blanks_and_byte_order_mark() -> None:
    assert msgspec.convert({"question": "\ufeff \n Why?\r\n"}, Question) == Question("Why?")


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("", "empty"),
        (" \ufeff\n".replace("\ufeff", ""), "empty"),
        ("a\0b", "NUL"),
        ("é" * (MAX_QUESTION // 2 + 1), "bytes"),
    ],
)
def test_unfit_question_is_refused_with_the_reason(question: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
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

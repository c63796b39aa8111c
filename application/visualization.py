"""Visualizations: a question becomes an HTML page, in three recorded steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from application.handlers import Artifact, GiveUp, Handle, JobContext, RetryLater
from application.language import (
    Analysis,
    LanguageModel,
    LanguageModelBusy,
    LanguageModelRefused,
    Question,
    Story,
    Usage,
)

KIND = "visualization"
PAGE = "page.html"
MAX_PAGE = 512 * 1024
"""Bytes a page may have."""


class Drawn(Artifact, frozen=True, kw_only=True):
    """A page as its step records it: the artifact, who drew it, and what that cost."""

    provider: str | None = None
    usage: Usage | None = None


class Visualization(msgspec.Struct, frozen=True, kw_only=True):
    """The result: `page` is the job's artifact `page.html`, `provider` says which model made it."""

    analysis: Analysis
    story: Story
    page: Drawn
    provider: str


def visualization_handler(model: LanguageModel) -> Handle:
    """The handler of visualization jobs over `model`; each step is recorded, so no answer is bought twice."""

    async def visualize(job: JobContext, question: Question) -> Visualization:
        with _for_the_worker():
            await job.progress(0.05, "reading the question")
            analysis = await job.step("analysis", model.analyse, question)
            await job.progress(0.3, "telling the story")
            story = await job.step("story", model.tell, question, analysis)
            await job.progress(0.55, "drawing the page")
            page = await job.step("page", _save_page, job, model, question, analysis, story)
            await job.progress(1.0, "the page is ready")
        return Visualization(analysis=analysis, story=story, page=page, provider=model.provider)

    return visualize


async def _save_page(
    job: JobContext, model: LanguageModel, question: Question, analysis: Analysis, story: Story
) -> Drawn:
    async def told(part: float) -> None:
        await job.progress(0.55 + 0.4 * part, "drawing the page")

    drawing = await model.draw(question, analysis, story, told)
    page = drawing.html.encode()
    if len(page) > MAX_PAGE:
        raise GiveUp(f"the page has {len(page)} bytes, more than {MAX_PAGE}")
    await job.progress(0.95, "saving the page")
    saved = await job.save_artifact(PAGE, page, "text/html; charset=utf-8")
    return Drawn(**msgspec.structs.asdict(saved), provider=model.provider, usage=drawing.usage)


@contextmanager
def _for_the_worker() -> Iterator[None]:
    try:
        yield
    except LanguageModelRefused as refused:
        raise GiveUp(str(refused)) from refused
    except LanguageModelBusy as busy:
        raise RetryLater(busy.delay, str(busy)) from busy

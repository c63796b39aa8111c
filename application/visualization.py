"""Visualizations: a question becomes an HTML page that has been checked, in recorded steps."""

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
    Rejected,
    ReportProgress,
    Story,
    Usage,
)
from application.page import Browser, check_page

KIND = "visualization"
PAGE = "page.html"
REJECTED = "rejected.html"
HTML = "text/html; charset=utf-8"


class Drawn(Artifact, frozen=True, kw_only=True):
    """A page as its step records it: the artifact, who drew it, and what that cost."""

    provider: str | None = None
    usage: Usage | None = None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of a page found, and which browser opened it, if one did; a page with faults is kept aside."""

    findings: list[str]
    browser: str | None = None
    rejected: Artifact | None = None


class Visualization(msgspec.Struct, frozen=True, kw_only=True):
    """The result: `page` is the job's artifact `page.html`, `provider` says which model made it."""

    analysis: Analysis
    story: Story
    page: Drawn
    provider: str


def visualization_handler(model: LanguageModel, browser: Browser) -> Handle:
    """The handler of visualization jobs over `model`; each step is recorded, so no answer is bought twice.

    A page that fails its check goes back to the model once, with what was found.
    """

    async def visualize(job: JobContext, question: Question) -> Visualization:
        with _for_the_worker():
            await job.progress(0.05, "reading the question")
            analysis = await job.step("analysis", model.analyse, question)
            await job.progress(0.25, "telling the story")
            story = await job.step("story", model.tell, question, analysis)
            await job.progress(0.45, "drawing the page")
            page = await job.step("page", _draw, job, model, question, analysis, story)
            await job.progress(0.85, "checking the page")
            checked = await job.step("check", _check, job, browser, page)
            if checked.findings:
                await job.progress(0.88, "drawing the page again")
                page = await job.step("redraw", _redraw, job, model, question, analysis, story, checked)
                await job.progress(0.96, "checking the page again")
                checked = await job.step("recheck", _check, job, browser, page)
            if checked.findings:
                raise GiveUp(f"the page, drawn twice, has faults: {'; '.join(checked.findings)}")
            await job.progress(1.0, "the page is ready")
        return Visualization(analysis=analysis, story=story, page=page, provider=page.provider or model.provider)

    return visualize


async def _draw(job: JobContext, model: LanguageModel, question: Question, analysis: Analysis, story: Story) -> Drawn:
    page = await model.draw(question, analysis, story, _between(job, 0.45, 0.84))
    return await _save(job, page.html, model.provider, page.usage)


async def _redraw(
    job: JobContext, model: LanguageModel, question: Question, analysis: Analysis, story: Story, checked: Checked
) -> Drawn:
    assert checked.rejected is not None
    rejected = Rejected((await job.read_artifact(checked.rejected)).decode(), checked.findings)
    page = await model.draw(question, analysis, story, _between(job, 0.88, 0.95), rejected)
    return await _save(job, page.html, model.provider, page.usage)


async def _save(job: JobContext, html: str, provider: str, usage: Usage | None) -> Drawn:
    saved = await job.save_artifact(PAGE, html.encode(), HTML)
    return Drawn(**msgspec.structs.asdict(saved), provider=provider, usage=usage)


async def _check(job: JobContext, browser: Browser, page: Drawn) -> Checked:
    """A page with faults is saved under a name of its own, since the next one takes the place of this one."""
    html = await job.read_artifact(page)
    opened = await check_page(html.decode(), browser)
    rejected = await job.save_artifact(REJECTED, html, HTML) if opened.findings else None
    return Checked(findings=opened.findings, browser=opened.browser or None, rejected=rejected)


def _between(job: JobContext, begin: float, end: float) -> ReportProgress:
    async def told(part: float) -> None:
        await job.progress(begin + (end - begin) * part)

    return told


@contextmanager
def _for_the_worker() -> Iterator[None]:
    try:
        yield
    except LanguageModelRefused as refused:
        raise GiveUp(str(refused)) from refused
    except LanguageModelBusy as busy:
        raise RetryLater(busy.delay, str(busy)) from busy

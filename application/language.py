"""The language model as job kinds see it: a question is analysed, told as a story and drawn as a page."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

MAX_QUESTION = 256 * 1024
"""Bytes of UTF-8 a question may have."""
VISIBLE = r"[^\s\u0000-\u001f\u0085\ufeff]"
"""Some character that is no blank: blanks are spelled out, since Python and JSON schema do not agree on them."""
NOT_BLANK = rf"^[^\u0000]*{VISIBLE}[^\u0000]*$"

QuestionType = Literal["coding", "maths", "science", "reasoning", "factual", "other"]
Difficulty = Literal["easy", "medium", "hard"]
Line = Annotated[str, Meta(min_length=1, max_length=200)]

ReportProgress = Callable[[float], Awaitable[None]]
"""Told how much of the drawing is done, 0..1; a few times per page, since each may become an event."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody asks. Blanks (and a byte order mark) around it are dropped.

    Nothing but blanks, a NUL, and more than 256 KiB of UTF-8 are refused.
    """

    question: Annotated[str, Meta(extra_json_schema={"pattern": NOT_BLANK})]

    def __post_init__(self) -> None:
        text = self.question.removeprefix("\ufeff").strip()
        if "\0" in text:
            raise ValueError("the question contains a NUL character")
        if not re.search(VISIBLE, text):
            raise ValueError("the question is empty")
        if (size := len(text.encode())) > MAX_QUESTION:
            raise ValueError(f"the question has {size} bytes, more than {MAX_QUESTION}")
        msgspec.structs.force_setattr(self, "question", text)


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of question it is: `concepts` are its key terms, most important first; `asked` is what it wants."""

    type: QuestionType
    subject: Line
    difficulty: Difficulty
    concepts: Annotated[list[Line], Meta(max_length=24)]
    asked: Annotated[str, Meta(max_length=2000)] = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """The question as a narrative: `text` is plain, its paragraphs parted by an empty line."""

    title: Line
    text: Annotated[str, Meta(min_length=1, max_length=8000)]


class LanguageModelRefused(Exception):
    """The model will not answer however often it is asked; the message names the setting to fix, if one is."""


class LanguageModelBusy(Exception):
    """The model cannot answer now; ask again after `delay` seconds."""

    def __init__(self, delay: float, reason: str) -> None:
        super().__init__(reason)
        self.delay = delay


class LanguageModel(Protocol):
    """Raises `LanguageModelRefused` or `LanguageModelBusy`, and nothing of its transport."""

    @property
    def provider(self) -> str:
        """Who answers, as it is recorded in results: `openai`, `offline`."""
        ...

    async def analyse(self, question: Question) -> Analysis: ...

    async def tell(self, question: Question, analysis: Analysis) -> Story: ...

    async def draw(self, question: Question, analysis: Analysis, story: Story, progress: ReportProgress) -> str:
        """One self-contained HTML page that asks nothing of the network."""
        ...

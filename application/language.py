"""The language model as job kinds see it: a question is analysed, told as a story and drawn as a page."""

import re
from collections.abc import Awaitable, Callable
from string import ascii_uppercase
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

VISIBLE = r"[^\s\u0000-\u001f\u0085\ufeff]"
"""Some character that is no blank: blanks are spelled out, since Python and JSON schema do not agree on them."""
NOT_BLANK = rf"^[^\u0000]*{VISIBLE}[^\u0000]*$"

QuestionType = Literal["coding", "maths", "science", "reasoning", "factual", "other"]
Difficulty = Literal["easy", "medium", "hard"]
Line = Annotated[str, Meta(min_length=1, max_length=200)]
LONGEST_CHOICE = 2000
"""Characters of an option or an answer."""
MOST_OPTIONS = 26
Choice = Annotated[str, Meta(max_length=LONGEST_CHOICE, pattern=NOT_BLANK)]
LABELLED = re.compile(r"[ \t]*(?:[-*][ \t]+)?(\(?)([A-Za-z]|[0-9]{1,2})([).:])[ \t]+\S")
"""An option under its label: `A) …`, `(b) …`, `1. …`."""

ReportProgress = Callable[[float], Awaitable[None]]
"""Told how much of the drawing is done, 0..1; a few times per page, since each may become an event."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What somebody asks. Blanks (and a byte order mark) around it are dropped.

    A multiple-choice question may name its options, with or without labels of theirs, and its answer.
    """

    question: Annotated[str, Meta(pattern=NOT_BLANK)]
    options: Annotated[list[Choice], Meta(max_length=MOST_OPTIONS)] = []
    answer: Choice | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "question", self.question.removeprefix("\ufeff").strip())

    @property
    def whole(self) -> str:
        """All of it as one text: the options follow the question under their labels, else under letters."""
        labelled = all(LABELLED.match(option) for option in self.options)
        lettered = [f"{letter}) {option}" for letter, option in zip(ascii_uppercase, self.options, strict=False)]
        answer = [f"Answer: {self.answer}"] if self.answer is not None else []
        return "\n".join([self.question, *(self.options if labelled else lettered), *answer])


class Usage(msgspec.Struct, frozen=True):
    """What the calls behind an answer cost: the model that was billed, and its tokens."""

    model: str
    input_tokens: int
    output_tokens: int


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of question it is: `concepts` are its key terms, most important first; `asked` is what it wants."""

    type: QuestionType
    subject: Line
    difficulty: Difficulty
    concepts: Annotated[list[Line], Meta(max_length=24)]
    asked: Annotated[str, Meta(max_length=2000)] = ""
    usage: Usage | None = None


class Counterpart(msgspec.Struct, frozen=True):
    """An element of a story, and the concept that it stands for."""

    element: Line
    concept: Line


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """The question as a narrative that carries its idea: where it plays, and how its metaphor maps to the concepts.

    `text` is plain, its paragraphs parted by an empty line. Stories of earlier releases have no setting and no mapping.
    """

    title: Line
    setting: Annotated[str, Meta(max_length=2000)] = ""
    text: Annotated[str, Meta(min_length=1, max_length=8000)]
    mapping: Annotated[list[Counterpart], Meta(max_length=24)] = []
    usage: Usage | None = None


class Page(msgspec.Struct, frozen=True):
    """One self-contained HTML page that asks nothing of the network."""

    html: str
    usage: Usage | None = None


class Rejected(msgspec.Struct, frozen=True):
    """A page that failed its check, and what was found."""

    html: str
    findings: list[str]


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

    async def draw(
        self,
        question: Question,
        analysis: Analysis,
        story: Story,
        progress: ReportProgress,
        rejected: Rejected | None = None,
    ) -> Page:
        """The page; in place of `rejected`, if there is one, and without its faults."""
        ...

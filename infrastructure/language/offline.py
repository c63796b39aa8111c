"""A language model that is none: it reads the question by fixed rules and composes a modest but true page."""

from html import escape
from importlib.resources import files
from string import Template

from application.language import Analysis, Page, Question, Rejected, ReportProgress, Story
from infrastructure.language.amounts import Bar, Working, number_in
from infrastructure.language.arithmetic import worked
from infrastructure.language.concept_map import concept_map
from infrastructure.language.reading import QUANTITY, READ, Reading, read
from infrastructure.language.signs import difficulty_of, kind_of

FACTS = 10
"""Sentences that are listed; how many more there are is said."""
SENTENCE = 500
"""Characters of a sentence that are shown outside the question itself."""


class OfflineModel:
    """Needs no key and no network; the same question gives the same bytes."""

    provider = "offline"

    def __init__(self) -> None:
        page = files("infrastructure.language").joinpath("page.html")
        self._page = Template(page.read_text(encoding="utf-8"))

    async def analyse(self, question: Question) -> Analysis:
        reading = read(question.whole)
        kind = kind_of(question.whole[:READ])
        sums = kind.type != "maths" and worked(reading) is not None
        return Analysis(
            type="maths" if sums else kind.type,
            subject="arithmetic" if sums else kind.subject,
            difficulty=difficulty_of(reading),
            concepts=_concepts(reading),
            asked=_clipped(reading.asked, 1000),
        )

    async def tell(self, question: Question, analysis: Analysis) -> Story:
        reading = read(question.whole)
        short = reading.asked if len(reading.asked) <= 90 else " · ".join(analysis.concepts[:3])
        return Story(
            title=_clipped(short or reading.asked or "A question", 120),
            setting=_clipped(reading.sentences[0], 300) if reading.sentences else "",
            text="\n\n".join(_paragraphs(reading, analysis)),
        )

    async def draw(
        self,
        question: Question,
        analysis: Analysis,
        story: Story,
        progress: ReportProgress,
        rejected: Rejected | None = None,
    ) -> Page:
        reading = read(question.whole)
        page = self._page.substitute(
            title=escape(story.title),
            badges=_badges(analysis),
            question=_marked(question.whole[:READ]),
            unread=_unread(reading),
            steps="".join(_steps(reading, analysis)),
            story="".join(f'<p dir="auto">{escape(part)}</p>' for part in story.text.split("\n\n")),
            map=_map(reading, analysis),
            signs=_signs(question),
        )
        await progress(1.0)
        return Page(page)


def _concepts(reading: Reading) -> list[str]:
    """The terms, and the quantities that say more than a digit does; neither crowds the other out."""
    quantities = [quantity for quantity in reading.quantities if len(quantity) > 1 or not reading.terms]
    concepts = [*reading.terms[:6], *quantities[:4]]
    return list(dict.fromkeys(_clipped(concept, 60) for concept in concepts))


def _paragraphs(reading: Reading, analysis: Analysis) -> list[str]:
    told = [f"“{_isolated(_clipped(fact, 300))}”" for fact in reading.given[:5]]
    beginning = ["It begins with what is told: ", "And then: ", "Further: ", "Also: ", "And: "]
    facts = [lead + fact for lead, fact in zip(beginning, told, strict=False)]
    if len(reading.given) > len(told):
        facts.append(f"And {len(reading.given) - len(told)} more sentences.")
    asked = f"Out of this one thing is wanted: “{_isolated(_clipped(reading.asked, 500))}”" if reading.asked else ""
    held = f"The words to hold on to: {', '.join(map(_isolated, analysis.concepts))}." if analysis.concepts else ""
    return [part for part in (" ".join(facts), asked, held, _ending(reading)) if part]


def _ending(reading: Reading) -> str:
    if working := worked(reading):
        sums = "; ".join(step.sum for step in working.steps[:8])
        return (
            f"The numbers speak for themselves: {sums}. So it is {working.result}. {_verdict(reading, working)}".strip()
        )
    if reading.answer:
        return _named_answer(reading)
    return "The answer is left to the reader: fixed rules cannot tell it for certain, and guess nothing."


def _verdict(reading: Reading, working: Working) -> str:
    """How the options, and the answer the question names, compare with the result."""
    equal = [option for option in reading.options if number_in(option.text) == working.value]
    said = []
    if equal:
        said.append(f"That is option {equal[0].label}: {equal[0].text}.")
    elif reading.options:
        said.append("None of the options says exactly that.")
    if reading.answer:
        said.append(_named_answer(reading))
    return " ".join(said)


def _named_answer(reading: Reading) -> str:
    chosen = [option.text for option in reading.options if option.label == reading.answer.strip("().").upper()]
    answer = f"{reading.answer} ({chosen[0]})" if chosen else reading.answer
    return f"The question itself names its answer: {_clipped(answer, 300).rstrip('.')}."


def _badges(analysis: Analysis) -> str:
    parts = dict.fromkeys([analysis.type, analysis.subject, analysis.difficulty])
    return "".join(f'<li dir="auto">{escape(part)}</li>' for part in parts)


def _unread(reading: Reading) -> str:
    if not reading.unread:
        return ""
    return (
        f'<p class="quiet">Only the first {READ:,} characters are shown and read; {reading.unread:,} more follow.</p>'
    )


def _steps(reading: Reading, analysis: Analysis) -> list[str]:
    steps = [_step("What is given", _facts(reading))]
    if reading.asked:
        steps.append(_step("What is asked", f'<p dir="auto">{_marked(_clipped(reading.asked, SENTENCE))}</p>'))
    if reading.options:
        choices = "".join(
            f"<li><bdi>{option.label}. {escape(_clipped(option.text, SENTENCE))}</bdi></li>"
            for option in reading.options
        )
        steps.append(_step("What to choose from", f"<ul>{choices}</ul>"))
    if analysis.concepts:
        terms = "".join(f'<li dir="auto">{escape(concept)}</li>' for concept in analysis.concepts)
        steps.append(_step("Key terms", f'<ul class="badges">{terms}</ul>'))
    working = worked(reading)
    return [*steps, *(_worked_steps(reading, working) if working else [_open_end(reading)])]


def _facts(reading: Reading) -> str:
    if not reading.given:
        return "<p>No facts beside the question: all there is to go by is in what it asks.</p>"
    facts = "".join(f'<li dir="auto">{_marked(_clipped(fact, SENTENCE))}</li>' for fact in reading.given[:FACTS])
    more = len(reading.given) - FACTS
    return f"<ul>{facts}</ul>" + (f'<p class="quiet">And {more} more sentences.</p>' if more > 0 else "")


def _worked_steps(reading: Reading, working: Working) -> list[str]:
    sums = [_step(step.words, f'<p class="sum">{escape(step.sum)}</p>') for step in working.steps]
    result = f'<p class="result">{escape(working.result)}</p>{_bars(working.bars)}'
    notes = [working.assumption, _verdict(reading, working)]
    said = "".join(f'<p class="quiet" dir="auto">{escape(note)}</p>' for note in notes if note)
    return [*sums, _step("The result", result + said)]


def _bars(bars: list[Bar]) -> str:
    drawn = (f'<li>{escape(bar.label)}<span style="width: {bar.share:.2%}"></span></li>' for bar in bars)
    return f'<ul class="bars">{"".join(drawn)}</ul>' if bars else ""


def _open_end(reading: Reading) -> str:
    if reading.answer:
        named = f'<p dir="auto">{escape(_named_answer(reading))}</p>'
        return _step("The answer", named + "<p>It is repeated here, not checked.</p>")
    return _step(
        "Where this ends",
        "<p>Fixed rules cannot answer this for certain, so no answer is guessed. To go on: say what is asked in your "
        "own words, tick off which given facts it needs, and follow the lines of the concept map between them.</p>",
    )


def _step(title: str, body: str) -> str:
    return f'<li><h3 dir="auto">{escape(title)}</h3>{body}</li>'


def _map(reading: Reading, analysis: Analysis) -> str:
    drawn = concept_map(analysis.concepts, reading.sentences)
    if not drawn.terms:
        return ""
    places = "".join(
        f'<div><dt dir="auto">{escape(term)}</dt>'
        + "".join(f'<dd dir="auto">{escape(_clipped(sentence, SENTENCE))}</dd>' for sentence in sentences[:3])
        + "</div>"
        for term, sentences in zip(drawn.terms, drawn.places, strict=True)
    )
    return (
        '<section aria-labelledby="map"><h2 id="map">Concept map</h2>'
        '<p class="quiet">A line joins terms that follow each other in a sentence. '
        "Choose a term to see where it stands.</p>"
        f'{drawn.svg()}<dl class="places" aria-live="polite">{places}</dl></section>'
    )


def _signs(question: Question) -> str:
    kind = kind_of(question.whole[:READ])
    if not kind.signs:
        return "<p>None of the known signs of a subject stands in it, so it is only taken apart.</p>"
    signs = "".join(f'<li dir="auto">{escape(_clipped(sign, 60))}</li>' for sign in kind.signs[:12])
    return f'<p>Signs of {escape(kind.type)} in its text:</p><ul class="badges">{signs}</ul>'


def _marked(text: str) -> str:
    """The text with its quantities marked."""
    parts, end = [], 0
    for match in QUANTITY.finditer(text):
        parts += [escape(text[end : match.start()]), f"<mark>{escape(match[0])}</mark>"]
        end = match.end()
    return "".join(parts) + escape(text[end:])


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _isolated(text: str) -> str:
    """Text of either direction within an English sentence, between Unicode's FSI and PDI."""
    return f"\u2068{text}\u2069"

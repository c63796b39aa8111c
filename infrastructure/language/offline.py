"""A language model that is none: it reads the question by fixed rules and plays what it could work out."""

import re
from html import escape
from importlib.resources import files
from string import Template

import msgspec

from application.language import Analysis, Counterpart, Page, Question, Rejected, ReportProgress, Story
from infrastructure.language.animation import Animation, Label, Scene, Shape
from infrastructure.language.concept_map import concept_map, isolated
from infrastructure.language.options import named_answer, verdict
from infrastructure.language.reading import QUANTITY, READ, Reading, read
from infrastructure.language.signs import difficulty_of, kind_of
from infrastructure.language.subjects import recognised

SENTENCE = 500
"""Characters of a sentence or an option that are shown outside the question itself."""

SHOWN = re.compile(
    r"(?:explain|describe|show|trace|draw|demonstrate|illustrate|implement|write|how (?:do|does|is|are|can|would|to)|"
    r"what (?:is|are) (?:a|an|recursion)|insert|build|reverse)\b",
    re.IGNORECASE,
)
"""What asks for no more than to be shown how something goes."""


class OfflineModel:
    """Needs no key and no network; the same question gives the same bytes."""

    provider = "offline"

    def __init__(self) -> None:
        page = files("infrastructure.language").joinpath("page.html")
        self._page = Template(page.read_text(encoding="utf-8"))

    async def analyse(self, question: Question) -> Analysis:
        reading = _read(question)
        animation = recognised(reading)
        kind = kind_of(question.whole[:READ])
        return Analysis(
            type=animation.type if animation else kind.type,
            subject=animation.subject if animation else kind.subject,
            difficulty=difficulty_of(reading),
            concepts=_concepts(reading),
            asked=_clipped(reading.asked, 1000),
        )

    async def tell(self, question: Question, analysis: Analysis) -> Story:
        reading = _read(question)
        animation = recognised(reading)
        return _played_story(reading, animation) if animation else _mapped_story(reading, analysis)

    async def draw(
        self,
        question: Question,
        analysis: Analysis,
        story: Story,
        progress: ReportProgress,
        rejected: Rejected | None = None,
    ) -> Page:
        reading = _read(question)
        animation = recognised(reading)
        drawing = _played(reading, animation) if animation else _mapped(reading, analysis)
        page = self._page.substitute(
            title=escape(drawing.name),
            badges=_badges(analysis),
            question=_marked(question.question[:READ]),
            options=_options(question, reading),
            unread=_unread(reading),
            notes="".join(f'<p class="quiet" dir="auto">{escape(note)}</p>' for note in drawing.notes),
            steps="".join(map(_step, drawing.scenes)),
            scenes=_script_data([scene.shapes for scene in drawing.scenes]),
            tale=escape(story.title),
            story=_story(story),
            mapping=_mapping(story),
            reading=_how_read(question, animation),
        )
        await progress(1.0)
        return Page(page)


class _Drawing(msgspec.Struct, frozen=True):
    """What the page plays, whether or not the subject is known."""

    name: str
    scenes: list[Scene]
    notes: list[str]


def _read(question: Question) -> Reading:
    return read(question.question, question.options, question.answer)


def _concepts(reading: Reading) -> list[str]:
    """The terms, and the quantities that say more than a digit does; neither crowds the other out."""
    quantities = [quantity for quantity in reading.quantities if len(quantity) > 1 or not reading.terms]
    concepts = [*reading.terms[:6], *quantities[:4]]
    return list(dict.fromkeys(_clipped(concept, 60) for concept in concepts))


# A question of a known subject


def _played(reading: Reading, animation: Animation) -> _Drawing:
    """Its scenes; the last one says how options and answer compare, and what is left open."""
    last = animation.scenes[-1]
    closing = verdict(reading, animation) if animation.result else _left_open(reading)
    end = msgspec.structs.replace(last, says=f"{last.says} {closing}".strip())
    return _Drawing(animation.name, [*animation.scenes[:-1], end], animation.notes)


def _left_open(reading: Reading) -> str:
    if SHOWN.match(reading.asked):
        return named_answer(reading)
    asked = f"What the question asks, “{isolated(_clipped(reading.asked, 200))}”, was not worked out."
    return f"{asked} {named_answer(reading) or 'Watching it may help to find out.'}"


def _played_story(reading: Reading, animation: Animation) -> Story:
    tale = animation.tale
    end = f"So the answer is: {animation.result}. {verdict(reading, animation)}".strip() if animation.result else ""
    return Story(
        title=tale.title,
        setting=tale.setting,
        text="\n\n".join(part for part in (*tale.text, end) if part),
        mapping=[Counterpart(element, concept) for element, concept in tale.mapping],
    )


# Any other question: a map of its terms


def _mapped(reading: Reading, analysis: Analysis) -> _Drawing:
    map = concept_map(analysis.concepts, reading.sentences)
    if not map.terms:
        empty: list[Shape] = [Label("none", 180, 40, "No terms were found.", size=16)]
        return _Drawing("The question, taken apart", [Scene("No terms", _end(reading), empty)], [])
    scenes = map.scenes(reading)
    if reading.options:
        choices = "; ".join(f"{option.label}: {isolated(_clipped(option.text, 80))}" for option in reading.options[:8])
        scenes.append(Scene("What to choose from", f"{choices}.", map.end()))
    scenes.append(Scene("Where this ends", _end(reading), map.end()))
    return _Drawing(reading.asked if 0 < len(reading.asked) <= 120 else "A map of the question’s terms", scenes, [])


def _end(reading: Reading) -> str:
    if reading.answer:
        return f"{named_answer(reading)} It is repeated here, not checked."
    return (
        "Fixed rules cannot answer this for certain, so no answer is guessed. To go on: say what is asked in your own "
        "words, tick off which terms it needs, and follow the lines between them."
    )


def _mapped_story(reading: Reading, analysis: Analysis) -> Story:
    terms = concept_map(analysis.concepts, reading.sentences).terms
    told = [f"“{isolated(_clipped(fact, 300))}”" for fact in reading.given[:4]]
    more = len(reading.given) - len(told)
    facts = f"The guide only repeats what the question tells: {' '.join(told)}" if told else ""
    facts += f" And {more} more sentences." if more > 0 else ""
    asked = f"The visitor asks one thing: “{isolated(_clipped(reading.asked, 500))}”" if reading.asked else ""
    places = (
        f"On the map {isolated(terms[0])} stands in the middle, since the question turns on it most; "
        "a path leads from place to place wherever two of them follow each other in a sentence."
        if terms
        else ""
    )
    around = [f"a place around it: {_clipped(term, 100)}" for term in terms[1:4]]
    mapping = [
        *(Counterpart("the place in the middle", _clipped(term, 200)) for term in terms[:1]),
        *(Counterpart(place, "a term of the question") for place in around),
        Counterpart("a path", "two terms that follow each other in a sentence"),
        Counterpart("a broad path", "terms that do so more than once"),
    ]
    return Story(
        title="A map before the journey",
        setting="A visitor in a strange town, and a guide who knows the street names but has never been inside a "
        "house.",
        text="\n\n".join(part for part in (facts, asked, places, _end(reading)) if part),
        mapping=mapping if terms else [],
    )


# The page


def _badges(analysis: Analysis) -> str:
    parts = dict.fromkeys([analysis.type, analysis.subject, analysis.difficulty])
    return "".join(f'<li dir="auto">{escape(part)}</li>' for part in parts)


def _options(question: Question, reading: Reading) -> str:
    """Options that came beside the question; those within it are shown there."""
    if not question.options:
        return ""
    choices = "".join(
        f"<li><bdi>{escape(option.label)}. {escape(_clipped(option.text, SENTENCE))}</bdi></li>"
        for option in reading.options
    )
    return f"<ul>{choices}</ul>"


def _unread(reading: Reading) -> str:
    if not reading.unread:
        return ""
    return (
        f'<p class="quiet">Only the first {READ:,} characters are shown and read; {reading.unread:,} more follow.</p>'
    )


def _step(scene: Scene) -> str:
    return f"<li><h3>{escape(scene.title)}</h3><p>{escape(scene.says)}</p></li>"


def _script_data(scenes: list[list[Shape]]) -> str:
    """JSON that no HTML parser can mistake for the end of its element."""
    text = msgspec.json.encode(scenes).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _story(story: Story) -> str:
    setting = f'<p class="setting">{escape(story.setting)}</p>' if story.setting else ""
    return setting + "".join(f"<p>{escape(part)}</p>" for part in story.text.split("\n\n"))


def _mapping(story: Story) -> str:
    if not story.mapping:
        return ""
    pairs = "".join(
        f'<div><dt dir="auto">{escape(pair.element)}</dt><dd dir="auto">{escape(pair.concept)}</dd></div>'
        for pair in story.mapping
    )
    return (
        f'<section aria-labelledby="mapping"><h2 id="mapping">What stands for what</h2><dl '
        f'class="named">{pairs}</dl></section>'
    )


def _how_read(question: Question, animation: Animation | None) -> str:
    kind = kind_of(question.whole[:READ])
    known = (
        f"<p>It was recognised as a question about {escape(animation.subject)}, whose steps can be worked out by "
        f"rule.</p>"
        if animation
        else "<p>It fits none of the subjects that can be played step by step beyond doubt, so its terms are "
        "mapped instead.</p>"
    )
    if not kind.signs:
        return known
    signs = "".join(f'<li dir="auto">{escape(_clipped(sign, 60))}</li>' for sign in kind.signs[:12])
    return f'{known}<p>Signs of {escape(kind.type)} in its text:</p><ul class="badges">{signs}</ul>'


def _marked(text: str) -> str:
    """The text with its quantities marked."""
    parts, end = [], 0
    for match in QUANTITY.finditer(text):
        parts += [escape(text[end : match.start()]), f"<mark>{escape(match[0])}</mark>"]
        end = match.end()
    return "".join(parts) + escape(text[end:])


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

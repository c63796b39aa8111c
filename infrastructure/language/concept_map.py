"""A map of a question's own terms: terms which follow each other in a sentence are joined, sentence by sentence."""

import re
from collections import Counter
from itertools import pairwise
from math import cos, pi, sin

import msgspec

from infrastructure.language.animation import WIDTH, Box, Line, Scene, Shape, Tone, clipped, columns
from infrastructure.language.reading import Reading

HEIGHT = 410
TERMS = 9
"""The first stands in the middle, the others around it; more would touch each other."""
LINE = 14
"""Columns of text in a node's line."""
SENTENCES = 12
QUOTED = 500
"""Characters of a sentence that are quoted; the whole stands in the question itself."""


class ConceptMap(msgspec.Struct, frozen=True):
    """The terms drawn, how often each pair of them is joined, and the sentences in which each stands."""

    terms: list[str]
    joins: Counter[tuple[int, int]]
    places: list[list[str]]

    def scenes(self, reading: Reading) -> list[Scene]:
        """First the terms, then each sentence that names some of them and the lines it draws."""
        scenes = [
            Scene(
                "The words it turns on",
                f"{', '.join(map(isolated, self.terms))}: these come most often, or first.",
                self._shapes(set(), Counter()),
            )
        ]
        joined: Counter[tuple[int, int]] = Counter()
        telling = [sentence for sentence in reading.sentences if self._named(sentence)]
        for number, sentence in enumerate(telling[:SENTENCES]):
            named = self._named(sentence)
            fresh = _pairs(named)
            joined.update(fresh)
            title = "What is asked" if sentence == reading.asked else f"Sentence {number + 1}"
            terms = ", ".join(isolated(self.terms[at]) for at in named)
            drawn = " A line joins those that follow each other." if fresh else ""
            scenes.append(
                Scene(
                    title,
                    f"“{isolated(_cut(sentence, QUOTED))}” It names {terms}.{drawn}",
                    self._shapes(set(named), joined, fresh),
                )
            )
        if len(telling) > SENTENCES:
            for sentence in telling[SENTENCES:]:
                joined.update(_pairs(self._named(sentence)))
            scenes.append(
                Scene(
                    f"And {len(telling) - SENTENCES} more sentences",
                    "Their lines are drawn as well; the more often two terms follow each other, the stronger the line.",
                    self._shapes(set(), joined),
                )
            )
        return scenes

    def end(self) -> list[Shape]:
        """The whole map, as it stands in the end."""
        return self._shapes(set(), self.joins)

    def _named(self, sentence: str) -> list[int]:
        placed = [(_place(term, sentence), at) for at, term in enumerate(self.terms)]
        return [at for place, at in sorted(placed) if place >= 0]

    def _shapes(
        self, now: set[int], joined: Counter[tuple[int, int]], fresh: list[tuple[int, int]] | None = None
    ) -> list[Shape]:
        spots = _spots(len(self.terms))
        shapes: list[Shape] = []
        for a, b in sorted(joined):
            tone: Tone = "now" if (a, b) in (fresh or []) else "mark" if joined[a, b] > 1 else ""
            shapes.append(Line(f"{a}-{b}", *spots[a], *spots[b], tone))
        for at, term in enumerate(self.terms):
            lines = _wrapped(term)
            width = max(max(map(columns, lines)) * 7.2 + 12, 44)
            tone = "now" if at in now else "mark" if at == 0 else ""
            shapes.append(
                Box(f"t{at}", *spots[at], round(min(width, 113), 1), 17 * len(lines) + 15, "\n".join(lines), tone, 13)
            )
        return shapes


def concept_map(terms: list[str], sentences: list[str]) -> ConceptMap:
    text = "\n".join(sentences)
    drawn = [term for term in terms if _place(term, text) >= 0][:TERMS]
    drawn[1:] = sorted(drawn[1:], key=lambda term: _place(term, text))  # neighbours in the text, neighbours in the map
    map = ConceptMap(
        drawn, Counter(), [[sentence for sentence in sentences if _place(term, sentence) >= 0] for term in drawn]
    )
    for sentence in sentences:
        map.joins.update(_pairs(map._named(sentence)))
    return map


def isolated(text: str) -> str:
    """Text of either direction within an English sentence, between Unicode's FSI and PDI."""
    return f"\u2068{text}\u2069"


def _pairs(in_order: list[int]) -> list[tuple[int, int]]:
    return [(min(pair), max(pair)) for pair in pairwise(in_order)]


def _place(term: str, sentence: str) -> int:
    """Where a term stands as a whole word, or -1; scripts without blanks know no whole words."""
    if not term.isascii():
        return sentence.lower().find(term.lower())
    found = re.search(rf"(?<![\w.]){re.escape(term)}(?!\w)", sentence, re.IGNORECASE)
    return found.start() if found else -1


def _spots(count: int) -> list[tuple[float, float]]:
    """The middle, then an ellipse around it; few terms stand in a row."""
    middle = (WIDTH / 2, HEIGHT / 2)
    if count <= 3:
        return [middle, (62, middle[1] - 60), (WIDTH - 62, middle[1] + 60)][:count]
    around = count - 1
    turns = [2 * pi * at / around - pi / 2 for at in range(around)]
    return [middle, *((round(middle[0] + 121 * cos(a), 1), round(middle[1] + 172 * sin(a), 1)) for a in turns)]


def _wrapped(term: str) -> list[str]:
    """At most two lines; what does not fit ends in an ellipsis, and stands in full in the words of the step."""
    words, _, rest = term.partition(" ")
    lines = [term] if columns(term) <= LINE or not rest else [words, rest]
    return [clipped(line, LINE) for line in lines]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

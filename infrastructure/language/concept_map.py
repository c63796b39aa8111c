"""A map of a question's own terms: an SVG that joins terms which follow each other in a sentence."""

import re
from collections import Counter
from html import escape
from itertools import pairwise
from math import cos, pi, sin

import msgspec

WIDTH, HEIGHT = 400, 430
TERMS = 9
"""The first stands in the middle, the others around it; more would touch each other."""
LINE = 15
"""Columns of text in a node's line; an East Asian character takes two."""


class ConceptMap(msgspec.Struct, frozen=True):
    """The terms drawn, how often each pair of them is joined, and the sentences in which each stands."""

    terms: list[str]
    joins: Counter[tuple[int, int]]
    places: list[list[str]]

    def svg(self) -> str:
        spots = _spots(len(self.terms))
        lines = "".join(_line(spots, pair, count) for pair, count in sorted(self.joins.items()))
        nodes = "".join(_node(at, term, spots[at]) for at, term in enumerate(self.terms))
        height = HEIGHT if len(self.terms) > 3 else HEIGHT // 2
        top = (HEIGHT - height) // 2
        return f'<svg viewBox="0 {top} {WIDTH} {height}" role="group" aria-label="Concept map">{lines}{nodes}</svg>'


def concept_map(terms: list[str], sentences: list[str]) -> ConceptMap:
    text = "\n".join(sentences)
    drawn = [term for term in terms if _place(term, text) >= 0][:TERMS]
    drawn[1:] = sorted(drawn[1:], key=lambda term: _place(term, text))  # neighbours in the text, neighbours in the map
    joins: Counter[tuple[int, int]] = Counter()
    for sentence in sentences:
        placed = [(_place(term, sentence), at) for at, term in enumerate(drawn)]
        in_order = [at for place, at in sorted(placed) if place >= 0]
        joins.update((min(pair), max(pair)) for pair in pairwise(in_order))
    places = [[sentence for sentence in sentences if _place(term, sentence) >= 0] for term in drawn]
    return ConceptMap(drawn, joins, places)


def _place(term: str, sentence: str) -> int:
    """Where a term stands as a whole word, or -1; scripts without blanks know no whole words."""
    if not term.isascii():
        return sentence.lower().find(term.lower())
    found = re.search(rf"(?<![\w.]){re.escape(term)}(?!\w)", sentence, re.IGNORECASE)
    return found.start() if found else -1


def _spots(count: int) -> list[tuple[int, int]]:
    """The middle, then an ellipse around it; few terms stand in a row."""
    middle = (WIDTH // 2, HEIGHT // 2)
    if count <= 3:
        return [middle, (68, middle[1] - 60), (332, middle[1] + 60)][:count]
    around = count - 1
    turns = [2 * pi * at / around - pi / 2 for at in range(around)]
    return [middle, *((round(middle[0] + 132 * cos(a)), round(middle[1] + 175 * sin(a))) for a in turns)]


def _line(spots: list[tuple[int, int]], pair: tuple[int, int], count: int) -> str:
    (x1, y1), (x2, y2) = spots[pair[0]], spots[pair[1]]
    ends = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
    return f'<line {ends} stroke-width="{min(count, 4) * 1.5}" data-ends="{pair[0]} {pair[1]}"/>'


def _node(at: int, term: str, spot: tuple[int, int]) -> str:
    x, y = spot
    lines = _wrapped(term)
    width = max(max(map(_columns, lines)) * 8 + 24, 48)
    height = 20 * len(lines) + 16
    text = "".join(
        f'<text x="{x}" y="{y + 5 + 20 * row - 10 * (len(lines) - 1)}">{escape(line)}</text>'
        for row, line in enumerate(lines)
    )
    box = f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="14"/>'
    kind = "node main" if at == 0 else "node"
    label = escape(term, quote=True)
    return f'<g class="{kind}" role="button" tabindex="0" aria-label="{label}" data-node="{at}">{box}{text}</g>'


def _wrapped(term: str) -> list[str]:
    """At most two lines; what does not fit ends in an ellipsis, and stands in full in the list below the map."""
    words, _, rest = term.partition(" ")
    lines = [term] if _columns(term) <= LINE or not rest else [words, rest]
    return [line if _columns(line) <= LINE else _clipped(line) for line in lines]


def _clipped(line: str) -> str:
    while _columns(line) > LINE - 1:
        line = line[:-1]
    return line + "…"


def _columns(text: str) -> int:
    return sum(2 if character >= "\u1100" else 1 for character in text)

"""What kind of question it is, by signs that can be pointed at."""

import re

import msgspec

from application.language import Difficulty, QuestionType
from infrastructure.language.reading import Reading

SUBJECTS: list[tuple[QuestionType, str, str]] = [
    ("coding", "sorting", r"(?:bubble|merge|quick|insertion|selection|heap) ?sort|sorting algorithm"),
    ("coding", "linked lists", r"linked lists?"),
    ("coding", "trees and graphs", r"binary (?:search )?trees?|breadth.first|depth.first|adjacency|shortest path"),
    ("coding", "recursion", r"recursi(?:on|ve|vely)|base case|call stack"),
    ("coding", "arrays", r"arrays?|subarrays?|hash ?maps?|indices"),
    ("coding", "databases", r"sql|primary key|foreign key|database"),
    (
        "coding",
        "programming",
        r"python|javascript|java|rust|c\+\+|algorithm|time complexity|function that|compiler?|api",
    ),
    ("maths", "percentages", r"percent(?:age|ages)?|[0-9]+\s?%|discount|interest rate"),
    ("maths", "motion", r"km/h|mph|m/s|(?:average )?speed|how far|how fast"),
    ("maths", "probability", r"probability|dice|coin|at random|chances?"),
    ("maths", "geometry", r"triangle|rectangle|circle|radius|perimeter|area|angles?|volume of|hypotenuse|square root"),
    ("maths", "algebra", r"equations?|solve for|polynomial|quadratic|variable [a-z]"),
    ("maths", "calculus", r"derivative|integral|limit of|differentiate|integrate"),
    (
        "maths",
        "arithmetic",
        r"how many|how much|sum of|total|average|altogether|plus|minus|times|[0-9]+\s*[-+*/×÷=^]\s*[0-9]+",
    ),
    ("science", "biology", r"cells?|photosynthesis|dna|enzymes?|species|organism|chlorophyll|evolution|bacteria|leaf"),
    ("science", "chemistry", r"atoms?|molecules?|acid|chemical|reaction|oxygen|carbon|electrons?|periodic table|ions?"),
    ("science", "physics", r"forces?|gravity|energy|velocity|acceleration|newton|wavelength|voltage|friction|momentum"),
    ("science", "earth and space", r"planets?|moon|orbit|earth|volcano|climate|atmosphere|stars?|galaxy|tides?|rain"),
    ("reasoning", "logic", r"if all|all [a-z]+ are|therefore|must be true|conclude|knights?|liar|logically|assumption"),
    ("reasoning", "patterns", r"next in the (?:series|sequence)|comes next|odd one out|analogy|is to"),
    (
        "reasoning",
        "ordering",
        r"(?:taller|older|faster|shorter|younger|heavier) than|to the (?:left|right) of|sits? next",
    ),
    (
        "factual",
        "history",
        r"war|century|emperor|king|queen|president|revolution|treaty|ancient|invented|in [12][0-9]{3}",
    ),
    ("factual", "geography", r"capital|country|countries|river|continent|mountain|ocean|city|population of"),
    ("factual", "literature", r"novel|poem|poet|author|wrote|shakespeare|character"),
    ("factual", "general knowledge", r"who|when|where|which year|what is the name"),
]
"""Type, subject and what in a text speaks for them; of two that are equally spoken for, the first is taken."""

CODE = re.compile(
    r"```|\bdef \w+\(|\bfunction \w+\(|\breturn\b.{0,80};|#include|\bSELECT\b.{1,80}\bFROM\b|O\([^)\n]{1,20}\)|[=!]="
)


class Kind(msgspec.Struct, frozen=True):
    """What a question seems to be, and the words in it that say so."""

    type: QuestionType
    subject: str
    signs: list[str]


def kind_of(text: str) -> Kind:
    found = [(type, subject, _signs(pattern, text)) for type, subject, pattern in SUBJECTS]
    if code := CODE.findall(text):
        found.insert(0, ("coding", "programming", _distinct(code)))
    weights: dict[QuestionType, int] = {}
    for type, _, signs in found:
        weights[type] = weights.get(type, 0) + len(signs) * (1 if type == "factual" else 2)
    best = max(weights, key=weights.__getitem__)
    if not weights[best]:
        return Kind("other", "a question", [])
    spoken_for = [(subject, signs) for type, subject, signs in found if type == best]
    subject = max(spoken_for, key=lambda candidate: len(candidate[1]))[0]
    return Kind(best, subject, _distinct([sign for _, signs in spoken_for for sign in signs]))


def difficulty_of(reading: Reading) -> Difficulty:
    """By how much there is to hold in mind: facts, numbers and length; it knows nothing of the subject."""
    load = len(reading.given) + len(reading.quantities) + sum(map(len, reading.sentences)) // 150
    return "easy" if load <= 3 else "medium" if load <= 8 else "hard"


def _signs(pattern: str, text: str) -> list[str]:
    return _distinct(re.findall(rf"(?<!\w)(?:{pattern})(?!\w)", text, re.IGNORECASE))


def _distinct(signs: list[str]) -> list[str]:
    return list(dict.fromkeys(sign.lower().strip() for sign in signs))

"""The subjects that can be played step by step: each module recognises questions of its own."""

import re

from infrastructure.language.amounts import Doubt
from infrastructure.language.animation import Animation
from infrastructure.language.reading import Reading
from infrastructure.language.subjects import (
    arithmetic,
    arrays,
    geometry,
    graphs,
    linked_lists,
    motion,
    probability,
    recursion,
    sorting,
    trees,
)

LONGEST = 3_000
"""Characters of a question that may be played; a longer one says more than fixed rules can be sure of."""
ENDLESS = re.compile(r"[0-9]{20}")
"""A number that is none; patterns of numbers would try it from each of its digits on."""
SUBJECTS = (arrays, linked_lists, sorting, trees, graphs, recursion, arithmetic, geometry, probability, motion)


def recognised(reading: Reading) -> Animation | None:
    """The animation of the one subject that knows the question; None where none does, or several do."""
    if len(reading.text) > LONGEST or len(reading.code) > LONGEST or reading.unread or ENDLESS.search(reading.text):
        return None
    found = []
    for subject in SUBJECTS:
        try:
            found.append(subject.recognise(reading))
        except (Doubt, ZeroDivisionError):
            continue
    return found[0] if len(found) == 1 else None

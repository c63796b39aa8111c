"""Arithmetic of a question's own numbers: the first rule that fits the whole question works it out."""

from infrastructure.language.amounts import Doubt, Working
from infrastructure.language.expressions import expression
from infrastructure.language.percentages import changes, from_to, part_of_whole, percent_of, what_percent
from infrastructure.language.reading import Reading


def worked(reading: Reading) -> Working | None:
    """None unless a rule fits the whole question: no result is better than a wrong one."""
    text = " ".join(reading.sentences)
    if any(character.isdigit() and not character.isascii() for character in text):
        return None
    for rule in (expression, percent_of, what_percent, part_of_whole, from_to, changes):
        try:
            return rule(reading, text)
        except (Doubt, ZeroDivisionError):
            continue
    return None

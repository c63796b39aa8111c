"""Texts of others where they are printed for people: a terminal acts on none."""

import re

ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal does instead of showing it: it moves, colours, clears, sets titles, turns what follows round."""


def plain(text: object) -> str:
    """A kind, a message or any other text that callers chose, with what a terminal acts on shown as an escape."""
    return ACTS.sub(lambda found: found.group().encode("unicode_escape").decode(), str(text))

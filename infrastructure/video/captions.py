"""Notes become captions, a sentence or a part of one at a time."""

import re
from collections.abc import Iterator
from itertools import pairwise

from infrastructure.video.film import Caption
from infrastructure.video.text import clean

LONGEST = 90
"""Characters that are shown at once: two lines."""
_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s*")


def captions(notes: str, start: int, ticks: int) -> list[Caption]:
    """The captions of a slide that is shown from `start` for so many ticks; each in proportion to its length."""
    texts = [text for sentence in _SENTENCE.split(clean(notes)) for text in _short(sentence)]
    total = sum(len(text) for text in texts)
    said = 0
    moments = [start]
    for text in texts:
        said += len(text)
        moments.append(start + ticks * said // total)
    return [
        Caption(begin, end, text) for text, (begin, end) in zip(texts, pairwise(moments), strict=True) if end > begin
    ]


def _short(sentence: str) -> Iterator[str]:
    """A sentence in parts that end between words, where there are any."""
    while len(sentence) > LONGEST:
        end = sentence.rfind(" ", LONGEST // 2, LONGEST + 1)
        end = end if end > 0 else LONGEST
        yield sentence[:end].strip()
        sentence = sentence[end:].strip()
    if sentence:
        yield sentence

"""A question as people write it in a file: its options in lines of their own, and perhaps a line with the answer."""

import re

from application.language import LABELLED, LONGEST_CHOICE, MOST_OPTIONS, Question

ANSWER = re.compile(r"[ \t]*[*_]{0,2}(?:correct[ \t]+)?answer[*_]{0,2}[ \t]*[:=][*_]{0,2}[ \t]*(\S.*)", re.IGNORECASE)


def read_question(text: str) -> Question:
    """The options and the answer at the end of a text, as far as they are plain; else all of it is the question.

    Plain options are two or more lines at the end, whose labels follow each other from A, a or 1; numbers only where
    what stands before them asks, or an answer follows, since a list may be part of a question. No text is lost: an
    option keeps its label.
    """
    lines = text.removeprefix("\ufeff").strip().splitlines()
    rest, answer = _answer(lines)
    stem, options = _options(rest, answered=answer is not None)
    question = "\n".join(stem).strip()
    if not question or not (options or answer):
        return Question(text)
    return Question(question, options, answer)


def _answer(lines: list[str]) -> tuple[list[str], str | None]:
    if lines and (named := ANSWER.fullmatch(lines[-1])) and len(named[1]) <= LONGEST_CHOICE:
        return lines[:-1], named[1].strip()
    return lines, None


def _options(lines: list[str], *, answered: bool) -> tuple[list[str], list[str]]:
    """What stands before the options, and the options."""
    begin = len(lines)
    while begin and (not lines[begin - 1].strip() or LABELLED.match(lines[begin - 1])):
        begin -= 1
    first = max((at for at in range(begin, len(lines)) if _label(lines[at]) in ("A", "a", "1")), default=None)
    if first is None:
        return lines, []
    stem, options = lines[:first], [line.strip() for line in lines[first:] if line.strip()]
    numbered = _label(options[0]) == "1"
    asks = "\n".join(stem).rstrip().endswith(("?", "？", "؟"))
    follow = [_label(option) for option in options] == _labels(_label(options[0]), len(options))
    plain = follow and 2 <= len(options) <= MOST_OPTIONS and max(map(len, options)) <= LONGEST_CHOICE
    return (stem, options) if plain and (answered or asks or not numbered) else (lines, [])


def _label(line: str) -> str:
    found = LABELLED.match(line)
    return found[2] if found else ""


def _labels(first: str, count: int) -> list[str]:
    return [str(n + 1) if first == "1" else chr(ord(first) + n) for n in range(count)]

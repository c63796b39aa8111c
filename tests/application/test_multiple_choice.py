"""Options and answers are read where they are plain, and no text is ever lost."""

import re

import pytest

from application.language import LONGEST_CHOICE, Question
from application.multiple_choice import read_question


@pytest.mark.parametrize(
    ("text", "options", "answer"),
    [
        ("Which?\nA) red\nB) blue", ["A) red", "B) blue"], None),
        ("Which?\n\n(a) red\n(b) blue\n(c) green\n", ["(a) red", "(b) blue", "(c) green"], None),
        ("Which?\r\n1. red\r\n2. blue\r\n", ["1. red", "2. blue"], None),
        ("Which?\nA. red\n\nB. blue\n\nAnswer: B", ["A. red", "B. blue"], "B"),
        ("Which?\n - A: red\n - B: blue\nCorrect answer: red", ["- A: red", "- B: blue"], "red"),
        ("\ufeffWhich?\nA) red\nB) blue\n**Answer:** B", ["A) red", "B) blue"], "B"),
        ("Pick one:\n1) red\n2) blue\nanswer = 2", ["1) red", "2) blue"], "2"),
        ("What is 2 + 2?\nAnswer: 4", [], "4"),
        ("Which?\nB) no label begins with B\nA) red\nB) blue", ["A) red", "B) blue"], None),
    ],
)
def test_plain_options_and_answers_are_read(text: str, options: list[str], answer: str | None) -> None:
    question = read_question(text)
    assert (question.options, question.answer) == (options, answer)
    assert words(question.whole) == words(text)


@pytest.mark.parametrize(
    "text",
    [
        "Why is the sky blue?",
        "Which?\nA) red\nB) blue\nExplain your choice.",
        "Which?\nA) red",
        "Which?\nA) red\nC) blue",
        "Which?\nA) red\n2. blue",
        "Sort these numbers:\n1. 17\n2. 4",
        "A) red\nB) blue",
        "Answer: 42",
        "```\nA) code\nB) code\n```",
        f"Which?\nA) {'x' * LONGEST_CHOICE}\nB) blue",
        "Which?\n" + "\n".join(f"{n}. x" for n in range(1, 40)),
        "The answer: who knows? Where is it?",
    ],
)
def test_what_is_not_plain_stays_a_question_as_it_is(text: str) -> None:
    assert read_question(text) == Question(text)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("correct answer", "answer"))

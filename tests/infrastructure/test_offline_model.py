"""The offline model reads a question by its signs, works out what it safely can, and composes a harmless page."""

import asyncio
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from application.language import Analysis, Question
from infrastructure.language.concept_map import concept_map
from infrastructure.language.offline import OfflineModel
from infrastructure.language.reading import READ, Option, read
from infrastructure.language.subjects.arithmetic import worked

JACKET = (
    "A jacket costs 80 dollars. In the sale its price is reduced by 25 %, and at the till 8 % sales tax is added. "
    "What is the final price of the jacket?"
)
HOSTILE = (
    "What is <script>alert(1)</script> </style></title></textarea> \"><img src=x onerror=alert(2)> ' onfocus='alert(3) "
    "<svg onload=alert(4)> javascript:alert(5) ${title} $question </pre><!-- ?"
)


def analysed(question: str) -> Analysis:
    return asyncio.run(OfflineModel().analyse(Question(question)))


def told(question: str) -> str:
    async def tell() -> str:
        model, asked = OfflineModel(), Question(question)
        return (await model.tell(asked, await model.analyse(asked))).text

    return asyncio.run(tell())


def drawn(question: str) -> str:
    async def draw() -> str:
        model, asked = OfflineModel(), Question(question)
        analysis = await model.analyse(asked)
        return (await model.draw(asked, analysis, await model.tell(asked, analysis), ignore)).html

    return asyncio.run(draw())


async def ignore(part: float) -> None:
    assert 0 <= part <= 1


def result(question: str) -> str | None:
    working = worked(read(question))
    return working.result if working else None


class Elements(HTMLParser):
    """The elements of a page, and what is left open at its end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("question", "type", "subject"),
    [
        (JACKET, "maths", "percentages"),
        ("What is 12 * (3 + 4)?", "maths", "arithmetic"),
        ("If a train travels 90 km in 1.5 hours, what is its average speed?", "maths", "motion"),
        ("What is the time complexity of reversing a linked list?", "coding", "linked lists"),
        ("What does this print?\n```\ndef f(x):\n    return x\n```", "coding", "programming"),
        ("Why does the moon cause tides on earth?", "science", "earth and space"),
        ("If all bloops are razzies, are all razzies bloops?", "reasoning", "logic"),
        ("What is the capital of France?", "factual", "geography"),
        ("ما هي عاصمة فرنسا؟", "other", "a question"),
    ],
)
def test_kind_is_read_from_signs_in_the_text(question: str, type: str, subject: str) -> None:
    analysis = analysed(question)
    assert (analysis.type, analysis.subject) == (type, subject)


def test_concepts_are_the_questions_own_terms_and_quantities() -> None:
    concepts = analysed(JACKET).concepts
    assert {"jacket", "price", "80 dollars", "25 %", "8 %"} <= set(concepts)
    assert all(concept.lower() in JACKET.lower() for concept in concepts)


def test_more_facts_make_a_question_harder() -> None:
    assert analysed("What is the capital of France?").difficulty == "easy"
    assert analysed(JACKET).difficulty == "medium"
    assert analysed("A box holds 12 pens and 30 pins. " * 8 + "How many pens are there?").difficulty == "hard"


def test_options_and_answer_are_told_from_the_question() -> None:
    reading = read("What is 15% of 240?\nA) 30\nB) 36\nC) 40 D) 12\nAnswer: B")
    assert reading.asked == "What is 15% of 240?"
    assert reading.options == [Option("A", "30"), Option("B", "36"), Option("C", "40"), Option("D", "12")]
    assert reading.answer == "B"


def test_clause_before_the_asking_word_is_given() -> None:
    reading = read("If a train travels 90 km in 1.5 hours, what is its average speed?")
    assert reading.given == ["If a train travels 90 km in 1.5 hours"]
    assert reading.asked == "what is its average speed?"
    assert reading.quantities == ["90 km", "1.5 hours"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (JACKET, "64.80 dollars"),
        ("What is 15% of 240?", "36"),
        ("What is 7.5 percent of $1,200?", "$90"),
        ("What is 12 * (3 + 4) - 5 ^ 2 / 3?", "227/3 (about 75.6667)"),
        ("2 plus 3 times 4 = ?", "14"),
        ("-2 - -3", "1"),
        ("What is 0.1 + 0.2?", "0.3"),
        ("7 is what percent of 8?", "87.5 %"),
        ("18 of 24 students passed the test. What percentage passed?", "75 %"),
        ("The rent rises from $800 to $920. By what percent did it increase?", "15 % more"),
        ("A jacket costs $60 after a 25% discount. What was the original price?", "$80"),
        ("A meal costs $50. You leave a 18% tip. How much was the tip?", "$9"),
        ("A coat costs $80. Tax of 8 % is added to the reduced price of a coat. What is the final price?", "$86.40"),
    ],
)
def test_numbers_are_worked_out(question: str, expected: str) -> None:
    assert result(question) == expected


@pytest.mark.parametrize(
    "question",
    [
        "A jacket costs $60 each after a 25% discount. What was the original price?",
        "Three jackets cost $80 with 25% off. What is the final price?",
        "After a 25% discount a jacket costs $60. How much did you save?",
        "A jacket costs $60. It was reduced by 25%. What was the original price?",
        "A town grows by 5% every year from 8000 people. What is the new population?",
        "18 of 24 students passed the test. What percentage failed?",
        "25% of students walk and 30% ride. How many of the 400 students do neither?",
        "A price of $80 rises 10% less 5%. What is the final price?",
        "Prices: 3,5 and 20 %. What is 20 % of 3,5?",
        "1/0",
        "9^9^9",
        "2024-01-05",
        "٣ + ٤",
        "(" * 70,
        "What is the capital of France?",
    ],
)
def test_doubtful_numbers_are_left_alone(question: str) -> None:
    assert result(question) is None


def test_result_is_compared_with_options_and_answer() -> None:
    assert "That is option B: 36." in told("What is 15% of 240?\nA) 30\nB) 36\nAnswer: A")
    assert "names its answer: A (30)." in told("What is 15% of 240?\nA) 30\nB) 36\nAnswer: A")
    assert "None of the options says exactly that." in told("What is 15% of 240?\nA) 30\nB) 35")


def test_page_shows_each_sum_and_the_result() -> None:
    page = unescape(drawn(JACKET))
    for shown in ("80 dollars × 0.25 = 20 dollars", "60 dollars + 4.80 dollars = 64.80 dollars"):
        assert shown in page


def test_shipped_example_is_worked_out() -> None:
    example = Path(__file__).parents[2] / "examples" / "question.txt"
    assert "That is option C: A, C, B, D, E." in told(example.read_text(encoding="utf-8"))


def test_page_says_that_no_language_model_wrote_it() -> None:
    assert "Made offline, without a language model" in drawn("What is the capital of France?")


def test_same_question_gives_the_same_bytes() -> None:
    assert drawn(JACKET) == drawn(JACKET)


@pytest.mark.parametrize(
    "question",
    [JACKET, HOSTILE, "???", "$$$ ${x} $", "一个班有40名学生。女生有多少人？", "كم ثمن ٣ كتب؟", "a\x01b\u202ec"],
)
def test_page_is_whole_and_asks_nothing_of_the_network(question: str) -> None:
    page = drawn(question)
    elements = Elements(page)
    assert not elements.open
    assert {"h1", "svg" if analysed(question).concepts else "h1"} <= {tag for tag, _ in elements.tags}
    assert not re.search(r"https?:|url\(|@import|\bsrc=|\bhref=", page.replace("src=x onerror", ""))


def test_hostile_question_adds_no_element_and_no_handler() -> None:
    elements = Elements(drawn(HOSTILE))
    tags = [tag for tag, _ in elements.tags]
    assert (tags.count("script"), tags.count("style"), tags.count("title")) == (2, 1, 1)
    assert "img" not in tags
    assert not [name for _, attributes in elements.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in unescape(drawn(HOSTILE))


def test_question_beyond_what_is_read_is_cut_in_plain_words() -> None:
    page = drawn("A box holds <b>12</b> pens & pins. " * 7000)
    assert f"Only the first {READ:,} characters are shown and read" in page
    assert len(page.encode()) < 512 * 1024


def test_terms_that_follow_each_other_are_joined() -> None:
    drawn = concept_map(["cell", "energy", "light"], ["Light gives energy.", "A cell is excellent."])
    assert drawn.terms == ["cell", "light", "energy"]
    assert drawn.joins == {(1, 2): 1}
    assert drawn.places[0] == ["A cell is excellent."]

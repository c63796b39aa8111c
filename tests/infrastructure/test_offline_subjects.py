"""The offline model knows ten subjects, plays their questions with true facts, and leaves all others alone."""

import asyncio
import random
import re
from collections import deque
from fractions import Fraction
from html import unescape
from itertools import pairwise, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.language import Question, Story
from application.page import MAX_PAGE, page_findings
from application.payload import LARGEST
from infrastructure.language.animation import Animation
from infrastructure.language.offline import OfflineModel
from infrastructure.language.reading import read
from infrastructure.language.subjects import recognised
from tests.infrastructure.questions import QUESTIONS, Asked, row, shortest

MODEL = OfflineModel()
FEW = settings(max_examples=40, deadline=None)
NUMBERS = st.lists(st.integers(-99, 999), min_size=3, max_size=9)
DISTINCT = st.lists(st.integers(0, 99), min_size=3, max_size=9, unique=True)


def story_and_page(question: Question) -> tuple[Story, str]:
    async def make() -> tuple[Story, str]:
        analysis = await MODEL.analyse(question)
        story = await MODEL.tell(question, analysis)
        return story, (await MODEL.draw(question, analysis, story, ignore)).html

    return asyncio.run(make())


async def ignore(part: float) -> None:
    assert 0 <= part <= 1


def played(question: str) -> Animation:
    animation = recognised(read(question))
    assert animation, question
    return animation


def steps(animation: Animation) -> str:
    return "\n".join(f"{scene.title}\n{scene.says}" for scene in animation.scenes)


@pytest.mark.parametrize("asked", QUESTIONS, ids=[f"{n}-{asked.subject or 'map'}" for n, asked in enumerate(QUESTIONS)])
def test_question_is_recognised_and_told_with_true_facts(asked: Asked) -> None:
    question = Question(asked.question)
    animation = recognised(read(asked.question))
    assert (animation.subject if animation else "") == asked.subject
    story, page = story_and_page(question)
    said = [unescape(re.sub(r"<[^>]*>", " ", step)) for step in re.findall(r"<li><h3>.*?</li>", page, re.DOTALL)]
    notes = animation.notes if animation else []
    for fact in asked.facts:
        assert fact in "\n".join([*said, *notes]), (fact, said)
    assert asked.answer in said[-1]
    assert story.setting
    assert len(story.mapping) >= 3
    assert "Made offline, without a language model" in page
    assert len(page.encode()) <= MAX_PAGE
    assert page_findings(page) == []


@pytest.mark.parametrize("asked", QUESTIONS[::5])
def test_same_question_gives_the_same_story_and_page(asked: Asked) -> None:
    assert story_and_page(Question(asked.question)) == story_and_page(Question(asked.question))


def test_question_without_values_is_played_with_values_said_to_be_examples() -> None:
    for question in (
        "How do you reverse a linked list?",
        "How does bubble sort work?",
        "Explain breadth-first search.",
    ):
        animation = played(question)
        assert "Example values, since the question gives none." in animation.notes
        assert not animation.result


@pytest.mark.parametrize(
    "question",
    [
        "Compare bubble sort and merge sort on [3, 1, 2].",
        "Sort [3, 1, 2] and then use binary search to find 2.",
        "What is the second largest number in [4, 9, 2]?",
        "What is the sum of the even numbers in [1, 2, 3, 4]?",
        "What is the maximum subarray sum of [1, -3, 4, -1, 2]?",
        "How many comparisons does binary search need at most for 1000 elements?",
        "Insert 4 at position 2 in the array [1, 2, 3].",
        "Does the linked list 1 -> 2 -> 3 have a cycle?",
        "Merge the two sorted linked lists 1->3 and 2->4.",
        "What is the level-order traversal of the binary tree [1, 2, 3, 4]?",
        "Delete 30 from the BST with 50, 30, 70.",
        "What is the difference between BFS and DFS?",
        "Find the shortest path from A to C over the edges A-B 4, B-C, A-C 9.",
        "How many trailing zeros does 25! have?",
        "Is 5! greater than 100?",
        "What is the area of a rectangle whose length is twice its width of 4 cm?",
        "The area of a rectangle is 40 cm² and its length is 8 cm. What is its width?",
        "A triangle has sides of 1 cm, 2 cm and 9 cm. What is its area?",
        "A fish tank is 50 cm long, 30 cm wide and 40 cm high. What is its volume in liters?",
        "A bag has 5 red and 7 green balls. Two balls are drawn. What is the probability that both are red?",
        "What is the probability of rolling a 3 or a 5 with a die?",
        "A biased coin is tossed twice. What is the probability of two heads?",
        "A car drives 60 km at 30 km/h and then 60 km at 60 km/h. What is its average speed?",
        "A train leaves at 9:15 and travels 90 km at 60 km/h. When does it arrive?",
        "A ball is dropped from 20 m. How long does it take to hit the ground?",
        "In 1845, 1846 and 1848 there were riots. What is the biggest?",
        "Why does the moon cause tides?",
    ],
)
def test_what_is_ambiguous_or_more_than_rules_can_tell_is_not_played(question: str) -> None:
    assert recognised(read(question)) is None


@pytest.mark.parametrize(
    ("question", "result"),
    [
        ("What does [5, 1, 4, 2] look like after the first pass of bubble sort?", "1, 4, 2, 5"),
        ("Sort [64, 25, 12] with selection sort in descending order.", "64, 25, 12"),
        ("arr = [10, 20, 30, 40]. What is arr[2]?", "30"),
        ("What is the smallest value in the list 9, -4, 7?", "-4"),
        ("Search for 7 in the array [3, 9, 7, 1] using linear search.", "index 2"),
        ("Insert 5 after 3 in the linked list 1 -> 3 -> 8.", "1 → 3 → 5 → 8"),
        ("Delete 3 from the linked list 1 -> 3 -> 5.", "1 → 5"),
        ("Roads connect Bern to Thun (30), Thun to Spiez (12), Bern to Spiez (45). What is the shortest route from "
         "Bern "
         "to Spiez?", "Bern → Thun → Spiez"),
        ("What is the 10th Fibonacci number?", "55"),
        ("Write a recursive function that returns the sum of the digits of 5283.", "18"),
        ("A rectangular garden is 12 m by 9 m. How long is its diagonal?", "15 m"),
        ("A rectangle is 2 m long and 50 cm wide. What is its area?", "1 m²"),
        ("Find the area of a triangle with sides 3, 4 and 5.", "6 square units"),
        ("A triangle has a base of 10 cm and a height of 6 cm. What is its area?", "30 cm²"),
        ("What is the perimeter of a triangle with sides 5 cm, 7 cm and 9 cm?", "21 cm"),
        ("The hypotenuse of a right triangle is 13 cm and one leg is 5 cm. How long is the other leg?", "12 cm"),
        ("A circle has a radius of 7 cm. Use 3.14 for pi. What is its area?", "153.86 cm²"),
        ("What is the circumference of a circle with a diameter of 10 m?", "about 31.42 m"),
        ("A cube has edges of 4 cm. What is its volume?", "64 cm³"),
        ("What is the surface area of a box 4 cm by 3 cm by 5 cm?", "94 cm²"),
        ("A jar holds 6 red, 4 yellow and 2 black sweets. What is the probability of picking one that is not red?",
         "1/2, 50 %"),
        ("A bag has 5 red and 7 green balls. One is drawn, then put back, and a second is drawn. What is the "
         "probability "
         "that both are red?", "25/144, about 17.36 %"),
        ("Two fair six-sided dice are rolled. What is the probability of rolling doubles?", "1/6, about 16.67 %"),
        ("What is the probability of drawing an ace or a heart from a deck of 52 cards?", "4/13, about 30.77 %"),
        ("What is the probability of drawing a red queen from a standard deck?", "1/26, about 3.85 %"),
        ("An athlete runs 400 m in 50 seconds. What is the speed in km/h?", "28.8 km/h"),
        ("A car travels at 50 mph for 3 hours. How many kilometers does it travel?", "241.4016 km"),
        ("Walking at 5 km/h, how long does it take to walk 12 km?", "2.4 h (2 h 24 min)"),
        ("Two cyclists start at the same time 45 km apart and ride towards each other at 12 km/h and 18 km/h. "
         "After how "
         "many minutes do they meet?", "90 min"),
        ("A train leaves at 60 km/h. Two hours later another leaves at 90 km/h. How long does it take to catch "
         "up?", "4 h"),
        ("A runner is 200 m ahead and runs at 4 m/s. Another runs at 6 m/s. How long until he catches up?", "100 s"),
        ("Two buses leave in opposite directions at 50 km/h and 70 km/h. How far apart are they after 90 "
         "minutes?", "180 km"),
    ],
)  # fmt: skip
def test_result_is_worked_out(question: str, result: str) -> None:
    assert played(question).result == result


@FEW
@given(NUMBERS, st.sampled_from(["bubble", "insertion", "selection", "merge", "quick"]), st.booleans())
def test_every_sort_sorts(numbers: list[int], method: str, down: bool) -> None:
    order = "descending" if down else "ascending"
    animation = played(f"Use {method} sort to sort {numbers} in {order} order.")
    assert animation.result == row(sorted(numbers, reverse=down))
    assert animation.result in animation.scenes[-1].says


@FEW
@given(DISTINCT, st.integers(0, 99))
def test_binary_search_finds_what_is_there(numbers: list[int], wanted: int) -> None:
    numbers.sort()
    result = played(f"At which index does binary search find {wanted} in {numbers}?").result
    assert result == (f"index {numbers.index(wanted)}" if wanted in numbers else "not found")


@FEW
@given(DISTINCT, st.integers(1, 180))
def test_two_pointers_find_a_pair_if_there_is_one(numbers: list[int], target: int) -> None:
    result = played(f"Use two pointers to find two numbers of {sorted(numbers)} that add up to {target}.").result
    pairs = {f"{a} + {b} = {target}" for a, b in permutations(numbers, 2) if a + b == target}
    assert result in pairs if pairs else result == "no pair"


@FEW
@given(DISTINCT)
def test_walks_through_a_tree_obey_their_rules(numbers: list[int]) -> None:
    walks = {
        name: [
            int(value)
            for value in played(f"What is the {name} traversal of a BST built from {numbers}?").result.split(", ")
        ]
        for name in ("in-order", "pre-order", "post-order", "level-order")
    }
    assert walks["in-order"] == sorted(numbers)
    for name in ("pre-order", "level-order"):  # parents come before children, so either grows the very same tree again
        assert played(f"What is the post-order traversal of a BST built from {walks[name]}?").result == row(
            walks["post-order"]
        )
    assert walks["post-order"][-1] == walks["pre-order"][0] == walks["level-order"][0] == numbers[0]


def drawn_edges(seed: int) -> dict[tuple[str, str], int]:
    """A connected graph of five nodes."""
    chance = random.Random(seed)
    tree = [
        ("A", "B"),
        ("BA"[chance.randrange(2)], "C"),
        ("CBA"[chance.randrange(3)], "D"),
        ("DC"[chance.randrange(2)], "E"),
    ]
    more = [edge for edge in (("A", "E"), ("B", "E"), ("A", "D")) if chance.random() < 0.5 and edge not in tree]
    return {edge: chance.randint(1, 20) for edge in [*tree, *more]}


@pytest.mark.parametrize("seed", range(15))
def test_shortest_path_is_no_longer_than_any_other(seed: int) -> None:
    edges = drawn_edges(seed)
    named = ", ".join(f"{a}-{b} {w}" for (a, b), w in edges.items())
    animation = played(f"Find the shortest path from A to E in the graph with the edges {named}.")
    way = animation.result.split(" → ")
    lengths = {**edges, **{(b, a): w for (a, b), w in edges.items()}}
    _, length = shortest(edges, "A", "E")
    assert sum(lengths[step] for step in pairwise(way)) == length
    assert f"= {length}." in animation.scenes[-1].says or f"the length {length}." in animation.scenes[-1].says


@pytest.mark.parametrize("seed", range(8))
def test_breadth_first_goes_by_distance_and_depth_first_by_name(seed: int) -> None:
    edges = drawn_edges(seed)
    named = ", ".join(f"{a}-{b}" for a, b in edges)
    near = {name: sorted({b for a, b in edges if a == name} | {a for a, b in edges if b == name}) for name in "ABCDE"}
    order, queue = ["A"], deque("A")
    while queue:
        fresh = [name for name in near[queue.popleft()] if name not in order]
        order += fresh
        queue += fresh
    assert played(f"In what order does BFS from A visit the graph with edges {named}?").result == row(order)
    deep: list[str] = []
    stack = ["A"]
    while stack:
        if (name := stack.pop()) not in deep:
            deep.append(name)
            stack += reversed(near[name])
    assert played(f"In what order does DFS from A visit the graph with edges {named}?").result == row(deep)


@pytest.mark.parametrize("total", range(2, 13))
def test_dice_are_counted(total: int) -> None:
    outcomes = [sum(dice) for dice in product(range(1, 7), repeat=2)]
    value = Fraction(outcomes.count(total), 36)
    assert played(f"Two dice are rolled. What is the probability that the sum is {total}?").value == value
    value = Fraction(sum(sum_ <= total for sum_ in outcomes), 36)
    assert played(f"Two dice are rolled. What is the probability that the sum is at most {total}?").value == value


@FEW
@given(st.integers(10, 900), st.integers(5, 150), st.integers(5, 150))
def test_two_that_meet_have_come_the_whole_way(distance: int, first: int, second: int) -> None:
    animation = played(
        f"Two cars are {distance} km apart and drive towards each other at {first} km/h and {second} km/h. When do "
        f"they meet?"
    )
    assert animation.value is not None
    assert animation.value * first + animation.value * second == distance


@pytest.mark.parametrize(
    ("options", "answer", "said"),
    [
        (["60 km/h", "45 km/h"], None, "That is option A: 60 km/h."),
        (["1. 45", "2. 60"], "2", "That is option 2: 60. The question itself names its answer: 2 (60)."),
        (["45 km/h", "50 km/h"], None, "None of the options says exactly that."),
        (["60 m/s", "45 km/h"], None, ""),
        (["a mile a minute", "faster than that"], None, ""),
    ],
)
def test_options_beside_the_question_are_compared_only_in_the_same_unit(
    options: list[str], answer: str | None, said: str
) -> None:
    question = Question("A car travels 90 km in 1.5 hours. What is its average speed?", options, answer)
    story, page = story_and_page(question)
    assert story.text.endswith(f"So the answer is: 60 km/h. {said}".strip())
    assert all(option in re.sub(r"<[^>]*>", "", page) for option in options)


HOSTILE = [
    "[" * 3000,
    "1, " * 1000,
    "[1, 2, 3] -> " * 200 + "linked list reverse",
    "A-B 4, " * 400 + "shortest path from A to B",
    "the probability of " + "3 red " * 500 + "marbles from a bag?",
    "km/h " * 500 + "9 km " * 100 + "meet?",
    "bubble sort " + "9" * 2900,
    "triangle area base " + "1,000," * 400,
    "insert " * 500 + "array index",
    "(" * 1500 + ")" * 1500,
    "</script><!--<script>" * 100 + "sort [3, 1, 2]",
    "\u202e\u2066🙂" * 500 + " sort the numbers 3, 1, 2",
    "A" * LARGEST,
    "a " * (LARGEST // 2),
    "1" * LARGEST,
    "[1, 2" * (LARGEST // 5),
    "🙂" * (LARGEST // 4),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("question", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_question_costs_little_and_adds_no_element(question: str) -> None:
    _, page = story_and_page(Question(question))
    assert len(page.encode()) <= MAX_PAGE
    assert page.count("<script") == page.count("</script>") == 2


def test_values_of_a_question_are_escaped_wherever_they_stand() -> None:
    hostile = "Sort the words amp, lt and gt with bubble sort. </script><script>alert(1)</script>"
    _, page = story_and_page(Question(hostile))
    assert page.count("<script") == 2
    assert "alert(1)" in page

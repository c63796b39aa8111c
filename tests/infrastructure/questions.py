"""Thirty questions of many kinds, each with what must be recognised, and facts worked out here in other ways."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise, permutations, product
from math import factorial, pi
from typing import NamedTuple


class Asked(NamedTuple):
    """A question; `facts` must stand in its steps, and `answer` in the last one."""

    subject: str
    question: str
    facts: list[str]
    answer: str


def row(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def inversions(values: list[int]) -> int:
    """Each swap of neighbours removes just one of these."""
    return sum(a > b for a, b in combinations(values, 2))


def percent(part: Fraction) -> str:
    return f"{part.numerator}/{part.denominator}"


def shortest(edges: dict[tuple[str, str], int], start: str, end: str) -> tuple[list[str], int]:
    """By trying every way."""
    lengths = {**edges, **{(b, a): w for (a, b), w in edges.items()}}
    between = {name for edge in edges for name in edge} - {start, end}
    ways = [(start, *way, end) for n in range(len(between) + 1) for way in permutations(between, n)]
    walked = [
        (sum(lengths[step] for step in pairwise(way)), list(way))
        for way in ways
        if all(step in lengths for step in pairwise(way))
    ]
    length, way = min(walked)
    return way, length


def both(colours: str, colour: str) -> Fraction:
    """Drawing `colour` twice without putting back, from one letter for each marble."""
    pairs = list(permutations(colours, 2))
    return Fraction(sum(pair == (colour, colour) for pair in pairs), len(pairs))


SWAPPED = [34, 12, 25, 8, 19]
MERGED = [38, 27, 43, 3, 9, 82, 10]
SEARCHED = [4, 9, 15, 21, 33, 47, 52, 68, 74]
PAIRED = [2, 5, 9, 14, 17, 23]
SCORES = [71, 88, 64, 93, 85]
GROWN = [42, 17, 63, 8, 29, 55]
ROADS = {("A", "B"): 7, ("A", "C"): 3, ("C", "B"): 2, ("B", "D"): 4, ("C", "D"): 9, ("D", "E"): 1}
WAY, LENGTH = shortest(ROADS, "A", "E")
DICE = list(product(range(1, 7), repeat=2))
TOSSES = list(product("HT", repeat=3))

QUESTIONS = [
    Asked(
        "sorting",
        f"Bubble sort is run on the array {SWAPPED}. How many swaps does it make until the array is sorted?",
        [row(sorted(SWAPPED)), "34 is greater than 12, so the two swap places."],
        f"{inversions(SWAPPED)} swaps",
    ),
    Asked(
        "sorting",
        "Use insertion sort to put the words plum, fig, apple and cherry in alphabetical order.",
        ["plum comes after fig"],
        "apple, cherry, fig, plum",
    ),
    Asked(
        "sorting",
        "What does the list [29, 10, 14, 37, 13] look like after the second pass of selection sort?",
        ["10, 29, 14, 37, 13", row([10, 13, 14, 37, 29])],
        "10, 13, 14, 29, 37",
    ),
    Asked(
        "sorting",
        f"How does merge sort put {row(MERGED[:-1])} and {MERGED[-1]} in order?",
        ["Split 38, 27, 43, 3, 9, 82, 10", "Merged: 27, 38, 43"],
        row(sorted(MERGED)),
    ),
    Asked(
        "sorting",
        "Trace quicksort on [8, 4, 7, 2, 6], taking the last element as pivot.",
        ["Pivot 6", "8 is greater than 6"],
        "2, 4, 6, 7, 8",
    ),
    Asked(
        "arrays",
        f"At which index does binary search find 52 in the sorted array {SEARCHED}?",
        ["33 at index 4 is less than 52"],
        f"index {SEARCHED.index(52)}",
    ),
    Asked(
        "arrays",
        f"Given the sorted array {PAIRED}, use two pointers to find two numbers that add up to 26.",
        ["2 + 23 = 25", "Less than 26"],
        next(f"{a} + {b} = 26" for a, b in combinations(PAIRED, 2) if a + b == 26),
    ),
    Asked(
        "arrays",
        "Insert 17 at index 2 of the array [12, 15, 19, 24]. What does the array look like then?",
        ["24 moves to index 4", "19 moves to index 3"],
        "12, 15, 17, 19, 24",
    ),
    Asked(
        "arrays",
        f"What is the average of the values in the list {SCORES}?",
        [f"total = {sum(SCORES)}"[8:]],
        f"{sum(SCORES) / len(SCORES):g}",
    ),
    Asked(
        "linked lists",
        "How is the singly linked list 3 -> 8 -> 1 -> 6 reversed in place?",
        ["8 now points back to 3.", "Remember 6"],
        "6 → 1 → 8 → 3",
    ),
    Asked(
        "linked lists",
        "In the linked list 5 -> 2 -> 9 -> 4 -> 7 the last node points back to 9. Does it have a cycle?",
        ["tortoise"],
        "begins at 9 and has 3 nodes",
    ),
    Asked(
        "trees",
        f"Insert {row(GROWN[:-1])} and {GROWN[-1]} into an empty binary search tree. What is its in-order traversal?",
        ["42 is the root", "29 < 42, 29 > 17"],
        row(sorted(GROWN)),
    ),
    Asked(
        "trees",
        "Which nodes are visited when we search for 29 in a BST built by inserting 42, 17, 63, 8, 29, 55?",
        ["29 is less than 42", "29 is greater than 17"],
        "Found with 3 comparisons",
    ),
    Asked(
        "graphs",
        "A graph has the edges A-B, A-C, B-D, C-D, D-E and C-F. In what order does a breadth-first search "
        "starting at A visit the nodes?",
        ["B and C are new and join the queue."],
        "A, B, C, D, F, E",
    ),
    Asked(
        "graphs",
        "Find the shortest path from A to E in the graph with the edges A-B 7, A-C 3, C-B 2, B-D 4, C-D 9, D-E 1.",
        ["3 + 2 = 5, better than 7"],
        f"{' → '.join(WAY)}, with the length 3 + 2 + 4 + 1 = {LENGTH}",
    ),
    Asked(
        "recursion",
        "What does factorial(6) return, and what is on the call stack on the way?",
        ["factorial(1) is the base case", f"5 × {factorial(4)} = {factorial(5)}"],
        f"{factorial(6)}",
    ),
    Asked(
        "recursion",
        "How many moves does the Tower of Hanoi need with 4 disks?",
        ["Move 1: disc 1 from A to B", "Move 8: disc 4 from A to C"],
        f"{2**4 - 1} moves for 4 discs",
    ),
    Asked(
        "recursion",
        "What is recursion? Explain it with an example.",
        ["Example values, since the question gives none."],
        f"4! = {factorial(4)}",
    ),
    Asked("arithmetic", "What is 48 / (2 + 6) * 5 - 3^2?", ["2 + 6 = 8", "48 ÷ 8 = 6"], f"{48 / (2 + 6) * 5 - 3**2:g}"),
    Asked("percentages", "What is 35% of 240?", ["35 ÷ 100 = 0.35"], f"{240 * 35 // 100}"),
    Asked(
        "percentages",
        "A laptop costs $900. In the sale its price is reduced by 20 %, and then 10 % tax is added. What "
        "is the final price?\nA) $792\nB) $810\nC) $990",
        ["$900 − $180 = $720"],
        "That is option A: $792.",
    ),
    Asked(
        "geometry",
        "A rectangular room is 7 m long and 4 m wide. What is its area?",
        ["There are 4 such rows"],
        f"{7 * 4} m²",
    ),
    Asked(
        "geometry",
        "A ladder 6.5 m long leans against a wall; its foot is 2.5 m from the wall. How high does it reach?",
        ["42.25 − 6.25 = 36"],
        f"{(6.5**2 - 2.5**2) ** 0.5:g} m",
    ),
    Asked(
        "geometry",
        "What is the volume of a cylinder with a radius of 3 cm and a height of 12 cm?",
        [f"{9 * pi:.2f} cm²"],
        f"{pi * 9 * 12:.2f} cm³",
    ),
    Asked(
        "probability",
        "A bag contains 4 red, 5 blue and 3 green marbles. Two marbles are drawn without replacement. What "
        "is the probability that both are blue?",
        ["first draw has 5 of 12"],
        percent(both("RRRRBBBBBGGG", "B")),
    ),
    Asked(
        "probability",
        "Two dice are rolled. What is the probability that the sum is greater than 8?",
        ["10 outcomes"],
        percent(Fraction(sum(a + b > 8 for a, b in DICE), len(DICE))),
    ),
    Asked(
        "probability",
        "A fair coin is tossed three times. What is the probability of at least two heads?",
        ["HHT"],
        percent(Fraction(sum(toss.count("H") >= 2 for toss in TOSSES), len(TOSSES))),
    ),
    Asked(
        "motion",
        "Two trains are 420 km apart and head towards each other, one at 80 km/h and the other at 60 km/h. How "
        "long does it take until they meet?",
        ["80 + 60 = 140 km/h"],
        f"{420 / (80 + 60):g} h",
    ),
    Asked(
        "motion",
        "A cyclist rides 27 km in 1 hour and 30 minutes. What is her average speed?",
        ["27 km ÷ 1.5 h"],
        f"{27 / 1.5:g} km/h",
    ),
    Asked(
        "",
        "Why did the Roman Empire fall? Historians name invasions, economic trouble and civil wars. Civil wars "
        "weakened the Empire.",
        ["Civil wars"],
        "no answer is guessed",
    ),
]
"""The last one is of no known subject, and gets a map of its terms."""

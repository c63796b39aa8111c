"""Arithmetic and percentages of a question's own numbers: the first rule that fits the whole question works it out."""

import re

from infrastructure.language.amounts import Doubt, Working
from infrastructure.language.animation import (
    WIDTH,
    Animation,
    Box,
    Disc,
    Label,
    Line,
    Scene,
    Shape,
    Tale,
    Tone,
    clipped,
    size_within,
)
from infrastructure.language.expressions import expression
from infrastructure.language.percentages import PERCENT, changes, from_to, part_of_whole, percent_of, what_percent
from infrastructure.language.reading import Reading

MOST_TERMS = 9
"""Numbers of an expression that is drawn as a tree; a longer one is written line by line."""


def worked(reading: Reading) -> Working | None:
    """None unless a rule fits the whole question: no result is better than a wrong one."""
    text = reading.text
    if any(character.isdigit() and not character.isascii() for character in text):
        return None
    for rule in (expression, percent_of, what_percent, part_of_whole, from_to, changes):
        try:
            return rule(reading, text)
        except (Doubt, ZeroDivisionError):
            continue
    return None


def recognise(reading: Reading) -> Animation:
    working = worked(reading)
    if working is None:
        raise Doubt
    percentages = (
        "%" in reading.text or PERCENT.search(reading.text) or re.search("percent", reading.text, re.IGNORECASE)
    )
    scenes = _scenes(reading, working)
    return Animation(
        type="maths",
        subject="percentages" if percentages else "arithmetic",
        name=f"How {working.result} comes about",
        scenes=scenes,
        tale=_tale_of_hundreds(working) if percentages else _tale_of_orders(working),
        result=working.result,
        value=working.value,
        notes=[working.assumption] if working.assumption else [],
    )


def _scenes(reading: Reading, working: Working) -> list[Scene]:
    if working.operations and len(working.operations) < MOST_TERMS:
        return _tree_scenes(working)
    share = working.bars[1].share if len(working.bars) == 2 else 0
    percents = PERCENT.findall(reading.text)
    if (
        share
        and len(percents) == 1
        and working.bars[1].label.startswith(percents[0])
        and float(percents[0]) == int(float(percents[0])) <= 100
    ):
        return _hundred_scenes(working, int(float(percents[0])))
    return _line_scenes(working)


# An expression as a tree: what binds tightest stands lowest and is worked out first


def _tree_scenes(working: Working) -> list[Scene]:
    operations = working.operations
    leaves = sorted({place for o in operations for place in (o.left, o.right)} - {o.result for o in operations})
    texts = {o.left: o.left_written for o in operations} | {o.right: o.right_written for o in operations}
    step = min(76.0, (WIDTH - 20) / len(leaves))
    x = {place: WIDTH / 2 + (at - (len(leaves) - 1) / 2) * step for at, place in enumerate(leaves)}
    level = dict.fromkeys(leaves, 0)
    for o in operations:
        x[o.result] = (x[o.left] + x[o.right]) / 2
        level[o.result] = 1 + max(level[o.left], level[o.right])
    highest = max(level.values())
    y = {place: round(58 * (highest - up), 1) for place, up in level.items()}

    def shapes(done: int, now: int = -1) -> list[Shape]:
        drawn: list[Shape] = []
        for at, o in enumerate(operations):
            drawn += [
                Line(
                    f"l{o.result}-{side}",
                    round(x[o.result], 1),
                    y[o.result],
                    round(x[side], 1),
                    y[side],
                    "now" if at == now else "",
                )
                for side in (o.left, o.right)
            ]
        for place in leaves:
            looked_at = now >= 0 and place in (operations[now].left, operations[now].right)
            drawn.append(_number_box(place, x[place], y[place], texts[place], step, "now" if looked_at else ""))
        for at, o in enumerate(operations):
            if at < done:
                looked_at = now >= 0 and o.result in (operations[now].left, operations[now].right)
                tone: Tone = "now" if looked_at else "done"
                drawn.append(_number_box(o.result, x[o.result], y[o.result], o.result_written, max(step, 60), tone))
            else:
                drawn.append(Disc(f"o{o.result}", round(x[o.result], 1), y[o.result], 15, o.sign, "mark", 18))
        return drawn

    scenes = [
        Scene(
            "The order of the work",
            "The lowest signs bind tightest: brackets first, then powers, then × and ÷, then + and −, "
            "from left to right.",
            shapes(0),
        )
    ]
    for at, (step_, o) in enumerate(zip(working.steps, operations, strict=True)):
        why = "Both numbers of this sign are known now."
        scenes.append(
            Scene(f"{step_.words}: {o.left_written} {o.sign} {o.right_written}", f"{why} {step_.sum}.", shapes(at, at))
        )
    scenes.append(
        Scene(working.result, f"The last sign is worked out: {working.steps[-1].sum}.", shapes(len(operations)))
    )
    return scenes


def _number_box(place: int, x: float, y: float, text: str, room: float, tone: Tone) -> Box:
    width = round(min(max(9 * len(text) + 16, 34), room - 4), 1)
    return Box(f"n{place}", round(x, 1), y, width, 34, text, tone, size_within(text, width - 6, 17))


# A percentage as so many of a hundred equal parts


def _hundred_scenes(working: Working, percent: int) -> list[Scene]:
    whole, part = working.bars

    def shapes(filled: int, tone: Tone, *under: str) -> list[Shape]:
        drawn: list[Shape] = []
        for at in range(100):
            x, y = 180 + (at % 10 - 4.5) * 22, 16 + (at // 10) * 22
            drawn.append(Box(f"h{at}", x, y, 20, 20, "", tone if at < filled else ""))
        return [
            *drawn,
            *(
                Label(
                    f"u{at}", 180, 248 + 22 * at, line, "mark" if at == 0 else "done", size=size_within(line, 340, 16)
                )
                for at, line in enumerate(under)
            ),
        ]

    first, last = working.steps
    return [
        Scene(
            "A hundred equal parts",
            f"Together the hundred squares are {whole.label.partition(': ')[2]}.",
            shapes(0, "", whole.label),
        ),
        Scene(
            first.words, f"{first.sum}. So {percent} of the hundred squares count.", shapes(percent, "now", whole.label)
        ),
        Scene(last.words, f"{last.sum}.", shapes(percent, "now", whole.label, part.label)),
        Scene(
            working.result,
            f"{percent} of a hundred parts: {last.sum}.",
            shapes(percent, "done", whole.label, part.label),
        ),
    ]


# Amounts as bars, to one scale, or an expression line by line


def _line_scenes(working: Working) -> list[Scene]:
    bars = working.bars
    scenes = []
    for at, step in enumerate(working.steps):
        seen = 1 + (at + 1) * (len(bars) - 1) // len(working.steps)
        drawn = _bars(working, seen, "now") if bars else _lines(working, at)
        scenes.append(Scene(step.words, f"{step.sum}.", drawn))
    end = _bars(working, len(bars), "done") if bars else _lines(working, len(working.steps) - 1, "done")
    scenes.append(Scene(working.result, f"The last sum gives it: {working.steps[-1].sum}.", end))
    return scenes


def _bars(working: Working, seen: int, tone: Tone) -> list[Shape]:
    shapes: list[Shape] = []
    for at, bar in enumerate(working.bars[:seen]):
        y = 20 + 58 * at
        width = max(round(340 * bar.share, 1), 3)
        shapes.append(Label(f"t{at}", 10, y, bar.label, "", "start", size_within(bar.label, 340, 15)))
        shapes.append(Box(f"b{at}", 10 + width / 2, y + 25, width, 24, "", tone if at == seen - 1 else "mark"))
    return shapes


def _lines(working: Working, last: int, tone: Tone = "now") -> list[Shape]:
    first = max(0, last - 11)
    return [
        _line(at, 24 + 26 * (at - first), clipped(working.steps[at].sum, 44), tone if at == last else "")
        for at in range(first, last + 1)
    ]


def _line(at: int, y: float, text: str, tone: Tone) -> Shape:
    return Label(f"s{at}", 12, y, text, tone, "start", size_within(text, 336, 17))


def _tale_of_orders(working: Working) -> Tale:
    sums = "; ".join(step.sum for step in working.steps[:8])
    return Tale(
        title="Who is served first",
        setting="A workshop with one workbench and a strict order of service.",
        text=[
            "The signs of the expression stand in line at the bench. Those in brackets are served before everybody "
            "else, then come the powers, then "
            "multiplication and division, and only then addition and subtraction. Equals are served from left to "
            "right.",
            f"Each hands over two numbers and takes one back, and whoever waited for that one may step forward: "
            f"{sums}. "
            f"The last one leaves the bench with {working.result}.",
        ],
        mapping=[
            ("the order of service", "the precedence of the signs"),
            ("a customer with two numbers", "one operation"),
            ("the number taken back", "an intermediate result"),
            ("the last to leave", "the value of the expression"),
        ],
    )


def _tale_of_hundreds(working: Working) -> Tale:
    sums = "; ".join(step.sum for step in working.steps[:8])
    return Tale(
        title="The chocolate bar of a hundred squares",
        setting="A kitchen table, and a bar of chocolate that is always divided into a hundred equal squares.",
        text=[
            "Whatever the amount is, it is melted down and cast as one bar of a hundred squares. A per cent is one "
            "square, neither more nor less; how "
            "much it weighs depends on the bar it was broken from. That is why a part of one bar must never be "
            "mistaken for a part of another.",
            f"Square by square the question becomes: {sums}.",
        ],
        mapping=[
            ("the bar", "the amount that is 100 %"),
            ("one square", "1 %"),
            ("breaking squares off, or adding some", "lowering or raising by a percentage"),
            ("a new bar of another weight", "the new amount, to which the next percentage refers"),
        ],
    )

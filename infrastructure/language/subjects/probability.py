"""Probability: every outcome is drawn, and those that count are counted."""

import re
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from itertools import product
from math import ceil

from infrastructure.language.amounts import Doubt, shown
from infrastructure.language.animation import (
    Animation,
    Box,
    Disc,
    Label,
    Line,
    Scene,
    Shape,
    Tale,
    Tone,
    counted,
    listed,
)
from infrastructure.language.reading import Reading

ASKS = re.compile(r"\bprobabilit(?:y|ies)\b|\bchances?\b|\bhow likely\b|\blikelihood\b|\bodds\b", re.IGNORECASE)
OTHER = re.compile(
    r"\bgiven that\b|\bexpected\b|\bconditional|\bbiased\b|\bunfair\b|\bloaded\b|\bweighted\b|\bindependent of\b|\bP\(|"
    r"\bprevious|\balready\b|\bthree (?:cards|marbles|balls|dice)\b|\btwo cards\b|\bjokers?\b|\bodds\b",
    re.IGNORECASE,
)
NUMBERS = {
    "no": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}
COUNT = rf"([0-9]{{1,2}}|{'|'.join(NUMBERS)}|an?)"
PAINTS = {
    "red": "#d6453d", "blue": "#3f72d8", "green": "#3f9a55", "yellow": "#e5bd2c", "white": "#f4f4f1",
    "black": "#33363c", "orange": "#e68a2e", "purple": "#8a55b8", "pink": "#e48fb4", "brown": "#8b6246",
    "grey": "#9aa0a8", "gray": "#9aa0a8",
}  # fmt: skip
COLOUR = "|".join(PAINTS)
THING = (
    r"marbles?|balls?|beads?|sweets?|cand(?:y|ies)|socks?|counters?|chips?|tokens?|pens?|buttons?|blocks?|cubes?|"
    r"jelly ?beans?"
)
IN_BAG = re.compile(rf"\b{COUNT} ({COLOUR})\b", re.IGNORECASE)
WITHOUT = re.compile(
    r"\bwithout (?:replacement|replacing|putting|returning)|\bnot (?:replaced|put back|returned)|\bat once\b|"
    r"\bat the same time\b|\btogether\b",
    re.IGNORECASE,
)
WITH = re.compile(
    r"(?<!out )\bwith replacement\b|\b(?:is|and|then) (?:replaced|put back|returned)|\bputs? it back|\breplaces it\b",
    re.IGNORECASE,
)
TWO = re.compile(
    rf"\b(?:two|2) (?:of (?:them|the \w+)|{THING})\b|\bboth\b|\btwice\b|\ba second\b|\bone after (?:the other|another)",
    re.IGNORECASE,
)
SIDES, SUITS = 6, ["♠", "♥", "♦", "♣"]
SUIT_NAMES = {"spade": 0, "heart": 1, "diamond": 2, "club": 3}
RANKS = ["A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K"]
RANK_NAMES = {"ace": 0, "jack": 10, "queen": 11, "king": 12, **{word: at - 1 for word, at in NUMBERS.items() if at > 1}}
Outcome = tuple[int, ...]


def recognise(reading: Reading) -> Animation:
    text = reading.text
    if not ASKS.search(text) or OTHER.search(text) or "%" in text:
        raise Doubt
    for sign, play in SOURCES:
        if re.search(sign, text, re.IGNORECASE):
            return play(reading)
    raise Doubt


def _number(written: str) -> int:
    written = written.lower()
    return 1 if written in ("a", "an") else NUMBERS[written] if written in NUMBERS else int(written)


def _said(value: Fraction) -> str:
    """`1/6, about 16.67 %`."""
    if value in (0, 1):
        return str(value)
    percent = value * 100
    about = f"{shown(percent)} %" if (percent * 100).denominator == 1 else f"about {float(percent):.2f} %"
    return f"{value.numerator}/{value.denominator}, {about}"


def _only_numbers(text: str, *known: str) -> None:
    """Raises Doubt for a number beside those in the known pieces."""
    for piece in known:
        text = text.replace(piece, " ", 1)
    if re.search(r"[0-9]", text):
        raise Doubt


# A bag of things of several colours


def _bag(reading: Reading) -> Animation:
    text = reading.text
    told = " ".join(reading.given) or text
    found = list(IN_BAG.finditer(told))
    counts: dict[str, int] = {}
    for match in found:
        if match[2].lower() in counts:
            raise Doubt
        counts[match[2].lower()] = _number(match[1])
    totals = [match[1] for match in re.finditer(rf"\b([0-9]{{1,2}}) (?:{THING})\b", told, re.IGNORECASE)]
    total = sum(counts.values())
    if len(counts) < 2 or not 2 <= total <= 40 or any(int(said) != total for said in totals):
        raise Doubt
    _only_numbers(told, *(match[0] for match in found), *totals)
    _only_numbers(re.sub(r"\b2 (?:of|marbles|balls)", " ", reading.asked))
    wanted = [
        colour for colour in dict.fromkeys(re.findall(rf"\b({COLOUR})\b", reading.asked.lower())) if colour in counts
    ]
    if not wanted or len(wanted) < len(set(re.findall(rf"\b({COLOUR})\b", reading.asked.lower()))):
        raise Doubt
    if TWO.search(text):
        return _two_draws(reading, counts, wanted)
    return _one_draw(reading, counts, wanted)


def _marbles(counts: dict[str, int], count_in: set[str] | None = None) -> list[Shape]:
    """Things in rows within a bag; those which do not count are faded."""
    colours = [colour for colour, count in counts.items() for _ in range(count)]
    per_row = min(10, max(5, ceil(len(colours) ** 0.5 * 1.4)))
    rows = ceil(len(colours) / per_row)
    step = min(32.0, 170 / rows)
    shapes: list[Shape] = [Box("bag", 180, 24 + rows * step / 2, per_row * 32 + 24, rows * step + 22)]
    for at, colour in enumerate(colours):
        x = 180 + (at % per_row - (per_row - 1) / 2) * 32
        y = round(24 + (at // per_row + 0.5) * step, 1)
        tone: Tone = "" if count_in is None else "now" if colour in count_in else "off"
        shapes.append(Disc(f"m{at}", x, y, round(step * 0.42, 1), colour[0].upper(), tone, 12, PAINTS[colour]))
    return shapes


def _under(shapes: list[Shape], text: str, tone: Tone = "mark") -> list[Shape]:
    """The shapes, and a line of text below them."""
    bottom = max(shape.y + shape.h / 2 for shape in shapes if isinstance(shape, Box))
    return [*shapes, Label("under", 180, round(bottom + 24, 1), text, tone, size=17)]


def _one_draw(reading: Reading, counts: dict[str, int], wanted: list[str]) -> Animation:
    asked = reading.asked.lower()
    negated = re.search(r"\bnot\b|n't\b|\bneither\b", asked)
    if len(wanted) > 1 and not re.search(r"\bor\b|\bnor\b|\beither\b", asked):
        raise Doubt
    if re.search(r"\bonly\b|\bat least\b|\bexactly\b|\bdifferent\b|\bsame\b", asked):
        raise Doubt
    count_in = {colour for colour in counts if (colour in wanted) != bool(negated)}
    total, good = sum(counts.values()), sum(counts[colour] for colour in count_in)
    value = Fraction(good, total)
    kinds = listed([f"{count} {colour}" for colour, count in counts.items()])
    name = f"{'not ' if negated else ''}{' or '.join(wanted)}"
    return _animation(
        f"Drawing one that is {name}",
        [
            Scene(
                "All that can be drawn",
                f"{kinds}: {total} in all. Without looking, each of them is as likely as any other.",
                _under(_marbles(counts), f"{total} in all"),
            ),
            Scene(
                f"Those that are {name}",
                f"{good} of the {total} count; the others are faded.",
                _under(_marbles(counts, count_in), f"{good} of {total}"),
            ),
            Scene(
                f"The probability: {_said(value)}",
                f"{good} of {total} equally likely outcomes: {_quotient(good, total, value)}.",
                _under(_marbles(counts, count_in), f"{good}/{total}", "done"),
            ),
        ],
        Tale(
            title="Lots with nobody peeking",
            setting="A dark bag and an outstretched hand.",
            text=[
                f"In the bag are {kinds}. The hand cannot see, and fingers feel no colour. So it is as if {total} "
                f"people had put their names in and one "
                "was drawn: everybody has the same hope.",
                f"Of the {total}, {good} would cheer at {name}. That is all there is to it: how many would cheer, "
                f"out of how many there are: {good}/{total}.",
            ],
            mapping=[
                ("each thing in the bag", "an outcome, equally likely"),
                ("those who would cheer", "the favourable outcomes"),
                ("everybody", "all outcomes"),
                ("their share", "the probability"),
            ],
        ),
        value,
    )


def _quotient(good: int, total: int, value: Fraction) -> str:
    return f"{good} ÷ {total} = {_said(value)}"


def _two_draws(reading: Reading, counts: dict[str, int], wanted: list[str]) -> Animation:
    text, asked = reading.text, reading.asked.lower()
    without, back = WITHOUT.search(text), WITH.search(text)
    if bool(without) == bool(back):
        raise Doubt
    if re.search(
        r"\bnot\b(?! replac)|\bor\b|\bdifferent\b|\bfirst\b|\bexactly\b|\bonly\b|\bneither\b|\bthree\b", asked
    ):
        raise Doubt
    total = sum(counts.values())
    left = total - (1 if without else 0)
    if left < 1:
        raise Doubt
    colour = wanted[0]
    if len(wanted) == 1 and re.search(r"\bat least one\b", asked):
        others = total - counts[colour]
        first, second = Fraction(others, total), Fraction(max(others - (1 if without else 0), 0), left)
        value = 1 - first * second
        branches = [(f"not {colour}", others, total), (f"not {colour}", max(others - (1 if without else 0), 0), left)]
        name, what = f"at least one {colour}", f"The opposite is easier: both are not {colour}"
        end = f"1 − {_fraction(branches[0])} × {_fraction(branches[1])} = {_said(value)}"
    elif len(wanted) == 1 and re.search(r"\bboth\b|\btwo\b", asked):
        branches = [(colour, counts[colour], total), (colour, max(counts[colour] - (1 if without else 0), 0), left)]
        value = Fraction(branches[0][1], total) * Fraction(branches[1][1], left)
        name, what = f"both {colour}", f"First {colour}, and then {colour} once more"
        end = f"{_fraction(branches[0])} × {_fraction(branches[1])} = {_said(value)}"
    else:
        raise Doubt
    kinds = listed([f"{count} {colour}" for colour, count in counts.items()])
    after = "It stays outside, so one is missing" if without else "It goes back, so the bag is as it was"
    count_in = {c for c in counts if (c == colour) != branches[0][0].startswith("not")}
    return _animation(
        f"Drawing two: {name}",
        [
            Scene("All that can be drawn", f"{kinds}: {total} in all.", _under(_marbles(counts), f"{total} in all")),
            Scene(
                f"The first: {branches[0][0]}",
                f"{what}. The first draw has {branches[0][1]} of {total} ways.",
                _under(_marbles(counts, count_in), f"first: {_fraction(branches[0])}"),
            ),
            Scene(
                f"The second: {branches[1][0]}", f"{after}: now {branches[1][1]} of {left} count.", _tree(branches, 2)
            ),
            Scene(
                "Along the branch",
                f"Of the {branches[0][1]}/{total} that got this far, only {branches[1][1]}/{left} go on, and a "
                f"part of a part is a "
                "product.",
                _tree(branches, 2),
            ),
            Scene(
                f"The probability: {_said(value)}",
                f"{end}.",
                _under(_tree(branches, 2, done=True), str(value), "done"),
            ),
        ],
        Tale(
            title="Two gates, one behind the other",
            setting="A path with two gates, each guarded by a bag.",
            text=[
                f"At each gate a hand goes into the bag: {kinds} at first. Who draws {branches[0][0]} may pass, "
                f"{branches[0][1]} of {total}. "
                + (
                    "What was drawn is not put back, so the second gate is guarded by a bag that has changed."
                    if without
                    else "What was drawn is put back, so the second gate is just like the first."
                ),
                f"Of those who passed the first gate, {branches[1][1]} of {left} pass the second. A part of a "
                f"part: {end}.",
            ],
            mapping=[
                ("a gate", "a draw"),
                ("those who pass", "the branch of the tree that counts"),
                (
                    "what was not put back" if without else "what was put back",
                    "without replacement" if without else "with replacement",
                ),
                ("a part of a part", "multiplying along the branch"),
            ],
        ),
        value,
    )


def _fraction(branch: tuple[str, int, int]) -> str:
    return f"{branch[1]}/{branch[2]}"


def _tree(branches: list[tuple[str, int, int]], depth: int, done: bool = False) -> list[Shape]:
    """The tree of draws: the branch that counts above, the rest below."""
    shapes: list[Shape] = [Disc("root", 34, 130, 8)]
    x, y = 34.0, 130.0
    for level, (name, good, total) in enumerate(branches[:depth]):
        to_x, up, down = x + 130, y - 52 + 8 * level, y + 46
        tone: Tone = "done" if done else "now"
        other = name.removeprefix("not ") if name.startswith("not ") else f"not {name}"
        shapes += [
            Line(f"g{level}", x + 8, y, to_x - 46, up, tone),
            Line(f"b{level}", x + 8, y, to_x - 46, down, "off"),
            Label(f"gl{level}", (x + to_x - 46) / 2, (y + up) / 2 - 12, f"{good}/{total}", tone, size=15),
            Label(f"bl{level}", (x + to_x - 46) / 2, (y + down) / 2 + 14, f"{total - good}/{total}", "off", size=14),
            Box(f"gb{level}", to_x, up, 88, 30, name, tone, 14),
            Box(f"bb{level}", to_x, down, 88, 30, other, "off", 14),
        ]
        x, y = to_x + 44, up
    return shapes


# Dice, coins and cards: all outcomes on a grid


def _dice(reading: Reading) -> Animation:
    text, asked = reading.text, reading.asked
    if re.search(
        r"\b(?:[0-9]+|four|eight|ten|twelve|twenty)[\s-]sided",
        re.sub(r"\b(?:6|six)[\s-]sided", "", text),
        re.IGNORECASE,
    ):
        raise Doubt
    text = re.sub(
        r"\b(?:6|six)[\s-]sided\b|\bnumbered (?:from )?1 (?:to|through|-) ?6\b", "", text, flags=re.IGNORECASE
    )
    two = re.search(r"\b(?:two|2|pair of) (?:\w+ ){0,2}dice\b|\bdice are\b|\btwice\b", text, re.IGNORECASE)
    one = re.search(r"\b(?:a|one|single) (?:\w+ ){0,2}di(?:e|ce)\b", text, re.IGNORECASE)
    if bool(two) == bool(one) or re.search(r"\btwice\b|\btimes\b", text, re.IGNORECASE):
        raise Doubt
    count_of = two or one
    if two and count_of:
        text = text.replace(count_of[0], " ")
    counts_in, name = _dice_event(asked, bool(two))
    numbers = re.findall(r"[0-9]+", text)
    if len(numbers) > len(re.findall(r"[0-9]+", name)):
        raise Doubt
    outcomes: list[Outcome] = list(product(range(1, SIDES + 1), repeat=2 if two else 1))
    good = [outcome for outcome in outcomes if counts_in(outcome)]
    value = Fraction(len(good), len(outcomes))
    draw = _two_dice if two else _one_die
    what = "two dice" if two else "a die"
    why = (
        "The first die has 6 faces, and with each of them the second has 6 again: 6 × 6 = 36 outcomes, all equally "
        "likely."
        if two
        else "A die has 6 faces, and a fair one shows each as often as any other."
    )
    shown_good = ", ".join("+".join(map(str, outcome)) for outcome in good[:12]) + (" …" if len(good) > 12 else "")
    return _animation(
        f"Rolling {what}: {name}",
        [
            Scene("All outcomes", why, _under(draw(set(), None), f"{len(outcomes)} outcomes")),
            Scene(
                f"Those with {name}",
                (f"{counted(len(good), 'outcome')}: {shown_good}." if good else "There is none."),
                _under(draw(set(good), "now"), f"{len(good)} of {len(outcomes)}"),
            ),
            Scene(
                f"The probability: {_said(value)}",
                f"{_quotient(len(good), len(outcomes), value)}.",
                _under(draw(set(good), "done"), f"{len(good)}/{len(outcomes)}", "done"),
            ),
        ],
        _tale_of_seats(f"rolling {what}", name, len(good), len(outcomes)),
        value,
    )


def _dice_event(asked: str, two: bool) -> tuple[Callable[[Outcome], bool], str]:
    """What counts, and its name."""
    text = asked.lower()
    if two and re.search(r"\bdoubles?\b|\bsame (?:number|value|face)\b|\bequal\b", text):
        return (lambda dice: dice[0] == dice[1]), "the same number twice"
    what = "a sum" if two else "a number"
    if two and not re.search(r"\bsum\b|\btotal\b|\badds? up\b|\btogether\b", text):
        raise Doubt
    if re.search(
        r"\bor\b(?! (?:more|greater|higher|less|lower|fewer))|\bnot\b|\band\b|\bproduct\b|\bdifference\b", text
    ):
        raise Doubt
    number = r"(?:an? )?([0-9]{1,2}|one|two|three|four|five|six|seven|eight|nine|ten)"
    compared: list[tuple[str, Callable[[int, int], bool], str]] = [
        (
            rf"\b(?:greater|more|higher|larger|bigger) than {number}|\babove {number}|\bover {number}",
            lambda a, b: a > b,
            "greater than",
        ),
        (
            rf"\b(?:less|lower|smaller|fewer) than {number}|\bbelow {number}|\bunder {number}",
            lambda a, b: a < b,
            "less than",
        ),
        (rf"\bat least {number}|\b{number} or (?:more|greater|higher)", lambda a, b: a >= b, "of at least"),
        (rf"\bat most {number}|\b{number} or (?:less|lower|fewer)", lambda a, b: a <= b, "of at most"),
        (
            rf"\bmultiple of {number}|\bdivisible by {number}",
            lambda a, b: b > 0 and a % b == 0,
            "that is a multiple of",
        ),
    ]
    for pattern, relation, words in compared:
        if match := re.search(pattern, text):
            bound = _number(next(group for group in match.groups() if group))
            return _summing(relation, bound), f"{what} {words} {bound}"
    for word, numbers in (("even", range(2, 13, 2)), ("odd", range(1, 13, 2)), ("prime", (2, 3, 5, 7, 11))):
        if re.search(rf"\b{word}\b", text):
            name = f"{'a' if word == 'prime' else 'an'} {word} {'sum' if two else 'number'}"
            return _within(numbers), name
    exact = re.search(
        rf"\b(?:sum|total)\b[^0-9.]{{0,24}}?\b{number}\b"
        if two
        else rf"\b(?:roll\w*|get\w*|show\w*|throw\w*|of)\b (?:the number )?{number}\b",
        text,
    )
    if not exact:
        raise Doubt
    bound = _number(exact[1])
    return (lambda dice: sum(dice) == bound), f"{what} of {bound}" if two else f"a {bound}"


def _summing(relation: Callable[[int, int], bool], bound: int) -> Callable[[Outcome], bool]:
    """Holds for dice whose sum has the relation to the bound."""
    return lambda dice: relation(sum(dice), bound)


def _within(numbers: Collection[int]) -> Callable[[Outcome], bool]:
    return lambda dice: sum(dice) in numbers


def _one_die(good: set[Outcome], tone: Tone | None) -> list[Shape]:
    return [Box(f"d{n}", 5 + 50 * n, 60, 42, 42, str(n), _tone((n,), good, tone), 20) for n in range(1, SIDES + 1)]


def _two_dice(good: set[Outcome], tone: Tone | None) -> list[Shape]:
    shapes: list[Shape] = [
        Label("first", 196, 2, "first die →", "off", size=12),
        Label("second", 36, 20, "second ↓", "off", size=12),
    ]
    for a in range(1, SIDES + 1):
        shapes += [Label(f"c{a}", 60 + 38 * a, 20, str(a), size=13), Label(f"r{a}", 64, 14 + 33 * a, str(a), size=13)]
        shapes += [
            Box(f"d{a}{b}", 60 + 38 * a, 14 + 33 * b, 34, 29, str(a + b), _tone((a, b), good, tone), 14)
            for b in range(1, SIDES + 1)
        ]
    return shapes


def _tone(outcome: Outcome, good: set[Outcome], tone: Tone | None) -> Tone:
    return "" if tone is None else tone if outcome in good else "off"


def _coins(reading: Reading) -> Animation:
    text, asked = reading.text, reading.asked.lower()
    tossed = re.search(
        rf"\b{COUNT} (?:\w+ )?coins\b|\bcoin\b[^.?]{{0,40}}?\b{COUNT} "
        rf"times\b|\bcoin\b[^.?]{{0,40}}?\b(twice)\b|\b(a|one) (?:\w+ )?coin\b",
        text,
        re.IGNORECASE,
    )
    if not tossed:
        raise Doubt
    many = (
        re.search(rf"\bcoin\b[^.?]{{0,40}}?\b{COUNT} times\b|\bcoin\b[^.?]{{0,40}}?\b(twice)\b", text, re.IGNORECASE)
        or tossed
    )
    word = next(group for group in many.groups() if group)
    n = 2 if word.lower() == "twice" else _number(word)
    if not 1 <= n <= 5:
        raise Doubt
    event = re.search(rf"\b(exactly|at least|at most|all|no|only)?\s?{COUNT}?\s?(heads?|tails?)\b", asked)
    if (
        not event
        or len(set(re.findall(r"\b(head|tail)s?\b", asked))) > 1
        or re.search(r"\brow\b|\bfirst\b|\blast\b|\bconsecutive|\bor\b|\bsame\b|\bthen\b", asked)
    ):
        raise Doubt
    how, side = event[1] or "", 1 if event[3].startswith("head") else 0
    k = n if how == "all" else 0 if how == "no" else _number(event[2]) if event[2] else 1 if n == 1 else -1
    if k < 0 or k > n or (how == "only" and not event[2]):
        raise Doubt
    rest = text.replace(many[0], " ", 1)
    _only_numbers(rest, event[0]) if event[0].strip() in rest else _only_numbers(re.sub(rf"\b{k}\b", " ", rest))
    outcomes: list[Outcome] = list(product((1, 0), repeat=n))
    relation: Callable[[int], bool] = {"at least": lambda c: c >= k, "at most": lambda c: c <= k}.get(
        how, lambda c: c == k
    )
    good = [outcome for outcome in outcomes if relation(sum(face == side for face in outcome))]
    value = Fraction(len(good), len(outcomes))
    sides = ("head" if side else "tail") + ("" if k == 1 and n > 1 else "s")
    name = f"{how if how in ('at least', 'at most') else 'exactly'} {k} {sides}" if n > 1 else sides

    def drawn(tone: Tone | None) -> list[Shape]:
        per_row = 2 if n <= 2 else 4
        rows = ceil(len(outcomes) / per_row)
        step = min(52.0, 214 / rows)
        shapes: list[Shape] = []
        for at, outcome in enumerate(outcomes):
            x, y = (
                180 + (at % per_row - (min(per_row, len(outcomes)) - 1) / 2) * 86,
                round(14 + (at // per_row + 0.5) * step, 1),
            )
            text = " ".join("H" if face else "T" for face in outcome)
            shapes.append(Box(f"o{at}", x, y, 80, round(step - 5, 1), text, _tone(outcome, set(good), tone), 15))
        return shapes

    return _animation(
        f"{counted(n, 'coin')}: {name}",
        [
            Scene(
                "All outcomes",
                f"Each toss has 2 ways, heads (H) or tails (T), so "
                f"{counted(n, 'toss') if n == 1 else f'{n} tosses'} have "
                f"{' × '.join(['2'] * n)} = {len(outcomes)} outcomes. With fair coins all are equally likely.",
                _under(drawn(None), f"{len(outcomes)} outcomes"),
            ),
            Scene(
                f"Those with {name}",
                f"{counted(len(good), 'outcome')} of {len(outcomes)}: "
                + ", ".join("".join("H" if face else "T" for face in outcome) for outcome in good)
                + ".",
                _under(drawn("now"), f"{len(good)} of {len(outcomes)}"),
            ),
            Scene(
                f"The probability: {_said(value)}",
                f"{_quotient(len(good), len(outcomes), value)}.",
                _under(drawn("done"), f"{len(good)}/{len(outcomes)}", "done"),
            ),
        ],
        _tale_of_seats("tossing", name, len(good), len(outcomes)),
        value,
    )


def _cards(reading: Reading) -> Animation:
    text, asked = reading.text, reading.asked.lower()
    _only_numbers(re.sub(r"\b52\b|\b52-card\b", " ", text), *re.findall(r"\b(?:a|an|the) ([2-9]|10)\b", asked))
    if re.search(r"\btwo\b|\bboth\b|\bsecond\b|\bnot\b|\bneither\b|\bhands?\b|\bnumber\b", text, re.IGNORECASE):
        raise Doubt
    good, name = _card_event(asked)
    deck: list[Outcome] = list(product(range(4), range(13)))
    value = Fraction(len(good), len(deck))

    def drawn(tone: Tone | None) -> list[Shape]:
        shapes: list[Shape] = []
        for suit, rank in deck:
            x, y = 18 + 27 * rank, 36 + 44 * suit
            shapes.append(
                Box(
                    f"c{suit}-{rank}",
                    x,
                    y,
                    24,
                    38,
                    f"{RANKS[rank]}{SUITS[suit]}",
                    _tone((suit, rank), good, tone),
                    10.5,
                )
            )
        return shapes

    return _animation(
        f"Drawing {name}",
        [
            Scene(
                "All 52 cards",
                "Four suits of 13 cards. From a shuffled deck each of the 52 is as likely as any other.",
                _under(drawn(None), "52 cards"),
            ),
            Scene(
                f"Those that are {name}",
                f"{counted(len(good), 'card')} of 52; a card that counts for two reasons is counted once.",
                _under(drawn("now"), f"{len(good)} of 52"),
            ),
            Scene(
                f"The probability: {_said(value)}",
                f"{_quotient(len(good), 52, value)}.",
                _under(drawn("done"), f"{len(good)}/52", "done"),
            ),
        ],
        _tale_of_seats("drawing a card", name, len(good), 52),
        value,
    )


def _card_event(asked: str) -> tuple[set[Outcome], str]:
    """What counts: `a king of hearts`, or one or two of suits, ranks, colours and face cards, joined by `or`."""
    both = re.search(rf"\b(?:the|an?) ({'|'.join(RANK_NAMES)}) of (spade|heart|diamond|club)s\b", asked)
    if both:
        return {(SUIT_NAMES[both[2]], RANK_NAMES[both[1]])}, f"the {both[1]} of {both[2]}s"
    parts: list[tuple[str, set[Outcome]]] = []
    for match in re.finditer(
        rf"\b(red|black)\b(?: (ace|king|queen|jack))?|\b(face|court|picture) cards?\b|\b(spade|heart|diamond|club)s?\b|"
        rf"\b({'|'.join(RANK_NAMES)})s?\b|\b(?:an?|the) ([2-9]|10)\b",
        asked,
    ):
        colour, of_colour, face, suit, rank, number = match.groups()
        suits = ((1, 2) if colour == "red" else (0, 3)) if colour else (SUIT_NAMES[suit],) if suit else range(4)
        ranks: Sequence[int] = range(13)
        if named := of_colour or rank:
            ranks = [RANK_NAMES[named]]
        elif face:
            ranks = range(10, 13)
        elif number:
            ranks = [int(number) - 1]
        name = f"{colour} {of_colour or 'card'}" if colour else f"{face} card" if face else suit or rank or number
        parts.append((f"{'an' if name in ('ace', '8') else 'a'} {name}", set(product(suits, ranks))))
    if (
        len(parts) not in (1, 2)
        or (len(parts) == 2 and not re.search(r"\bor\b", asked))
        or re.search(r"\band\b", asked)
    ):
        raise Doubt
    return set().union(*(cards for _, cards in parts)), " or ".join(name for name, _ in parts)


def _tale_of_seats(doing: str, name: str, good: int, total: int) -> Tale:
    return Tale(
        title="The theatre of outcomes",
        setting=f"A theatre with {total} seats, one for every way in which {doing} can end.",
        text=[
            f"Chance throws a paper plane into the dark, and it lands on one of the {total} seats, on each as "
            f"readily as on any other. Whoever wants to know "
            f"how likely {name} is puts a lamp on every seat where that is so.",
            f"{good} of {total} lamps are lit. The part of the theatre that is lit is the probability; where "
            f"exactly the seats stand does not matter.",
        ],
        mapping=[
            ("a seat", "an outcome"),
            ("the paper plane", "chance: every outcome equally likely"),
            ("a lit seat", "a favourable outcome"),
            ("the lit part of the theatre", "the probability"),
        ],
    )


def _animation(name: str, scenes: list[Scene], tale: Tale, value: Fraction) -> Animation:
    return Animation(
        type="maths",
        subject="probability",
        name=name,
        scenes=scenes,
        tale=tale,
        result=_said(value),
        value=value,
    )


SOURCES: list[tuple[str, Callable[[Reading], Animation]]] = [
    (r"\bdice\b|\bdie\b", _dice),
    (r"\bcoins?\b", _coins),
    (r"\bdeck\b|\bplaying cards?\b|\bpack of (?:52 )?cards\b", _cards),
    (rf"\b(?:{COLOUR})\b", _bag),
]

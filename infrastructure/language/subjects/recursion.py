"""Recursion: factorial, Fibonacci numbers, the sum of digits and the towers of Hanoi, call by call."""

import re
from collections.abc import Callable

from infrastructure.language.amounts import Doubt
from infrastructure.language.animation import (
    WIDTH,
    Animation,
    Box,
    Label,
    Line,
    Scene,
    Shape,
    Tale,
    Tone,
    counted,
    size_within,
)
from infrastructure.language.reading import Reading
from infrastructure.language.values import EXAMPLE

ORDINAL = r"([0-9]{1,2})(?:st|nd|rd|th)"
FACTORIAL = re.compile(
    r"\bfact(?:orial)?\s?\(\s?([0-9]{1,3})\s?\)|\bfactorial (?:of )?(?:the number "
    r")?([0-9]{1,3})\b|(?<![\w.])([0-9]{1,3})!(?!=)",
    re.IGNORECASE,
)
FIBONACCI = re.compile(
    rf"\bfib(?:onacci)?\s?\(\s?([0-9]{{1,3}})\s?\)|\b{ORDINAL} fibonacci number|\bfibonacci (?:number )?(?:of "
    rf")?([0-9]{{1,3}})\b",
    re.IGNORECASE,
)
DIGITS = re.compile(r"\bsum (?:of )?(?:the |all )?digits\b|\bdigit sum\b", re.IGNORECASE)
HANOI = re.compile(r"\bhanoi\b", re.IGNORECASE)
DISCS = re.compile(r"\b([0-9]{1,2}|three|four|five|six|seven|eight) dis[ck]s?\b", re.IGNORECASE)
NUMBER_WORDS = {"three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
RECURSION = re.compile(r"\brecurs(?:ion|ive|ively)\b|\bcall stack\b|\bbase case\b|\bstack frames?\b", re.IGNORECASE)
OTHER = re.compile(
    r"\bsort|\btrees?\b|\bgraph|\blinked "
    r"list|\barrays?\b|\bstring|\bpower\b|\bpermutation|\bbacktrack|\bgcd\b|\bpalindrom|"
    r"\btrailing zero|\bmemoi|\bdynamic programming|\btail[\s-]recurs|\bsearch",
    re.IGNORECASE,
)
CALLS_ASKED = re.compile(
    r"\bhow many (?:times|calls|frames|recursive calls|additions|multiplications)|complexity|\bdeep", re.I
)
HEIGHT = 300
TREE = 5
"""The greatest n whose whole tree of Fibonacci calls is drawn."""


def recognise(reading: Reading) -> Animation:
    text = " ".join([reading.text, *reading.code.split("\n")])
    if OTHER.search(text):
        raise Doubt
    signs = [
        (re.search(r"\bfactorials?\b|\bfact\(", text, re.IGNORECASE) or FACTORIAL.search(text), _factorial),
        (re.search(r"\bfib(?:onacci)?\b", text, re.IGNORECASE), _fibonacci),
        (DIGITS.search(text), _digit_sum),
        (HANOI.search(text), _hanoi),
    ]
    found: list[Callable[[Reading], Animation]] = [play for sign, play in signs if sign]
    if not found and RECURSION.search(text) and not re.search(r"[0-9]", text):
        found = [_factorial]
    if len(found) != 1:
        raise Doubt
    return found[0](reading)


class _Calls:
    """A stack of calls: each waits for the one above it."""

    def __init__(self, most: int) -> None:
        self.frames: list[tuple[str, str]] = []
        self.scenes: list[Scene] = []
        self._each = min(40.0, (HEIGHT - 44) / most)

    def say(self, title: str, says: str, tone: Tone = "now", value: str = "") -> None:
        """A scene; `tone` is the uppermost frame's, and `value` what has just come back."""
        shapes: list[Shape] = [Label("ground", WIDTH / 2, HEIGHT - 10, "the call stack grows upwards", "off", size=12)]
        for level, (name, waits) in enumerate(self.frames):
            y = round(HEIGHT - 32 - self._each * (level + 0.5), 1)
            top = level == len(self.frames) - 1
            text = f"{name}  {waits}" if waits else name
            shapes.append(
                Box(
                    f"f{level}",
                    WIDTH / 2,
                    y,
                    250,
                    round(self._each - 4, 1),
                    text,
                    tone if top else "",
                    size_within(text, 236, min(15, self._each - 8)),
                )
            )
        if value:
            y = round(HEIGHT - 32 - self._each * (len(self.frames) + 0.5), 1)
            shapes.append(Label("value", WIDTH / 2, max(y, 12), f"↓ {value}", "done", size=16))
        self.scenes.append(Scene(title, says, shapes))


def _number(reading: Reading, pattern: re.Pattern[str], example: int) -> tuple[int, str]:
    """The one number that is asked about, or an example and the note that it is one."""
    text = " ".join([reading.text, reading.code]) if reading.code else reading.text
    asked = [int(next(group for group in match.groups() if group)) for match in pattern.finditer(text)]
    if len(set(asked)) > 1:
        raise Doubt
    rest = pattern.sub(" ", reading.text)
    rest = re.sub(r"O\([^()\n]{1,20}\)|\b[A-Z]\([0-9]\) ?= ?[0-9]\b", " ", rest)
    if re.search(r"[0-9]", rest):
        raise Doubt
    return (asked[0], "") if asked else (example, EXAMPLE)


def _factorial(reading: Reading) -> Animation:
    n, note = _number(reading, FACTORIAL, 4)
    if not 1 <= n <= 12:
        raise Doubt
    calls, value = _Calls(n + 1), 1
    for k in range(n, 1, -1):
        calls.frames.append((f"factorial({k})", ""))
        calls.say(f"Call factorial({k})", f"{k}! is {k} × {k - 1}!, so {k} has to wait until {k - 1}! is known.")
        calls.frames[-1] = (f"factorial({k})", f"= {k} × ?")
    calls.frames.append(("factorial(1)", ""))
    calls.say(
        "factorial(1) is the base case",
        "1! is 1, without another call. Here the calls stop, or they never would.",
        "done",
    )
    for k in range(2, n + 1):
        calls.frames.pop()
        before, value = value, value * k
        calls.frames[-1] = (f"factorial({k})", f"= {k} × {before:,}")
        calls.say(
            f"{before:,} comes back",
            f"factorial({k}) wakes up and multiplies: {k} × {before:,} = {value:,}.",
            value=f"{before:,}",
        )
    calls.frames = [(f"factorial({n})", f"= {value:,}")]
    product = " × ".join(map(str, range(n, 0, -1)))
    calls.say(
        f"{n}! = {value:,}",
        f"{product} = {value:,}, after {counted(n, 'call')}, all of them waiting at once at the deepest point.",
        "done",
    )
    return _animation(
        reading,
        f"factorial({n}), call by call",
        calls.scenes,
        Tale(
            title="Boxes in boxes",
            setting="A parcel that holds a smaller parcel, and so on.",
            text=[
                f"On the outermost of {n} parcels is written: “{n} times what you find inside.” So it is put on "
                f"the table, "
                "open, and the next one is opened. Each says the same of its own number, until the smallest, which "
                "just says 1.",
                f"Only now can anything be worked out, and from the inside to the outside: each parcel takes the "
                f"number handed "
                f"to it and multiplies it by its own. The first that was opened is the last to be closed, with "
                f"{value:,}.",
            ],
            mapping=[
                ("a parcel", "a call of the function"),
                ("lying open on the table", "a frame on the call stack"),
                ("the smallest parcel", "the base case"),
                ("closing from the inside out", "returning"),
            ],
        ),
        [note] if note else [],
        f"{value:,}",
    )


def _fibonacci(reading: Reading) -> Animation:
    n, note = _number(reading, FIBONACCI, 4)
    if not 2 <= n <= 40:
        raise Doubt
    numbers = [0, 1]
    while len(numbers) <= n:
        numbers.append(numbers[-1] + numbers[-2])
    scenes = _fibonacci_tree(n) if n <= TREE else _fibonacci_ladder(n, numbers)
    calls = 2 * numbers[n] + 2 * numbers[n - 1] - 1
    scenes.append(
        Scene(
            f"F({n}) = {numbers[n]:,}",
            f"F({n}) = {numbers[n - 1]:,} + {numbers[n - 2]:,} = {numbers[n]:,}. Plain recursion makes "
            f"{counted(calls, 'call')} for it, "
            f"since it asks the same things again and again; remembering each value needs only {n + 1}.",
            scenes[-1].shapes,
        )
    )
    return _animation(
        reading,
        f"The Fibonacci number F({n})",
        scenes,
        Tale(
            title="The clerks who ask two others",
            setting="An office in which nobody knows anything but 0 and 1.",
            text=[
                f"A clerk is asked for number {n}. He sends two messengers, for number {n - 1} and number {n - 2}, "
                f"and adds what "
                "they bring. The clerks who are asked do the same. Only those asked for 0 or 1 answer at once.",
                f"The answer is right, {numbers[n]:,}, but the corridors are full: {counted(calls, 'question')} "
                f"were asked, most "
                "of them more than once. A note on the wall with what is already known would spare nearly all of them.",
            ],
            mapping=[
                ("a clerk", "a call F(n)"),
                ("two messengers", "the calls F(n−1) and F(n−2)"),
                ("those who answer at once", "the base cases F(0) = 0 and F(1) = 1"),
                ("the note on the wall", "memoisation"),
            ],
        ),
        [*([note] if note else []), "Counted from F(0) = 0 and F(1) = 1."],
        f"{numbers[n]:,}",
    )


def _fibonacci_tree(n: int) -> list[Scene]:
    """The calls in the order in which they are made, and what each returns."""
    spots: list[tuple[int, float, float, int]] = []  # n, x, y, parent
    leaves = _fibonacci_leaves(n)
    step = (WIDTH - 20) / leaves
    _lay_out(n, 10, step, 0, -1, spots)
    scenes: list[Scene] = []
    value: dict[int, int] = {}
    made: list[int] = []

    def scene(title: str, says: str, now: int) -> None:
        shapes: list[Shape] = []
        for id in made:
            k, x, y, parent = spots[id]
            if parent >= 0:
                shapes.append(
                    Line(f"l{id}", spots[parent][1], spots[parent][2] + 14, x, y - 14, "done" if id in value else "")
                )
            text = str(value[id]) if id in value else f"F({k})"
            tone: Tone = "now" if id == now else "done" if id in value else ""
            width = min(40.0, step + 6)
            shapes.append(Box(f"c{id}", x, y, round(width, 1), 28, text, tone, size_within(text, width - 4, 14)))
        scenes.append(Scene(title, says, shapes))

    def call(id: int) -> int:
        k = spots[id][0]
        made.append(id)
        if k < 2:
            value[id] = k
            scene(f"F({k}) answers {k}", f"F({k}) is {k} by definition: a base case, no further call.", id)
            return k
        scene(f"Call F({k})", f"F({k}) needs F({k - 1}) and F({k - 2}); first it asks for F({k - 1}).", id)
        left, right = (call(child) for child in [c for c, spot in enumerate(spots) if spot[3] == id])
        value[id] = left + right
        scene(f"F({k}) = {left + right}", f"Both answers are back: {left} + {right} = {left + right}.", id)
        return left + right

    call(0)
    return scenes


def _fibonacci_leaves(n: int) -> int:
    return 1 if n < 2 else _fibonacci_leaves(n - 1) + _fibonacci_leaves(n - 2)


def _lay_out(
    n: int, left: float, step: float, depth: int, parent: int, spots: list[tuple[int, float, float, int]]
) -> None:
    width = step * _fibonacci_leaves(n)
    id = len(spots)
    spots.append((n, round(left + width / 2, 1), 30 + 56 * depth, parent))
    if n > 1:
        _lay_out(n - 1, left, step, depth + 1, id, spots)
        _lay_out(n - 2, left + step * _fibonacci_leaves(n - 1), step, depth + 1, id, spots)


def _fibonacci_ladder(n: int, numbers: list[int]) -> list[Scene]:
    """The values one after the other: for great n the tree of calls would fill a hall."""
    scenes = []
    for k in range(1, n + 1):
        first = max(0, k - 6)
        shapes: list[Shape] = []
        for at in range(first, k + 1):
            y = 40 + 34 * (at - first)
            tone: Tone = "now" if at == k else "mark" if at >= k - 2 and k > 1 else "done"
            shapes += [
                Label(f"n{at}", 80, y, f"F({at})", "", "end", 15),
                Box(f"v{at}", 210, y, 220, 30, f"{numbers[at]:,}", tone),
            ]
        if k == 1:
            scenes.append(
                Scene(
                    "The two beginnings",
                    "F(0) = 0 and F(1) = 1 are given. For this n the tree of calls would be too "
                    "great to draw, so each value is worked out once and remembered.",
                    shapes,
                )
            )
        else:
            sum_ = f"{numbers[k - 1]:,} + {numbers[k - 2]:,} = {numbers[k]:,}"
            scenes.append(Scene(f"F({k}) = {numbers[k]:,}", f"F({k - 1}) + F({k - 2}) = {sum_}.", shapes))
    return scenes


def _digit_sum(reading: Reading) -> Animation:
    found = re.findall(r"(?<![\w.,])[0-9]{2,10}(?![\w,]|\.[0-9])", reading.text)
    everything = re.findall(r"[0-9]+", reading.text)
    if not RECURSION.search(reading.text) or len(found) != len(everything) or len(found) > 1:
        raise Doubt
    number, note = (int(found[0]), "") if found else (4732, EXAMPLE)
    calls, total, rest = _Calls(len(str(number)) + 1), 0, number
    while rest > 9:
        calls.frames.append((f"digits({rest})", ""))
        calls.say(
            f"Call digits({rest})",
            f"The last digit of {rest} is {rest % 10}; the others make {rest // 10}, a smaller "
            "number with the same question.",
        )
        calls.frames[-1] = (f"digits({rest})", f"= {rest % 10} + ?")
        rest //= 10
    calls.frames.append((f"digits({rest})", ""))
    calls.say(f"digits({rest}) is the base case", f"One digit alone is its own sum: {rest}.", "done")
    total = rest
    for digit in str(number)[1:]:
        calls.frames.pop()
        before, total = total, total + int(digit)
        calls.frames[-1] = (calls.frames[-1][0], f"= {digit} + {before}")
        calls.say(
            f"{before} comes back",
            f"{calls.frames[-1][0]} adds its own digit: {digit} + {before} = {total}.",
            value=str(before),
        )
    calls.frames = [(f"digits({number})", f"= {total}")]
    sum_ = " + ".join(str(number))
    calls.say(f"The sum of digits is {total}", f"{sum_} = {total}, after {counted(len(str(number)), 'call')}.", "done")
    return _animation(
        reading,
        f"The sum of the digits of {number}, call by call",
        calls.scenes,
        Tale(
            title="The nested dolls",
            setting="A set of dolls, one inside the other, each with a digit painted on it.",
            text=[
                f"The outermost doll of {number} wears a {number % 10}. You remember the digit, open the doll, and "
                f"face the same "
                "task with a smaller one. The last cannot be opened; it wears the first digit.",
                f"Closing the dolls again, each adds its digit to what comes from inside: {sum_} = {total}.",
            ],
            mapping=[
                ("a doll", "a call"),
                ("its digit", "n mod 10"),
                ("the dolls inside", "the call for n div 10"),
                ("the last doll", "the base case: a single digit"),
            ],
        ),
        [note] if note else [],
        str(total),
    )


def _hanoi(reading: Reading) -> Animation:
    match = DISCS.search(reading.text)
    if re.search(r"[0-9]", reading.text.replace(match[0], " ") if match else reading.text):
        raise Doubt
    n = (NUMBER_WORDS.get(match[1].lower()) or int(match[1])) if match else 3
    if not 1 <= n <= 64:
        raise Doubt
    moves, drawn = 2**n - 1, n if n <= 5 else 3
    scenes = _hanoi_scenes(drawn)
    notes = [] if match else [EXAMPLE]
    if drawn < n:
        notes.append(f"{n} discs take {moves:,} moves, too many to watch: {drawn} discs are played.")
    power = f"2^{n} − 1 = {moves:,}"
    scenes.append(
        Scene(
            f"{moves:,} moves for {counted(n, 'disc')}",
            f"Each disc more doubles the work and adds one move: {power}. The fewest moves for "
            f"{counted(n, 'disc')} are {moves:,}.",
            scenes[-1].shapes,
        )
    )
    asked = re.search(r"how many|number of|fewest|least|minimum", reading.asked, re.IGNORECASE)
    return _animation(
        reading,
        f"The towers of Hanoi with {counted(drawn, 'disc')}",
        scenes,
        Tale(
            title="The foreman and the tower",
            setting="A yard with three posts and a tower of stone rings.",
            text=[
                f"A foreman is to bring {counted(n, 'ring')} to another post, one at a time, never a larger one on "
                f"a smaller. He "
                "cares for the largest only: “Somebody bring all the smaller ones out of my way. Then I move mine. "
                "Then bring "
                "them on top of it.” His helper, who has one ring less, says the same to the next.",
                f"Nobody plans more than one move, and yet the tower arrives. Every ring more means that the tower "
                f"above it moves "
                f"twice, so it takes {power} moves.",
            ],
            mapping=[
                ("a foreman", "a call hanoi(n)"),
                ("his helper", "the call hanoi(n−1)"),
                ("the largest ring", "the one move of this call"),
                ("a tower of one ring", "the base case"),
            ],
        ),
        notes,
        f"{moves:,}" if asked and match else "",
        always=bool(asked and match),
    )


def _hanoi_scenes(n: int) -> list[Scene]:
    pegs: list[list[int]] = [list(range(n, 0, -1)), [], []]
    scenes = [
        Scene(
            f"{counted(n, 'disc')} on peg A",
            "All are to go to peg C, one at a time, never a larger one on a smaller one.",
            _pegs(pegs, 0),
        )
    ]

    def move(k: int, source: int, target: int, spare: int) -> None:
        if not k:
            return
        move(k - 1, source, spare, target)
        pegs[target].append(pegs[source].pop())
        above = (
            f"The {counted(k - 1, 'smaller disc')} above it {'was' if k == 2 else 'were'} brought out of its way first"
            if k > 1
            else ("The smallest may go anywhere")
        )
        scenes.append(
            Scene(
                f"Move {len(scenes)}: disc {k} from {'ABC'[source]} to {'ABC'[target]}",
                f"{above}, so disc {k} moves.",
                _pegs(pegs, k),
            )
        )
        move(k - 1, spare, target, source)

    move(n, 0, 2, 1)
    return scenes


def _pegs(pegs: list[list[int]], moved: int) -> list[Shape]:
    shapes: list[Shape] = [Line("ground", 8, 222, 352, 222)]
    for at, peg in enumerate(pegs):
        x = 62 + 118 * at
        shapes += [Line(f"p{at}", x, 70, x, 222), Label(f"q{at}", x, 240, "ABC"[at], size=15)]
        for level, disc in enumerate(peg):
            tone: Tone = "now" if disc == moved else "mark"
            shapes.append(Box(f"d{disc}", x, 209 - 27 * level, 26 + 17 * disc, 24, str(disc), tone, 13))
    return shapes


def _animation(
    reading: Reading, name: str, scenes: list[Scene], tale: Tale, notes: list[str], result: str, *, always: bool = False
) -> Animation:
    """`result` counts as the answer where the question asks for the value itself, or `always`."""
    example = EXAMPLE in notes
    answers = always or not (
        CALLS_ASKED.search(reading.asked) or re.search(r"\bwhy\b|explain", reading.asked, re.IGNORECASE)
    )
    return Animation(
        type="coding",
        subject="recursion",
        name=name,
        scenes=scenes,
        tale=tale,
        result=result if answers and not example else "",
        notes=notes,
    )

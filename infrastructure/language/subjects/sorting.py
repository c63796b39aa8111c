"""Sorting: bubble, insertion, selection, merge and quick sort, comparison by comparison."""

import re
from collections.abc import Callable

from infrastructure.language.amounts import Doubt
from infrastructure.language.animation import Animation, Scene, Shape, Tale, Tone, counted, ordinal
from infrastructure.language.reading import Reading
from infrastructure.language.values import Values, cell, indices, row_place, values, without_values, written

NAMED = re.compile(r"\b(bubble|insertion|selection|merge|quick)[\s-]?sort", re.IGNORECASE)
OTHER = re.compile(r"\b(?:heap|radix|counting|bucket|shell|topological|tim)[\s-]?sort|linked list|\btrees?\b", re.I)
SORTS = re.compile(r"\bsort(?:ing)?\b|\b(?:ascending|descending|increasing|decreasing) order\b", re.IGNORECASE)
SEARCHES = re.compile(r"\b(?:binary|linear) search|two[\s-]pointers?", re.IGNORECASE)
DESCENDING = re.compile(
    r"\bdescending|\bdecreasing|\b(?:largest|biggest|greatest|highest) (?:to|first)|\breverse (?:alphabetical )?order",
    re.IGNORECASE,
)
COUNT_WORDS = r"first|second|third|fourth|fifth|[1-9](?:st|nd|rd|th)|one|two|three|four"
AFTER_PASS = re.compile(
    rf"\bafter (?:the |its )?({COUNT_WORDS}) (?:complete |full )?(?:pass|passes|iterations?|rounds?)\b", re.IGNORECASE
)
PASSES = {"first": 1, "one": 1, "second": 2, "two": 2, "third": 3, "three": 3, "fourth": 4, "four": 4, "fifth": 5}
SWAPS = re.compile(r"\bhow many (?:swaps|exchanges)\b|\bnumber of (?:swaps|exchanges)\b", re.IGNORECASE)
WANTS_SORTED = re.compile(
    r"^(?:sort|trace|show|use|using|perform|apply|arrange|put|demonstrate|illustrate|how (?:do|does|is|are|would))\b|"
    r"\bsorted (?:list|array|order|result)\b",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(r"complexity|stable|stability|memory|worst|average|best|why|advantage|compar|prefer", re.I)
BASE = 190
"""Where bars stand."""


def recognise(reading: Reading) -> Animation:
    text = reading.text
    methods = {method.lower() for method in NAMED.findall(text)}
    if len(methods) > 1 or OTHER.search(text) or SEARCHES.search(text) or not (methods or SORTS.search(text)):
        raise Doubt
    after = AFTER_PASS.search(text)
    given = values(reading, "6 3 8 2 5", [after[0]] if after else [])
    if given.note and not methods:
        raise Doubt
    if re.search(r"[0-9]", without_values(text.replace(after[0], " ") if after else text)) and not given.note:
        raise Doubt
    return _played(reading, given, methods.pop() if methods else "", after)


def _played(reading: Reading, given: Values, named: str, after: re.Match[str] | None) -> Animation:
    method = named or "insertion"
    trace = _Trace(given, bool(DESCENDING.search(reading.text)))
    METHODS[method](trace)
    trace.finish(method)
    notes = [*given.notes]
    if not named:
        notes.append("The question names no method, so insertion sort is shown.")
    if method == "quick":
        notes.append("The last value of each part is taken as its pivot.")
    if trace.down:
        notes.append("From the greatest to the smallest, as the question asks.")
    sort = f"{method.capitalize()} sort" if method != "quick" else "Quicksort"
    return Animation(
        type="coding",
        subject="sorting",
        name=f"{sort} of {written(given.items)}",
        scenes=trace.scenes,
        tale=_tale(method, given, trace.order()),
        result=_result(reading, trace, method, after, given),
        notes=notes,
    )


def _result(reading: Reading, trace: "_Trace", method: str, after: re.Match[str] | None, given: Values) -> str:
    """What the question asks, where that was counted or seen; else nothing."""
    if given.note:
        return ""
    if after:
        number = PASSES.get(after[1].lower()) or int(after[1][0])
        return written(trace.passes[number - 1]) if 0 < number <= len(trace.passes) else ""
    if SWAPS.search(reading.asked):
        return counted(trace.swaps, "swap") if method in ("bubble", "selection") else ""
    if ELSEWHERE.search(reading.asked) or re.search("how many", reading.asked, re.IGNORECASE):
        return ""
    return written(trace.order()) if WANTS_SORTED.search(reading.asked) else ""


class _Trace:
    """A row of values on its way into order: each comparison and each move is a scene."""

    def __init__(self, given: Values, down: bool) -> None:
        self.texts = given.items
        self.keys = given.keys()
        self.numeric = given.numeric
        self.down = down
        self.row = list(range(len(given.items)))
        self.settled: set[int] = set()
        self.scenes: list[Scene] = []
        self.passes: list[list[str]] = []
        self.comparisons = self.swaps = 0
        self.depth: dict[int, int] = {}
        self.places: dict[int, float] = {}
        order = "from the smallest to the greatest" if self.numeric else "by the alphabet"
        order = ("from the greatest to the smallest" if self.numeric else "against the alphabet") if down else order
        self.say("The row at the start", f"{written(self.order())} are to stand {order}.")

    def order(self) -> list[str]:
        return [self.texts[id] for id in self.row]

    def at(self, place: int) -> str:
        return self.texts[self.row[place]]

    def behind(self, left: int, right: int) -> bool:
        """Whether the value at `left` belongs behind the one at `right`."""
        self.comparisons += 1
        first, second = self.keys[self.row[left]], self.keys[self.row[right]]
        return (first < second) if self.down else (first > second)  # type: ignore[operator]

    def reason(self, left: int, right: int, is_behind: bool) -> str:
        """Why the value at `left` is behind the one at `right`, or why it is not."""
        a, b = self.at(left), self.at(right)
        if self.keys[self.row[left]] == self.keys[self.row[right]]:
            return f"{a} and {b} are equal"
        greater, less = ("is greater than", "is less than") if self.numeric else ("comes after", "comes before")
        return f"{a} {(less if self.down else greater) if is_behind else (greater if self.down else less)} {b}"

    def swap(self, left: int, right: int) -> None:
        self.swaps += 1
        self.row[left], self.row[right] = self.row[right], self.row[left]

    def say(self, title: str, says: str, now: tuple[int, ...] = (), lifted: int | None = None) -> None:
        """A scene of the row as it stands; `now` are places looked at, `lifted` one taken out."""
        self.scenes.append(Scene(title, says, self._shapes(now, lifted)))

    def end_of_pass(self) -> None:
        self.passes.append(self.order())

    def finish(self, method: str) -> None:
        self.settled = set(self.row)
        self.depth.clear()
        self.places.clear()
        moves = f" and {counted(self.swaps, 'swap')}" if method in ("bubble", "selection", "quick") else ""
        self.say("Sorted", f"{written(self.order())}. It took {counted(self.comparisons, 'comparison')}{moves}.")

    def _shapes(self, now: tuple[int, ...], lifted: int | None) -> list[Shape]:
        count = len(self.row)
        looked_at = {self.row[place] for place in now}
        shapes: list[Shape] = [] if self.depth else indices(count, BASE + 16)
        for place, id in enumerate(self.row):
            tone: Tone = "now" if id in looked_at else "done" if id in self.settled else ""
            height = self._height(id)
            bottom = BASE - 40 if place == lifted else BASE
            y = 30 + 48 * self.depth[id] if self.depth else bottom - height / 2
            x = row_place(count, self.places.get(id, place))
            shapes.append(cell(f"v{id}", x, round(y, 1), self.texts[id], count, tone, round(height, 1)))
        return shapes

    def _height(self, id: int) -> float:
        keys = [key for key in self.keys if not isinstance(key, str)]
        if self.depth or len(keys) < len(self.keys) or min(keys) < 0 or not max(keys):
            return 34
        return 30 + 100 * float(keys[id] / max(keys))


def _bubble(trace: _Trace) -> None:
    count = len(trace.row)
    for end in range(count - 1, 0, -1):
        number, moved = count - end, False
        for left in range(end):
            behind = trace.behind(left, left + 1)
            reason = trace.reason(left, left + 1, behind)
            title = f"Pass {number}: compare {trace.at(left)} and {trace.at(left + 1)}"
            if behind:
                trace.swap(left, left + 1)
                moved = True
                trace.say(title, f"{reason}, so the two swap places.", (left, left + 1))
            else:
                trace.say(title, f"{reason}, so both stay.", (left, left + 1))
        trace.settled.add(trace.row[end])
        trace.end_of_pass()
        if not moved:
            trace.say(f"Pass {number} moved nothing", "No pair was out of order, so the row is sorted and we may stop.")
            return
        trace.say(
            f"Pass {number} is over",
            f"The row is now {written(trace.order())}. {trace.at(end)} has bubbled to its place: "
            "it won every comparison on its way.",
        )


def _insertion(trace: _Trace) -> None:
    trace.settled.add(trace.row[0])
    trace.say(
        f"{trace.at(0)} alone is in order", "One value by itself is always sorted. The others join it one by one."
    )
    for start in range(1, len(trace.row)):
        taken, place = trace.at(start), start
        trace.say(f"Take {taken}", f"{taken} is next to find its place among those on its left.", (start,), start)
        while place:
            behind = trace.behind(place - 1, place)
            reason = trace.reason(place - 1, place, behind)
            if not behind:
                trace.say(
                    f"{taken} stops here", f"{reason}, so {taken} may stay right of it.", (place - 1, place), place
                )
                break
            other = trace.at(place - 1)
            trace.row[place - 1], trace.row[place] = trace.row[place], trace.row[place - 1]
            place -= 1
            trace.say(f"{other} moves right", f"{reason}, so it makes room and {taken} goes left.", (place,), place)
        trace.settled.add(trace.row[place])
        trace.end_of_pass()
        trace.say(
            f"{taken} is in", f"The first {start + 1} values are in order now: {written(trace.order())}.", (place,)
        )


def _selection(trace: _Trace) -> None:
    kind = ("greatest" if trace.down else "smallest") if trace.numeric else ("last" if trace.down else "first")
    for start in range(len(trace.row) - 1):
        best = start
        for place in range(start + 1, len(trace.row)):
            behind = trace.behind(best, place)
            reason = trace.reason(best, place, behind)
            found = f"the {kind} found so far" if behind else f"so {trace.at(best)} stays the {kind} so far"
            says = f"{reason}: {trace.at(place)} is {found}." if behind else f"{reason}, {found}."
            trace.say(f"Look for the {kind}: {trace.at(best)} or {trace.at(place)}?", says, (best, place))
            best = place if behind else best
        chosen, front = trace.at(best), trace.at(start)
        if best != start:
            trace.swap(start, best)
        trace.settled.add(trace.row[start])
        trace.end_of_pass()
        does = f"It swaps places with {front}" if best != start else "It stands there already"
        says = f"{chosen} is the {kind} of what was left. {does}; the row is now {written(trace.order())}."
        trace.say(f"{chosen} goes to the {ordinal(start + 1)} place", says, (start,))


def _merge(trace: _Trace) -> None:
    trace.depth = dict.fromkeys(trace.row, 0)
    _merge_part(trace, 0, len(trace.row), 0)


def _merge_part(trace: _Trace, start: int, end: int, depth: int) -> None:
    if end - start < 2:
        return
    middle = (start + end) // 2
    left, right = trace.row[start:middle], trace.row[middle:end]
    trace.depth.update(dict.fromkeys(trace.row[start:end], depth + 1))
    trace.say(
        f"Split {_named(trace, [*left, *right])}",
        f"Halves are easier: {_named(trace, left)} on the left, {_named(trace, right)} on the right.",
        tuple(range(start, end)),
    )
    _merge_part(trace, start, middle, depth + 1)
    _merge_part(trace, middle, end, depth + 1)
    _merge_halves(trace, start, middle, end, depth)


def _merge_halves(trace: _Trace, start: int, middle: int, end: int, depth: int) -> None:
    left, right = trace.row[start:middle], trace.row[middle:end]
    trace.places.update({id: start + at for at, id in enumerate([*left, *right])})
    merged: list[int] = []
    while left or right:
        if left and right:
            trace.comparisons += 1
            a, b = trace.keys[left[0]], trace.keys[right[0]]
            second = (a < b) if trace.down else (a > b)  # type: ignore[operator]
            taken, other = (right, left) if second else (left, right)
            why = f"Of the two in front, {trace.texts[taken[0]]} and {trace.texts[other[0]]}, it goes first."
        else:
            taken = left or right
            why = "The other half is used up, so it follows as it is."
        id = taken.pop(0)
        trace.depth[id], trace.places[id] = depth, start + len(merged)
        merged.append(id)
        trace.row[start:end] = [*merged, *left, *right]
        trace.say(f"Merge: take {trace.texts[id]}", why, (trace.row.index(id),))
    trace.say(
        f"Merged: {_named(trace, merged)}", "These values are in order among themselves.", tuple(range(start, end))
    )


def _named(trace: _Trace, ids: list[int]) -> str:
    return written([trace.texts[id] for id in ids])


def _quick(trace: _Trace) -> None:
    _quick_part(trace, 0, len(trace.row) - 1)


def _quick_part(trace: _Trace, start: int, end: int) -> None:
    if start > end:
        return
    if start == end:
        trace.settled.add(trace.row[start])
        trace.say(
            f"{trace.at(start)} is alone in its part", "Nothing is left to compare it with: it stands right.", (start,)
        )
        return
    pivot, border = trace.at(end), start
    side = "behind" if trace.numeric is False else "greater" if not trace.down else "less"
    trace.say(f"Pivot {pivot}", f"All others of this part are compared with {pivot}.", (end,))
    for place in range(start, end):
        behind = trace.behind(place, end)
        reason = trace.reason(place, end, behind)
        value = trace.at(place)
        if behind:
            trace.say(f"{value} against the pivot {pivot}", f"{reason}, so it stays on the right.", (place, end))
            continue
        if place != border:
            trace.swap(place, border)
        trace.say(f"{value} against the pivot {pivot}", f"{reason}, so it goes to the left part.", (border, end))
        border += 1
    if border != end:
        trace.swap(border, end)
    trace.settled.add(trace.row[border])
    says = f"What is {side} stands on its right, the rest on its left, so {pivot} never moves again."
    trace.say(f"{pivot} is in its place", f"{says} The row is now {written(trace.order())}.", (border,))
    _quick_part(trace, start, border - 1)
    _quick_part(trace, border + 1, end)


METHODS: dict[str, Callable[[_Trace], None]] = {
    "bubble": _bubble,
    "insertion": _insertion,
    "selection": _selection,
    "merge": _merge,
    "quick": _quick,
}


def _tale(method: str, given: Values, order: list[str]) -> Tale:
    start, end = written(given.items), written(order)
    first, last = order[0], order[-1]
    if method == "bubble":
        return Tale(
            title="The photographer and the row",
            setting="A school yard, a photographer, and a row of children with numbered shirts.",
            text=[
                f"For the class photograph the children line up as they come: {start}. The photographer will not call "
                "them one by one. He walks along the row and looks only at two neighbours at a time. Stand these "
                "two the "
                "wrong way round, they change places; if not, he walks on.",
                f"By the end of his first walk {last} has been handed along all the way to the far end, because it "
                f"lost "
                "to nobody. So the next walk may be one child shorter. He stops when he has walked by without a single "
                f"swap: {end}.",
            ],
            mapping=[
                ("two neighbours in the row", "the pair that is compared"),
                ("changing places", "a swap"),
                ("one walk along the row", "a pass"),
                ("a walk without a swap", "the test that the row is sorted"),
            ],
        )
    if method == "insertion":
        return Tale(
            title="A hand of cards",
            setting="A kitchen table, one player, and cards that are dealt one at a time.",
            text=[
                f"The cards come in this order: {start}. The player keeps those in hand sorted at all times. Each new "
                "card is slid from the right past every card that should stand behind it, and no further.",
                "That is why a hand which comes almost in order costs hardly any work, and one that comes backwards "
                f"costs the most: every card has to pass all the others. In the end the hand reads {end}.",
            ],
            mapping=[
                ("the hand", "the sorted part on the left"),
                ("the card just dealt", "the next value"),
                ("sliding past a card", "a comparison, and a move to the right"),
                ("stopping", "the first value that may stand on its left"),
            ],
        )
    if method == "selection":
        return Tale(
            title="Picking at the market stall",
            setting="A stall with one crate, and a buyer who wants the best piece first.",
            text=[
                f"In the crate lie {start}. The buyer looks at every piece, remembers the best one so far, and "
                f"only when "
                f"all are seen takes it out: {first} comes first. Then the whole crate is looked through again.",
                "She never carries anything twice, but she looks at nearly everything every time, however well the "
                "crate "
                f"was packed. On the counter they lie in the end as {end}.",
            ],
            mapping=[
                ("the crate", "the part that is not sorted yet"),
                ("the best piece so far", "the candidate that is remembered"),
                ("laying it on the counter", "the one swap of each round"),
                ("looking through the crate", "the comparisons of each round"),
            ],
        )
    if method == "merge":
        return Tale(
            title="Two queues, one gate",
            setting="The entrance of a stadium, where two queues become one.",
            text=[
                f"The crowd {start} is split in half, and each half again, until everybody stands alone; a queue "
                f"of one "
                "is always in order.",
                "Then the steward lets queues flow together. He looks only at the two people in front and lets the "
                "right "
                "one through. Since both queues were in order, nobody further back can be the next. "
                f"The last gate lets them out as {end}.",
            ],
            mapping=[
                ("splitting the crowd", "halving the array"),
                ("a queue of one", "the base case: already sorted"),
                ("the two people in front", "the only pair that must be compared"),
                ("the gate", "the merge step"),
            ],
        )
    return Tale(
        title="The letter carrier's measure",
        setting="A sorting office with one long table.",
        text=[
            f"On the table lie the numbers {start}. The carrier takes the last one as a measure and asks of every "
            f"other "
            "just one thing: does it belong before or behind this one? Two heaps grow, and the measure is laid "
            "between.",
            "It will never be touched again: all on its one side belong there. What is left are two smaller "
            "tables, and "
            f"the same question with a new measure, until the row reads {end}.",
        ],
        mapping=[
            ("the measure", "the pivot"),
            ("the two heaps", "the partition around the pivot"),
            ("a smaller table", "the recursive call on one part"),
            ("never touched again", "a pivot is in its final place"),
        ],
    )

"""Arrays: one item, insertion, reversal, two pointers, search, and the greatest, the smallest or the sum."""

import re
from collections.abc import Callable
from fractions import Fraction

import msgspec

from infrastructure.language.amounts import Doubt, shown
from infrastructure.language.animation import Animation, Label, Scene, Shape, Tale, Tone, counted
from infrastructure.language.reading import Reading
from infrastructure.language.values import (
    ITEM,
    Values,
    cell,
    indices,
    pointers,
    row_place,
    values,
    without_values,
    written,
)

OTHER = re.compile(
    r"\blinked "
    r"list|\btrees?\b|\bgraph|\bsort(?:ing)?\b|\b(?:bubble|insertion|selection|merge|quick)[\s-]?sort|\bstack\b|"
    r"\bqueue\b|\bheap\b|\bmatrix|\b2d\b|\btwo-dimensional|\bsub(?:array|sequence|string)",
    re.IGNORECASE,
)
ARRAY = re.compile(r"\barrays?\b|\blists?\b|\bnumbers\b|\bvalues\b|\belements\b|\bintegers\b", re.IGNORECASE)
PLAIN = re.compile(r"(?:what is|find|calculate|compute|determine) the \w+ of\s*[?.]?", re.IGNORECASE)
NARROWED = re.compile(
    r"\b(?:even|odd|only|except|distinct|unique|duplicat\w+|product|squares?|consecutive|adjacent|longest|shortest|"
    r"positive|negative|absolute|difference|second|third|k-?th|kth|greater than|less than|more than|at least|window|"
    r"rotat\w+|delet\w+|remov\w+|merg\w+|prefix|digits?|random|missing|count|often|median|mode|range)\b",
    re.IGNORECASE,
)
TARGET = re.compile(
    rf"\b(?:for|find|finds?|locate|target|value|key|number|element|finding|searching)\s+(?:of |is |= ?|the "
    rf"(?:number|value|"
    rf"element|key|target) )?(?:value |number )?({ITEM})(?![\w.]*[\w])(?! "
    rf"(?:elements|items|values|numbers|entries|names|records))",
    re.IGNORECASE,
)
PAIR_SUM = re.compile(
    rf"\b(?:add|sum|adds|sums|adding|summing)(?: up)? to(?: the target)?(?: of)? ({ITEM})|"
    rf"\bsum (?:is|of|equals|equal to) ({ITEM})|\btarget(?: sum)?(?: of| is| =)? ({ITEM})",
    re.IGNORECASE,
)
INSERT = re.compile(rf"\binsert(?:s|ed|ing)?\s+(?:the (?:value|number|element)\s+)?({ITEM})", re.IGNORECASE)
AT_INDEX = re.compile(
    r"\bindex\s+([0-9]{1,2})\b|\b[a-z]\w{0,11}\[([0-9]{1,2})\]|\b(?:the )?(beginning|start|front|end)\b", re.IGNORECASE
)
ROW = 80


class _Asked(msgspec.Struct, frozen=True):
    """What a reading gives an operation: its values, and the text around them."""

    reading: Reading
    text: str
    given: Values


def recognise(reading: Reading) -> Animation:
    if OTHER.search(reading.text):
        raise Doubt
    for sign, operation in OPERATIONS:
        if re.search(sign, reading.text, re.IGNORECASE):
            return operation(reading)
    raise Doubt


class _Row:
    """A row of values with pointers above it; each scene is noted."""

    def __init__(self, items: list[str]) -> None:
        self.row = list(enumerate(items))
        self.scenes: list[Scene] = []

    def say(
        self,
        title: str,
        says: str,
        tones: dict[int, Tone] | None = None,
        pointing: dict[str, int] | None = None,
        more: list[Shape] | None = None,
    ) -> None:
        """A scene; `tones` and what is `pointing` go by place."""
        count = len(self.row)
        tones = tones or {}
        shapes = [*indices(count, ROW + 32), *(more or [])]
        for place, (id, text) in enumerate(self.row):
            shapes.append(cell(f"v{id}", row_place(count, place), ROW, text, count, tones.get(place, "")))
        at = {name: row_place(count, place) for name, place in (pointing or {}).items()}
        shapes += pointers(at, ROW - 30)
        self.scenes.append(Scene(title, says, shapes))


def _binary_search(reading: Reading) -> Animation:
    target_match = TARGET.search(without_values(reading.text))
    given = values(reading, "3 8 12 17 23 31 42 56", [target_match[0]] if target_match else [])
    if not target_match and not given.note:
        raise Doubt
    _no_other_numbers(given, without_values(reading.text), target_match)
    target = target_match[1] if target_match else "23"
    numbers, wanted = given.numbers, Fraction(target)
    ordered = sorted(zip(numbers, given.items, strict=True))
    row = _Row([item for _, item in ordered])
    notes = list(given.notes)
    if [number for number, _ in ordered] != numbers:
        notes.append("Binary search needs a sorted array, so the values were sorted first.")
    row.say(
        f"Where is {target}?",
        f"The values are sorted, so one look at the middle tells in which half {target} must be.",
    )
    low, high, looks, found = 0, len(ordered) - 1, 0, -1
    while low <= high:
        middle, looks = (low + high) // 2, looks + 1
        value, item = ordered[middle]
        tones: dict[int, Tone] = {at: "off" for at in range(len(ordered)) if not low <= at <= high}
        pointing = {"low": low, "high": high, "mid": middle}
        if value == wanted:
            found = middle
            row.say(
                f"Look {looks}: {item} it is",
                f"The middle of {low} and {high} is {middle}: there stands {item}.",
                {**tones, middle: "done"},
                {"mid": middle},
            )
            break
        side, half = ("less", "left") if value < wanted else ("greater", "right")
        row.say(
            f"Look {looks}: the middle is {item}",
            f"{item} at index {middle} is {side} than {target}, so it and everything {half} of it drops out.",
            {**tones, middle: "now"},
            pointing,
        )
        low, high = (middle + 1, high) if value < wanted else (low, middle - 1)
    result = f"index {found}" if found >= 0 else "not found"
    looked = f"{counted(looks, 'look')} instead of up to {len(ordered)}"
    end = (
        f"{target} stands at index {found}, found with {looked}."
        if found >= 0
        else (f"low has passed high: {target} is not in the array, known after {looked}.")
    )
    off: dict[int, Tone] = {at: "off" for at in range(len(ordered)) if at != found}
    row.say("Found" if found >= 0 else "Not there", end, {**off, found: "done"})
    counts = re.search(r"\bhow many (?:comparisons|steps|looks|probes|iterations|guesses)", reading.text, re.IGNORECASE)
    sorted_first = len(notes) > len(given.notes)
    return _animation(
        f"Binary search for {target} in {written([item for _, item in ordered])}",
        row,
        Tale(
            title="The dictionary",
            setting="A thick dictionary, and one word to be found.",
            text=[
                f"Nobody reads a dictionary from the first page. You open it in the middle; one look says whether "
                f"{target} "
                "comes earlier or later, and half of the book is done with.",
                f"Open the rest in its middle, and so on. Of {len(ordered)} entries at most "
                f"{counted(len(ordered).bit_length(), 'look')} are needed, and twice as many entries cost just one "
                f"more.",
            ],
            mapping=[
                ("the alphabetical order", "the array is sorted"),
                ("opening in the middle", "the index mid between low and high"),
                ("the half laid aside", "the part that low or high leaves out"),
                ("the page with the word", "the index that is returned"),
            ],
        ),
        notes,
        "" if given.note or sorted_first else counted(looks, "look") if counts else result,
    )


def _linear_search(reading: Reading) -> Animation:
    match = TARGET.search(without_values(reading.text))
    given = values(reading, "7 3 9 4 8", [match[0]] if match else [])
    if not match and not given.note:
        raise Doubt
    _no_other_numbers(given, without_values(reading.text), match)
    target = match[1] if match else "4"
    row = _Row(given.items)
    row.say(f"Where is {target}?", "Nothing is known of the order, so each value must be looked at in turn.")
    found = -1
    for at, number in enumerate(given.numbers):
        tones: dict[int, Tone] = dict.fromkeys(range(at), "off")
        same = number == Fraction(target)
        says = f"That is the {target} we look for." if same else f"{given.items[at]} is not {target}, so we go on."
        row.say(f"Index {at}: {given.items[at]}", says, {**tones, at: "done" if same else "now"}, {"i": at})
        if same:
            found = at
            break
    looks = counted(found + 1 if found >= 0 else len(given.items), "look")
    end = (
        f"{target} stands at index {found}, after {looks}." if found >= 0 else f"{target} is not there, after {looks}."
    )
    row.say("Found" if found >= 0 else "Not there", end, {found: "done"})
    return _animation(
        f"Linear search for {target} in {written(given.items)}",
        row,
        Tale(
            title="Knocking at every door",
            setting="A long corridor of doors without names.",
            text=[
                f"Behind one of {len(given.items)} doors sits the one you look for, {target}. Without a list of names "
                "there is nothing for it but to knock at each door in turn.",
                "With luck it is the first door; without, it is the last, or none. Twice as many doors, twice the "
                "walk.",
            ],
            mapping=[
                ("a door", "an index"),
                ("a knock", "a comparison"),
                ("the walk", "time that grows with the array"),
            ],
        ),
        given.notes,
        "" if given.note else f"index {found}" if found >= 0 else "not found",
    )


def _two_pointers(reading: Reading) -> Animation:
    match = PAIR_SUM.search(without_values(reading.text))
    given = values(reading, "1 3 4 6 8 11", [match[0]] if match else [])
    if not match and not given.note:
        raise Doubt
    _no_other_numbers(given, without_values(reading.text), match)
    target = next(group for group in match.groups() if group) if match else "10"
    ordered = sorted(zip(given.numbers, given.items, strict=True))
    row = _Row([item for _, item in ordered])
    notes = list(given.notes)
    if [number for number, _ in ordered] != given.numbers:
        notes.append("Two pointers need a sorted array, so the values were sorted first.")
    row.say(
        f"Two values that make {target}",
        "One pointer starts at the smallest value, the other at the greatest.",
        {},
        {"left": 0, "right": len(ordered) - 1},
    )
    left, right, pair = 0, len(ordered) - 1, ""
    while left < right:
        (a, first), (b, second) = ordered[left], ordered[right]
        tones: dict[int, Tone] = {at: "off" for at in range(len(ordered)) if not left <= at <= right}
        sum_ = f"{first} + {second} = {shown(a + b)}"
        pointing = {"left": left, "right": right}
        if a + b == Fraction(target):
            pair = sum_
            row.say(sum_, f"That is {target}: a pair is found.", {**tones, left: "done", right: "done"}, pointing)
            break
        small = a + b < Fraction(target)
        says = (
            f"Less than {target}: even with the greatest value left, {first} is too small, so left moves on."
            if small
            else f"More than {target}: even with the smallest value left, {second} is too great, so right moves back."
        )
        row.say(sum_, says, {**tones, left: "now", right: "now"}, pointing)
        left, right = (left + 1, right) if small else (left, right - 1)
    if pair:
        row.say("Found", f"{pair}.", {left: "done", right: "done"})
    else:
        row.say("No pair", f"The pointers have met: no two of these values make {target}.")
    asks_index = re.search(r"\bind(?:ex|exes|ices)\b|\bhow many\b|\ball (?:the )?pairs", reading.text, re.IGNORECASE)
    result = "" if given.note or asks_index else pair or "no pair"
    return _animation(
        f"Two pointers: {target} as a sum of two of {written([item for _, item in ordered])}",
        row,
        Tale(
            title="Two on a bridge",
            setting="A bridge of numbered planks, and a walker at each end.",
            text=[
                f"They want to stand on two planks whose numbers make {target} together. The one on the low side "
                f"can only "
                "raise the sum by a step forward, the one on the high side only lower it.",
                "So there is never a doubt who moves next, no pair is missed, and when they meet, every plank was "
                "stepped on at most once.",
            ],
            mapping=[
                ("the walkers", "the pointers left and right"),
                ("planks in order", "the sorted array"),
                ("a step from the low side", "left + 1: a greater sum"),
                ("a step from the high side", "right − 1: a smaller sum"),
            ],
        ),
        notes,
        result,
    )


def _reverse(reading: Reading) -> Animation:
    given = values(reading, "4 8 15 16 23 42")
    _no_other_numbers(given, without_values(reading.text))
    row = _Row(given.items)
    last = len(given.items) - 1
    row.say("The array as it is", "Its ends swap places, then their neighbours, and so on to the middle.")
    for left in range(len(given.items) // 2):
        right = last - left
        a, b = row.row[left][1], row.row[right][1]
        done: dict[int, Tone] = {at: "done" for at in range(len(given.items)) if at < left or at > right}
        pointing = {"left": left, "right": right}
        row.say(
            f"Indices {left} and {right}",
            f"{a} and {b} have the same distance from their ends.",
            {**done, left: "now", right: "now"},
            pointing,
        )
        row.row[left], row.row[right] = row.row[right], row.row[left]
        row.say(
            f"Swap {a} and {b}",
            f"Now {b} stands at index {left} and {a} at index {right}, where they belong.",
            {**done, left: "done", right: "done"},
            pointing,
        )
    turned = [item for _, item in row.row]
    swaps = counted(len(given.items) // 2, "swap")
    row.say("Reversed", f"{written(turned)}, with {swaps} and no second array.", dict.fromkeys(range(last + 1), "done"))
    return _animation(
        f"Reversing {written(given.items)}",
        row,
        Tale(
            title="The dancers change sides",
            setting="A line of dancers across a hall.",
            text=[
                f"They stand as {written(given.items)}. At a sign the two at the ends trade places, then the next two "
                "further in. Everybody moves once; one in the middle need not move at all.",
                f"When the pairs have met in the middle, the line reads {written(turned)}.",
            ],
            mapping=[
                ("two dancers who trade places", "a swap of left and right"),
                ("one step further in", "left + 1 and right − 1"),
                ("meeting in the middle", "the loop ends when left reaches right"),
            ],
        ),
        given.notes,
        "" if given.note or re.search(r"complexity|how many|swaps", reading.asked, re.IGNORECASE) else written(turned),
    )


def _insert(reading: Reading) -> Animation:
    text = without_values(reading.text)
    value, index = INSERT.search(text), AT_INDEX.search(text)
    given = values(reading, "12 15 19 24", [match[0] for match in (value, index) if match])
    if not given.note and not (value and index):
        raise Doubt
    _no_other_numbers(given, text, value, index)
    inserted = value[1] if value else "17"
    count = len(given.items)
    place = _place(index, count) if index else 2
    if place > count or not re.fullmatch(ITEM, inserted):
        raise Doubt
    row = _Row([*given.items, ""])
    free: dict[int, Tone] = {count: "off"}
    row.say(f"{inserted} is to go to index {place}", "The array has one free place at its end.", free)
    for at in range(count, place, -1):
        moved = row.row[at - 1][1]
        row.row[at], row.row[at - 1] = row.row[at - 1], row.row[at]
        row.say(
            f"{moved} moves to index {at}",
            f"{moved} stands where {inserted} or its neighbours need the room.",
            {at: "now", at - 1: "off"},
        )
    row.row[place] = (row.row[place][0], inserted)
    order = [item for _, item in row.row]
    row.say(f"{inserted} is in", f"Index {place} is free now and takes {inserted}.", {place: "done"})
    moves = counted(count - place, "value")
    row.say("Done", f"{written(order)}. {moves} had to move, since an array has no gaps.", {place: "done"})
    return _animation(
        f"Inserting {inserted} at index {place} of {written(given.items)}",
        row,
        Tale(
            title="A late guest in the front row",
            setting="A row of theatre seats without a gap.",
            text=[
                f"{inserted} has a ticket for seat {place}, but the row is taken: {written(given.items)}. So everybody "
                "from the far end on gets up and moves one seat along, until the seat is free.",
                "The nearer to the front the guest sits, the more people must rise; at the far end nobody has to.",
            ],
            mapping=[
                ("the seats", "places next to each other in memory"),
                ("a ticket for a seat", "the index"),
                ("moving one seat along", "shifting a value right"),
                ("how many must rise", "the cost of the insertion"),
            ],
        ),
        given.notes,
        "" if given.note or re.search(r"complexity|how many", reading.asked, re.IGNORECASE) else written(order),
    )


def _place(index: re.Match[str], count: int) -> int:
    if index[3]:
        return count if index[3].lower() == "end" else 0
    return int(index[1] or index[2])


def _element(reading: Reading) -> Animation:
    text = without_values(reading.text)
    index = re.search(r"\bindex\s+([0-9]{1,2})\b", text, re.IGNORECASE)
    named = re.search(r"\b[a-z]\w{0,11}\[([0-9]{1,2})\]", reading.text, re.IGNORECASE)
    match = index or named
    if not match or NARROWED.search(text) or INSERT.search(text):
        raise Doubt
    given = values(reading, "10 20 30 40 50", [match[0]])
    place = int(match[1])
    if given.note or place >= len(given.items):
        raise Doubt
    _no_other_numbers(given, text, index)
    row = _Row(given.items)
    row.say("The array and its indices", "Counting starts at 0: the index says how many values stand before.")
    steps: dict[int, Tone] = dict.fromkeys(range(place), "mark")
    row.say(
        f"Go past {counted(place, 'value')}",
        f"Index {place} means: {counted(place, 'value')} from the start.",
        {**steps, place: "now"},
        {"i": place},
    )
    row.say(
        f"{given.items[place]}",
        f"At index {place} stands {given.items[place]}, reached in one go: the address is "
        f"the start plus {place} places.",
        {place: "done"},
        {"i": place},
    )
    return _animation(
        f"Index {place} of {written(given.items)}",
        row,
        Tale(
            title="Lockers in a row",
            setting="A station hall with numbered lockers.",
            text=[
                f"The lockers hold {written(given.items)}. Their numbers begin with 0, for locker 0 is no step "
                f"away from "
                f"the entrance. Locker {place} is {counted(place, 'step')} away, and that is all its number says.",
                "Nobody has to open the others on the way: every locker has the same width, so the way is known at "
                "once.",
            ],
            mapping=[
                ("a locker's number", "the index"),
                ("steps from the entrance", "the offset from the start"),
                ("the same width", "items of one size, so access takes the same time everywhere"),
            ],
        ),
        given.notes,
        given.items[place],
    )


def _greatest(reading: Reading) -> Animation:
    return _extreme(reading, "greatest")


def _smallest(reading: Reading) -> Animation:
    return _extreme(reading, "smallest")


def _extreme(reading: Reading, kind: str) -> Animation:
    given = _plain_values(reading, "14 9 27 5 21")
    numbers = given.numbers
    row = _Row(given.items)
    best = 0
    row.say(
        f"{given.items[0]} is the {kind} so far", "Only one value was seen, so it must be.", {0: "mark"}, {"best": 0}
    )
    for at in range(1, len(numbers)):
        better = numbers[at] > numbers[best] if kind == "greatest" else numbers[at] < numbers[best]
        relation = "greater" if kind == "greatest" else "less"
        seen: dict[int, Tone] = dict.fromkeys(range(at), "off")
        says = (
            f"{given.items[at]} is {relation} than {given.items[best]}, so it is the {kind} so far."
            if better
            else (f"{given.items[at]} is not {relation} than {given.items[best]}, so nothing changes.")
        )
        was, best = best, at if better else best
        row.say(
            f"{given.items[at]} against {given.items[was]}", says, {**seen, best: "mark", at: "now"}, {"best": best}
        )
    row.say(
        f"The {kind}: {given.items[best]}",
        f"Every value was seen once: {given.items[best]} at index {best} is the "
        f"{kind}, after {counted(len(numbers) - 1, 'comparison')}.",
        {best: "done"},
    )
    only = re.search(r"complexity|how many|index|position|average|sum\b", reading.asked, re.IGNORECASE)
    return _animation(
        f"The {kind} of {written(given.items)}",
        row,
        Tale(
            title="The ribbon",
            setting="A village fair with one ribbon for the winner.",
            text=[
                f"They come by one after the other: {written(given.items)}. The first gets the ribbon, simply for "
                f"being "
                "there. Everybody after that is measured against the one who wears it, and takes it over or walks on.",
                f"When the last has passed, the ribbon hangs on {given.items[best]}. No one was measured twice.",
            ],
            mapping=[
                ("the ribbon", "the variable that keeps the best so far"),
                ("being measured", "a comparison"),
                ("the end of the procession", "the end of the loop"),
            ],
        ),
        given.notes,
        "" if given.note or only else given.items[best],
    )


def _sum(reading: Reading) -> Animation:
    given = _plain_values(reading, "4 7 1 8")
    numbers = given.numbers
    row = _Row(given.items)
    total = Fraction(0)
    row.say("The total begins at 0", "So that the first value can be added like every other.", {}, {}, _total(total))
    for at, number in enumerate(numbers):
        before, total = total, total + number
        done: dict[int, Tone] = dict.fromkeys(range(at), "done")
        row.say(
            f"Add {given.items[at]}",
            f"{shown(before)} + {_bracketed(number)} = {shown(total)}.",
            {**done, at: "now"},
            {"i": at},
            _total(total),
        )
    average = re.search(r"\b(?:average|mean)\b", reading.text, re.IGNORECASE)
    all_done: dict[int, Tone] = dict.fromkeys(range(len(numbers)), "done")
    value, name = total, "sum"
    if average:
        value, name = total / len(numbers), "average"
        says = (
            f"{shown(total)} ÷ {len(numbers)} = {shown(value)}: were all {len(numbers)} values equal, each "
            f"would be that."
        )
        row.say("Share it out", says, all_done, {}, _total(total))
    row.say(
        f"The {name}: {shown(value)}",
        f"The {name} of {written(given.items)} is {shown(value)}.",
        all_done,
        {},
        _total(total),
    )
    other = re.search(r"complexity|how many|index", reading.asked, re.IGNORECASE)
    return _animation(
        f"The {name} of {written(given.items)}",
        row,
        Tale(
            title="The toll keeper's box",
            setting="A bridge, a keeper, and a box that starts the day empty.",
            text=[
                f"Carts come by and pay {written(given.items)}. The keeper never counts the whole box again; he only "
                f"adds what falls in to the number on his slate. In the evening it says {shown(total)}."
                + (f" Shared evenly among {len(numbers)} carts that is {shown(value)} each." if average else ""),
            ],
            mapping=[
                ("the empty box", "the total starts at 0"),
                ("the slate", "the variable total"),
                ("a cart", "one turn of the loop"),
            ],
        ),
        given.notes,
        "" if given.note or other else shown(value),
        None if given.note or other else value,
    )


def _total(total: Fraction) -> list[Shape]:
    return [Label("total", 180, ROW + 64, f"total = {shown(total)}", "mark", size=18)]


def _bracketed(number: Fraction) -> str:
    return f"({shown(number)})" if number < 0 else shown(number)


def _plain_values(reading: Reading, example: str) -> Values:
    """The values of a question about all of them: nothing narrows them, and arrays are spoken of."""
    text = without_values(reading.text)
    if NARROWED.search(text) or not (ARRAY.search(text) or PLAIN.fullmatch(text.strip())):
        raise Doubt
    given = values(reading, example)
    if given.note and not re.search(r"\barrays?\b|\balgorithm\b|\bfunction\b", text, re.IGNORECASE):
        raise Doubt
    _no_other_numbers(given, text)
    return given


def _no_other_numbers(given: Values, text: str, *known: re.Match[str] | None) -> None:
    """Raises Doubt for a number which is neither a value nor one of what is known."""
    for match in known:
        if match:
            text = text.replace(match[0], " ", 1)
    text = re.sub(r"O\([^()\n]{1,20}\)|\b[0-9]-(?:based|indexed)\b", " ", text)
    if re.search(r"[0-9]", text):
        raise Doubt


def _animation(
    name: str, row: _Row, tale: Tale, notes: list[str], result: str, value: Fraction | None = None
) -> Animation:
    return Animation(
        type="coding",
        subject="arrays",
        name=name,
        scenes=row.scenes,
        tale=tale,
        result=result,
        value=value,
        notes=notes,
    )


OPERATIONS: list[tuple[str, Callable[[Reading], Animation]]] = [
    (r"\bbinary search\b(?! tree)", _binary_search),
    (r"\blinear search\b|\bsequential search\b", _linear_search),
    (
        r"\btwo[\s-]pointers?\b|\btwo[\s-]sum\b|\bpairs?\b.{0,60}\bsums?\b|\btwo "
        r"(?:numbers|values|elements).{0,30}\b(?:add|sum)",
        _two_pointers,
    ),
    (r"\brevers\w+\b.{0,60}\b(?:array|list|numbers)\b|\b(?:array|list|numbers)\b.{0,60}\brevers", _reverse),
    (r"\binsert\w*\b.{0,80}\b(?:array|list)\b|\b(?:array|list)\b.{0,80}\binsert", _insert),
    (r"\bindex [0-9]|\b[a-z]\w{0,11}\[[0-9]{1,2}\]", _element),
    (r"\b(?:maximum|max|largest|greatest|biggest|highest)\b", _greatest),
    (r"\b(?:minimum|min|smallest|least|lowest)\b", _smallest),
    (r"\b(?:sum|total|average|mean)\b", _sum),
]

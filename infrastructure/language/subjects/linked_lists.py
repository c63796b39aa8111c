"""Linked lists: walking, inserting, removing, reversing, and finding a cycle."""

import re

from infrastructure.language.amounts import Doubt
from infrastructure.language.animation import (
    WIDTH,
    Animation,
    Box,
    Label,
    Line,
    Path,
    Scene,
    Shape,
    Tale,
    Tone,
    counted,
    size_within,
)
from infrastructure.language.reading import Reading
from infrastructure.language.values import Values, pointers, values, without_values

LINKED = re.compile(r"\blinked[\s-]lists?\b", re.IGNORECASE)
OTHER = re.compile(
    r"\bsort(?:ed|ing)?\b|\bmerg\w+|\bdoubly\b|\btwo linked lists|\btrees?\b|\bmiddle\b|\bpalindrome|\bk-?th\b"
    r"|\barrays?\b|\bnth\b|\bswap",
    re.IGNORECASE,
)
VALUE = r"(?:the )?(?:(?:value|node|number|element|item) )?([a-z]|-?[0-9]{1,6})\b"
INSERT = re.compile(rf"\binsert(?:s|ed|ing)?\b(?: a)?(?: new)?(?: node)?(?: with)?(?: value)? ?{VALUE}", re.IGNORECASE)
AFTER = re.compile(rf"\b(after|before) {VALUE}", re.IGNORECASE)
AT_END = re.compile(r"\b(?:at|to) (?:the )?(head|front|beginning|start|tail|end)\b", re.IGNORECASE)
REMOVE = re.compile(rf"\b(?:remov|delet)(?:e|es|ed|ing)\b {VALUE}", re.IGNORECASE)
BACK = re.compile(rf"\b(?:back to|points? to|links? to|connects? to|connected to) {VALUE}", re.IGNORECASE)
OPERATIONS = [
    ("reverse", re.compile(r"\brevers(?:e|es|ed|ing|al)\b", re.IGNORECASE)),
    ("cycle", re.compile(r"\bcycles?\b|\bcyclic\b|\bloops?\b|\btortoise\b", re.IGNORECASE)),
    ("insert", re.compile(r"\binsert\w*\b", re.IGNORECASE)),
    ("remove", re.compile(r"\b(?:remov|delet)\w+\b", re.IGNORECASE)),
]
EXAMPLE = "7 3 9 5"
ROW = 90


def recognise(reading: Reading) -> Animation:
    text = reading.text
    if not LINKED.search(text) or OTHER.search(text):
        raise Doubt
    named = [name for name, sign in OPERATIONS if sign.search(text)]
    if len(named) > 1:
        raise Doubt
    return PLAYED[named[0] if named else "walk"](reading)


class _Chain:
    """Nodes in their places, and which node each one points to."""

    def __init__(self, items: list[str]) -> None:
        self.texts = list(items)
        self.places: list[float] = [float(at) for at in range(len(items))]
        self.next: dict[int, int | None] = {at: at + 1 for at in range(len(items) - 1)}
        self.next[len(items) - 1] = None
        self.raised: set[int] = set()
        self.scenes: list[Scene] = []
        self.count = len(items)

    def add(self, text: str, place: float) -> int:
        self.texts.append(text)
        self.places.append(place)
        self.raised.add(len(self.texts) - 1)
        self.next[len(self.texts) - 1] = None
        return len(self.texts) - 1

    def settle(self, order: list[int]) -> None:
        """The nodes stand in this order."""
        self.raised.clear()
        self.count = len(order)
        for place, id in enumerate(order):
            self.places[id] = float(place)

    def order(self, head: int) -> list[int]:
        order, at = [], head
        while at is not None and at not in order:
            order.append(at)
            at = self.next[at]  # type: ignore[assignment]
        return order

    def shown(self, head: int) -> str:
        return " → ".join(self.texts[id] for id in self.order(head))

    def say(
        self,
        title: str,
        says: str,
        tones: dict[int, Tone] | None = None,
        names: dict[str, int] | None = None,
        links: dict[int, Tone] | None = None,
        hidden: frozenset[int] = frozenset(),
    ) -> None:
        """A scene; tones, links and the names above the nodes go by node."""
        shapes: list[Shape] = []
        for id, text in enumerate(self.texts):
            if id in hidden:
                continue
            x, y = self._spot(id)
            width = self._width()
            shapes.append(
                Box(f"n{id}", x, y, width, 38, text, (tones or {}).get(id, ""), size_within(text, width - 6, 17))
            )
            shapes += self._link(id, (links or {}).get(id, ""))
        above = {name: self._spot(id)[0] for name, id in (names or {}).items()}
        shapes += pointers(above, ROW - 30)
        self.scenes.append(Scene(title, says, shapes))

    def _step(self) -> float:
        return min(70.0, (WIDTH - 12) / (self.count + 1))

    def _place(self, at: float) -> float:
        return round(WIDTH / 2 + (at - self.count / 2) * self._step(), 1)

    def _width(self) -> float:
        return round(min(46.0, self._step() - 18), 1)

    def _spot(self, id: int) -> tuple[float, float]:
        return self._place(self.places[id]), ROW + (62 if id in self.raised else 0)

    def _link(self, id: int, tone: Tone) -> list[Shape]:
        (x, y), target, half = self._spot(id), self.next.get(id), self._width() / 2
        if target is None:
            if id in self.raised:
                return []
            end = self._place(self.places[id] + 1)
            left = self.places[id] == 0 and self.count > 1 and self._turned(id)
            end = self._place(self.places[id] - 0.62) if left else end
            side = -1 if left else 1
            line = Line(f"l{id}", round(x + side * half, 1), y, round(end - side * 9, 1), y, tone, arrow=True)
            return [line, Label(f"o{id}", end + side * 2, y, "∅", "off", size=16)]
        tx, ty = self._spot(target)
        if y == ty and abs(self.places[id] - self.places[target]) == 1:
            side = 1 if tx > x else -1
            return [Line(f"l{id}", round(x + side * half, 1), y, round(tx - side * half, 1), ty, tone, arrow=True)]
        if y == ty:
            low = y + 30 + 5 * abs(self.places[id] - self.places[target])
            return [
                Path(f"c{id}", f"M{x} {y + 19}V{low}H{tx}V{ty + 26}", tone),
                Line(f"l{id}", tx, low, tx, ty + 20, tone, arrow=True),
            ]
        up = -19 if ty < y else 19
        return [Line(f"l{id}", x, y + up, tx, ty - up, tone, arrow=True)]

    def _turned(self, id: int) -> bool:
        return any(target == id for target in self.next.values())


def _walk(reading: Reading) -> Animation:
    given = values(reading, EXAMPLE)
    _nothing_else(reading, given)
    chain = _Chain(given.items)
    chain.say(
        "A chain of nodes",
        "Each node holds a value and the address of the next one. Only the first is known.",
        {},
        {"head": 0},
    )
    for id, item in enumerate(given.items):
        last = id == len(given.items) - 1
        seen: dict[int, Tone] = dict.fromkeys(range(id), "done")
        says = (
            f"{item} points to nothing (∅): here the list ends."
            if last
            else (f"{item} says where {given.items[id + 1]} is; there is no other way to it.")
        )
        chain.say(f"At {item}", says, {**seen, id: "now"}, {"at": id}, {id: "now"})
    chain.say(
        "All were seen",
        f"{chain.shown(0)}: to reach the last node, {counted(len(given.items) - 1, 'link')} had to "
        "be followed, one after the other.",
        dict.fromkeys(range(len(given.items)), "done"),
    )
    return _animation(f"Walking along {chain.shown(0)}", chain, _tale_of_clues(given), given.notes, "")


def _reverse(reading: Reading) -> Animation:
    given = values(reading, EXAMPLE)
    _nothing_else(reading, given)
    chain = _Chain(given.items)
    count = len(given.items)
    before = chain.shown(0)
    chain.say(
        "The list as it is",
        "Every arrow is to point the other way. Three names keep the place: prev, at and next.",
        {},
        {"at": 0},
    )
    for id, item in enumerate(given.items):
        names = {"at": id, **({"prev": id - 1} if id else {}), **({"next": id + 1} if id + 1 < count else {})}
        done: dict[int, Tone] = dict.fromkeys(range(id), "done")
        if id + 1 < count:
            chain.say(
                f"Remember {given.items[id + 1]}",
                f"Once the arrow of {item} is turned, the rest of the list would be out of reach; so next keeps it.",
                {**done, id: "now"},
                names,
                {id: "mark"},
            )
        chain.next[id] = id - 1 if id else None
        to = f"back to {given.items[id - 1]}" if id else "to nothing (∅), for it will be the last"
        chain.say(f"Turn the arrow of {item}", f"{item} now points {to}.", {**done, id: "now"}, names, {id: "now"})
    chain.say(
        "Reversed",
        f"{given.items[-1]} is the new head. The list reads {chain.shown(count - 1)}.",
        dict.fromkeys(range(count), "done"),
        {"head": count - 1},
    )
    return _animation(
        f"Reversing {before}",
        chain,
        Tale(
            title="Turning the signposts",
            setting="A hiking trail where each hut has one signpost, to the next hut.",
            text=[
                f"The trail leads {before}. A ranger is to make it lead back, by turning signposts only. At each "
                f"hut he "
                "first writes down the name of the next one, for once he has turned the post, nothing there would "
                "tell.",
                f"Hut by hut the posts point to where he came from. At the last one the trail begins anew: "
                f"{chain.shown(count - 1)}. Not a single hut was moved.",
            ],
            mapping=[
                ("a hut", "a node"),
                ("its signpost", "the link to the next node"),
                ("the note in the ranger's pocket", "the variable next"),
                ("the hut he came from", "the variable prev"),
                ("where the trail begins anew", "the new head"),
            ],
        ),
        given.notes,
        _unless(given, reading, chain.shown(count - 1)),
    )


def _insert(reading: Reading) -> Animation:
    text = without_values(reading.text)
    value, after, end = INSERT.search(text), AFTER.search(text), AT_END.search(text)
    where = after or end
    given = values(reading, EXAMPLE, [match[0] for match in (value, where) if match])
    if not given.note and not (value and where):
        raise Doubt
    _nothing_else(reading, given, value, where)
    new_text = value[1] if value and value[1].lower() != "a" else "4"
    count = len(given.items)
    before = _index_before(given, after, end)
    chain = _Chain(given.items)
    start = chain.shown(0)
    new = chain.add(new_text, before + 0.5)
    place = f"after {given.items[before]}" if before >= 0 else "at the head"
    chain.say(
        f"{new_text} is to go in {place}",
        "A new node may lie anywhere in memory; what counts is who points to it.",
        {new: "now"},
        {"head": 0},
    )
    follower = before + 1 if before + 1 < count else None
    chain.next[new] = follower
    says = (
        f"Its arrow goes to {given.items[follower]} first, so that the rest is never lost."
        if follower is not None
        else ("It will be the last, so it points to nothing (∅).")
    )
    chain.say(f"{new_text} gets its own arrow", says, {new: "now"}, {"head": 0}, {new: "now"})
    head = 0
    if before >= 0:
        chain.next[before] = new
        chain.say(
            f"{given.items[before]} points to {new_text}",
            "Just one old arrow had to change; no other node moved.",
            {new: "now", before: "mark"},
            {"head": 0},
            {before: "now"},
        )
    else:
        head = new
        chain.say(
            f"The head is {new_text}",
            "No old arrow had to change: the list simply begins with the new node.",
            {new: "now"},
            {"head": new},
        )
    order = chain.order(head)
    chain.settle(order)
    chain.say("Inserted", f"{chain.shown(head)}.", {new: "done"}, {"head": head})
    tale = Tale(
        title="One more clue",
        setting="A treasure hunt through a park, where each clue names the place of the next.",
        text=[
            f"The hunt goes {start}. Somebody wants {new_text} to be a stop, {place}. No clue has to be carried "
            f"elsewhere: "
            "the new one is written so that it names the stop that follows.",
            f"Then one old clue is rewritten to name the new stop, and the hunt goes {chain.shown(head)}. In the other "
            "order, the old clue first, nobody would know any more where the rest of the hunt lies.",
        ],
        mapping=[
            ("a stop", "a node"),
            ("its clue", "the link to the next node"),
            ("writing the new clue first", "new.next = before.next"),
            ("rewriting the old clue", "before.next = new"),
        ],
    )
    return _animation(
        f"Inserting {new_text} {place} in {start}", chain, tale, given.notes, _unless(given, reading, chain.shown(head))
    )


def _index_before(given: Values, after: re.Match[str] | None, end: re.Match[str] | None) -> int:
    """The node after which the new one goes; -1 for the head."""
    if after:
        if given.items.count(after[2]) != 1:
            raise Doubt
        return given.items.index(after[2]) - (after[1].lower() == "before")
    if end:
        return len(given.items) - 1 if end[1].lower() in ("tail", "end") else -1
    return 1


def _remove(reading: Reading) -> Animation:
    text = without_values(reading.text)
    match = REMOVE.search(text)
    if match and match[1].lower() == "a":
        match = None
    given = values(reading, EXAMPLE, [match[0]] if match else [])
    if not given.note and not match:
        raise Doubt
    _nothing_else(reading, given, match)
    value = match[1] if match else given.items[2]
    if given.items.count(value) != 1:
        raise Doubt
    chain, gone = _Chain(given.items), given.items.index(value)
    start, count = chain.shown(0), len(given.items)
    chain.say(
        f"{value} is to leave", "To skip it, the node before it must be found, from the head on.", {}, {"head": 0}
    )
    for id in range(gone):
        found = id + 1 == gone
        says = (
            f"Its arrow points to {value}: this is the one to change."
            if found
            else (f"Its arrow points to {given.items[id + 1]}, not to {value}; go on.")
        )
        chain.say(f"At {given.items[id]}", says, {id: "now", gone: "warn"}, {"at": id}, {id: "now"})
    head = 0
    if gone:
        chain.next[gone - 1] = gone + 1 if gone + 1 < count else None
        to = given.items[gone + 1] if gone + 1 < count else "nothing (∅)"
        chain.raised.add(gone)
        chain.say(
            f"{given.items[gone - 1]} skips {value}",
            f"Its arrow now goes to {to}, past {value}.",
            {gone - 1: "now", gone: "warn"},
            {"head": 0},
            {gone - 1: "now"},
        )
    else:
        head = 1
        chain.raised.add(gone)
        chain.say(
            "The head moves on",
            f"{value} was the first, so the list now begins with {given.items[1]}.",
            {gone: "warn"},
            {"head": 1},
        )
    chain.settle(chain.order(head))
    chain.say(
        "Removed",
        f"{chain.shown(head)}. Nothing points to {value} any more.",
        dict.fromkeys(chain.order(head), "done"),
        {"head": head},
        hidden=frozenset([gone]),
    )
    return _animation(
        f"Removing {value} from {start}",
        chain,
        _tale_of_clues(given),
        given.notes,
        _unless(given, reading, chain.shown(head)),
    )


def _cycle(reading: Reading) -> Animation:
    back = BACK.search(without_values(reading.text))
    given = values(reading, EXAMPLE + " 8", [back[0]] if back else [])
    if given.note and back:
        raise Doubt
    _nothing_else(reading, given, back)
    items, notes, target = _cycle_target(given, back)
    chain = _Chain(items)
    chain.next[len(items) - 1] = target
    chain.say(
        "Does the chain end?",
        "Two walkers start at the head: the tortoise takes one link at a time, the hare two. "
        "If there is an end, the hare gets there; if not, they meet.",
        {},
        {"hare": 0, "tortoise": 0},
    )
    slow = fast = 0
    for step in range(1, 3 * len(items)):
        slow = chain.next[slow]  # type: ignore[assignment]
        fast = chain.next[chain.next[fast]]  # type: ignore[assignment, index]
        meet = slow == fast
        says = (
            f"They stand at the same node, {items[slow]}: there is a cycle."
            if meet
            else (
                f"Inside the cycle the hare gains one node with every step; {items[fast]} and {items[slow]} are "
                f"apart still."
            )
        )
        tones: dict[int, Tone] = {slow: "done"} if meet else {slow: "now", fast: "mark"}
        chain.say(
            f"Step {step}: tortoise at {items[slow]}, hare at {items[fast]}",
            says,
            tones,
            {"hare": fast, "tortoise": slow},
        )
        if meet:
            break
    start = 0
    while start != slow:
        start, slow = chain.next[start], chain.next[slow]  # type: ignore[assignment]
    length = len(items) - start
    chain.say(
        "A cycle",
        f"Yes: it begins at {items[start]} and has {counted(length, 'node')}. From the head and from the "
        "meeting point, one link at a time, it is equally far to its beginning.",
        dict.fromkeys(range(start, len(items)), "done"),
        {"cycle": start},
        {len(items) - 1: "done"},
    )
    return _animation(
        f"A cycle in {' → '.join(items)} → {items[target]}",
        chain,
        Tale(
            title="The hare and the tortoise",
            setting="A path through a wood, which may end at a house or run round a pond.",
            text=[
                f"The path leads {' → '.join(items)} and then back to {items[target]}. Both animals start "
                f"together, and "
                "the hare runs twice as fast. If the path ended, the hare would simply arrive.",
                "Round a pond it is different: there the hare comes up from behind, gaining one step at a time, so "
                "it can "
                "never jump past the tortoise unseen. That they meet is the proof that the path runs in a circle.",
            ],
            mapping=[
                ("the path", "the list"),
                ("the pond", "the cycle"),
                ("the tortoise", "the pointer slow: one link"),
                ("the hare", "the pointer fast: two links"),
                ("their meeting", "slow == fast"),
            ],
        ),
        notes,
        "" if given.note or not re.match(r"(?:does|is|has|do)\b", reading.asked, re.IGNORECASE) else "yes",
    )


def _cycle_target(given: Values, back: re.Match[str] | None) -> tuple[list[str], list[str], int]:
    """The nodes, what is to be said about them, and where the last one points to."""
    items = given.items
    if given.note:
        return items, [given.note, f"Its last node, {items[-1]}, points back to {items[1]}."], 1
    if back:
        if len(set(items)) < len(items) or back[1] not in items:
            raise Doubt
        return items, [], items.index(back[1])
    if items[-1] in items[:-1] and len(set(items)) == len(items) - 1:
        note = f"{items[-1]} is written twice: this is taken to mean that {items[-2]} points back to it."
        return items[:-1], [note], items.index(items[-1])
    raise Doubt


def _tale_of_clues(given: Values) -> Tale:
    return Tale(
        title="The treasure hunt",
        setting="A park with hidden stops, where each one tells only where the next one is.",
        text=[
            f"The first clue leads to {given.items[0]}, and what is found there leads on: "
            f"{' → '.join(given.items)}. Nobody "
            "can go straight to the last stop, for nobody knows where it is before standing at the one before it.",
            "In exchange, a stop is easily added or taken out: only one clue has to be rewritten, and all others stay.",
        ],
        mapping=[
            ("a stop", "a node"),
            ("its clue", "the link to the next node"),
            ("the first clue", "the head"),
            ("a stop without a clue", "the end of the list: ∅"),
        ],
    )


def _nothing_else(reading: Reading, given: Values, *known: re.Match[str] | None) -> None:
    text = without_values(reading.text)
    for match in known:
        if match:
            text = text.replace(match[0], " ", 1)
    if re.search(r"[0-9]", re.sub(r"O\([^()\n]{1,20}\)", " ", text)):
        raise Doubt


def _unless(given: Values, reading: Reading, result: str) -> str:
    other = re.search(r"complexity|how many|why|advantage|which pointer", reading.asked, re.IGNORECASE)
    return "" if given.note or other else result


def _animation(name: str, chain: _Chain, tale: Tale, notes: list[str], result: str) -> Animation:
    return Animation(
        type="coding",
        subject="linked lists",
        name=name,
        scenes=chain.scenes,
        tale=tale,
        result=result,
        notes=notes,
    )


PLAYED = {"walk": _walk, "reverse": _reverse, "insert": _insert, "remove": _remove, "cycle": _cycle}

"""Binary search trees: inserting, searching and the four ways to walk through one."""

import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

from infrastructure.language.amounts import Doubt
from infrastructure.language.animation import (
    WIDTH,
    Animation,
    Disc,
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
from infrastructure.language.values import ITEM, Values, values, without_values, written

SEARCH_TREE = re.compile(r"\bbinary search trees?\b|\bBSTs?\b", re.IGNORECASE)
TREE = re.compile(r"\bbinary trees?\b|\btree traversals?\b", re.IGNORECASE)
OTHER = re.compile(
    r"\bdelet\w+|\bremov\w+|\bAVL\b|\bred.black|\bbalanc\w+|\brotat\w+|\bheap\b|\btrie\b|\bB-tree|\bsuccessor"
    r"|\bancestor|\blinked list|\barrays?\b|\bgraph\b",
    re.IGNORECASE,
)
WALKS = [
    ("in-order", re.compile(r"\bin[\s-]?order (?:traversal|walk|sequence)|\binorder\b|\bin-order\b", re.IGNORECASE)),
    ("pre-order", re.compile(r"\bpre[\s-]?order\b", re.IGNORECASE)),
    ("post-order", re.compile(r"\bpost[\s-]?order\b", re.IGNORECASE)),
    ("level-order", re.compile(r"\blevel[\s-]?order\b|\bbreadth[\s-]first\b|\blevel by level\b", re.IGNORECASE)),
]
RULES = {
    "in-order": "first everything on the left, then the node itself, then everything on the right",
    "pre-order": "first the node itself, then everything on the left, then everything on the right",
    "post-order": "first everything on the left, then everything on the right, and the node itself last",
    "level-order": "row by row from the top, each from left to right",
}
FIND = re.compile(
    rf"\b(?:search(?:es|ed|ing)?|look(?:s|ing)?|find(?:s|ing)?)\b (?:for )?(?:the )?(?:value |key |number |node "
    rf")?({ITEM})\b",
    re.IGNORECASE,
)
ASKS_OTHER = re.compile(
    r"\bheight\b|\bdepth\b|\blevels?\b(?![\s-]?order)|\bleaf\b|\bleaves\b|\broot\b|complexity|how many"
    r"|\bwhy\b|difference",
    re.IGNORECASE,
)
EXAMPLE = "8 3 10 1 6 14"
TOP, RADIUS = 34, 15


class _Node:
    def __init__(self, id: int, value: Fraction, text: str, depth: int) -> None:
        self.id, self.value, self.text, self.depth = id, value, text, depth
        self.left: _Node | None = None
        self.right: _Node | None = None


def recognise(reading: Reading) -> Animation:
    text = reading.text
    search_tree = SEARCH_TREE.search(text)
    if not (search_tree or TREE.search(text)) or OTHER.search(text):
        raise Doubt
    walks = [name for name, sign in WALKS if sign.search(text)]
    find = FIND.search(without_values(text))
    if len(walks) > 1 or (walks and find):
        raise Doubt
    given = values(reading, EXAMPLE, [find[0]] if find else [])
    rest = without_values(text.replace(find[0], " ") if find else text)
    if re.search(r"[0-9]", re.sub(r"O\([^()\n]{1,20}\)", " ", rest)):
        raise Doubt
    if not search_tree and not (walks and given.note):
        raise Doubt  # the shape of a tree that is no search tree does not follow from its values
    if len(set(given.numbers)) < len(given.numbers):
        raise Doubt  # where an equal value goes is not agreed upon
    return _played(reading, given, walks[0] if walks else "", find[1] if find else "")


def _played(reading: Reading, given: Values, walk: str, wanted: str) -> Animation:
    tree = _Tree(given)
    tree.grow(brief=bool(walk or wanted))
    result = ""
    name = f"A binary search tree of {written(given.items)}"
    if wanted:
        result = "found" if tree.search(Fraction(wanted), wanted) else "not found"
        name = f"Searching {wanted} in a binary search tree"
    elif walk:
        result = written(tree.walk(walk))
        name = f"The {walk} walk through {written(given.items)}"
    else:
        tree.finish()
    asks_other = ASKS_OTHER.search(reading.asked)
    notes = list(given.notes)
    if not given.note:
        notes.append("The values are inserted in the order in which the question gives them.")
    return Animation(
        type="coding",
        subject="trees",
        name=name,
        scenes=tree.scenes,
        tale=_tale(given, walk, result),
        result="" if given.note or asks_other else result,
        notes=notes,
    )


class _Tree:
    """A tree as it grows: each way down is a scene."""

    def __init__(self, given: Values) -> None:
        self.items = list(zip(given.numbers, given.items, strict=True))
        self.nodes: list[_Node] = []
        self.scenes: list[Scene] = []
        ranks = sorted(value for value, _ in self.items)
        step = min(44.0, (WIDTH - 2 * RADIUS - 12) / max(len(ranks) - 1, 1))
        self._x = {value: round(WIDTH / 2 + (at - (len(ranks) - 1) / 2) * step, 1) for at, value in enumerate(ranks)}

    def grow(self, brief: bool) -> None:
        """Insert all; in brief, each insertion is one scene."""
        for value, text in self.items:
            self._insert(value, text, brief)

    def _insert(self, value: Fraction, text: str, brief: bool) -> None:
        path, at, parent = [], self.nodes[0] if self.nodes else None, None
        while at:
            parent = at
            path.append(at)
            side, word = ("left", "less") if value < at.value else ("right", "greater")
            if not brief:
                self.say(
                    f"Insert {text}: at {at.text}",
                    f"{text} is {word} than {at.text}, so it belongs on the {side}.",
                    {at.id: "now"},
                    above=text,
                )
            at = at.left if side == "left" else at.right
        node = _Node(len(self.nodes), value, text, parent.depth + 1 if parent else 0)
        self.nodes.append(node)
        if not parent:
            self.say(
                f"{text} is the root",
                "The first value stands at the top: everything else is compared with it.",
                {node.id: "done"},
            )
            return
        left = value < parent.value
        if left:
            parent.left = node
        else:
            parent.right = node
        way = ", ".join(f"{text} {'<' if value < step.value else '>'} {step.text}" for step in path)
        side = "left" if left else "right"
        self.say(
            f"{text} goes {side} of {parent.text}",
            f"{way}: there the place was free.",
            {**{step.id: "now" for step in path}, node.id: "done"},
        )

    def search(self, wanted: Fraction, text: str) -> bool:
        at: _Node | None = self.nodes[0]
        looks, out = 0, dict[int, Tone]()
        while at:
            looks += 1
            if at.value == wanted:
                self.say(
                    f"{text} is here",
                    f"Found with {counted(looks, 'comparison')} among {len(self.nodes)} nodes.",
                    {**out, at.id: "done"},
                )
                return True
            side, word = ("left", "less") if wanted < at.value else ("right", "greater")
            child, other = (at.left, at.right) if side == "left" else (at.right, at.left)
            self.say(
                f"Is it {at.text}?",
                f"{text} is {word} than {at.text}: only the {side} can hold it"
                + (", and all on the other side is out." if other else "."),
                {**out, at.id: "now"},
            )
            out[at.id] = "off"
            out.update({node.id: "off" for node in _pre_order(other)})
            at = child
        self.say(
            f"{text} is not in the tree",
            f"The place where it would stand is empty, after {counted(looks, 'comparison')}.",
            out,
        )
        return False

    def walk(self, name: str) -> list[str]:
        self.say(f"Now the {name} walk", f"The rule at every node: {RULES[name]}.")
        order: list[_Node] = []
        for node in ORDERS[name](self.nodes[0]):
            order.append(node)
            self.say(
                f"{node.text} is the next",
                _why(name, node),
                {**{n.id: "done" for n in order}, node.id: "now"},
                below=written([n.text for n in order]),
            )
        texts = [node.text for node in order]
        sorted_ = (
            " An in-order walk through a search tree meets the values in sorted order." if name == "in-order" else ""
        )
        self.say(
            f"The {name} walk", f"{written(texts)}.{sorted_}", {node.id: "done" for node in order}, below=written(texts)
        )
        return texts

    def finish(self) -> None:
        depth = max(node.depth for node in self.nodes)
        leaves = [node.text for node in self.nodes if not node.left and not node.right]
        self.say(
            "The tree is complete",
            f"It has {counted(depth + 1, 'level')}. Left of every node stand smaller values, on "
            f"the right greater ones; {written(leaves)} {'has' if len(leaves) == 1 else 'have'} nothing below.",
            {node.id: "done" for node in self.nodes},
        )

    def say(
        self, title: str, says: str, tones: dict[int, Tone] | None = None, above: str = "", below: str = ""
    ) -> None:
        self.scenes.append(Scene(title, says, self._shapes(tones or {}, above, below)))

    def _shapes(self, tones: dict[int, Tone], above: str, below: str) -> list[Shape]:
        depth = _depth_of(self.items)
        down = min(46.0, 280 / max(depth, 1))
        shapes: list[Shape] = []
        for node in self.nodes:
            x, y = self._x[node.value], round(TOP + node.depth * down, 1)
            for child in (node.left, node.right):
                if child:
                    tone = tones.get(child.id, "")
                    line: Tone = tone if tone in ("done", "off") else ""
                    shapes.append(Line(f"e{child.id}", x, y, self._x[child.value], round(y + down, 1), line))
            size = size_within(node.text, 2 * RADIUS - 6, 14)
            shapes.append(Disc(f"n{node.id}", x, y, RADIUS, node.text, tones.get(node.id, ""), size))
        if above:
            shapes.append(Label("above", 12, 14, f"insert {above}", "mark", "start", 14))
        if below:
            y = TOP + depth * down + 44
            shapes.append(
                Label("below", WIDTH / 2, round(y, 1), below, "done", size=size_within(below, WIDTH - 16, 17))
            )
        return shapes


def _depth_of(items: list[tuple[Fraction, str]]) -> int:
    """How deep the tree of these values will be, so that its drawing has the same scale from the start."""
    deepest, depths = 0, dict[Fraction, int]()
    for value, _ in items:
        below = max((v for v in depths if v < value), default=None)
        over = min((v for v in depths if v > value), default=None)
        depths[value] = 1 + max(depths[v] for v in (below, over) if v is not None) if depths else 0
        deepest = max(deepest, depths[value])
    return deepest


def _pre_order(node: _Node | None) -> Iterator[_Node]:
    if node:
        yield node
        yield from _pre_order(node.left)
        yield from _pre_order(node.right)


def _in_order(node: _Node | None) -> Iterator[_Node]:
    if node:
        yield from _in_order(node.left)
        yield node
        yield from _in_order(node.right)


def _post_order(node: _Node | None) -> Iterator[_Node]:
    if node:
        yield from _post_order(node.left)
        yield from _post_order(node.right)
        yield node


def _level_order(node: _Node) -> Iterator[_Node]:
    waiting = deque([node])
    while waiting:
        node = waiting.popleft()
        yield node
        waiting.extend(child for child in (node.left, node.right) if child)


ORDERS = {"in-order": _in_order, "pre-order": _pre_order, "post-order": _post_order, "level-order": _level_order}


def _why(walk: str, node: _Node) -> str:
    left = "nothing stands on its left" if not node.left else "all on its left was met"
    right = "nothing stands on its right" if not node.right else "all on its right was met"
    if walk == "in-order":
        return f"{left.capitalize()}, so {node.text} is met now; its right side follows."
    if walk == "post-order":
        return f"{left.capitalize()} and {right}, so {node.text} itself is due."
    if walk == "pre-order":
        return f"{node.text} is met as soon as it is reached; then its left side, then its right."
    return f"{node.text} is the next of level {node.depth + 1}, from left to right; its children queue up behind."


def _tale(given: Values, walk: str, result: str) -> Tale:
    first = given.items[0]
    end = (
        f"The {walk} walk is one way through the house that misses no room: {RULES[walk]}. It reads {result}."
        if walk
        else "Whoever looks for a room asks the same at every door, and never has to turn back. A house that grew "
        "evenly has "
        "short ways; had the guests come in sorted order, it would be one long corridor."
    )
    return Tale(
        title="The house that grows at its doors",
        setting="A guest house in which every room has two doors, and every guest a number.",
        text=[
            f"The first guest, {first}, takes the room at the entrance. Everybody who comes later asks at each "
            f"room: is my "
            "number smaller than yours? Then I take the left door, else the right one. Where there is no room yet, "
            "one is "
            f"built. So arrive {written(given.items)}.",
            end,
        ],
        mapping=[
            ("a room", "a node"),
            ("the entrance", "the root"),
            ("left door, right door", "smaller values, greater values"),
            ("a newly built room", "an inserted leaf"),
            ("the way through the doors", "the comparisons of a search"),
        ],
    )

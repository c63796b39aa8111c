"""Graphs: breadth-first and depth-first search, and the shortest path, over the question's own edges."""

import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from math import cos, hypot, pi, sin

import msgspec

from infrastructure.language.amounts import Doubt, shown
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
    listed,
    size_within,
)
from infrastructure.language.reading import Reading
from infrastructure.language.values import EXAMPLE

NAME = r"[A-Z][A-Za-z]{0,11}|[0-9]{1,2}"
WEIGHT = r"[0-9]{1,5}(?:\.[0-9]{1,3})?"
EDGE = re.compile(
    rf"(?<![\w-])({NAME})\s?(<?-{{1,2}}>?|[–—→↔]|to)\s?({NAME})(?![\w-])"
    rf"(?:\s?(?:[(:=,]|is|costs?|takes|has (?:weight|length|cost)|of (?:weight|length))?\s?({WEIGHT})(?![\w-])"
    r"(?:\s?(?:km|min|minutes|miles|m|hours|h)\b)?\)?)?"
)
TUPLE = re.compile(rf"\(\s?['\"]?({NAME})['\"]?\s?,\s?['\"]?({NAME})['\"]?\s?(?:,\s?({WEIGHT})\s?)?\)")
GRAPH = re.compile(r"\bgraphs?\b|\bedges?\b|\bnetwork\b|\broads?\b|\broutes?\b|\bconnections?\b", re.IGNORECASE)
BREADTH = re.compile(r"\bbreadth[\s-]first|\bBFS\b", re.IGNORECASE)
DEPTH = re.compile(r"\bdepth[\s-]first|\bDFS\b", re.IGNORECASE)
SHORTEST = re.compile(
    r"\b(?:shortest|cheapest|quickest|fastest) (?:path|route|way|distance|connection)|\bDijkstra", re.IGNORECASE
)
OTHER = re.compile(
    r"\bspanning tree|\bBellman|\bFloyd|\bA\*|\btopological|\bmax(?:imum)? flow|\bcolou?r|\bbinary tree|"
    r"\bsearch tree|\bnegative\b|\blongest\b|\bavoid|\bwithout (?:passing|using)|\bclosed\b|\bremoved?\b|"
    r"\blinked list|\bmatrix\b|\bvia\b|\ball pairs",
    re.IGNORECASE,
)
BETWEEN = re.compile(
    rf"\b(?:from|between) (?:node |vertex |city |town )?({NAME})(?![\w-]) (?:to|and) (?:node |vertex "
    rf")?({NAME})(?![\w-])"
)
START = re.compile(rf"\b(?:from|at|with|in) (?:the )?(?:node |vertex |city |town |source )*({NAME})(?![\w-])")
TOWARDS = re.compile(r"->|→")
EXAMPLE_EDGES = [("A", "B", 4), ("A", "C", 2), ("B", "C", 1), ("B", "D", 5), ("C", "D", 8), ("D", "E", 3)]
MOST = 9
"""Nodes on a circle; of more the edges could not be told apart."""
HEIGHT, MIDDLE, AROUND, RADIUS = 318, 148, 118, 19


class Graph(msgspec.Struct, frozen=True):
    """Edges as (node, node, weight); a weight is None where the question gives none."""

    edges: list[tuple[str, str, Fraction | None]]
    directed: bool

    @property
    def nodes(self) -> list[str]:
        names = {name for a, b, _ in self.edges for name in (a, b)}
        return sorted(names, key=lambda name: (0, int(name), "") if name.isdigit() else (1, 0, name))

    @property
    def weighted(self) -> bool:
        return self.edges[0][2] is not None

    def neighbours(self, name: str) -> Iterator[tuple[str, Fraction]]:
        """In the order of the names."""
        found = {b: w for a, b, w in self.edges if a == name}
        if not self.directed:
            found.update({a: w for a, b, w in self.edges if b == name})
        return ((other, found[other] or Fraction(1)) for other in self.nodes if other in found)


def recognise(reading: Reading) -> Animation:
    text = reading.text
    searches = [
        name for name, sign in (("breadth", BREADTH), ("depth", DEPTH), ("path", SHORTEST)) if sign.search(text)
    ]
    if len(searches) != 1 or OTHER.search(text):
        raise Doubt
    search = searches[0]
    between = BETWEEN.search(text)
    if between and search != "path":
        raise Doubt
    graph, start, end, note = _given(text, search, between)
    return _played(reading, graph, search, start, end, note)


def _given(text: str, search: str, between: re.Match[str] | None) -> tuple[Graph, str, str, str]:
    """The graph, where to start, where to end, and what is to be said about them."""
    graph = _graph(text.replace(between[0], " ; ") if between else text)
    if graph is None:
        if re.search(r"[0-9]", re.sub(r"O\([^()\n]{1,20}\)", " ", text)) or not _speaks_of_graphs(text):
            raise Doubt
        edges: list[tuple[str, str, Fraction | None]] = [
            (a, b, Fraction(w) if search == "path" else None) for a, b, w in EXAMPLE_EDGES
        ]
        return Graph(edges, False), "A", "E", EXAMPLE
    if between:
        start, end = between[1], between[2]
    else:
        starts = [match[1] for match in START.finditer(EDGE.sub(" ", TUPLE.sub(" ", text))) if match[1] in graph.nodes]
        if len(set(starts)) != 1 or search == "path":
            raise Doubt
        start, end = starts[0], ""
    if start not in graph.nodes or (end and end not in graph.nodes) or start == end:
        raise Doubt
    return graph, start, end, ""


def _speaks_of_graphs(text: str) -> bool:
    return bool(GRAPH.search(text) or BREADTH.search(text) or DEPTH.search(text) or SHORTEST.search(text))


def _graph(text: str) -> Graph | None:
    """The edges a text names, or None for none. Raises Doubt for edges that contradict each other."""
    found = [(m[1], m[3], m[4], m[2]) for m in EDGE.finditer(text)]
    found += [(m[1], m[2], m[3], "-") for m in TUPLE.finditer(text)]
    found = [edge for edge in found if edge[3] != "to" or edge[2]]
    if len(found) < 2:
        return None
    rest = TUPLE.sub(" ", EDGE.sub(" ", text))
    directed = bool(re.search(r"(?<!un)\bdirected\b", text, re.IGNORECASE)) or all(
        e[3] in ("->", "-->", "→") for e in found
    )
    edges = [(a, b, Fraction(w) if w else None) for a, b, w, _ in found]
    pairs = [(a, b) if directed else (min(a, b), max(a, b)) for a, b, _ in edges]
    names = {name for pair in pairs for name in pair}
    mixed = len({w is None for _, _, w in edges}) > 1 or any(w == 0 for _, _, w in edges)
    numbers_left = re.findall(r"(?<![\w.])[0-9]+(?![\w])", rest)
    if mixed or len(set(pairs)) < len(pairs) or any(a == b for a, b in pairs) or len(names) > MOST:
        raise Doubt
    if any(number not in names for number in numbers_left):
        raise Doubt
    return Graph(edges, directed)


class _Stage:
    """The graph on a circle, and beside it what the search remembers."""

    def __init__(self, graph: Graph, start: str) -> None:
        self.graph = graph
        self.scenes: list[Scene] = []
        nodes = graph.nodes
        at = nodes.index(start)
        around = [*nodes[at:], *nodes[:at]]
        turns = {name: pi + 2 * pi * place / len(around) for place, name in enumerate(around)}
        self.spots = {
            name: (round(WIDTH / 2 + 1.18 * AROUND * cos(turn), 1), round(MIDDLE + AROUND * sin(turn), 1))
            for name, turn in turns.items()
        }

    def say(
        self,
        title: str,
        says: str,
        tones: dict[str, Tone],
        lines: dict[tuple[str, str], Tone],
        under: str,
        marks: dict[str, str] | None = None,
    ) -> None:
        shapes: list[Shape] = []
        for number, (a, b, weight) in enumerate(self.graph.edges):
            tone = lines.get((a, b), lines.get((b, a), "") if not self.graph.directed else "")
            (x1, y1), (x2, y2) = self.spots[a], self.spots[b]
            length = hypot(x2 - x1, y2 - y1)
            dx, dy = (x2 - x1) / length * RADIUS, (y2 - y1) / length * RADIUS
            shapes.append(
                Line(
                    f"e{number}",
                    round(x1 + dx, 1),
                    round(y1 + dy, 1),
                    round(x2 - dx, 1),
                    round(y2 - dy, 1),
                    tone,
                    arrow=self.graph.directed,
                )
            )
            if weight is not None:
                share = 0.42 if number % 2 else 0.5
                shapes.append(
                    Label(
                        f"w{number}",
                        round(x1 + (x2 - x1) * share, 1),
                        round(y1 + (y2 - y1) * share, 1),
                        shown(weight),
                        tone if tone in ("now", "done") else "",
                        size=14,
                    )
                )
        for name, (x, y) in self.spots.items():
            radius = RADIUS if len(name) < 4 else 26
            shapes.append(
                Disc(f"n{name}", x, y, radius, name, tones.get(name, ""), size_within(name, 2 * radius - 6, 15))
            )
            if marks and name in marks:
                up = -1 if y <= MIDDLE else 1
                shapes.append(Label(f"m{name}", x, round(y + up * (radius + 11), 1), marks[name], "mark", size=13))
        shapes.append(Label("under", WIDTH / 2, HEIGHT, under, "mark", size=size_within(under, WIDTH - 12, 15)))
        self.scenes.append(Scene(title, says, shapes))


def _played(reading: Reading, graph: Graph, search: str, start: str, end: str, note: str) -> Animation:
    stage = _Stage(graph, start)
    notes = [note] if note else []
    if search == "path":
        result, value = _shortest(stage, graph, start, end)
        name = f"The shortest path from {start} to {end}"
        tale = _tale_of_water(start, end, result)
        if not graph.weighted:
            notes.append("The edges have no lengths, so each counts as 1.")
        if not note and graph.directed:
            notes.append("The edges lead one way only.")
        asked = reading.asked.lower()
        wants_length = re.search(r"\bhow (?:long|far|many|much)|\b(?:length|distance|cost|time)\b", asked)
        wants_way = re.search(r"\bwhich\b|\bpath\b|\broute\b|\bway\b", asked)
        result = (shown(value) if wants_length and not wants_way else result) if value is not None else "no path"
    else:
        order = _breadth(stage, graph, start) if search == "breadth" else _depth(stage, graph, start)
        result, value = ", ".join(order), None
        name = f"{search.capitalize()}-first search from {start}"
        tale = _tale_of_news(start, result) if search == "breadth" else _tale_of_caves(start, result)
        notes.append("Neighbours are taken in the order of their names.")
    counts = re.search(r"complexity|how many (?!edges)|\bwhy\b|difference", reading.asked, re.IGNORECASE)
    return Animation(
        type="coding",
        subject="graphs",
        name=name,
        scenes=stage.scenes,
        tale=tale,
        result="" if note or counts else result,
        notes=notes,
    )


def _breadth(stage: _Stage, graph: Graph, start: str) -> list[str]:
    order, queue, tree = [start], deque([start]), dict[tuple[str, str], Tone]()
    stage.say(
        f"Start at {start}",
        f"{start} is met first and goes into the queue. Who joins first is served first.",
        {start: "now"},
        {},
        f"queue: {start}",
    )
    while queue:
        at = queue.popleft()
        fresh = [other for other, _ in graph.neighbours(at) if other not in order]
        order += fresh
        queue += fresh
        tones: dict[str, Tone] = {**dict.fromkeys(order, "done"), **dict.fromkeys(queue, "mark"), at: "now"}
        now: dict[tuple[str, str], Tone] = dict.fromkeys([(at, other) for other in fresh], "now")
        stage.say(
            f"Serve {at}",
            (
                f"{listed(fresh)} {'is' if len(fresh) == 1 else 'are'} new and join the queue.".replace(
                    "is new and join", "is new and joins"
                )
                if fresh
                else "All its neighbours were met already."
            ),
            tones,
            {**tree, **now},
            f"queue: {', '.join(queue) or 'empty'}",
        )
        tree.update(dict.fromkeys(now, "done"))
    return _finish(stage, graph, "Breadth-first", order, tree)


def _depth(stage: _Stage, graph: Graph, start: str) -> list[str]:
    order: list[str] = []
    tree: dict[tuple[str, str], Tone] = {}
    path: list[str] = []

    def enter(at: str) -> None:
        order.append(at)
        path.append(at)
        came: dict[tuple[str, str], Tone] = {(path[-2], at): "now"} if len(path) > 1 else {}
        how = (
            f"From {path[-2]} straight on to {at}, the first neighbour not met yet."
            if came
            else (f"{start} is met first. From here the search goes as deep as it can.")
        )
        stage.say(
            f"Enter {at}",
            how,
            {**dict.fromkeys(order, "done"), **dict.fromkeys(path, "mark"), at: "now"},
            {**tree, **came},
            f"path: {' → '.join(path)}",
        )
        tree.update(dict.fromkeys(came, "done"))
        for other, _ in graph.neighbours(at):
            if other not in order:
                enter(other)
        path.pop()
        if path and len(order) < len(graph.nodes):
            stage.say(
                f"Back to {path[-1]}",
                f"{at} leads to nothing new, so one step back, along the thread.",
                {**dict.fromkeys(order, "done"), **dict.fromkeys(path, "mark"), path[-1]: "now"},
                dict(tree),
                f"path: {' → '.join(path)}",
            )

    enter(start)
    return _finish(stage, graph, "Depth-first", order, tree)


def _finish(stage: _Stage, graph: Graph, search: str, order: list[str], tree: dict[tuple[str, str], Tone]) -> list[str]:
    missed = [name for name in graph.nodes if name not in order]
    rest = f" {listed(missed)} cannot be reached from here." if missed else ""
    stage.say(f"{search} order", f"{', '.join(order)}.{rest}", dict.fromkeys(order, "done"), tree, ", ".join(order))
    return order


def _shortest(stage: _Stage, graph: Graph, start: str, end: str) -> tuple[str, Fraction | None]:
    """The path as text and its length, by Dijkstra's algorithm; of equally short ones the first by name."""
    best: dict[str, Fraction] = {start: Fraction(0)}
    ways: dict[str, list[str]] = {start: [start]}
    settled: list[str] = []
    stage.say(
        f"Start at {start}",
        f"{start} has distance 0. All other distances are unknown yet.",
        {start: "now"},
        {},
        "",
        {start: "0"},
    )
    while waiting := [name for name in graph.nodes if name in best and name not in settled]:
        at = min(waiting, key=best.__getitem__)
        settled.append(at)
        lines: dict[tuple[str, str], Tone] = {}
        said = []
        for other, weight in graph.neighbours(at) if at != end else ():
            if other in settled:
                continue
            through = best[at] + weight
            lines[(at, other)] = "now"
            sum_ = f"{shown(best[at])} + {shown(weight)} = {shown(through)}"
            if other not in best or through < best[other]:
                said.append(f"{other}: {sum_}" + (f", better than {shown(best[other])}" if other in best else ""))
                best[other], ways[other] = through, [*ways[at], other]
            else:
                said.append(f"{other}: {sum_}, no better than {shown(best[other])}")
        why = f"Of all that wait, {at} is nearest ({shown(best[at])}), so no way round can be shorter: it is settled. "
        tones: dict[str, Tone] = {**dict.fromkeys(best, "mark"), **dict.fromkeys(settled, "done"), at: "now"}
        rest = (
            "; ".join(said) + "." if said else "This is where we want to go." if at == end else "No new way leads on."
        )
        stage.say(
            f"Settle {at}",
            why + rest,
            tones,
            {**_lines(ways, settled), **lines},
            "",
            {name: shown(distance) for name, distance in best.items()},
        )
        if at == end:
            break
    marks = {name: shown(best[name]) for name in settled}
    if end not in settled:
        stage.say(
            "No path", f"Nothing that can be reached leads to {end}.", dict.fromkeys(settled, "done"), {}, "", marks
        )
        return "no path", None
    way = " → ".join(ways[end])
    chosen: dict[tuple[str, str], Tone] = dict.fromkeys(zip(ways[end], ways[end][1:], strict=False), "done")
    parts = [next(w for o, w in graph.neighbours(a) if o == b) for a, b in zip(ways[end], ways[end][1:], strict=False)]
    sum_ = " + ".join(map(shown, parts))
    total = shown(best[end])
    said_sum = f"{sum_} = {total}" if len(parts) > 1 else total
    stage.say(
        "The shortest path",
        f"{way}, with the length {said_sum}. No other way is shorter.",
        dict.fromkeys(ways[end], "done"),
        chosen,
        f"{way}: {total}",
        marks,
    )
    return way, best[end]


def _lines(ways: dict[str, list[str]], settled: list[str]) -> dict[tuple[str, str], Tone]:
    return {(way[-2], way[-1]): "done" for name, way in ways.items() if name in settled and len(way) > 1}


def _tale_of_news(start: str, result: str) -> Tale:
    return Tale(
        title="How the news spreads",
        setting="A village in the evening, with a path from house to house.",
        text=[
            f"In house {start} somebody has news. First all direct neighbours are told, then the neighbours' "
            f"neighbours, and "
            "so on: nobody two paths away hears it before everybody one path away has.",
            f"So the news arrives in rings around {start}: {result}. Who was told keeps to it and is not told "
            f"again, so even "
            "in a village full of round ways it comes to an end.",
        ],
        mapping=[
            ("a house", "a node"),
            ("a path between houses", "an edge"),
            ("those still to pass it on", "the queue"),
            ("being told once", "the mark “met”"),
            ("a ring", "all nodes at the same distance"),
        ],
    )


def _tale_of_caves(start: str, result: str) -> Tale:
    return Tale(
        title="A thread in the caves",
        setting="A system of caves, an explorer, and a long thread.",
        text=[
            f"She enters at {start} and ties the thread there. At every fork she takes the first passage not yet "
            f"seen and "
            "goes on, ever deeper. Where all is seen, she follows the thread back to the last fork that has more "
            "to offer.",
            f"The caves are seen in the order {result}. The thread is all the memory she needs: it always shows "
            f"the one way "
            "back.",
        ],
        mapping=[
            ("a cave", "a node"),
            ("a passage", "an edge"),
            ("the thread", "the stack, or the path of calls"),
            ("going back along it", "backtracking"),
            ("a cave seen before", "the mark “met”"),
        ],
    )


def _tale_of_water(start: str, end: str, result: str) -> Tale:
    return Tale(
        title="The water finds its way",
        setting="Dry channels of different lengths between basins.",
        text=[
            f"At {start} a sluice is opened, and the water runs into every channel at the same speed. It reaches "
            f"the nearest "
            "basin first, and from there runs on. Whichever stream comes first into a basin has come by the "
            "shortest way; "
            "what arrives later changes nothing.",
            f"When {end} gets wet, it is enough to ask which channel the first drop came from, and so back to the "
            f"sluice: "
            f"{result}.",
        ],
        mapping=[
            ("a basin", "a node"),
            ("the length of a channel", "the weight of an edge"),
            ("the time when it gets wet", "the distance from the start"),
            ("the next basin to get wet", "the nearest node that is not settled"),
            ("the channel of the first drop", "the step before on the shortest path"),
        ],
    )

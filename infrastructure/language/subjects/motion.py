"""Motion at a steady speed: distance, speed and time, two that meet, and one that catches up."""

import re
from fractions import Fraction

import msgspec

from infrastructure.language.amounts import Doubt, shown
from infrastructure.language.animation import (
    Animation,
    Disc,
    Label,
    Line,
    Scene,
    Shape,
    Tale,
    Tone,
    size_within,
)
from infrastructure.language.measures import (
    LENGTH_UNIT,
    LENGTHS,
    NUMBER,
    SPEED_UNIT,
    TIME_UNIT,
    TIMES,
    amount,
    unit_named,
)
from infrastructure.language.reading import Reading

SPEED = re.compile(rf"({NUMBER})\s?({SPEED_UNIT})(?![\w/])", re.IGNORECASE)
TIME = re.compile(
    rf"({NUMBER})[\s-]?({TIME_UNIT})(?![\w/])(?:,? (?:and )?({NUMBER})[\s-]?({TIME_UNIT})(?![\w/]))?", re.IGNORECASE
)
DISTANCE = re.compile(rf"({NUMBER})[\s-]?({LENGTH_UNIT})(?![\w/²³])", re.IGNORECASE)
SPELLED = {"s": "second", "min": "minute", "h": "hour", "d": "day"}
NUMBER_WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "eight": 8, "ten": 10}
WORDED = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b(?= (?:hours?|minutes?|seconds?)\b)", re.IGNORECASE)
HALF_HOUR = re.compile(r"\bhalf an hour\b", re.IGNORECASE)
TOWARDS = re.compile(
    r"\b(?:towards?|to) (?:each other|one another)\b|\bapproach|\bmeet\b|\bpass each other\b", re.IGNORECASE
)
CATCHES = re.compile(r"\bovertak\w+|\bcatch(?:es)?(?: up)?\b|\bcaught\b", re.IGNORECASE)
APART = re.compile(r"\bopposite directions?\b|\baway from each other\b", re.IGNORECASE)
AHEAD = re.compile(r"\bahead\b|\bhead start\b|\bin front\b|\blead of\b", re.IGNORECASE)
LATER = re.compile(
    r"\blater\b|\bafter (?:the first|it|her|him|them)\b|\bearlier\b|\bhead start\b|\bbefore\b", re.IGNORECASE
)
OTHER = re.compile(
    r"\baccelerat|\bdecelerat|\baverage speed for the (?:whole|entire)|\bround "
    r"trip\b|\breturn|\bback\b|\bcurrent\b|\bstream\b|\bwind\b|"
    r"\bupstream\b|\bdownstream\b|\bstops?\b|\brests?\b|\bpauses?\b|\bbreak\b|\b[0-9]{1,2}:[0-9]{2}\b|\b[0-9]{1,2} "
    r"?[ap]\.?m\b|\btwice\b|"
    r"\bfaster than\b|\bslower than\b|\bfree "
    r"fall|\bfalls\b|\bdropped\b|\bthrown\b|\bforce\b|\bmass\b|\benergy\b|\bwavelength\b|"
    r"\bfrequency\b|\blong train\b|\btunnel\b|\bbridge\b|\bsame "
    r"direction\b|\bcircular\b|\btrack\b.*\blaps?\b|\bthen\b|[$€£%]|\bthe rest\b|"
    r"\beach (?:way|hour|day)\b|\bevery\b|\bincreas|\bdecreas|\blight years?\b|\bthree (?:cars|trains)\b|\buntil "
    r"it reaches its top",
    re.IGNORECASE,
)
ASKS_TIME = re.compile(
    r"\bhow long\b|\bhow much time\b|\bwhen\b|\bhow many (?:hours|minutes|seconds|days)\b|\bwhat time\b|\btime "
    r"(?:does|will|is)\b",
    re.I,
)
ASKS_DISTANCE = re.compile(
    r"\bhow far\b|\bdistance\b|\bwhere\b|\bhow many (?:km|kilomet|met|miles|feet|m\b)", re.IGNORECASE
)
ASKS_SPEED = re.compile(r"\bspeed\b|\bhow fast\b|\bvelocity\b", re.IGNORECASE)
IN_UNIT = re.compile(
    rf"\bin ({SPEED_UNIT}|kilomet(?:re|er)s per hour|miles per hour|met(?:re|er)s per "
    rf"second|{TIME_UNIT}|{LENGTH_UNIT})\b(?! (?:and|after))|"
    rf"\bhow many ({TIME_UNIT}|{LENGTH_UNIT})\b",
    re.IGNORECASE,
)
ROAD, LEFT, RIGHT = 108, 30, 330


class Speed(msgspec.Struct, frozen=True):
    """`length` per `time`, both units."""

    amount: Fraction
    length: str
    time: str

    @property
    def unit(self) -> str:
        return "mph" if (self.length, self.time) == ("mi", "h") else f"{self.length}/{self.time}"

    def __str__(self) -> str:
        return f"{shown(self.amount)} {self.unit}"

    def into(self, length: str, time: str) -> "Speed":
        """The same speed in other units."""
        return Speed(
            self.amount * LENGTHS[self.length] / LENGTHS[length] * TIMES[time] / TIMES[self.time], length, time
        )


class Quantity(msgspec.Struct, frozen=True):
    """A distance or a time."""

    amount: Fraction
    unit: str

    def __str__(self) -> str:
        return f"{shown(self.amount)} {self.unit}"

    def into(self, unit: str) -> "Quantity":
        scale = LENGTHS if unit in LENGTHS else TIMES
        return Quantity(self.amount * scale[self.unit] / scale[unit], unit)


class _Given(msgspec.Struct, frozen=True):
    """All quantities of a question; it has no number besides."""

    speeds: list[Speed]
    times: list[Quantity]
    distances: list[Quantity]


def recognise(reading: Reading) -> Animation:
    text = WORDED.sub(lambda match: str(NUMBER_WORDS[match[0].lower()]), HALF_HOUR.sub("30 minutes", reading.text))
    if OTHER.search(text):
        raise Doubt
    given = _quantities(text)
    if not all([speed.amount for speed in given.speeds] + [q.amount for q in (*given.times, *given.distances)]):
        raise Doubt
    counts = (len(given.speeds), len(given.distances), len(given.times))
    if CATCHES.search(text) and counts in ((2, 1, 0), (2, 0, 1)):
        return _catching(reading, text, given)
    if TOWARDS.search(text) and counts == (2, 1, 0) and not LATER.search(text):
        return _meeting(reading, text, given)
    if (
        APART.search(text)
        and counts == (2, 0, 1)
        and re.search(r"\bapart\b", reading.asked, re.IGNORECASE)
        and not LATER.search(text)
    ):
        return _parting(reading, given)
    if (
        sum(counts) == 2
        and max(counts) == 1
        and not (TOWARDS.search(text) or CATCHES.search(text) or APART.search(text) or LATER.search(text))
    ):
        return _steady(reading, given)
    raise Doubt


def _quantities(text: str) -> _Given:
    speeds = [_speed(match[2], amount(match[1])) for match in SPEED.finditer(text)]
    rest = SPEED.sub(" ", text)
    times = []
    for match in TIME.finditer(rest):
        time = Quantity(amount(match[1]), unit_named(match[2]))
        if match[3]:
            time = Quantity(
                time.amount + Quantity(amount(match[3]), unit_named(match[4])).into(time.unit).amount, time.unit
            )
        times.append(time)
    rest = TIME.sub(" ", rest)
    distances = [Quantity(amount(match[1]), unit_named(match[2])) for match in DISTANCE.finditer(rest)]
    if re.search(r"[0-9]", DISTANCE.sub(" ", rest)):
        raise Doubt
    return _Given(speeds, times, distances)


def _speed(unit: str, value: Fraction) -> Speed:
    unit = re.sub(r"\s+", " ", unit.lower())
    short = {"mph": ("mi", "h"), "kmh": ("km", "h"), "kph": ("km", "h")}
    if unit in short:
        return Speed(value, *short[unit])
    length, time = re.split(r"/| per | an? ", unit)
    return Speed(value, unit_named(length), unit_named(time))


def _wanted_unit(asked: str) -> str:
    match = IN_UNIT.search(asked)
    return (match[1] or match[2]) if match else ""


def _in_time(time: Quantity, asked: str) -> tuple[Quantity, str]:
    """A time in the unit that is asked for, and as hours and minutes where it is no whole number."""
    wanted = _wanted_unit(asked)
    if wanted and re.fullmatch(TIME_UNIT, wanted, re.IGNORECASE):
        time = time.into(unit_named(wanted))
    minutes = time.into("min").amount
    also = ""
    if time.unit == "h" and time.amount.denominator != 1:
        whole, rest = divmod(minutes, 60)
        part = f"{shown(rest)} min" if rest.denominator == 1 else f"about {float(rest):.1f} min"
        also = f"{whole} h {part}" if whole else part
    return time, also


def _time_said(time: Quantity, asked: str) -> str:
    quantity, also = _in_time(time, asked)
    return f"{quantity} ({also})" if also else str(quantity)


# One that moves


class _Solved(msgspec.Struct, frozen=True):
    """What follows from two of three: `said` are conversions that had to come first."""

    name: str
    speed: Speed
    time: Quantity
    road: Quantity
    sum: str
    said: list[str]
    result: str
    value: Fraction


def _steady(reading: Reading, given: _Given) -> Animation:
    if given.speeds and given.times:
        solved = _how_far(given.speeds[0], given.times[0], reading.asked)
    elif given.speeds:
        solved = _how_long(given.speeds[0], given.distances[0], reading.asked)
    else:
        solved = _how_fast(given.distances[0], given.times[0], reading.asked)
    scenes = _steady_scenes(given, solved)
    if solved.said:
        says = f"{'; '.join(solved.said)}: only then do the numbers fit together."
        scenes.insert(1, Scene("One system of units", says, scenes[0].shapes))
    scenes.append(Scene(solved.result, f"{solved.sum}.", scenes[-1].shapes))
    pace = f"{shown(solved.speed.amount)} {solved.speed.length} in every {SPELLED[solved.speed.time]}"
    return _animation(
        solved.name,
        scenes,
        Tale(
            title="The milestones",
            setting="A straight road with milestones, and a traveller who never changes pace.",
            text=[
                f"This much is known: {_told(given)}. A steady pace means that in equal times equal stretches go "
                f"by, {pace}.",
                "So a traveller needs neither map nor clock tower, just two of three things: how fast, how long, "
                "how far. "
                f"The third follows. {solved.sum}.",
            ],
            mapping=[
                ("the pace", "speed: distance per unit of time"),
                ("equal stretches in equal times", "distance grows in proportion to time"),
                ("the milestone in the end", "speed × time"),
            ],
        ),
        solved.result,
        solved.value,
    )


def _how_far(speed: Speed, given: Quantity, asked: str) -> _Solved:
    wanted = _wanted_unit(asked)
    in_unit = bool(wanted and re.fullmatch(LENGTH_UNIT, wanted, re.IGNORECASE))
    if not (in_unit or ASKS_DISTANCE.search(asked)):
        raise Doubt
    time = given.into(speed.time)
    way = Quantity(speed.amount * time.amount, speed.length)
    distance = way.into(unit_named(wanted)) if in_unit else way
    sum = f"Distance = speed × time: {speed} × {time} = {_chained(way, distance)}"
    said = _converted(given, time)
    return _Solved(f"How far in {given} at {speed}", speed, time, distance, sum, said, str(distance), distance.amount)


def _how_long(speed: Speed, given: Quantity, asked: str) -> _Solved:
    if not ASKS_TIME.search(asked):
        raise Doubt
    distance = given.into(speed.length)
    time = Quantity(distance.amount / speed.amount, speed.time)
    result, value = _time_said(time, asked), _in_time(time, asked)[0].amount
    sum = f"Time = distance ÷ speed: {distance} ÷ {speed} = {_chained(time, result)}"
    return _Solved(
        f"How long for {given} at {speed}", speed, time, given, sum, _converted(given, distance), result, value
    )


def _how_fast(distance: Quantity, time: Quantity, asked: str) -> _Solved:
    """In the unit that is asked for; else per hour for what takes minutes over kilometres or miles."""
    if not ASKS_SPEED.search(asked):
        raise Doubt
    wanted = _wanted_unit(asked)
    plain = Speed(distance.amount / time.amount, distance.unit, time.unit)
    if wanted and re.fullmatch(SPEED_UNIT + r"|.* per \w+", wanted, re.IGNORECASE):
        unit = _speed(wanted, Fraction(1))
        speed = plain.into(unit.length, unit.time)
        sum = f"{distance} ÷ {time} = {_chained(plain, speed)}"
        said = []
    else:
        per = "h" if time.unit in ("min", "d") and distance.unit in ("km", "mi") else time.unit
        speed, then = plain.into(distance.unit, per), time.into(per)
        sum, said = f"{distance} ÷ {then} = {speed}", _converted(time, then)
    return _Solved(
        f"How fast for {distance} in {time}",
        plain,
        time,
        distance,
        f"Speed = distance ÷ time: {sum}",
        said,
        str(speed),
        speed.amount,
    )


def _chained(first: Speed | Quantity, last: Speed | Quantity | str) -> str:
    """`8 m/s = 28.8 km/h`, or just the one if they are the same."""
    return f"{first} = {last}" if not str(last).startswith(str(first)) else str(last)


def _converted(given: Quantity, same: Quantity) -> list[str]:
    return [f"{given} = {same}"] if given.unit != same.unit else []


def _told(given: _Given) -> str:
    return " and ".join(str(quantity) for quantity in (*given.distances, *given.speeds, *given.times))


def _steady_scenes(given: _Given, solved: _Solved) -> list[Scene]:
    speed, time, road = solved.speed, solved.time, solved.road
    parts = _parts(time)
    scenes = [
        Scene(
            "The road",
            f"What is known: {_told(given)}, at a steady speed.",
            _road([(0.0, "now", "→")], "", road),
        )
    ]
    for part in range(1, parts + 1):
        share = Fraction(part, parts)
        now = Quantity(time.amount * share, time.unit)
        so_far = Quantity(speed.amount * now.amount, speed.length)
        known = len(given.distances) + len(given.times)
        says = (
            f"After {now} it is {so_far} further: {shown(speed.amount)} {speed.length} for every {SPELLED[speed.time]}."
            if given.speeds and given.times
            else f"{part} of {parts} equal parts: {so_far} in {now}."
        )
        scenes.append(
            Scene(
                f"After {now}" if known else "On",
                says,
                _road([(float(share), "now", "→")], str(now), road, ticks=parts),
            )
        )
    return scenes


def _parts(time: Quantity) -> int:
    """Into how many equal parts a time falls well: whole units, else those that are written shortest."""
    if time.amount.denominator == 1 and 2 <= time.amount <= 8:
        return int(time.amount)
    return min((4, 5, 3, 6), key=lambda parts: len(shown(time.amount / parts)))


def _road(
    movers: list[tuple[float, Tone, str]], clock: str, length: Quantity, *, ticks: int = 4, meets: float | None = None
) -> list[Shape]:
    """A road with movers at shares of its length, the first above it and the second below."""
    shapes: list[Shape] = [Line("road", LEFT, ROAD, RIGHT, ROAD)]
    shapes += [
        Line(
            f"t{at}",
            round(LEFT + (RIGHT - LEFT) * at / ticks, 1),
            ROAD - 5,
            round(LEFT + (RIGHT - LEFT) * at / ticks, 1),
            ROAD + 5,
        )
        for at in range(ticks + 1)
    ]
    below = ROAD + (54 if len(movers) > 1 else 22)
    shapes += [
        Label("zero", LEFT, below, "0"),
        Label("end", RIGHT, below, str(length), size=size_within(str(length), 110, 14)),
    ]
    if meets is not None:
        x = round(LEFT + (RIGHT - LEFT) * meets, 1)
        shapes.append(Line("meets", x, 40, x, ROAD + 44, "done", dashed=True))
    for at, (share, tone, name) in enumerate(movers):
        x = round(LEFT + (RIGHT - LEFT) * share, 1)
        y = ROAD - 24 if at == 0 else ROAD + 24
        shapes.append(Disc(f"m{at}", x, y, 14, name, tone, 14))
    if clock:
        shapes.append(Label("clock", 180, 24, f"after {clock}", "mark", size=17))
    return shapes


# Two that move


def _two(given: _Given) -> tuple[Speed, Speed, list[str]]:
    first, second = given.speeds
    same = second.into(first.length, first.time)
    return first, same, [f"{second} = {same}"] if second.unit != same.unit else []


def _meeting(reading: Reading, text: str, given: _Given) -> Animation:
    first, second, said = _two(given)
    distance = given.distances[0].into(first.length)
    if distance.unit != given.distances[0].unit:
        said.append(f"{given.distances[0]} = {distance}")
    together = first.amount + second.amount
    time = Quantity(distance.amount / together, first.time)
    there, rest = first.amount * time.amount, second.amount * time.amount
    place = float(there / distance.amount)
    asks_time, asks_place = ASKS_TIME.search(reading.asked), ASKS_DISTANCE.search(reading.asked)
    if bool(asks_time) == bool(asks_place):
        raise Doubt
    when = _time_said(time, reading.asked)
    where = f"{shown(there)} {first.length} from where the first began"
    meeting = "in the middle" if there == rest else "nearer to the end where the slower one began"
    closing = f"{shown(first.amount)} + {shown(second.amount)} = {shown(together)} {first.unit}"

    def road(share: Fraction, clock: str, tone: Tone = "now") -> list[Shape]:
        return _road(
            [(place * float(share), tone, "1"), (1 - (1 - place) * float(share), tone, "2")],
            clock,
            distance,
            meets=place if share == 1 else None,
        )

    scenes = [
        Scene(
            "Towards each other",
            f"{distance} lie between them. One (1) comes with {first}, the other (2) with {second}.",
            road(Fraction(0), ""),
        ),
        Scene(
            "How fast does the gap close?",
            f"Both eat at the same gap, so their speeds add up: {closing}.",
            road(Fraction(0), ""),
        ),
    ]
    if said:
        scenes.insert(1, Scene("One system of units", "; ".join(said) + ".", road(Fraction(0), "")))
    for part in range(1, 5):
        share = Fraction(part, 4)
        now = Quantity(time.amount * share, time.unit)
        gap = Quantity(distance.amount * (1 - share), distance.unit)
        title = "They meet" if part == 4 else f"After {now}"
        says = f"The gap is {gap}." if part < 4 else f"The gap is gone after {when}."
        scenes.append(Scene(title, says, road(share, str(now), "done" if part == 4 else "now")))
    end = f"{distance} ÷ {shown(together)} {first.unit} = {when}"
    scenes.append(
        Scene(
            when if asks_time else where,
            f"{end}. The first has come {shown(there)} {first.length}, the second {shown(rest)} {first.length}: "
            f"together {distance}.",
            road(Fraction(1), str(time), "done"),
        )
    )
    notes = (
        []
        if re.search(r"\bsame (?:time|moment)\b|\bsimultaneous", text, re.IGNORECASE)
        else ["Both are taken to start at the same moment."]
    )
    return _animation(
        f"When two meet: {distance} apart, {first} and {second}",
        scenes,
        Tale(
            title="The candle that burns at both ends",
            setting="A candle lying on a table, lit at either end.",
            text=[
                f"The way between the two is a candle, {distance} long. One flame eats "
                f"{shown(first.amount)} {first.length} of it every {SPELLED[first.time]}, "
                f"the other {shown(second.amount)} {first.length}.",
                f"Nobody asks which flame does the work: together they take {shown(together)} {first.length} per "
                f"{SPELLED[first.time]}, and the candle is gone after {when}. "
                f"The flames meet {meeting}, {shown(there)} {first.length} from "
                f"the first.",
            ],
            mapping=[
                ("the candle", "the distance between the two"),
                ("a flame", "a mover and its speed"),
                ("both flames together", "the sum of the speeds"),
                ("the candle is gone", "distance ÷ (speed 1 + speed 2)"),
            ],
        ),
        when if asks_time else where,
        _in_time(time, reading.asked)[0].amount if asks_time else there,
        notes,
    )


def _catching(reading: Reading, text: str, given: _Given) -> Animation:
    first, second, said = _two(given)
    if given.distances:
        if not AHEAD.search(text):
            raise Doubt
        slow, fast = (first, second) if first.amount < second.amount else (second, first)
        lead = given.distances[0].into(slow.length)
        if lead.unit != given.distances[0].unit:
            said.append(f"{given.distances[0]} = {lead}")
        began = f"{lead} ahead"
    else:
        if not LATER.search(text):
            raise Doubt
        slow, fast = first, second  # who sets out first is told first
        early = given.times[0].into(slow.time)
        lead = Quantity(slow.amount * early.amount, slow.length)
        began = f"{given.times[0]} ahead, which is {slow} × {early} = {lead}"
    if fast.amount <= slow.amount:
        raise Doubt
    gains = fast.amount - slow.amount
    time = Quantity(lead.amount / gains, slow.time)
    way = Quantity(fast.amount * time.amount, slow.length)
    asks_time, asks_place = ASKS_TIME.search(reading.asked), ASKS_DISTANCE.search(reading.asked)
    if bool(asks_time) == bool(asks_place):
        raise Doubt
    when = _time_said(time, reading.asked)
    start = float(lead.amount / way.amount)

    def road(share: Fraction, clock: str, tone: Tone = "now") -> list[Shape]:
        return _road(
            [(float(share), tone, "2"), (start + (1 - start) * float(share), "mark" if tone == "now" else tone, "1")],
            clock,
            way,
        )

    scenes = [
        Scene(
            "A head start",
            f"The slower one (1, {slow}) is {began}. Now the faster one (2, {fast}) sets out.",
            road(Fraction(0), ""),
        ),
        Scene(
            "How fast does the lead melt?",
            f"Both move the same way, so only the difference counts: {shown(fast.amount)} − {shown(slow.amount)} = "
            f"{shown(gains)} {slow.unit}.",
            road(Fraction(0), ""),
        ),
    ]
    if said:
        scenes.insert(1, Scene("One system of units", "; ".join(said) + ".", road(Fraction(0), "")))
    for part in range(1, 5):
        share = Fraction(part, 4)
        now = Quantity(time.amount * share, time.unit)
        says = (
            f"The lead is still {Quantity(lead.amount * (1 - share), lead.unit)}."
            if part < 4
            else "The lead is gone: both are at the same place."
        )
        scenes.append(Scene(f"After {now}", says, road(share, str(now), "done" if part == 4 else "now")))
    scenes.append(
        Scene(
            when if asks_time else str(way),
            f"{lead} ÷ {shown(gains)} {slow.unit} = {when} after the faster one sets out. By then it has come "
            f"{fast} × {time} = {way}.",
            road(Fraction(1), str(time), "done"),
        )
    )
    notes = (
        []
        if given.distances
        else ["The time is counted from the moment when the faster one sets out; the one named first left first."]
    )
    return _animation(
        f"Catching up: {slow} and {fast}",
        scenes,
        Tale(
            title="The leaking head start",
            setting="A jug of water, with a small hole in it.",
            text=[
                f"The head start is the water in the jug: {lead}. Every {SPELLED[slow.time]} the faster one runs "
                f"out of it "
                f"what it is faster by, "
                f"{shown(gains)} {slow.length}; how fast both are on the ground does not matter to the jug.",
                f"When the jug is empty, the one has caught the other: after {when}, {way} from where the chase began.",
            ],
            mapping=[
                ("the water in the jug", "the lead"),
                ("the hole", "the difference of the speeds"),
                ("the empty jug", "the moment of catching up"),
            ],
        ),
        when if asks_time else str(way),
        _in_time(time, reading.asked)[0].amount if asks_time else way.amount,
        notes,
    )


def _parting(reading: Reading, given: _Given) -> Animation:
    first, second, said = _two(given)
    time = given.times[0].into(first.time)
    if time.unit != given.times[0].unit:
        said.append(f"{given.times[0]} = {time}")
    together = first.amount + second.amount
    distance = Quantity(together * time.amount, first.length)
    place = float(second.amount / together)

    def road(share: Fraction, clock: str, tone: Tone = "now") -> list[Shape]:
        return _road(
            [(place * (1 - float(share)), tone, "1"), (place + (1 - place) * float(share), tone, "2")], clock, distance
        )

    adds = f"{shown(first.amount)} + {shown(second.amount)} = {shown(together)} {first.unit}"
    scenes = [
        Scene(
            "Back to back",
            f"From one place, (1) goes one way with {first}, (2) the other way with {second}.",
            road(Fraction(0), ""),
        ),
        Scene(
            "How fast does the gap grow?",
            f"Each makes it wider, so the speeds add up: {adds}." + (f" {'; '.join(said)}." if said else ""),
            road(Fraction(0), ""),
        ),
    ]
    for part in range(1, 5):
        share = Fraction(part, 4)
        now = Quantity(time.amount * share, time.unit)
        scenes.append(
            Scene(
                f"After {now}",
                f"They are {Quantity(distance.amount * share, distance.unit)} apart.",
                road(share, str(now)),
            )
        )
    scenes.append(
        Scene(
            f"{distance} apart",
            f"{shown(together)} {first.unit} × {time} = {distance}.",
            road(Fraction(1), str(time), "done"),
        )
    )
    return _animation(
        f"In opposite directions: {first} and {second}",
        scenes,
        Tale(
            title="The rubber band",
            setting="A rubber band, and two hands that pull at it.",
            text=[
                f"One hand pulls with {first}, the other with {second}, each its own way. The band does not care "
                f"whose hand moves: it is stretched by both, "
                f"{shown(together)} {first.length} every {SPELLED[first.time]}.",
                f"After {time} it is {distance} long.",
            ],
            mapping=[
                ("the band", "the distance between the two"),
                ("the hands", "the movers"),
                ("both pulls together", "the sum of the speeds"),
            ],
        ),
        str(distance),
        distance.amount,
    )


def _animation(
    name: str, scenes: list[Scene], tale: Tale, result: str, value: Fraction, notes: list[str] | None = None
) -> Animation:
    return Animation(
        type="maths",
        subject="motion",
        name=name,
        scenes=scenes,
        tale=tale,
        result=result,
        value=value,
        notes=notes or [],
    )

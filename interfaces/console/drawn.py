"""Which of a job's events its timeline is drawn from, and which versions lead to those before and after."""

from collections.abc import Sequence

from msgspec import Struct

from application.jobs import EventView

MOST_DRAWN = 500
"""Events that a timeline is drawn from, those around the version that the slider stands at."""
MOST_LANES = 20
"""Attempts among them that it shows, likewise: as many as fit on a screen or two."""


class Attempt(Struct, frozen=True):
    """An attempt among the events: its number, and the version of the first that is known of it."""

    number: int
    version: int


class Drawn(Struct, frozen=True):
    """The events of a part of a job, the attempts in it, and how many attempts there are before and after.

    `earlier` and `later` are versions around which the parts before and after it are drawn: they leave nothing out.
    """

    events: list[EventView]
    attempts: list[int]
    before: int
    after: int
    earlier: int
    later: int

    @property
    def first(self) -> int:
        return self.events[0].version

    @property
    def last(self) -> int:
        return self.events[-1].version


def part(events: Sequence[EventView], version: int, newest: int, attempts: int) -> Drawn:
    """The part to draw of a job that has so many versions and attempts, with `version` in its middle if it can be.

    `events` are at most MOST_DRAWN of it, without a gap, as many before the version as after it where there are.
    """
    known = _attempts(events)
    begin, end = _lanes(known, version)
    first = known[begin].version if begin else events[0].version
    last = known[end].version - 1 if end < len(known) else events[-1].version
    shown = [attempt.number for attempt in known[begin:end]]
    half = MOST_DRAWN // 2
    return Drawn(
        events=[event for event in events if first <= event.version <= last],
        attempts=shown,
        before=shown[0] - 1 if shown else 0,
        after=attempts - shown[-1] if shown else 0,
        earlier=max(_earlier(known, begin, first, attempts), first - 1 - half, 1),
        later=min(_later(known, end, last, attempts), last + half, newest),
    )


def around(version: int, newest: int, most: int) -> range:
    """So many versions at the most, with `version` among them, in the middle where there are enough."""
    last = min(max(version + most // 2, most), newest)
    return range(max(last - most, 0) + 1, last + 1)


def _attempts(events: Sequence[EventView]) -> list[Attempt]:
    """Those that the events tell of, in order."""
    known: list[Attempt] = []
    for event in events:
        number = event.data.get("attempt")
        if number is not None and (not known or number > known[-1].number):
            known.append(Attempt(number, event.version))
    return known


def _lanes(known: list[Attempt], version: int) -> tuple[int, int]:
    """Which of the attempts are drawn: that of the version in their middle, if there are enough on either side."""
    at = sum(attempt.version <= version for attempt in known) - 1
    begin = max(min(at - MOST_LANES // 2, len(known) - MOST_LANES), 0)
    return begin, min(begin + MOST_LANES, len(known))


def _earlier(known: list[Attempt], begin: int, first: int, attempts: int) -> int:
    """The version whose part ends where the drawn one begins, or reaches into it, where less is known."""
    if begin:
        return known[max(begin - MOST_LANES // 2, 0)].version
    unknown = known[0].number - 1 if known else attempts
    return 1 if unknown < MOST_LANES else first - 1


def _later(known: list[Attempt], end: int, last: int, attempts: int) -> int:
    """Likewise, the version whose part begins where the drawn one ends."""
    if end < len(known):
        return known[min(end + MOST_LANES // 2, len(known) - 1)].version
    unknown = attempts - known[-1].number if known else attempts
    return last + MOST_DRAWN if unknown < MOST_LANES else last + 1

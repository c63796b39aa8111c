"""The horizon: where in each lane of the ready index the jobs begin that can still be claimed."""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple, TypeAlias
from uuid import UUID

from application.ledger import Ready

MARGIN = timedelta(seconds=1)
"""How far behind the present the horizon stays. A job's `run_at` is the moment its batch began; by then it is there."""
MOST_STRAYS = 1_000
"""Jobs of a lane before its horizon that are remembered one by one; when there are more, the lane begins there anew."""
REMEMBERED = 60.0
"""Seconds for which a lane without jobs, and what nobody asked for any more, are kept."""
STALE = 10.0
LOOKS_MISSED = 8
"""The horizon is gone by for STALE seconds after a look, or for so many times what the look took if that is longer."""


class Lane(NamedTuple):
    """Jobs that differ only in when they are due: a stretch of the ready index that is in the order of claiming."""

    queue: str
    kind: str
    priority: int
    namespace: str | None = None
    """Of a lane in the index of namespaces; None in that of all jobs."""


Place: TypeAlias = tuple[datetime, UUID]
"""Where an entry stands in its lane."""
_FIRST_ID = UUID(int=0)


class Stretch(NamedTuple):
    """A part of a lane to be scanned, both ends included; without an end, up to what is due now."""

    lane: Lane
    first: Place
    last: Place | None = None


class Pick(NamedTuple):
    """A job that a claim found and locked."""

    id: UUID
    position: int
    priority: int
    run_at: datetime


class Look(NamedTuple):
    """What a look at everything saw: the first living entry of each lane, and more of those before the horizon.

    `moment` is when its snapshot was taken, or a little earlier; `before` is the horizon at that time; `walked` is how
    many entries it walked over, dead and alive, or of others.
    """

    moment: datetime
    covered: Collection[Ready]
    before: Mapping[Lane, Place]
    heads: Mapping[Lane, Place]
    strays: Mapping[Lane, Sequence[Place]]
    walked: int


class Horizon:
    """What claims go by while looking at everything walks over much. Safe to share between threads.

    A scan that begins at the horizon passes over whatever comes in before it (a job released with the `run_at` it
    had, one created for a moment in the past, one whose claimer rolled back) and over new lanes; the next look finds
    them. Such strays are scanned for one by one, so that one of them does not send every claim back to walk over all
    dead entries behind it.

    Times are seconds of a monotonic clock, `at`, except those that come from the database.
    """

    def __init__(self) -> None:
        self.asked_for = threading.Event()
        """Set while looks are wanted."""
        self.walked = 0
        """Entries that the last look walked over."""
        self._lock = threading.Lock()
        self._asked: dict[Ready, float] = {}
        self._covered: set[tuple[str | None, str, str | None]] = set()
        self._good_until = 0.0
        self._places: dict[Lane, Place] = {}
        self._alive: dict[Lane, float] = {}
        self._strays: list[Stretch] = []

    def ask(self, wanted: Ready, at: float) -> None:
        """A claim looked at everything, and that was slow: have the horizon looked for."""
        with self._lock:
            self._asked[wanted] = at
        self.asked_for.set()

    def asked(self, at: float) -> tuple[list[Ready], dict[Lane, Place]]:
        """What the next look is to cover, and the horizon as it is."""
        with self._lock:
            self._asked = {wanted: since for wanted, since in self._asked.items() if at - since <= REMEMBERED}
            return list(self._asked), dict(self._places)

    def drop(self) -> bool:
        """There is little to walk over (any more), or nobody asks. Whether claims may have gone by it."""
        with self._lock:
            was_there = bool(self._covered)
            self.asked_for.clear()
            for kept in (self._asked, self._covered, self._places, self._alive, self._strays):
                kept.clear()
        return was_there

    def stretches(self, wanted: Ready, count: int, at: float) -> list[Stretch] | None:
        """Where a claim of up to `count` jobs is to scan; None: everywhere."""
        with self._lock:
            if at > self._good_until or not self._covered.issuperset(_parts(wanted)):
                return None
            self._asked[wanted] = at
            open_ones = [Stretch(lane, place) for lane, place in self._places.items() if _is_wanted(lane, wanted)]
            return open_ones + self._first_strays(wanted, count)

    def strays(self, wanted: Ready, count: int) -> list[Stretch]:
        """What a claim can still try that found less than it was asked for."""
        with self._lock:
            return self._first_strays(wanted, count)

    def claimed(self, stretches: Collection[Stretch], count: int, picks: Sequence[Pick], now: datetime) -> None:
        """Move on after a scan of `stretches` for up to `count` jobs that began after `now` and found `picks`.

        Lanes are scanned by priority. When the claim came back full, the lanes of its lowest priority hold nothing
        that could be claimed before the first pick of that priority, and lower ones were not looked at; all others
        are exhausted. The horizon moves to the first pick of a priority, not behind the last: if the claim is rolled
        back, the next one finds its jobs again.
        """
        edge = (now - MARGIN, _FIRST_ID)
        lowest = picks[-1] if picks and len(picks) >= count else None
        strayed = {stretch.last[1] for stretch in stretches if stretch.last}
        firsts: dict[int, Place] = {}
        for pick in picks:
            if pick.id not in strayed:
                firsts.setdefault(pick.priority, (pick.run_at, pick.id))
        with self._lock:
            tried: set[Stretch] = set()
            for stretch in stretches:
                lane = stretch.lane
                if stretch.last is not None:
                    if lowest is None or _order(lane, stretch.last) <= (-lowest.priority, (lowest.run_at, lowest.id)):
                        tried.add(stretch)
                    continue
                if lowest is None or lane.priority > lowest.priority or lane.priority in firsts:
                    self._move(lane, min(firsts.get(lane.priority, edge), edge))
            if tried:
                self._strays = [stray for stray in self._strays if stray not in tried]

    def looked(self, look: Look, took: float, at: float) -> set[str]:
        """Take in what a look saw; returns the queues that have jobs which claims did not know of."""
        edge = (look.moment - MARGIN, _FIRST_ID)
        news = {lane.queue for lane in look.strays}
        with self._lock:
            self._covered = {part for wanted in look.covered for part in _parts(wanted)}
            self._good_until = at + max(STALE, LOOKS_MISSED * took)
            self.walked = look.walked
            for lane in look.before.keys() - look.heads.keys():
                if any(_is_wanted(lane, wanted) for wanted in look.covered) and at - self._alive[lane] <= REMEMBERED:
                    self._move(lane, edge)
                else:
                    del self._places[lane], self._alive[lane]
            for lane, head in look.heads.items():
                self._alive[lane] = at
                if lane not in look.before:
                    self._places[lane] = min(head, edge)
                    news.add(lane.queue)
                elif len(look.strays.get(lane, ())) >= MOST_STRAYS:
                    self._places[lane] = head
                elif lane not in look.strays:
                    self._move(lane, min(head, edge))
            self._strays = sorted(_few(look.strays), key=lambda stray: _order(stray.lane, stray.first))
        return news

    def _first_strays(self, wanted: Ready, count: int) -> list[Stretch]:
        return list(islice((stray for stray in self._strays if _is_wanted(stray.lane, wanted)), count))

    def _move(self, lane: Lane, place: Place) -> None:
        """Forward only, and only lanes that were not forgotten meanwhile."""
        if lane in self._places and place > self._places[lane]:
            self._places[lane] = place


def _parts(wanted: Ready) -> Iterator[tuple[str | None, str, str | None]]:
    return ((wanted.namespace, queue, kind) for queue in wanted.queues for kind in wanted.kinds or (None,))


def _is_wanted(lane: Lane, wanted: Ready) -> bool:
    return (
        lane.namespace == wanted.namespace
        and lane.queue in wanted.queues
        and (wanted.kinds is None or lane.kind in wanted.kinds)
    )


def _few(strays: Mapping[Lane, Sequence[Place]]) -> Iterable[Stretch]:
    """Those of lanes that do not begin anew."""
    return (
        Stretch(lane, place, place) for lane, places in strays.items() if len(places) < MOST_STRAYS for place in places
    )


def _order(lane: Lane, place: Place) -> tuple[int, Place]:
    """The order of claiming."""
    return -lane.priority, place

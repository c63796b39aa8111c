"""A job's events as a picture: attempts are lanes, what was asked of the job is marked above them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct

from application.jobs import EventView

Outcome: TypeAlias = Literal["running", "completed", "failed", "missed", "released", "cancelled"]
ENDS: dict[str, Outcome] = {
    "job.completed": "completed",
    "job.failed": "failed",
    "job.heartbeat_missed": "missed",
    "job.released": "released",
    "job.cancelled": "cancelled",
}
LANE = 50
"""The height of a lane in pixels; the first one is of those who ask."""
LETTER = 2.3
"""The width that a letter needs, in percent of a narrow picture."""


class Stretch(Struct, frozen=True):
    """A part of an attempt, from `begin` for `width` percent of the picture; `label` only where it has room."""

    begin: float
    width: float
    label: str
    title: str


class Mark(Struct, frozen=True):
    """Something that happened at a moment, `at` in percent."""

    at: float
    type: str
    title: str


class Lane(Struct, frozen=True):
    """An attempt: who ran it, its steps, what else happened, and how it ended."""

    y: int
    attempt: int
    worker: str
    outcome: Outcome
    stretches: list[Stretch]
    marks: list[Mark]


class Timeline(Struct, frozen=True):
    """All of it, `height` pixels high and as wide as there is room; `clock` is how its ends are told apart."""

    begun: datetime
    ended: datetime
    seconds: float
    height: int
    asked: list[Mark]
    lanes: list[Lane]

    @property
    def clock(self) -> str:
        return "%H:%M:%S" if self.begun.date() == self.ended.date() else "%b %d, %H:%M"


def draw(events: Sequence[EventView], now: datetime) -> Timeline:
    """The picture of a job's events, up to now while an attempt runs."""
    begun, last = events[0].at, events[-1].at
    running = _is_open(events)
    ended = last if _is_over(events[-1]) else max(now, last)
    seconds = max((ended - begun).total_seconds(), 0.001)

    def place(at: datetime) -> float:
        return round((at - begun).total_seconds() / seconds * 100, 2)

    attempts: dict[int, list[EventView]] = {}
    for event in events:
        if (attempt := event.data.get("attempt")) is not None:
            attempts.setdefault(attempt, []).append(event)
        elif event.type == "job.cancelled" and attempts and _is_open(attempts[max(attempts)]):
            attempts[max(attempts)].append(event)
    lanes = [
        _lane(LANE * (n + 1), number, of_it, place, ended if n == len(attempts) - 1 and running else of_it[-1].at)
        for n, (number, of_it) in enumerate(sorted(attempts.items()))
    ]
    asked = [Mark(place(e.at), e.type, told(e)) for e in events if "attempt" not in e.data]
    return Timeline(begun, ended, seconds, LANE * (len(lanes) + 1) + 22, asked, lanes)


def told(event: EventView) -> str:
    """An event as a sentence: when, what, who, and why."""
    what = event.type.removeprefix("job.").replace("_", " ")
    said = details(event)
    return f"{event.at:%H:%M:%S} {what} by {event.by}" + (f": {said}" if said else "")


def details(event: EventView) -> str:
    """What an event says beside its type, in a few words."""
    data = event.data
    said = [str(data[name]) for name in ("step", "message", "reason") if data.get(name)]
    if (error := data.get("error")) is not None:
        said.append(error.message)
    if (artifact := data.get("artifact")) is not None:
        said.append(f"saved {artifact.name}")
    return ", ".join(said)


def _is_over(event: EventView) -> bool:
    """Whether a job ends with the event: one that was not its last is tried again."""
    retried = event.type in ("job.failed", "job.heartbeat_missed") and event.data.get("retry_at") is not None
    return event.type in ENDS and event.type != "job.released" and not retried


def _is_open(events: Sequence[EventView]) -> bool:
    """Whether the last attempt among them still runs."""
    kinds = [event.type for event in events if event.type == "job.started" or event.type in ENDS]
    return bool(kinds) and kinds[-1] == "job.started"


def _lane(y: int, attempt: int, events: list[EventView], place: Callable[[datetime], float], ended: datetime) -> Lane:
    begun = events[0]
    end = next((event for event in events if event.type in ENDS), None)
    outcome: Outcome = ENDS[end.type] if end else "running"
    stretches: list[Stretch] = []
    since = begun.at
    for event in events:
        if event.type == "job.progressed" and event.data.get("step") and "output" in event.data:
            stretches.append(_stretch(place(since), place(event.at), event.data["step"], told(event)))
            since = event.at
    stretches.append(_stretch(place(since), place(ended), outcome, told(end) if end else "still running"))
    marks = [Mark(place(e.at), e.type, told(e)) for e in events if e is not begun and "output" not in e.data]
    return Lane(y, attempt, begun.data.get("worker") or begun.by.removeprefix("worker:"), outcome, stretches, marks)


def _stretch(begin: float, end: float, label: str, title: str) -> Stretch:
    width = max(round(end - begin, 2), 0.4)
    return Stretch(min(begin, 99.6), width, label if width >= len(label) * LETTER else "", title)

"""The part of a job that its timeline is drawn from: bounded, and with ways to all other parts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from application.jobs import EventView
from interfaces.console.drawn import MOST_DRAWN, MOST_LANES, Drawn, around, part
from interfaces.console.timeline import draw

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
Story = list[int]
"""How many events each attempt has; what is below zero stands for so many that belong to none."""


def happened(story: Story) -> list[EventView]:
    """All events of a job."""
    kinds: list[tuple[str, int | None]] = [("created", None)]
    attempt = 0
    for count in story:
        if count < 0:
            kinds += [("cancel_requested", None)] * -count
            continue
        attempt += 1
        kinds += [("started", attempt), *[("progressed", attempt)] * (count - 2), ("failed", attempt)][:count]
    return [
        EventView(
            job_id=UUID(int=1),
            version=version,
            position=str(version),
            type=f"job.{kind}",
            at=NOW,
            by="worker:w1",
            trace=None,
            hash="",
            data={} if of is None else {"attempt": of},
        )
        for version, (kind, of) in enumerate(kinds, 1)
    ]


def seen(events: Sequence[EventView], version: int) -> Drawn:
    wanted = around(version, len(events), MOST_DRAWN)
    attempts = max((event.data.get("attempt", 0) for event in events), default=0)
    return part(events[wanted.start - 1 : wanted.stop - 1], version, len(events), attempts)


def test_a_job_of_few_attempts_is_drawn_whole() -> None:
    drawn = seen(happened([3] * MOST_LANES), 1)
    assert (drawn.first, drawn.last) == (1, 1 + 3 * MOST_LANES)
    assert (drawn.before, drawn.after) == (0, 0)


def test_of_many_attempts_the_newest_are_drawn() -> None:
    drawn = seen(happened([2] * 300), 601)
    assert drawn.attempts == list(range(281, 301))
    assert (drawn.first, drawn.last) == (562, 601)
    assert (drawn.before, drawn.after) == (280, 0)
    assert len(draw(drawn.events, NOW).lanes) == MOST_LANES


def test_those_before_end_where_these_begin() -> None:
    events = happened([2] * 300)
    earlier = seen(events, seen(events, 601).earlier)
    assert earlier.attempts == list(range(261, 281))
    assert (earlier.last, earlier.before, earlier.after) == (561, 260, 20)
    assert seen(events, earlier.later).attempts == list(range(281, 301))


def test_the_attempt_of_a_version_is_in_the_middle() -> None:
    drawn = seen(happened([2] * 300), 300)  # the second event of attempt 150 has version 301
    assert drawn.attempts == list(range(140, 160))


def test_what_was_asked_between_two_attempts_is_drawn_with_the_one_before() -> None:
    events = happened([2, *[-1, 2] * 30])
    drawn = seen(events, len(events))
    assert drawn.events[0].type == "job.started"
    assert seen(events, drawn.earlier).events[-1].type == "job.cancel_requested"


def test_an_attempt_that_never_ends_is_drawn_by_its_events() -> None:
    events = happened([5000])
    drawn = seen(events, len(events))
    assert (drawn.first, drawn.last) == (4502, 5001)
    assert (seen(events, drawn.earlier).first, seen(events, drawn.earlier).last) == (4002, 4501)


attempts = st.one_of(st.integers(1, 4), st.integers(20, 60), st.integers(200, 700), st.integers(-30, -1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(attempts, st.integers(1, 40)), min_size=1, max_size=6), st.floats(0, 1))
def test_earlier_and_later_lead_through_all_and_leave_nothing_out(runs: list[tuple[int, int]], where: float) -> None:
    events = happened([count for count, times in runs for _ in range(times)])
    begun = drawn = seen(events, 1 + int(where * (len(events) - 1)))
    while drawn.first > 1:
        before = seen(events, drawn.earlier)
        bounded(before)
        assert before.first < drawn.first <= before.last + 1
        drawn = before
    drawn = begun
    while drawn.last < len(events):
        following = seen(events, drawn.later)
        bounded(following)
        assert following.last > drawn.last >= following.first - 1
        drawn = following


def bounded(drawn: Drawn) -> None:
    assert 0 < len(drawn.events) <= MOST_DRAWN
    assert drawn.events[-1].version - drawn.events[0].version + 1 == len(drawn.events)
    assert len(draw(drawn.events, NOW).lanes) == len(drawn.attempts) <= MOST_LANES

"""Stored events are a promise: what one release wrote, every later one reads, to the byte.

The files under events/ are events as they lie in the log. None may be edited; new forms get new files.
"""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from domain.events import (
    TAGS,
    Artifact,
    Cancelled,
    CancelRequested,
    Completed,
    Created,
    Event,
    Failed,
    HeartbeatMissed,
    JobError,
    Progressed,
    Released,
    Requeued,
    Started,
    decode,
    encode,
)
from domain.retry import RetryPolicy

FILES = Path(__file__).parent / "events"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PAGE = Artifact(
    name="page",
    sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    size=5,
    media_type="text/html",
)


def at(hour: int, minute: int = 0, second: int = 0, microsecond: int = 0, *, day: int = 1) -> datetime:
    return datetime(2026, 3, day, hour, minute, second, microsecond, tzinfo=UTC)


TEN = at(10)
END_OF_TIME = datetime.max.replace(tzinfo=UTC)

STORED: dict[str, Event] = {
    "job.created": Created(
        at=at(10, microsecond=123456),
        by="key:shop",
        trace=TRACE,
        namespace="default",
        kind="render",
        queue="gpu",
        priority=-5,
        input=Raw(b'{"question": "why?","n":[1,2.50,null]}'),
        run_at=at(12),
        max_attempts=3,
        retry=RetryPolicy(initial=1.0, factor=2.0, max=3600.0),
        heartbeat_timeout=30.0,
        time_limit=900.0,
        labels={"team": "blue", "tier": "1"},
        idempotency_key="order-17",
    ),
    "job.created.minimal": Created(
        at=TEN,
        by="anonymous",
        namespace="default",
        kind="render",
        queue="default",
        priority=0,
        input=Raw(b"null"),
        run_at=TEN,
        max_attempts=1,
        retry=RetryPolicy(initial=1.0, factor=2.0, max=3600.0),
        heartbeat_timeout=30.0,
    ),
    "job.created.unicode": Created(
        at=TEN,
        by="key:größe",
        namespace="東京",
        kind="視覚化",
        queue="ünïcode",
        priority=0,
        input=Raw('{"question":"Warum ist der Himmel blau? 🌍","escaped":"\\u00e9\\n\\\\"}'.encode()),
        run_at=TEN,
        max_attempts=3,
        retry=RetryPolicy(initial=1.0, factor=2.0, max=3600.0),
        heartbeat_timeout=30.0,
        labels={"équipe": 'bleue "1"\t'},
    ),
    "job.created.large_numbers": Created(
        at=END_OF_TIME,
        by="key:shop",
        namespace="default",
        kind="render",
        queue="default",
        priority=-(2**63),
        input=Raw(b'{"big":123456789012345678901234567890,"tiny":1e-400,"exact":0.10000000000000000000000001}'),
        run_at=END_OF_TIME,
        max_attempts=2**63 - 1,
        retry=RetryPolicy(initial=0.001, factor=1.5, max=1e300),
        heartbeat_timeout=86400.0,
        time_limit=0.1,
    ),
    "job.started": Started(at=at(10, 0, 1), by="worker:w1", attempt=1, worker="w1"),
    "job.progressed": Progressed(
        at=at(10, 0, 2),
        by="worker:w1",
        trace=TRACE,
        attempt=1,
        progress=0.75,
        step="draw",
        message="drawing page 3",
        output=Raw(b'{"page":"p1"}'),
        artifact=PAGE,
        handle=Raw(b'{"render_id":"r-1"}'),
    ),
    "job.progressed.minimal": Progressed(at=at(10, 0, 2), by="worker:w1", attempt=1, progress=0.0),
    "job.progressed.output_null": Progressed(
        at=at(10, 0, 2),
        by="worker:w1",
        attempt=1,
        progress=0.5,
        step="notify",
        output=Raw(b"null"),
        handle=Raw(b"null"),
    ),
    "job.progressed.unicode": Progressed(
        at=at(10, 0, 2),
        by="worker:größe",
        attempt=1,
        progress=1 / 3,
        step="描く",
        message='🎨 "half"\n',
        output=Raw('"ﬁn\\u0000"'.encode()),
    ),
    "job.progressed.large_numbers": Progressed(
        at=at(10, 0, 2),
        by="worker:w1",
        attempt=2**63 - 1,
        progress=1.0,
        step="count",
        output=Raw(b"[18446744073709551616,-1E+999]"),
        artifact=Artifact(name="film", sha256=PAGE.sha256, size=5_368_709_120_000, media_type="video/mp4"),
    ),
    "job.heartbeat_missed": HeartbeatMissed(
        at=at(10, 1),
        by="system:rescue",
        attempt=1,
        worker="w1",
        last_heartbeat=at(10, 0, 29, 500000),
        retry_at=at(10, 1, 1, 250000),
    ),
    "job.heartbeat_missed.last": HeartbeatMissed(
        at=at(10, 1), by="system:rescue", attempt=3, worker="w1", last_heartbeat=at(10, 0, 29), retry_at=None
    ),
    "job.completed": Completed(
        at=at(10, 2), by="worker:w1", attempt=2, result=Raw(b'{"page":{"name":"page"}, "n":1.0}')
    ),
    "job.completed.null": Completed(at=at(10, 2), by="worker:w1", attempt=2, result=Raw(b"null")),
    "job.failed": Failed(
        at=at(10, 2),
        by="worker:w1",
        attempt=1,
        error=JobError(type="ValueError", message='no such colour: "größe"', detail=Raw(b'{"line":17}')),
        retry_at=at(10, 2, 10),
    ),
    "job.failed.final": Failed(
        at=at(10, 2), by="worker:w1", attempt=1, error=JobError(type="GiveUp", message=""), retry_at=None
    ),
    "job.released": Released(at=at(10, 2), by="worker:w1", attempt=1, worker="w1", reason="deploy"),
    "job.cancel_requested": CancelRequested(at=at(10, 2), by="key:shop", reason="too dear"),
    "job.cancelled": Cancelled(at=at(10, 2, 5), by="worker:w1", reason="too dear"),
    "job.requeued": Requeued(at=at(9, day=2), by="key:operator", reason="fixed upstream", afresh=False),
    "job.requeued.afresh": Requeued(at=at(9, day=2), by="key:operator", reason="", afresh=True),
}
"""Files as this release writes them, and what they say."""

READABLE: dict[str, Event] = {
    "job.created.foreign": Created(
        at=at(10, microsecond=500000),
        by="key:shop",
        namespace="default",
        kind="render",
        queue="gpu",
        priority=0,
        input=Raw(b"{}"),
        run_at=TEN,
        max_attempts=3,
        retry=RetryPolicy(initial=1, factor=2, max=60),
        heartbeat_timeout=30,
    ),
    "job.created.newer": Created(
        at=TEN,
        by="key:shop",
        namespace="default",
        kind="render",
        queue="gpu",
        priority=0,
        input=Raw(b"{}"),
        run_at=TEN,
        max_attempts=3,
        retry=RetryPolicy(initial=1.0, factor=2.0, max=3600.0),
        heartbeat_timeout=30.0,
    ),
    "job.started.newer": STORED["job.started"],
    "job.progressed.foreign": Progressed(at=at(10, 0, 2), by="worker:w1", attempt=1, progress=1.0),
    "job.progressed.newer": Progressed(at=at(10, 0, 2), by="worker:w1", attempt=1, progress=0.5, artifact=PAGE),
    "job.completed.newer": Completed(at=at(10, 2), by="worker:w1", attempt=2, result=Raw(b"[]")),
    "job.failed.newer": Failed(
        at=at(10, 2),
        by="worker:w1",
        attempt=1,
        error=JobError(type="E", message="m", detail=Raw(b"null")),
        retry_at=None,
    ),
}
"""Files in other orders, with explicit nulls or with fields of a newer release: read, though we would write less."""

EXPECTED = {**STORED, **READABLE}


def stored(name: str) -> bytes:
    return (FILES / f"{name}.json").read_bytes()


def test_the_ten_tags_are_a_promise() -> None:
    assert {
        Created: "job.created",
        Started: "job.started",
        Progressed: "job.progressed",
        HeartbeatMissed: "job.heartbeat_missed",
        Completed: "job.completed",
        Failed: "job.failed",
        Released: "job.released",
        CancelRequested: "job.cancel_requested",
        Cancelled: "job.cancelled",
        Requeued: "job.requeued",
    } == TAGS


def test_every_tag_has_its_bytes_and_every_file_its_event() -> None:
    assert {path.stem for path in FILES.iterdir()} == set(EXPECTED)
    assert set(TAGS.values()) <= set(STORED)


@pytest.mark.parametrize("name", EXPECTED)
def test_stored_bytes_read_to_exactly_their_event(name: str) -> None:
    event = decode(stored(name))
    assert event == EXPECTED[name]
    assert type(event) is type(EXPECTED[name])
    assert name.startswith(TAGS[type(event)])


@pytest.mark.parametrize("name", STORED)
def test_an_event_is_written_to_the_same_bytes_for_ever(name: str) -> None:
    assert encode(STORED[name]) == stored(name)
    assert encode(decode(stored(name))) == stored(name)


@pytest.mark.parametrize("name", STORED)
def test_the_bytes_begin_with_the_tag(name: str) -> None:
    assert stored(name).startswith(b'{"type":"' + TAGS[type(STORED[name])].encode() + b'",')


def test_an_output_of_null_is_not_the_same_as_no_output() -> None:
    assert decode(stored("job.progressed.output_null")) != decode(
        stored("job.progressed.output_null").replace(b',"output":null', b"")
    )


@pytest.mark.parametrize(
    "state",
    [
        b'{"type":"job.exploded","at":"2026-03-01T10:00:00Z","by":"x"}',
        b'{"at":"2026-03-01T10:00:00Z","by":"x","reason":"no tag"}',
        b'{"type":"job.cancelled","by":"x","reason":"no time"}',
        b'{"type":"job.cancelled","at":"2026-03-01T10:00:00Z","by":"x","reason":7}',
        b'{"type":"job.cancelled"',
        b"[]",
        b"",
    ],
)
def test_bytes_that_are_no_event_are_not_read(state: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(state)


def test_a_recorded_event_cannot_be_changed() -> None:
    event = STORED["job.started"]
    with pytest.raises(AttributeError):
        event.by = "somebody else"  # type: ignore[misc]

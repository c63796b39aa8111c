"""Ids sort as their jobs were created, and tell when."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from uuid import RFC_4122, UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.ids import first_id, job_ids

NOW = datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
times = st.integers(0, (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND).map(lambda n: EPOCH + n * MICROSECOND)
seldom = settings(derandomize=True, max_examples=300, deadline=None)


def an_id(at: datetime = NOW) -> UUID:
    (id,) = job_ids(1, at)
    return id


def time_of(id: UUID) -> datetime:
    """RFC 9562: 48 bits of Unix milliseconds (5.7), then 12 bits that are a fraction of one, in 4096ths (6.2)."""
    milliseconds, fraction = id.int >> 80, (id.int >> 64) & 0xFFF
    return EPOCH + timedelta(milliseconds=milliseconds, microseconds=-(-fraction * 1000 // 4096))


@seldom
@given(times)
def test_an_id_is_a_uuid_of_version_7_and_the_rfcs_variant(at: datetime) -> None:
    for id in (*job_ids(3, at), first_id(at)):
        assert id.version == 7
        assert id.variant == RFC_4122
        assert str(id)[14] == "7"
        assert str(id)[19] in "89ab"


@seldom
@given(times)
def test_an_id_tells_to_the_microsecond_when_its_job_was_created(at: datetime) -> None:
    assert time_of(an_id(at)) == at
    assert time_of(first_id(at)) == at


def test_the_time_is_where_the_rfc_puts_it() -> None:
    # The example of RFC 9562, A.6: 2022-02-22 14:22:22.00 GMT-5 is 0x017F22E279B0.
    at = datetime(2022, 2, 22, 14, 22, 22, tzinfo=timezone(timedelta(hours=-5)))
    assert str(an_id(at)).startswith("017f22e2-79b0-7000-")
    assert str(an_id(at + timedelta(microseconds=500))).startswith("017f22e2-79b0-7800-")


def test_ids_of_one_batch_are_unique_and_ascend() -> None:
    ids = list(job_ids(10_000, NOW))
    assert len(set(ids)) == 10_000
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert all(earlier.bytes < later.bytes for earlier, later in pairwise(ids))
    assert {time_of(id) for id in ids} == {NOW}


def test_ids_of_a_later_microsecond_come_after_a_whole_earlier_batch() -> None:
    for step in range(2_000):
        at = NOW + step * MICROSECOND
        *_, last = job_ids(20, at)
        assert last < first_id(at + MICROSECOND)


def test_two_batches_of_one_moment_share_no_id() -> None:
    assert not set(job_ids(1_000, NOW)) & set(job_ids(1_000, NOW))


def test_neighbours_in_a_batch_cannot_be_guessed_from_each_other() -> None:
    ids = list(job_ids(1_000, NOW))
    steps = {later.int - earlier.int for earlier, later in pairwise(ids)}
    assert len(steps) > 990


def test_no_ids_are_asked_for_and_none_are_made() -> None:
    assert list(job_ids(0, NOW)) == []


@seldom
@given(times, st.integers(1, 10**9))
def test_first_id_is_a_lower_bound_for_its_moment_and_above_every_earlier_one(at: datetime, ahead: int) -> None:
    assert all(first_id(at) <= id for id in job_ids(3, at))
    later = at + ahead * MICROSECOND
    assert all(id < first_id(later) for id in job_ids(3, at))


def test_first_id_is_the_same_each_time() -> None:
    assert first_id(NOW) == first_id(NOW)
    assert first_id(EPOCH) == UUID("00000000-0000-7000-8000-000000000000")
    assert first_id(NOW).int & ((1 << 62) - 1) == 0


def test_a_moment_before_the_first_id_is_bound_by_the_first_id() -> None:
    assert first_id(EPOCH - timedelta(days=365)) == first_id(EPOCH)


def test_the_zone_of_a_clock_does_not_matter() -> None:
    assert first_id(NOW.astimezone(timezone(timedelta(hours=9)))) == first_id(NOW)

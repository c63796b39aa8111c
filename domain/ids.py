"""Job ids: UUIDv7 (RFC 9562), made from the database's clock so that ids sort as their jobs were created."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from secrets import randbits
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STEP_BITS = 40


def job_ids(count: int, at: datetime) -> Iterator[UUID]:
    """`count` ids of jobs created at `at`, in ascending order.

    48 bits of milliseconds, 12 bits of the fraction below (RFC 9562, 6.2 method 3), and 62 bits that start at random
    and rise by random steps (method 2), so that jobs of one batch keep their order.
    """
    head, tail = _head(at), randbits(61)
    for _ in range(count):
        yield UUID(int=head | tail)
        tail = (tail + 1 + randbits(_STEP_BITS)) & (1 << 62) - 1


def first_id(at: datetime) -> UUID:
    """The smallest id a job created at `at` can have: a bound for ranges of ids."""
    return UUID(int=_head(max(at, _EPOCH)))


def _head(at: datetime) -> int:
    milliseconds, rest = divmod((at - _EPOCH) // _MICROSECOND, 1000)
    return milliseconds << 80 | 0x7 << 76 | (rest * 4096 // 1000) << 64 | 0b10 << 62

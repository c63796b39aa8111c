"""Columns of values as Postgres arrays in the binary format, for statements that take thousands of rows at a time.

The driver's own lists are general: they look for a type in each list and dump element by element. Here the type is
known, so that a column is packed in one go. Format: PostgreSQL's array_recv (src/backend/utils/adt/arrayfuncs.c):
dimensions, whether there are nulls, the element type's oid, the length, the lower bound; then for each element its size
in bytes, -1 for null, and its bytes.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from uuid import UUID

from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_HEAD = struct.Struct("!iiIii")
_NULL = b"\xff\xff\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_DAY = 24 * 3600 * 1_000_000
_SECOND = 1_000_000
_SIZE_16 = b"\0\0\0\x10"


class Column(bytes):
    """An array as it goes over the wire; the statement says its type: `%b::uuid[]`."""


class ColumnDumper(Dumper):
    """Sends a column as it is."""

    format = Format.BINARY
    oid = 0  # the statement's cast says it

    def dump(self, obj: Column) -> Buffer:
        return obj


def uuids(values: Sequence[UUID]) -> Column:
    return _column(2950, len(values), [_SIZE_16 + value.int.to_bytes(16, "big") for value in values])


def int2s(values: Sequence[int]) -> Column:
    return _packed(21, "ih", 2, values)


def int4s(values: Sequence[int]) -> Column:
    return _packed(23, "ii", 4, values)


def int8s(values: Sequence[int]) -> Column:
    return _packed(20, "iq", 8, values)


def float8s(values: Sequence[float]) -> Column:
    return _packed(701, "id", 8, values)


def moments(values: Sequence[datetime | None]) -> Column:
    """Timestamps with time zone: microseconds since 2000 in UTC. Most of a batch are alike, and packed once."""
    packed: dict[datetime | None, bytes] = {None: _NULL}
    for value in set(values) - {None}:
        assert value is not None
        packed[value] = struct.pack("!iq", 8, _microseconds(value - _EPOCH))
    return _column(1184, len(values), [packed[value] for value in values])


def texts(values: Sequence[str | None]) -> Column:
    """Most of a column are alike, and encoded once."""
    encoded: dict[str | None, bytes] = {None: _NULL}
    for value in set(values) - {None}:
        assert value is not None
        text = value.encode()
        encoded[value] = len(text).to_bytes(4, "big") + text
    return _column(25, len(values), [encoded[value] for value in values])


def byteas(values: Sequence[bytes | None]) -> Column:
    parts = [_NULL if value is None else len(value).to_bytes(4, "big") + value for value in values]
    return _column(17, len(values), parts)


def _packed(oid: int, element: str, size: int, values: Sequence[float]) -> Column:
    pairs = chain.from_iterable([(size, value) for value in values])
    return _column(oid, len(values), (struct.pack("!" + element * len(values), *pairs),))


def _column(oid: int, length: int, parts: Iterable[bytes]) -> Column:
    head = _HEAD.pack(1, 1, oid, length, 1) if length else struct.pack("!iiI", 0, 0, oid)
    return Column(head + b"".join(parts))


def _microseconds(span: timedelta) -> int:
    return span.days * _DAY + span.seconds * _SECOND + span.microseconds

"""The seal in Postgres: tiles, checkpoints and the one row that says how far it got."""

from bisect import bisect_left
from typing import Any
from uuid import UUID

import psycopg
from msgspec import Struct

from application.anchoring import Signed
from application.archives import Archive, ArchiveView
from application.audit import Access, Action, Place, SealedTo, SealingKey, StoredEvent
from application.errors import Unavailable
from application.sealer import Extension, Sealed, Unsealed
from domain.merkle import WIDTH, widths
from infrastructure.postgres.archives import archive_with_leaf, listed
from infrastructure.postgres.columns import byteas, int2s, int8s, texts
from infrastructure.postgres.database import Database

SEALED = """
SELECT size, position, (SELECT note FROM seal_checkpoints ORDER BY size DESC LIMIT 1), clock_timestamp(),
  extract(epoch FROM clock_timestamp() - sealed_at)::float8, refusal
FROM seal
"""
TILES = """
SELECT level, hashes, coalesce(positions, '')
FROM seal_tiles JOIN unnest(%b::int2[], %b::int8[]) AS edge (level, index) USING (level, index)
"""
# As two values, so that no event becomes an object of its own on the way.
UNSEALED = """
SELECT coalesce(string_agg(int8send(notification_id), '' ORDER BY notification_id), ''),
  coalesce(string_agg(hash, '' ORDER BY notification_id), '')
FROM (
  SELECT notification_id, hash
  FROM events
  WHERE notification_id > %s AND notification_id < (SELECT safe_position())
  ORDER BY notification_id
  LIMIT %s
) AS new
"""
TILE = "SELECT hashes FROM seal_tiles WHERE level = %s AND index = %s"
LOCK = "SELECT size FROM seal FOR UPDATE SKIP LOCKED"
WRITE_TILES = """
INSERT INTO seal_tiles (level, index, hashes, positions, first_position)
SELECT level, index, hashes, positions, first_position
FROM unnest(%b::int2[], %b::int8[], %b::bytea[], %b::bytea[], %b::int8[])
  AS new (level, index, hashes, positions, first_position)
ON CONFLICT (level, index) DO UPDATE SET hashes = EXCLUDED.hashes, positions = EXCLUDED.positions
"""
WRITE_CHECKPOINT = "INSERT INTO seal_checkpoints (size, note, signed_at) VALUES (%s, %s, clock_timestamp())"
WRITE_KEYS = """
INSERT INTO seal_keys (key, first_signed_at, last_signed_at)
SELECT key, clock_timestamp(), clock_timestamp() FROM unnest(%b::text[]) AS key
ON CONFLICT (key) DO UPDATE SET last_signed_at = EXCLUDED.last_signed_at
"""
MOVE = "UPDATE seal SET size = %s, position = %s, sealed_at = clock_timestamp(), refusal = NULL"
REFUSE = "UPDATE seal SET refusal = %s RETURNING true"
LAG = """
SELECT (SELECT count(*) FROM (
    SELECT FROM events
    WHERE notification_id > seal.position AND notification_id < (SELECT safe_position()) LIMIT 100000
  ) AS unsealed),
  coalesce((
    SELECT extract(epoch FROM clock_timestamp() - recorded_at)::float8 FROM events
    WHERE notification_id > seal.position ORDER BY notification_id LIMIT 1
  ), 0),
  size, refusal
FROM seal
"""
SEALED_TO = "SELECT size, position, note FROM seal JOIN seal_checkpoints USING (size)"
KEYS = "SELECT key, first_signed_at, last_signed_at FROM seal_keys ORDER BY first_signed_at, key"
LEAVES = """
SELECT index, positions FROM seal_tiles
WHERE level = 0 AND first_position <= %s ORDER BY first_position DESC LIMIT 1
"""
ENTRIES = """
SELECT placed.position, hash
FROM (
  SELECT ('x' || encode(substr(positions, 8 * n - 7, 8), 'hex'))::bit(64)::bigint AS position
  FROM seal_tiles CROSS JOIN generate_series(1, octet_length(positions) / 8) AS n
  WHERE level = 0 AND index = %s
) AS placed
LEFT JOIN events ON notification_id = placed.position
ORDER BY placed.position
"""
AT_POSITION = """
SELECT originator_id, originator_version, notification_id, hash FROM events WHERE notification_id = %b
"""
AT_VERSION = """
SELECT originator_id, originator_version, notification_id, hash FROM events
WHERE originator_id = %b AND originator_version = %b
"""
LAST_BEFORE = """
SELECT originator_id, originator_version, notification_id, hash FROM events
WHERE originator_id = %b AND notification_id <= %b ORDER BY originator_version DESC LIMIT 1
"""
STORED = """
SELECT originator_version, notification_id, topic, hash, state FROM events
WHERE originator_id = %b AND originator_version > %b AND originator_version <= %b
ORDER BY originator_version LIMIT %b
"""
SIGNED_AFTER = "SELECT size, note, signed_at FROM seal_checkpoints WHERE size > %s ORDER BY size LIMIT %s"
RECORD = "INSERT INTO accesses (by, action, job_id, filter, reason) VALUES (%s, %s, %s, %s, %s)"
ACCESSES = """
SELECT number, at, by, action, job_id, filter, reason FROM accesses WHERE number < %s ORDER BY number DESC LIMIT %s
"""


class SealLag(Struct, frozen=True):
    """How far the seal is behind: events that could be sealed (100 000 stands for more), and the age of the oldest.

    `refusal` says why the sealer will not go on, if so.
    """

    events: int
    seconds: float
    size: int
    refusal: str | None


class PostgresSeal:
    """What is sealed, and how it is extended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sealed(self) -> Sealed:
        ((size, position, note, now, age, refusal),) = self._database.rows(SEALED)
        edge, positions = self._edge(size)
        return Sealed(size, position, note, edge, positions, now, age, refusal)

    def unsealed(self, after: int, limit: int) -> Unsealed:
        ((positions, hashes),) = self._database.rows(UNSEALED, (after, limit))
        return Unsealed(bytes(positions), bytes(hashes))

    def tile(self, level: int, index: int) -> bytes:
        rows = self._database.rows(TILE, (level, index))
        return bytes(rows[0][0]) if rows else b""

    def extend(self, before: Sealed, extension: Extension) -> bool:
        columns = _tile_columns(before, extension)
        try:
            with self._database.connection() as connection, connection.transaction():
                if connection.execute(LOCK).fetchone() != (before.size,):
                    return False
                connection.execute(WRITE_TILES, columns, binary=True)
                connection.execute(WRITE_CHECKPOINT, (extension.size, extension.note))
                connection.execute(WRITE_KEYS, (texts(extension.keys),))
                connection.execute(MOVE, (extension.size, extension.position))
        except psycopg.OperationalError as error:
            raise Unavailable from error
        return True

    def refuse(self, reason: str | None) -> None:
        self._database.rows(REFUSE, (reason,))

    def lag(self) -> SealLag:
        """How far sealing is behind. Blocks. Raises Unavailable."""
        (row,) = self._database.rows(LAG)
        return SealLag(*row)

    def sealed_to(self) -> SealedTo | None:
        rows = self._database.rows(SEALED_TO)
        return SealedTo(*rows[0]) if rows else None

    def sealing_keys(self) -> list[SealingKey]:
        return [SealingKey(*row) for row in self._database.rows(KEYS)]

    def leaf(self, position: int) -> int | None:
        for index, packed in self._database.rows(LEAVES, (position,)):
            positions = unpacked(bytes(packed))
            at = bisect_left(positions, position)
            if at < len(positions) and positions[at] == position:
                return int(index) * WIDTH + at
        return None

    def archives(self, after: int) -> list[ArchiveView]:
        return listed(self._database, after)

    def archive_under(self, index: int) -> Archive | None:
        return archive_with_leaf(self._database, index, None)

    def archive_at(self, position: int) -> Archive | None:
        leaf = self.leaf(position)
        return None if leaf is None else archive_with_leaf(self._database, *divmod(leaf, WIDTH))

    def entries(self, index: int) -> list[bytes] | None:
        rows = self._database.rows(ENTRIES, (index,))
        return None if any(hash is None for _, hash in rows) else [bytes(hash) for _, hash in rows]

    def at_position(self, position: int) -> Place | None:
        return _place(self._database.rows(AT_POSITION, (position,)))

    def at_version(self, job_id: UUID, version: int) -> Place | None:
        return _place(self._database.rows(AT_VERSION, (job_id, version)))

    def last_before(self, job_id: UUID, position: int) -> Place | None:
        return _place(self._database.rows(LAST_BEFORE, (job_id, position)))

    def stored(self, job_id: UUID, after: int, to: int, limit: int) -> list[StoredEvent]:
        rows = self._database.rows(STORED, (job_id, after, to, limit))
        return [StoredEvent(version, at, topic, bytes(hash), bytes(state)) for version, at, topic, hash, state in rows]

    def signed_after(self, size: int, limit: int) -> list[Signed]:
        return [Signed(*row) for row in self._database.rows(SIGNED_AFTER, (size, limit))]

    def _edge(self, size: int) -> tuple[list[bytes], bytes]:
        """The tiles that are not full, by level, and the positions of the first.

        They are cut to what they have at this size: another sealer may have filled them since.
        """
        wanted = widths(size)
        edge: list[bytes] = [b""] * 8
        positions = b""
        columns = (int2s([level for level, _, _ in wanted]), int8s([index for _, index, _ in wanted]))
        cut = {level: width for level, _, width in wanted}
        for level, hashes, placed in self._database.rows(TILES, columns) if wanted else []:
            edge[level] = bytes(hashes)[: cut[level] * 32]
            if level == 0:
                positions = bytes(placed)[: cut[0] * 8]
        return edge, positions


class PostgresAccesses:
    """Who took what out of the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self, by: str, action: Action, job_id: UUID | None = None, filter: str | None = None, reason: str | None = None
    ) -> None:
        with self._database.connection() as connection:
            connection.execute(RECORD, (by, action, job_id, filter, reason))

    def page(self, before: int, limit: int) -> list[Access]:
        return [Access(*row) for row in self._database.rows(ACCESSES, (before, limit))]


def unpacked(positions: bytes) -> list[int]:
    """Positions of 8 bytes each, as numbers."""
    return [int.from_bytes(positions[at : at + 8], "big") for at in range(0, len(positions), 8)]


def _place(rows: list[tuple[Any, ...]]) -> Place | None:
    return next((Place(id, version, position, bytes(hash)) for id, version, position, hash in rows), None)


def _tile_columns(before: Sealed, extension: Extension) -> tuple[Any, ...]:
    tiles = extension.tiles
    first = before.size // WIDTH
    placed = [
        extension.positions[(tile.index - first) * WIDTH * 8 :][: len(tile.hashes) // 4] if tile.level == 0 else None
        for tile in tiles
    ]
    return (
        int2s([tile.level for tile in tiles]),
        int8s([tile.index for tile in tiles]),
        byteas([tile.hashes for tile in tiles]),
        byteas(placed),
        [int.from_bytes(one[:8], "big") if one is not None else None for one in placed],
    )

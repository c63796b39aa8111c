"""A month of the log as it is stored: its events, and the leaves of the seal that are of them."""

from collections.abc import Collection, Iterator, Sequence
from typing import LiteralString
from uuid import UUID

from psycopg import sql

from application.archive_writer import Leaves, Sealed, StoredEvent
from application.projections import Rows
from application.retention import Month, RetentionRefused
from domain.merkle import WIDTH
from infrastructure.postgres.database import Database
from infrastructure.postgres.projections import View, carried_generation
from infrastructure.postgres.seal import PostgresSeal, unpacked

ENDS = "SELECT coalesce(min(notification_id), 0), coalesce(max(notification_id), 0) FROM {table}"
EVENTS = """
SELECT originator_id, originator_version, notification_id, topic, hash, state
FROM (
  SELECT *, sum(octet_length(state)) OVER (ORDER BY originator_id, originator_version) - octet_length(state) AS before
  FROM (
    SELECT * FROM {table} WHERE (originator_id, originator_version) > (%s, %s)
    ORDER BY originator_id, originator_version
    LIMIT %s
  ) AS page
) AS page
WHERE before < 16777216
ORDER BY originator_id, originator_version
"""
TILES = """
SELECT index, positions FROM seal_tiles
WHERE level = 0 AND index >= coalesce((
    SELECT index FROM seal_tiles WHERE level = 0 AND first_position <= %s ORDER BY first_position DESC LIMIT 1
  ), 0) AND first_position <= %s
ORDER BY index
"""
POSITIONS_WITHIN = "SELECT notification_id FROM {table} WHERE notification_id >= %s AND notification_id <= %s"
POSITIONS = "SELECT positions FROM seal_tiles WHERE level = 0 AND index = %s"


class PostgresMonth:
    """See the port, `application.archive_writer.Source`."""

    def __init__(self, database: Database, views: Collection[View], month: Month) -> None:
        self._database = database
        self._views = {view.name: view for view in views}
        self._month = month
        self._seal = PostgresSeal(database)

    def sealed(self) -> Sealed:
        sealed = self._seal.sealed_to()
        if sealed is None:
            raise RetentionRefused("nothing is sealed yet; does a projector run?")
        return Sealed(sealed.size, sealed.checkpoint, [key.key for key in self._seal.sealing_keys()])

    def tile(self, level: int, index: int) -> bytes:
        return self._seal.tile(level, index)

    def leaves(self) -> Iterator[Leaves]:
        first, last = self._database.rows(self._on(ENDS))[0]
        with (
            self._database.connection() as connection,
            connection.transaction(),
            connection.cursor("tiles") as tiles,
        ):
            tiles.execute(TILES, (first, last), binary=True)
            for index, packed in tiles:
                positions = unpacked(bytes(packed))
                rows = self._database.rows(self._on(POSITIONS_WITHIN), (positions[0], positions[-1]))
                if found := {position for (position,) in rows}:
                    yield Leaves(index, positions[0], _marked(positions, found))

    def positions(self, index: int) -> list[int]:
        ((packed,),) = self._database.rows(POSITIONS, (index,))
        return unpacked(bytes(packed))

    def events(self, after: tuple[UUID, int], limit: int) -> list[StoredEvent]:
        rows = self._database.rows(self._on(EVENTS), (*after, limit))
        return [StoredEvent(id, version, at, topic, hash, state) for id, version, at, topic, hash, state in rows]

    def carry(self, rows: dict[str, Rows]) -> None:
        with self._database.connection() as connection, connection.transaction():
            for name, made in rows.items():
                if made:
                    self._views[name].add(connection, carried_generation(self._month.day), made)

    def _on(self, statement: LiteralString) -> sql.Composed:
        return on(statement, self._month)


def on(statement: LiteralString, month: Month) -> sql.Composed:
    """A statement on the month's partition."""
    name = month.partition
    return sql.SQL(statement).format(
        table=sql.Identifier(name),
        position=sql.Identifier(f"{name}_position"),
        recorded_at=sql.Identifier(f"{name}_recorded_at"),
        low=sql.Literal(month.low),
        high=sql.Literal(month.high),
    )


def _marked(positions: Sequence[int], found: Collection[int]) -> bytes:
    """A bit for each position that was found, the first one lowest."""
    bits = sum(1 << n for n, position in enumerate(positions) if position in found)
    return bits.to_bytes(WIDTH // 8, "little")

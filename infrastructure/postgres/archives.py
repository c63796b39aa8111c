"""What is known of months that left the log: which jobs are gone, to which archive, and which leaves are theirs."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection

from application.archives import Archive, ArchiveView
from infrastructure.postgres.columns import uuids
from infrastructure.postgres.database import Database

# While it is leaving or returning, some of its jobs are in the view: those are not asked for here.
OF_JOBS = """
SELECT wanted.id, month, name, archived_at
FROM archives JOIN unnest(%b::uuid[]) AS wanted (id) ON wanted.id >= low AND wanted.id < high
WHERE state IN ('leaving', 'archived', 'returning')
"""
OF_LEAF = """
SELECT month, name, archived_at
FROM archived_leaves JOIN archives USING (month)
WHERE index = %(index)s AND state = 'archived' AND (%(at)s::int8 IS NULL OR get_bit(leaves, %(at)s::int8) = 1)
LIMIT 1
"""
# Some of their jobs have a row in the view by now, and some have none.
MOVING = "archives.state IN ('leaving', 'returning')"
LISTED = """
SELECT month, name, archived_at, encode(sha256, 'hex'), bytes, jobs, events, first_position::text, last_position::text
FROM archives
WHERE state = 'archived' AND last_position > %b
ORDER BY month
"""


def archives_of(source: Connection | Database, ids: Collection[UUID]) -> dict[UUID, Archive]:
    """The archives of jobs that are gone, by their ids."""
    found: Sequence[tuple[Any, ...]]
    if isinstance(source, Database):
        found = source.rows(OF_JOBS, (uuids(list(ids)),))
    else:
        found = source.execute(OF_JOBS, (uuids(list(ids)),), binary=True).fetchall()
    return {id: Archive(month=month, name=name, archived_at=at) for id, month, name, at in found}


def archive_with_leaf(database: Database, index: int, at: int | None) -> Archive | None:
    """The archive that has the leaf at a place of a tile; without one, any that has leaves of the tile."""
    rows = database.rows(OF_LEAF, {"index": index, "at": at})
    return next((Archive(month=month, name=name, archived_at=archived) for month, name, archived in rows), None)


def listed(database: Database, after: int) -> list[ArchiveView]:
    """Those with events after a position, oldest first."""
    return [
        ArchiveView(
            month=row[0],
            name=row[1],
            archived_at=row[2],
            sha256=row[3],
            bytes=row[4],
            jobs=row[5],
            events=row[6],
            first_position=row[7],
            last_position=row[8],
        )
        for row in database.rows(LISTED, (after,))
    ]

"""Keys in Postgres."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.keys import Key, KeyConflict, NewKey
from infrastructure.postgres.database import Database

COLUMNS = """
id, name, role, namespace, rate, in_flight, created_at, created_by,
(SELECT last_used_at FROM key_uses WHERE key_id = keys.id), revoked_at, revoked_by
"""
STATE = "SELECT count(*), count(revoked_at) FROM keys"
ALL = f"SELECT digest, {COLUMNS} FROM keys ORDER BY created_at, name"  # noqa: S608  columns of ours
# One at a time, so that of two that would each be the first, or revoke the last but one, the second sees the other.
LOCK = "LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE"
ADMINS = "SELECT count(*) FROM keys WHERE role = 'admin' AND revoked_at IS NULL AND id IS DISTINCT FROM %b"
ADD = f"""
INSERT INTO keys (name, role, namespace, rate, in_flight, digest, created_by) VALUES (%b, %b, %b, %b, %b, %b, %b)
ON CONFLICT (name) DO NOTHING
RETURNING {COLUMNS}
"""  # noqa: S608
REVOKE = """
UPDATE keys SET revoked_at = clock_timestamp(), revoked_by = %b WHERE id = %b AND revoked_at IS NULL
"""
ONE = f"SELECT {COLUMNS} FROM keys WHERE id = %b"  # noqa: S608
USED = """
INSERT INTO key_uses (key_id, last_used_at)
SELECT key_id, clock_timestamp() FROM unnest(%b::uuid[]) AS x (key_id) ORDER BY key_id
ON CONFLICT (key_id) DO UPDATE SET last_used_at = EXCLUDED.last_used_at
"""


class PostgresKeys:
    """See the port, `application.keys.KeyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> object:
        return self._database.rows(STATE)[0]

    def all(self) -> Sequence[tuple[bytes, Key]]:
        return [(bytes(digest), _key(row)) for digest, *row in self._database.rows(ALL)]

    def add(self, new: NewKey, digest: bytes, by: str) -> Key | None:
        with self._database.connection() as connection, connection.transaction():
            connection.execute(LOCK)
            if new.role != "admin" and not _other_admins(connection, None):
                raise KeyConflict(
                    "there is no admin key, and without one nobody could make another; make an admin key first"
                )
            values = (new.name, new.role, new.namespace, new.rate, new.in_flight, digest, by)
            row = connection.execute(ADD, values, binary=True).fetchone()
            return _key(row) if row else None

    def revoke(self, id: UUID, by: str) -> Key | None:
        with self._database.connection() as connection, connection.transaction():
            connection.execute(LOCK)
            row = connection.execute(ONE, (id,), binary=True).fetchone()
            if row is None:
                return None
            key = _key(row)
            if key.role == "admin" and key.revoked_at is None and not _other_admins(connection, id):
                raise KeyConflict(f"{key.name!r} is the last admin key; make another one first")
            connection.execute(REVOKE, (by, id), binary=True)
            return _key(connection.execute(ONE, (id,), binary=True).fetchone())

    def note_use(self, ids: Sequence[UUID]) -> None:
        with self._database.connection() as connection:
            connection.execute(USED, (list(ids),), binary=True)


def _other_admins(connection: Any, id: UUID | None) -> bool:
    (count,) = connection.execute(ADMINS, (id,), binary=True).fetchone()
    return bool(count)


def _key(row: Any) -> Key:
    id, name, role, namespace, rate, in_flight, created_at, created_by, last_used_at, revoked_at, revoked_by = row
    return Key(
        id=id,
        name=name,
        role=role,
        namespace=namespace,
        rate=rate,
        in_flight=in_flight,
        created_at=created_at,
        created_by=created_by,
        last_used_at=last_used_at,
        revoked_at=revoked_at,
        revoked_by=revoked_by,
    )

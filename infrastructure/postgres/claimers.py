"""Claimers: which workers ask for which jobs, and when each did last."""

from collections.abc import Collection
from hashlib import sha256
from uuid import UUID

from msgspec.json import encode

from application.claimers import Claimer
from infrastructure.postgres.database import Database

# In the order of the key, so that two servers that hear of the same workers never wait for each other in a circle. What
# is lost in a crash is written again, so the commit waits for no disk.
WRITE = """
INSERT INTO claimers (worker, subscription, queues, kinds, via, namespace, first_seen_at, last_seen_at)
SELECT worker, subscription, queues, kinds, via, namespace, clock_timestamp(), clock_timestamp()
FROM jsonb_to_recordset(%s::jsonb)
    AS x (worker text, subscription uuid, queues text[], kinds text[], via text, namespace text),
  set_config('synchronous_commit', 'off', true)
ORDER BY worker, subscription
ON CONFLICT (worker, subscription) DO UPDATE SET last_seen_at = EXCLUDED.last_seen_at
"""
FORGET_OLD = "DELETE FROM claimers WHERE last_seen_at < statement_timestamp() - interval '1 day'"


def write_claimers(database: Database, claimers: Collection[Claimer]) -> None:
    """Note that they were seen now. Raises Unavailable."""
    rows = [
        {
            "worker": claimer.worker,
            "subscription": _subscription(claimer),
            "queues": claimer.queues,
            "kinds": claimer.kinds,
            "via": claimer.via,
            "namespace": claimer.namespace,
        }
        for claimer in claimers
    ]
    with database.connection() as connection:
        connection.execute(WRITE, (encode(rows).decode(),))


def forget_old_claimers(database: Database) -> int:
    """Delete those that have not asked for a day; returns how many there were."""
    with database.connection() as connection:
        return connection.execute(FORGET_OLD).rowcount


def _subscription(claimer: Claimer) -> UUID:
    """An id of its own for what a worker asks for, since names may be too long together for an index."""
    return UUID(bytes=sha256(encode((claimer.queues, claimer.kinds, claimer.via, claimer.namespace))).digest()[:16])

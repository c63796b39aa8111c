"""What keys with a quota have in flight: counted when they ask for more, under a lock of the key.

Jobs that finish meanwhile need no lock: they only make room.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from msgspec import Struct
from psycopg import Connection, Cursor

from application.ledger import Quota
from domain.job import Job
from infrastructure.postgres.columns import int4s, uuids

LOCK = "SELECT FROM keys WHERE id = ANY(%b::uuid[]) ORDER BY id FOR NO KEY UPDATE"
# A statement after the lock's, so that it sees what the transactions before it have charged.
COUNT = """
SELECT key_id, (
    SELECT count(*) FROM (
      SELECT FROM jobs WHERE charged_to = key_id AND finished_at IS NULL LIMIT most
    ) AS in_flight
  )
FROM unnest(%b::uuid[], %b::int4[]) AS x (key_id, most)
"""
CHARGE = """
UPDATE jobs SET charged_to = x.key_id
FROM unnest(%b::uuid[], %b::uuid[]) AS x (id, key_id)
WHERE jobs.id = x.id AND charged_to IS DISTINCT FROM x.key_id
"""


class QuotasOfBatch(Struct):
    """What each quota of one batch has in flight, and the keys that the batch charges with jobs."""

    counts: dict[UUID, int] = {}
    charged_to: dict[UUID, UUID] = {}

    @classmethod
    def request(cls, connection: Connection, quotas: Collection[Quota]) -> Cursor | None:
        """Lock the keys, in order, and count, within an open pipeline."""
        if not quotas:
            return None
        ids = uuids([quota.key_id for quota in quotas])
        connection.execute(LOCK, (ids,), binary=True)
        return connection.execute(COUNT, (ids, int4s([quota.most for quota in quotas])), binary=True)

    @classmethod
    def read(cls, counted: Cursor | None) -> "QuotasOfBatch":
        return cls(dict(counted.fetchall())) if counted else cls()

    def charge(self, quota: Quota, jobs: Sequence[Job]) -> None:
        self.counts[quota.key_id] += len(jobs)
        self.charged_to.update((job.id, quota.key_id) for job in jobs)

    def write(self, connection: Connection, moved: Sequence[Job]) -> None:
        """Charge jobs that were there before; new ones are when they are made."""
        charged = [job.id for job in moved if job.id in self.charged_to] if self.charged_to else []
        if charged:
            keys = [self.charged_to[id] for id in charged]
            connection.execute(CHARGE, (uuids(charged), uuids(keys)), binary=True)

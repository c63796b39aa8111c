"""What requests with an idempotency key were answered, for 24 hours."""

from collections.abc import Collection, Sequence
from typing import cast
from uuid import UUID

from msgspec import Struct
from psycopg import Connection, Cursor

from application.ledger import Answered, IdempotencyKey
from infrastructure.postgres.database import Database

# Waits for another transaction that has just taken the same key, and takes over one that has run out.
TAKE = """
INSERT INTO idempotency_keys (namespace, key, fingerprint, job_ids, position, used_at)
SELECT namespace, key, fingerprint, '{}', 0, clock_timestamp()
FROM unnest(%b::text[], %b::text[], %b::bytea[]) AS x (namespace, key, fingerprint)
ON CONFLICT (namespace, key) DO UPDATE
SET fingerprint = EXCLUDED.fingerprint, job_ids = '{}', position = 0, used_at = EXCLUDED.used_at
WHERE idempotency_keys.used_at < clock_timestamp() - interval '24 hours'
RETURNING namespace, key
"""
LOOK_UP = """
SELECT namespace, key, fingerprint, job_ids, position
FROM idempotency_keys JOIN unnest(%b::text[], %b::text[]) AS x (namespace, key) USING (namespace, key)
"""
ANSWER = """
UPDATE idempotency_keys SET fingerprint = %b, job_ids = %b, position = %b WHERE namespace = %b AND key = %b
"""
FORGET = """
DELETE FROM idempotency_keys
USING unnest(%b::text[], %b::text[]) AS x (namespace, key)
WHERE (idempotency_keys.namespace, idempotency_keys.key) = (x.namespace, x.key)
"""
FORGET_OLD = "DELETE FROM idempotency_keys WHERE used_at < statement_timestamp() - interval '24 hours'"

Name = tuple[str, str]


class KeysOfBatch(Struct):
    """The keys of one batch: those it took and must answer, and those that were answered before."""

    taken: dict[Name, bytes] = {}
    answered: dict[Name, Answered] = {}
    answers: dict[Name, tuple[Sequence[UUID], int]] = {}

    @classmethod
    def request(cls, connection: Connection, keys: Collection[IdempotencyKey]) -> "PendingKeys | None":
        """Take the keys, in order, within an open pipeline."""
        first: dict[Name, bytes] = {}
        for key in sorted(keys):
            first.setdefault((key.namespace, key.key), key.fingerprint)
        if not first:
            return None
        namespaces, names = [n for n, _ in first], [k for _, k in first]
        taken = connection.execute(TAKE, (namespaces, names, list(first.values())), binary=True)
        found = connection.execute(LOOK_UP, (namespaces, names), binary=True)
        return PendingKeys(first, taken, found)

    def find(self, key: IdempotencyKey) -> Answered | None:
        """What the key was answered, by an earlier batch or by a command earlier in this one."""
        name = (key.namespace, key.key)
        if name in self.answers:
            job_ids, position = self.answers[name]
            return Answered(self.taken[name], tuple(job_ids), position)
        return self.answered.get(name)

    def answer(self, key: IdempotencyKey, job_ids: Sequence[UUID], position: int) -> None:
        name = (key.namespace, key.key)
        self.answers[name] = (job_ids, position)
        self.taken[name] = key.fingerprint

    def write(self, connection: Connection) -> None:
        """Remember the answers; a key whose command was refused is free again."""
        for name, (job_ids, position) in self.answers.items():
            connection.execute(ANSWER, (self.taken[name], list(job_ids), position, *name), binary=True)
        if refused := [name for name in self.taken if name not in self.answers]:
            columns = ([namespace for namespace, _ in refused], [key for _, key in refused])
            connection.execute(FORGET, columns, binary=True)


def forget_old_keys(database: Database) -> int:
    """Delete the keys that ran out; returns how many there were."""
    with database.connection() as connection:
        return connection.execute(FORGET_OLD).rowcount


class PendingKeys(Struct):
    """Keys whose answers are still on the wire."""

    asked: dict[Name, bytes]
    taken: Cursor
    found: Cursor

    def read(self) -> KeysOfBatch:
        taken = {cast("Name", row): self.asked[cast("Name", row)] for row in self.taken}
        answered = {
            (namespace, key): Answered(bytes(fingerprint), tuple(job_ids), position)
            for namespace, key, fingerprint, job_ids, position in self.found
            if (namespace, key) not in taken
        }
        return KeysOfBatch(taken=taken, answered=answered)

"""Commands that the tests of the ledger speak, and what was recorded of them."""

from typing import Any
from uuid import UUID

from application.jobs import Accepted, Asked, Create
from application.ledger import IdempotencyKey
from application.reports import (
    ProgressReport,
)
from tests.infrastructure.nodes import Node, ask, new_job

EVENTS = """
SELECT originator_id, originator_version, topic, state, hash, notification_id
FROM events WHERE originator_id = ANY(%s) ORDER BY originator_id, originator_version
"""


def topics(node: Node, id: UUID) -> list[str]:
    return [row[2] for row in ask(node.dsn, EVENTS, [[id]])]


def progress(id: UUID, message: str, attempt: int = 1) -> ProgressReport:
    return ProgressReport(job_id=id, attempt=attempt, message=message)


def created(answer: Any) -> UUID:
    assert isinstance(answer, Accepted), repr(answer)
    (id,) = answer.job_ids
    return id


def with_key(key: str, fingerprint: bytes = b"request") -> Create:
    named = IdempotencyKey("default", key, fingerprint)
    return Create([new_job()], Asked(by="key:test", key=named))

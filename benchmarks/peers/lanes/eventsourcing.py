"""The recorder of `eventsourcing` itself, as it comes: one aggregate a job, events of the size of ours, no workers."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from benchmarks.peers.lane import BATCH, Input, Lane, main

CALLERS = 32
TOPICS = ("job.created", "job.started", "job.completed")
SIZES = (304, 128, 123)
"""Bytes that our events of a job that does nothing have."""


class EventsourcingLane(Lane):
    def _recorder(self) -> PostgresApplicationRecorder:
        parts = urlsplit(self.dsn)
        where = parse_qs(parts.query)
        self._datastore = PostgresDatastore(
            dbname=parts.path.lstrip("/"),
            host=where.get("host", [parts.hostname or ""])[0],
            port=where.get("port", [str(parts.port or 5432)])[0],
            user=parts.username or "",
            password=parts.password or "",
            pool_size=CALLERS,
            max_overflow=0,
        )
        return PostgresApplicationRecorder(self._datastore, events_table_name="stored_events")

    async def install(self) -> None:
        self._recorder().create_table()
        self._datastore.close()

    async def open(self) -> None:
        self._events = self._recorder()
        self._threads = ThreadPoolExecutor(CALLERS)
        self._created: list[UUID] = []

    async def bulk(self, inputs: Sequence[Input]) -> None:
        await self._save([_event(uuid4(), 1, input) for input in inputs])

    async def create(self, input: Input) -> None:
        await self._save([_event(uuid4(), 1, input)])

    async def finish(self, count: int) -> None:
        for begin in range(0, count, BATCH):
            ids = [uuid4() for _ in range(min(BATCH, count - begin))]
            for version in (2, 3):
                await self._save([_event(id, version, {}) for id in ids])

    async def close(self) -> None:
        self._threads.shutdown()
        self._datastore.close()

    async def _save(self, events: list[StoredEvent]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._events.insert_events, events)


def _event(id: UUID, version: int, input: Input) -> StoredEvent:
    said = json.dumps({"type": TOPICS[version - 1], "input": input}).encode()
    return StoredEvent(id, version, TOPICS[version - 1], said.ljust(SIZES[version - 1]))


if __name__ == "__main__":
    main(EventsourcingLane)

"""DBOS: workflows without steps on a queue that is looked at every millisecond; in bulk, 1 000 in one transaction."""

import asyncio
import signal
import threading
from collections.abc import Sequence

import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.peers.lane import Input, Lane, main, note

QUEUE = "bench"
POLL_SECONDS = 0.001
CALLERS = 32
OPTIONS = {"workflow_name": "noop", "queue_name": QUEUE, "app_version": "bench"}


class DbosLane(Lane):
    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._url = dsn.replace("postgresql://", "postgresql+psycopg://", 1)

    async def install(self) -> None:
        await asyncio.to_thread(self._install)

    def _install(self) -> None:
        self._launch()
        DBOS.destroy()

    async def open(self) -> None:
        self._engine = sqlalchemy.create_engine(self._url, pool_size=CALLERS)
        self._client = DBOSClient(system_database_url=self.dsn, system_database_engine=self._engine)

    async def bulk(self, inputs: Sequence[Input]) -> None:
        await asyncio.to_thread(self._bulk, inputs)

    def _bulk(self, inputs: Sequence[Input]) -> None:
        with self._engine.begin() as connection:
            for input in inputs:
                self._client.enqueue_in_transaction(connection, OPTIONS, input)

    async def create(self, input: Input) -> None:
        await self._client.enqueue_async(OPTIONS, input)

    async def close(self) -> None:
        self._client.destroy()

    async def work(self) -> None:
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        await asyncio.to_thread(self._launch)
        while not ended.is_set():
            await asyncio.sleep(0.1)
        DBOS.destroy()

    def _launch(self) -> None:
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": self.dsn,
            "application_version": "bench",
            "log_level": "ERROR",
        }
        DBOS(config=config)

        @DBOS.workflow(name="noop")
        async def noop(input: Input) -> None:
            note(input)

        DBOS.launch()
        DBOS.register_queue(QUEUE, polling_interval_sec=POLL_SECONDS)


if __name__ == "__main__":
    main(DbosLane)

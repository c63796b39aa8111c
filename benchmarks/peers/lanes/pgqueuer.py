"""PGQueuer: asyncpg, uvloop, batches of 1 000, twice as many jobs at a time as in a batch (the least it allows)."""

import asyncio
import json
import signal
from collections.abc import Sequence

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.lane import BATCH, Input, Lane, main, note


class PgQueuerLane(Lane):
    async def install(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.dsn, min_size=1, max_size=32)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))

    async def bulk(self, inputs: Sequence[Input]) -> None:
        count = len(inputs)
        await self._queries.enqueue(["noop"] * count, [json.dumps(input).encode() for input in inputs], [0] * count)

    async def create(self, input: Input) -> None:
        await self._queries.enqueue("noop", json.dumps(input).encode())

    async def close(self) -> None:
        await self._pool.close()

    async def work(self) -> None:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(self.dsn)))

        @queuer.entrypoint("noop")
        async def noop(job: Job) -> None:
            note(json.loads(job.payload or b"{}"))

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, queuer.shutdown.set)
        await queuer.qm.run(batch_size=BATCH, max_concurrent_tasks=2 * BATCH)


if __name__ == "__main__":
    uvloop.install()
    main(PgQueuerLane)

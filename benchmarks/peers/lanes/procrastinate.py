"""procrastinate: psycopg's pool, 20 jobs at a time, LISTEN, `batch_defer_async` in batches of 1 000."""

from collections.abc import Sequence

from procrastinate import App, PsycopgConnector

from benchmarks.peers.lane import Input, Lane, main, note

CONCURRENCY = 20


class ProcrastinateLane(Lane):
    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._app = App(connector=PsycopgConnector(conninfo=dsn, min_size=1, max_size=32))

        @self._app.task(name="noop")
        async def noop(input: Input) -> None:
            note(input)

        self._noop = noop

    async def install(self) -> None:
        async with self._app.open_async():
            await self._app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        await self._app.open_async()

    async def bulk(self, inputs: Sequence[Input]) -> None:
        await self._noop.batch_defer_async(*({"input": input} for input in inputs))

    async def create(self, input: Input) -> None:
        await self._noop.defer_async(input=input)

    async def close(self) -> None:
        await self._app.close_async()

    async def work(self) -> None:
        async with self._app.open_async():
            await self._app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    main(ProcrastinateLane)

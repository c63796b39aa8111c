"""jobledger: `Jobs` in the process that asks, and `jobledger worker` as it comes, but for its concurrency."""

import os
import sys
from collections.abc import Sequence

import uvloop
from msgspec import Raw
from msgspec.json import encode

from application.jobs import Asked, NewJob
from benchmarks.peers.lane import Input, Lane, main
from infrastructure.postgres.log import Log
from infrastructure.postgres.schema import migrate
from interfaces.bootstrap import Service
from interfaces.cli.serve import SWITCH_SECONDS, collect_rarely
from interfaces.settings import Settings

CONCURRENCY = 2_000
ASKED = Asked(by="key:benchmark")


class JobledgerLane(Lane):
    async def install(self) -> None:
        log = Log(self.dsn)
        migrate(log.database)
        log.close()

    async def open(self) -> None:
        """As `jobledger api` sets up its process."""
        settings = {"DATABASE_URL": self.dsn, "JOBLEDGER_DATA": os.environ["JOBLEDGER_DATA"]}
        self._service = Service(Settings.model_validate(settings))
        sys.setswitchinterval(SWITCH_SECONDS)
        collect_rarely()

    async def bulk(self, inputs: Sequence[Input]) -> None:
        await self._service.jobs.create([_new(input) for input in inputs], ASKED)

    async def create(self, input: Input) -> None:
        await self._service.jobs.create([_new(input)], ASKED)

    async def close(self) -> None:
        await self._service.close()

    async def work(self) -> None:
        command = ["-m", "interfaces.cli.main", "worker", "--concurrency", str(CONCURRENCY)]
        os.environ |= {"DATABASE_URL": self.dsn, "JOBLEDGER_HANDLERS": "benchmarks.handlers"}
        os.execv(sys.executable, [sys.executable, *command])


def _new(input: Input) -> NewJob:
    return NewJob(kind="peer", input=Raw(encode(input)))


if __name__ == "__main__":
    uvloop.install()
    main(JobledgerLane)

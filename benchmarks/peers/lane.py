"""What each lane can do, and how it is told: `python -m benchmarks.peers.lanes.<name> DSN COMMAND …` prints its answer.

It runs in the environment of a peer, and so imports nothing but the standard library.

| command | does | prints |
|---|---|---|
| `install` | makes the schema | |
| `bulk COUNT` | creates jobs in batches | jobs/s |
| `single COUNT CALLERS` | creates jobs one by one | jobs/s |
| `pick COUNT FILE` | creates jobs that note in FILE when they start, and when each was asked for | |
| `load RATE SECONDS` | creates jobs in small batches, so many a second | |
| `finish COUNT` | for a peer without workers: records the other two events of each job | |
| `work` | does jobs until it is told to end | |
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

BATCH = 1_000
PAYLOAD: dict[str, Any] = {"a": 1, "b": "hello"}
PAUSE = 0.01
"""Seconds between two jobs that are picked up."""
TICK = 0.05
"""Seconds between two batches of the load."""
Input: TypeAlias = dict[str, Any]


class NotMeasured(Exception):
    """The peer has nothing of the kind; names the measure."""


class Lane:
    """A peer: what it does not have stays as it is here, and is not measured."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    async def install(self) -> None:
        raise NotMeasured("install")

    async def open(self) -> None:
        """Connect, for everything but `install` and `work`."""

    async def bulk(self, inputs: Sequence[Input]) -> None:
        """Create jobs as fast as it can."""
        raise NotMeasured("bulk")

    async def create(self, input: Input) -> None:
        raise NotMeasured("create")

    async def finish(self, count: int) -> None:
        raise NotMeasured("finish")

    async def work(self) -> None:
        """Do jobs with `note` as their handler, until the process is told to end."""
        raise NotMeasured("work")

    async def close(self) -> None:
        """Leave nothing running that would keep the process from ending."""


def note(input: Input) -> None:
    """The handler: does nothing, or notes that it has started, in seconds since 1970."""
    if "file" in input:
        started = time.time()
        with Path(input["file"]).open("a") as file:
            file.write(f"started {input['n']} {started}\n")


async def run(lane: Lane, command: str, *arguments: str) -> float | None:
    if command in ("install", "work"):
        await getattr(lane, command)()
        return None
    await lane.open()
    try:
        return await _ask(lane, command, *arguments)
    finally:
        await lane.close()


async def _ask(lane: Lane, command: str, *arguments: str) -> float | None:
    match command, arguments:
        case "bulk", (count,):
            return await _rate(int(count), _bulk(lane, int(count)))
        case "single", (count, callers):
            await _create(lane, 20)
            each = int(count) // int(callers)
            return await _rate(each * int(callers), *(_create(lane, each) for _ in range(int(callers))))
        case "pick", (count, file):
            await _pick(lane, int(count), Path(file))
            return None
        case "load", (rate, seconds):
            return await _load(lane, float(rate), float(seconds))
        case "finish", (count,):
            return await _rate(int(count), lane.finish(int(count)))
    raise SystemExit(f"unknown: {command} {arguments}")


async def _rate(count: int, *work: Any) -> float:
    begun = time.perf_counter()
    await asyncio.gather(*work)
    return count / (time.perf_counter() - begun)


async def _bulk(lane: Lane, count: int) -> None:
    for begin in range(0, count, BATCH):
        await lane.bulk([PAYLOAD] * min(BATCH, count - begin))


async def _create(lane: Lane, count: int) -> None:
    for _ in range(count):
        await lane.create(PAYLOAD)


async def _pick(lane: Lane, count: int, file: Path) -> None:
    for n in range(count):
        asked = time.time()
        await lane.create({"n": n, "file": str(file)})
        with file.open("a") as noted:
            noted.write(f"asked {n} {asked}\n")
        await asyncio.sleep(PAUSE)


async def _load(lane: Lane, rate: float, seconds: float) -> float:
    begun, made = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        if due := int(passed * rate) - made:
            await lane.bulk([PAYLOAD] * due)
            made += due
        await asyncio.sleep(TICK)
    return made / seconds


def main(lane: type[Lane]) -> None:
    dsn, command, *arguments = sys.argv[1:]
    answer = asyncio.run(run(lane(dsn), command, *arguments))
    if answer is not None:
        print(answer)

"""The handlers of the benchmark workers (JOBLEDGER_HANDLERS=benchmarks.handlers)."""

import time
from pathlib import Path

from application.handlers import JobContext, handles
from benchmarks.peers.lane import Input, note


@handles("noop")
async def noop(job: JobContext, input: dict[str, object]) -> None:
    """Do nothing: what is measured is everything around it."""


@handles("pickup")
async def pickup(job: JobContext, input: dict[str, str]) -> None:
    """Note when the handler started, as seconds since 1970, in the file that the input names."""
    started = time.time()
    with Path(input["file"]).open("a") as file:
        file.write(f"{input['n']} {started}\n")


@handles("peer")
async def peer(job: JobContext, input: Input) -> None:
    """What the handlers of the peers do."""
    note(input)

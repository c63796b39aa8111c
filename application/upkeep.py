"""Upkeep: what the store needs done now and then so that it neither grows for ever nor runs out of months."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from application.errors import Unavailable

log = structlog.get_logger()
PERIOD = 3600.0
"""Seconds between rounds."""


class Upkeep:
    """Does its duties, by name, every hour; any number of nodes may."""

    def __init__(self, duties: Mapping[str, Callable[[], int]]) -> None:
        """A duty blocks, and returns how much it did."""
        self._duties = duties

    async def run(self) -> None:
        """Do the duties until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(PERIOD)

    async def run_once(self) -> None:
        """Do each duty once; one that fails is logged, and does not keep the others from their turn."""
        for name, duty in self._duties.items():
            try:
                done = await asyncio.to_thread(duty)
            except Unavailable as away:
                log.warning("upkeep.unavailable", duty=name, reason=str(away))
            except Exception:
                log.exception("upkeep.failed", duty=name)
            else:
                if done:
                    log.info("upkeep.done", duty=name, count=done)

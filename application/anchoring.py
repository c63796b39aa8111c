"""Anchoring: every signed checkpoint is also written to a place that the database's masters do not command."""

import asyncio
from datetime import datetime
from typing import Protocol

import structlog
from msgspec import Struct

from application.errors import StoreUnavailable, Unavailable

log = structlog.get_logger()
PERIOD = 2.0
PAGE = 100


class Signed(Struct, frozen=True):
    """A checkpoint, as a note: of how many events, and when it was signed."""

    size: int
    note: str
    signed_at: datetime


class Anchor(Protocol):
    """The port to the place. Calls block; they raise StoreUnavailable."""

    def last(self, origin: str) -> int:
        """The size of the last checkpoint of this log that is there; 0 when there is none."""
        ...

    def put(self, origin: str, checkpoint: Signed) -> None:
        """Write it under a name of its own. One that is there already stays; raises when it is another."""
        ...


class Checkpoints(Protocol):
    """The port to the checkpoints that were signed. Calls block."""

    def signed_after(self, size: int, limit: int) -> list[Signed]: ...


class Anchorer:
    """Writes checkpoints there in order, so that the last one tells which are missing. Any number may run."""

    def __init__(self, checkpoints: Checkpoints, anchor: Anchor) -> None:
        self._checkpoints = checkpoints
        self._anchor = anchor
        self._last: int | None = None
        self._told: str | None = None

    async def run(self) -> None:
        """Anchor until cancelled."""
        while True:
            try:
                more = await asyncio.to_thread(self.run_once) == PAGE
            except (StoreUnavailable, Unavailable) as away:
                more = False
                if str(away) != self._told:
                    log.warning("anchor.unavailable", reason=str(away))
                    self._told = str(away)
            except Exception:
                more = False
                log.exception("anchor.failed")
            else:
                self._told = None
            if not more:
                await asyncio.sleep(PERIOD)

    def run_once(self) -> int:
        """Write what is not there yet, 100 checkpoints at the most; how many that were. Blocks."""
        if self._last is None:
            first = self._checkpoints.signed_after(0, 1)
            if not first:
                return 0
            self._last = self._anchor.last(_origin(first[0]))
        signed = self._checkpoints.signed_after(self._last, PAGE)
        for checkpoint in signed:
            self._anchor.put(_origin(checkpoint), checkpoint)
            self._last = checkpoint.size
        return len(signed)


def _origin(checkpoint: Signed) -> str:
    return checkpoint.note.partition("\n")[0]

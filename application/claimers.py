"""Claimers: who asks for which jobs, noticed by the way and written down every few seconds."""

import asyncio
from collections.abc import Callable, Collection

import structlog
from msgspec import Struct

from application.claims import Claim, Via
from application.errors import Unavailable

log = structlog.get_logger()
PERIOD = 5.0
"""Seconds between two times that a claimer is written down."""
PAUSE = 1.0
"""Seconds between two writes of this node, at least."""
MOST = 10_000
"""Claimers of one write; who asks with ever new names is not kept beyond that."""


class Claimer(Struct, frozen=True):
    """A worker, the queues and kinds that it asks for together, None being all kinds, and how it is connected.

    `namespace` limits it to the jobs of one, if it is limited.
    """

    worker: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...] | None
    via: Via
    namespace: str | None = None


class Claimers:
    """Notices claimers, which costs a claim next to nothing, and writes them down beside the claims."""

    def __init__(self, write: Callable[[Collection[Claimer]], None]) -> None:
        """`write` blocks, and may raise Unavailable."""
        self._write = write
        self._written: dict[Claimer, float] = {}
        self._due: set[Claimer] = set()
        self._noticed = asyncio.Event()

    def notice(self, claim: Claim, via: Via, namespace: str | None = None) -> None:
        """Somebody asks for jobs, or still waits for some."""
        wanted = claim.wanted
        claimer = Claimer(claim.worker, wanted.queues, wanted.kinds, via, namespace)
        written = self._written.get(claimer)
        if (written is None or self._now() - written >= PERIOD) and len(self._due) < MOST:
            self._due.add(claimer)
            self._noticed.set()

    async def run(self) -> None:
        """Write down whoever is new, or was written down a while ago, until cancelled."""
        while True:
            await self._noticed.wait()
            await self.run_once()
            await asyncio.sleep(PAUSE)

    async def run_once(self) -> None:
        """Write down whom there is to write down; who could not be will ask again."""
        due, self._due = self._due, set()
        self._noticed.clear()
        try:
            await asyncio.to_thread(self._write, due)
        except Unavailable as away:
            log.debug("claimers.unavailable", reason=str(away))
        except Exception:
            log.exception("claimers.failed")
        else:
            now = self._now()
            of_late = {claimer: at for claimer, at in self._written.items() if now - at < PERIOD}
            self._written = of_late | dict.fromkeys(due, now)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

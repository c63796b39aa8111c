"""What strikes a cluster: its primary is killed, cut off or switched over; it counts as gone when another one works."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.chaos.nemesis import Fault
from tests.cluster.fleet import ClusterFleet
from tests.cluster.machines import Cluster, Machine

HELD_SECONDS = 4.0


class ClusterNemesis:
    """Strikes the machine that has the primary. Every machine is in its place again before each fault."""

    def __init__(self, fleet: ClusterFleet, dice: random.Random) -> None:
        self._cluster: Cluster = fleet.cluster
        self._dice = dice
        self.faults: dict[str, Fault] = {
            "primary's PostgreSQL killed": lambda: self._struck(Machine.kill_postgres),
            "primary's machine crashed": lambda: self._struck(Machine.crash),
            "primary cut off": lambda: self._struck(Machine.cut_off),
            "switch-over": lambda: self._struck(self._cluster.switch_over),
            "standbys cut off": self._alone,
        }

    def left_out(self) -> list[str]:
        return []

    @contextmanager
    def _struck(self, strike: Callable[[Machine], None]) -> Iterator[None]:
        primary = self._whole()
        strike(primary)
        self._cluster.wait_for_primary(None if strike is Machine.kill_postgres else primary)
        primary.reconnect()
        yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No commit is answered until Patroni lets the primary go on without them."""
        primary = self._whole()
        others = [machine for machine in self._cluster.machines if machine is not primary]
        for machine in others[: self._dice.randrange(1, len(others) + 1)]:
            machine.cut_off()
        time.sleep(HELD_SECONDS)
        for machine in others:
            machine.reconnect()
        self._cluster.wait_for_primary()
        yield

    def _whole(self) -> Machine:
        self._cluster.heal()
        return self._cluster.wait_for_primary()

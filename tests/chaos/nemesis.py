"""The nemesis: what it can do to a fleet, each fault brought about and put right again."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial

import httpx2
import psycopg

from infrastructure.postgres.projections import VIEWS
from tests.chaos.clocks import LIBRARY
from tests.chaos.disks import Disk
from tests.chaos.fleet import ROLES, Fleet, Member, Role
from tests.chaos.network import Network

Fault = Callable[[], AbstractContextManager[None]]
"""Brought about when it is entered and while it lasts; its cause is gone when it is left."""
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'jobledger' AND pid <> pg_backend_pid()"
CONNECTIONS_TRIED = 400


class Nemesis:
    """Strikes a fleet where its dice say."""

    def __init__(self, fleet: Fleet, dice: random.Random) -> None:
        self._fleet = fleet
        self._dice = dice
        self._of_members = dict(self._members())
        self._of_surroundings = dict(self._surroundings())
        self.faults: dict[str, Fault] = {
            **self._of_members,
            **self._of_surroundings,
            "everything killed": self._everything_killed,
            "two at once": self._two_at_once,
            "a view built anew": self._view_rebuilt,
        }
        """By kind; those that this machine has no means for are left out."""

    def left_out(self) -> list[str]:
        """What is missing here, and what is not tried for that."""
        missing = []
        if not self._fleet.disk.mounted:
            missing.append("no disk can be mounted here (be root): full disks are left out")
        if LIBRARY is None:
            missing.append("libfaketime is not installed: jumping clocks are left out")
        return missing

    def _members(self) -> Iterator[tuple[str, Fault]]:
        for role in ROLES:
            yield f"{role} killed", partial(self._killed, role)
            yield f"{role} stopped for seconds", partial(self._suspended, role)
            yield f"{role} told to end", partial(self._replaced, role)
        yield "plain handlers' processes killed", self._plain_killed

    def _surroundings(self) -> Iterator[tuple[str, Fault]]:
        yield "database restarted (fast)", partial(self._restarted, signal.SIGINT)
        yield "database restarted (immediate)", partial(self._restarted, signal.SIGQUIT)
        yield "database killed", partial(self._restarted, signal.SIGKILL)
        yield "database stopped for seconds", self._frozen
        yield "backends terminated", self._backends_terminated
        yield "backend killed", self._backend_killed
        yield "statements cancelled", self._statements_cancelled
        yield "database read-only for seconds", self._read_only
        yield "connections exhausted", self._exhausted
        yield "transaction left open", self._transaction_left_open
        yield "table locked", self._table_locked
        yield "network to the database slow", partial(self._slow, self._fleet.wire)
        yield "network to the database cut", partial(self._cut, self._fleet.wire)
        yield "network to the database silent", partial(self._silent, self._fleet.wire)
        yield "network to the servers slow", partial(self._slow, self._fleet.web)
        yield "network to the servers cut", partial(self._cut, self._fleet.web)
        yield "network to the servers silent", partial(self._silent, self._fleet.web)
        if LIBRARY is not None:
            yield "clock jumps ahead", lambda: self._clock_off(self._dice.choice(["+90s", "+1h", "+30d"]))
            yield "clock jumps back", lambda: self._clock_off(self._dice.choice(["-90s", "-1h", "-30d"]))
        if self._fleet.disk.mounted:
            yield "disk of artifacts full", partial(self._full, self._fleet.artifacts)
            yield "disk of the data folder full", partial(self._full, self._fleet.service)
            yield "disk of the database full", self._database_full

    @contextmanager
    def _killed(self, role: Role) -> Iterator[None]:
        member = self._fleet.one(role, self._dice)
        member.kill()
        yield
        member.start()

    @contextmanager
    def _suspended(self, role: Role) -> Iterator[None]:
        """Often for longer than a lease: what it goes on with has long been given to another."""
        member = self._fleet.one(role, self._dice)
        member.suspend()
        try:
            self._last(1, 6)
            yield
        finally:
            member.resume()

    @contextmanager
    def _replaced(self, role: Role) -> Iterator[None]:
        """As a deploy does it."""
        member = self._fleet.one(role, self._dice)
        try:
            status = member.end()
            assert status == 0, f"{member.name} ended with {status} when it was told to"
            yield
        finally:
            member.start()

    @contextmanager
    def _plain_killed(self) -> Iterator[None]:
        self._fleet.one("worker", self._dice).kill_children()
        yield

    @contextmanager
    def _everything_killed(self) -> Iterator[None]:
        """Within milliseconds, as when the power fails."""
        members: list[Member] = self._fleet.members
        for member in members:
            member.kill()
        self._fleet.postgres.pull(signal.SIGKILL)
        yield
        self._fleet.postgres.put_in()
        for member in members:
            member.start()

    @contextmanager
    def _two_at_once(self) -> Iterator[None]:
        """A process, and something that it stands on."""
        one, other = self._dice.choice(list(self._of_members)), self._dice.choice(list(self._of_surroundings))
        with self._of_members[one](), self._of_surroundings[other]():
            yield

    @contextmanager
    def _view_rebuilt(self) -> Iterator[None]:
        """Which nobody is to notice."""
        name = self._dice.choice(VIEWS).name
        answer = httpx2.post(
            f"{self._fleet.urls[0]}/v1/projections/{name}/rebuilds", json={"reason": "chaos"}, timeout=30
        )
        assert answer.status_code in (202, 409), answer.text
        yield

    @contextmanager
    def _restarted(self, request: signal.Signals) -> Iterator[None]:
        self._fleet.postgres.pull(request)
        yield
        self._fleet.postgres.put_in()

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        with self._fleet.postgres.frozen():
            self._last(1, 5)
            yield

    @contextmanager
    def _backends_terminated(self) -> Iterator[None]:
        with psycopg.connect(self._fleet.postgres.dsn, autocommit=True) as connection:
            pids = [pid for (pid,) in connection.execute(BACKENDS)]
            for pid in self._dice.sample(pids, min(len(pids), 5)):
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        yield

    @contextmanager
    def _backend_killed(self) -> Iterator[None]:
        """PostgreSQL then ends all others, and recovers by itself."""
        with psycopg.connect(self._fleet.postgres.dsn, autocommit=True) as connection:
            pids = [pid for (pid,) in connection.execute(BACKENDS)]
        with suppress(ProcessLookupError):
            os.kill(self._dice.choice(pids), signal.SIGKILL)
        yield
        self._fleet.postgres.mend()

    @contextmanager
    def _statements_cancelled(self) -> Iterator[None]:
        """As by somebody who takes them for stuck."""
        with psycopg.connect(self._fleet.postgres.dsn, autocommit=True) as connection:
            for _ in range(30):
                connection.execute(f"SELECT pg_cancel_backend(pid) FROM ({BACKENDS} AND state = 'active') AS x")
                self._last(0.01, 0.1)
        yield

    @contextmanager
    def _read_only(self) -> Iterator[None]:
        """As a primary becomes that hands over to another, or one whose disk is nearly full at some providers."""
        with psycopg.connect(self._fleet.postgres.dsn, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            try:
                self._last(2, 5)
                yield
            finally:
                connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
                connection.execute("SELECT pg_reload_conf()")

    @contextmanager
    def _exhausted(self) -> Iterator[None]:
        """No connection is left, and those that break meanwhile cannot be replaced."""
        with ExitStack() as stack:
            with suppress(psycopg.OperationalError):
                for _ in range(CONNECTIONS_TRIED):
                    stack.enter_context(psycopg.connect(self._fleet.postgres.dsn, connect_timeout=5))
            self._fleet.wire.cut()
            self._last(2, 4)
            yield

    @contextmanager
    def _transaction_left_open(self) -> Iterator[None]:
        """It has written, so that nobody may read the whole log beyond it."""
        with psycopg.connect(self._fleet.postgres.dsn) as connection:
            connection.execute("SELECT pg_current_xact_id()")
            self._last(2, 5)
            yield

    @contextmanager
    def _table_locked(self) -> Iterator[None]:
        """As by a change of the schema that waits for something."""
        with psycopg.connect(self._fleet.postgres.dsn) as connection:
            connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            self._last(2, 4)
            yield

    @contextmanager
    def _slow(self, network: Network) -> Iterator[None]:
        network.delay = self._dice.uniform(0.02, 0.15)
        try:
            self._last(2, 5)
            yield
        finally:
            network.delay = 0.0

    @contextmanager
    def _cut(self, network: Network) -> Iterator[None]:
        """Again and again."""
        for _ in range(5):
            network.cut()
            self._last(0.1, 0.6)
        yield

    @contextmanager
    def _silent(self, network: Network) -> Iterator[None]:
        """At the end what was held is let through, or the connections are broken off."""
        network.fall_silent()
        try:
            self._last(2, 6)
            yield
        finally:
            if self._dice.random() < 0.5:
                network.cut()
            network.speak()

    @contextmanager
    def _clock_off(self, offset: str) -> Iterator[None]:
        self._fleet.clock.set(offset)
        try:
            self._last(3, 5)
            yield
        finally:
            self._fleet.clock.set("+0")

    @contextmanager
    def _full(self, disk: Disk) -> Iterator[None]:
        disk.fill()
        try:
            self._last(2, 4)
            yield
        finally:
            disk.free()

    @contextmanager
    def _database_full(self) -> Iterator[None]:
        self._fleet.disk.fill()
        try:
            self._last(3, 6)
            yield
        finally:
            self._fleet.disk.free()
            self._fleet.postgres.mend()

    def _last(self, least: float, most: float) -> None:
        time.sleep(self._dice.uniform(least, most))

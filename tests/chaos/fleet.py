"""The fleet: real processes of every role over one database, some of them across a network, some with clocks."""

import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil  # type: ignore[import-untyped]

from tests.chaos import marks
from tests.chaos.clocks import Clock
from tests.chaos.disks import Disk
from tests.chaos.network import Network
from tests.conftest import Process
from tests.plugs import Plug

Role = Literal["api", "worker", "far worker", "projector"]
ROLES: tuple[Role, ...] = ("api", "worker", "far worker", "projector")
READY = {
    "api": "jobledger listening on",
    "worker": "worker.started",
    "far worker": "jobledger worker working at",
    "projector": "jobledger projector following the log",
}
READY_SECONDS = 90.0
STOP_SECONDS = 60.0
DATABASE_MIB, ARTIFACTS_MIB, SERVICE_MIB = 3_000, 256, 64
FIXED_PORTS = (20_000, 32_000)


class Member:
    """One process, which is started again whenever it was ended."""

    def __init__(self, name: str, role: Role, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.role = role
        self._arguments = arguments
        self._environment = environment
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._ended: list[Process] = []
        self._process = self._start()

    @property
    def alive(self) -> bool:
        return self._process.process.poll() is None

    def start(self) -> None:
        """Start it anew; it may not be ready yet when this returns."""
        self._process.kill()
        self._ended.append(self._process)
        self._process = self._start()

    def wait_until_ready(self) -> None:
        self._clear_away()
        self._process.wait_for_line(READY[self.role], READY_SECONDS)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        """Tell it to end, as an operator would; its exit status."""
        return self._process.stop(STOP_SECONDS)

    def kill_children(self) -> None:
        """Of a worker: the processes of plain handlers."""
        for child in psutil.Process(self._process.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def suspend(self) -> None:
        self._process.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self._ended.append(self._process)
        self._clear_away()

    def _start(self) -> Process:
        return Process(self._arguments, self._environment, self._folder)

    def _clear_away(self) -> None:
        """What is left of processes that have ended: what they said is kept."""
        for process in self._ended:
            process.close()
            with self._log.open("a") as log:
                log.writelines([*process.output, f"--- ended with {process.process.returncode}\n"])
        self._ended.clear()


class Members:
    """Processes of a service, and what they stand on, which is ended with them; `__enter__` is a fleet's own."""

    def __init__(self, folder: Path, begun: Callable[[str], None]) -> None:
        """`begun` is told what is being started."""
        self.folder = folder
        self.marks = folder / "marks"
        self.members: list[Member] = []
        self._say = begun
        self._stack = ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def wait_until_ready(self) -> None:
        for member in self.members:
            member.wait_until_ready()

    def dead(self) -> list[str]:
        """Members that ended by themselves."""
        return [member.name for member in self.members if not member.alive]


class Fleet(Members):
    """Three servers, two workers with the database and two across HTTP, two projectors; all of it can be struck."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.disk = stack.enter_context(Disk(self.folder / "database", DATABASE_MIB))
            self.artifacts = stack.enter_context(Disk(self.folder / "artifacts", ARTIFACTS_MIB))
            self.service = stack.enter_context(Disk(self.folder / "service", SERVICE_MIB))
            self._say("a database")
            self.postgres = stack.enter_context(Plug(self.disk.folder / "data"))
            self.clock = Clock(self.folder / "clock")
            self.urls = [f"http://127.0.0.1:{port}" for port in _free_ports(3)]
            self.wire = stack.enter_context(Network([self.postgres.socket]))
            self.web = stack.enter_context(Network(self.urls))
            self._say("servers, workers and projectors")
            for make in self._members():
                self.members.append(member := make())
                stack.callback(member.close)
            self.wait_until_ready()
            self._stack = stack.pop_all()
        return self

    @property
    def dsn(self) -> str:
        """The address of the database itself, past the network."""
        return self.postgres.dsn

    def one(self, role: Role, dice: random.Random) -> Member:
        return dice.choice([member for member in self.members if member.role == role])

    def _members(self) -> Iterator[Callable[[], Member]]:
        """The first server and worker reach the database directly, the others across the network, some with a clock."""
        across = f"postgresql://postgres@127.0.0.1:{self.wire.port}/jobledger?sslmode=disable&gssencmode=disable"
        direct = self.postgres.dsn
        clock = self.clock.environment
        ports = [url.rpartition(":")[2] for url in self.urls]
        near = {"JOBLEDGER_HANDLERS": "tests.chaos.near_handlers"}
        far = {"JOBLEDGER_HANDLERS": "tests.chaos.far_handlers"}
        web = f"http://127.0.0.1:{self.web.port}"
        yield self._member("api-1", "api", ["api", "--port", ports[0]], direct)
        yield self._member("api-2", "api", ["api", "--port", ports[1]], across)
        yield self._member("api-3", "api", ["api", "--port", ports[2]], direct, **clock)
        yield self._member("worker-1", "worker", ["worker"], direct, **near)
        # Workers have none, since they start processes: libfaketime 0.9.10 locks its list of condition variables, and a
        # process that is forked while another thread has that lock waits for it for ever, and its parent with it.
        yield self._member("worker-2", "worker", ["worker"], across, **near)
        yield self._member("worker-3", "far worker", ["worker", "--url", web], None, **far)
        yield self._member("worker-4", "far worker", ["worker", "--url", web], None, **far)
        yield self._member("projector-1", "projector", ["projector"], direct)
        yield self._member("projector-2", "projector", ["projector"], across, **clock)

    def _member(
        self, name: str, role: Role, arguments: list[str], database: str | None, **environment: str
    ) -> Callable[[], Member]:
        settings = {
            "JOBLEDGER_DATA": str(self.service.folder),
            "JOBLEDGER_ARTIFACTS": str(self.artifacts.folder / "store"),
            marks.VARIABLE: str(self.marks),
            **({"DATABASE_URL": database} if database else {}),
            **environment,
        }
        return lambda: Member(name, role, arguments, settings, self.folder)


def _free_ports(count: int) -> list[int]:
    """Of those that the kernel gives to nobody who does not ask for them: each is to be had again after a kill."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(*FIXED_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports

"""Real processes of every role over a cluster that fails over, whose address names all its machines."""

from contextlib import ExitStack
from typing import Self

from tests.chaos import marks
from tests.chaos.fleet import Member, Members, Role
from tests.chaos.network import Network
from tests.cluster.machines import Cluster
from tests.ports import free_port

SERVERS = 2


class ClusterFleet(Members):
    """Two servers, two workers, one across HTTP, two projectors."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._say("etcd, Patroni and PostgreSQL on three machines")
            self.cluster = stack.enter_context(Cluster())
            self.dsn = self.cluster.address()
            ports = [free_port() for _ in range(SERVERS)]
            self.urls = [f"http://127.0.0.1:{port}" for port in ports]
            self.web = stack.enter_context(Network(self.urls))
            self._say("servers, workers and projectors")
            for number, port in enumerate(ports, 1):
                self._add(stack, f"api-{number}", "api", ["api", "--port", str(port)])
            for number in (1, 2):
                self._add(stack, f"worker-{number}", "worker", ["worker"], handlers="tests.chaos.near_handlers")
                self._add(stack, f"projector-{number}", "projector", ["projector"])
            far = ["worker", "--url", f"http://127.0.0.1:{self.web.port}"]
            self._add(stack, "worker-far", "far worker", far, handlers="tests.chaos.far_handlers")
            self.wait_until_ready()
            self._stack = stack.pop_all()
        return self

    def _add(self, stack: ExitStack, name: str, role: Role, arguments: list[str], handlers: str = "") -> None:
        settings = {
            "JOBLEDGER_DATA": str(self.folder / "service"),
            "JOBLEDGER_ARTIFACTS": str(self.folder / "artifacts"),
            "JOBLEDGER_HANDLERS": handlers,
            marks.VARIABLE: str(self.marks),
            **({} if role == "far worker" else {"DATABASE_URL": self.dsn}),
        }
        self.members.append(member := Member(name, role, arguments, settings, self.folder))
        stack.callback(member.close)

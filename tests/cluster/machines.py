"""Machines of a cluster: network namespaces on a bridge, each with an etcd, a Patroni and its PostgreSQL."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil  # type: ignore[import-untyped]
import psycopg
import yaml

PROGRAMS = {"ip": "iproute2", "etcd": "etcd-server", "patroni": "patroni", "setpriv": "util-linux"}
"""What has to be there, and Debian's package that has it."""
POSTGRES = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
BRIDGE, NETWORK, HOST = "jlbr", "10.77.31", "10.77.31.1"
SIZE = 3
PATIENCE = 120.0
TTL, LOOP_SECONDS, RETRY_SECONDS = 20, 2, 3
"""Patroni's: a primary that is cut off is replaced after TTL at the latest; it gives up by itself before."""
DATABASE = "jobledger"


def missing() -> str | None:
    """Why there can be no cluster here, if so."""
    if os.geteuid() != 0:
        return "be root: namespaces are made"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"install {package}"
    return None if POSTGRES.is_dir() else "install postgresql-15"


class Machine:
    """One machine; its address is reached from here and from the others until it is cut off."""

    def __init__(self, number: int, folder: Path, stack: ExitStack) -> None:
        self.name = f"jl{number}"
        self.address = f"{NETWORK}.{10 + number}"
        self._link = f"jlv{number}"
        self._folder = folder / self.name
        self._folder.mkdir()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        ip("netns", "add", self.name)
        stack.callback(ip, "netns", "del", self.name)
        ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        stack.callback(ip, "link", "del", self._link)  # connections that nobody closes keep its namespace for a while
        stack.callback(self.close)
        ip("link", "set", self._link, "master", BRIDGE, "up")
        self._inside("addr", "add", f"{self.address}/24", "dev", "eth0")
        self._inside("link", "set", "eth0", "up")
        self._inside("link", "set", "lo", "up")

    def start_etcd(self, peers: Sequence["Machine"]) -> None:
        peer, client = f"http://{self.address}:2380", f"http://{self.address}:2379"
        options = {
            "name": self.name,
            "data-dir": self._folder / "etcd",
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "initial-cluster": ",".join(f"{each.name}=http://{each.address}:2380" for each in peers),
            "initial-cluster-state": "new",
        }
        self._run("etcd", "etcd", *[f"--{name}={value}" for name, value in options.items()])

    def start_patroni(self, peers: Sequence["Machine"]) -> None:
        config = self._folder / "patroni.yml"
        config.write_text(yaml.safe_dump(self._patroni(peers)))
        shutil.chown(config, USER)
        self._run("patroni", "patroni", str(config))

    def crash(self) -> None:
        """kill -9 Patroni and every process of PostgreSQL, as when the machine loses power; etcd stays."""
        self._kill("patroni")
        self.kill_postgres()

    def kill_postgres(self) -> None:
        """kill -9 its PostgreSQL, of which Patroni has to find out."""
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            pid = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
            server = psutil.Process(pid)
            processes = [server, *server.children()]
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=PATIENCE)

    def cut_off(self) -> None:
        """Nobody reaches it, and it reaches nobody; connections stay open on both sides."""
        ip("link", "set", self._link, "down")

    def reconnect(self) -> None:
        ip("link", "set", self._link, "up")

    @property
    def runs(self) -> bool:
        return "patroni" in self._processes

    def state(self, of: str = "patroni") -> dict[str, Any]:
        """What its Patroni says of it, or of the `cluster`; empty while it does not answer."""
        with suppress(httpx2.TransportError, ValueError):
            answer: dict[str, Any] = httpx2.get(f"http://{self.address}:8008/{of}", timeout=2).json()
            return answer
        return {}

    def close(self) -> None:
        self._kill("patroni")
        self.kill_postgres()
        self._kill("etcd")

    def _patroni(self, peers: Sequence["Machine"]) -> dict[str, Any]:
        passwords = {"password": "none"}
        return {
            "scope": "jobledger",
            "name": self.name,
            "restapi": {"listen": f"{self.address}:8008", "connect_address": f"{self.address}:8008"},
            "etcd3": {"hosts": [f"{each.address}:2379" for each in peers]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": LOOP_SECONDS,
                    "retry_timeout": RETRY_SECONDS,
                    "maximum_lag_on_failover": 1 << 20,
                    "primary_start_timeout": 0,
                    "synchronous_mode": True,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {
                            "max_connections": 200,
                            "shared_buffers": "64MB",
                            "wal_keep_size": "512MB",
                            "synchronous_commit": "on",
                            "wal_sender_timeout": "5s",
                            "wal_receiver_timeout": "5s",
                        },
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"{self.address}:5432",
                "connect_address": f"{self.address}:5432",
                "data_dir": str(self._folder / "data"),
                "bin_dir": str(POSTGRES),
                "pgpass": str(self._folder / "pgpass"),
                "pg_hba": [
                    "local all all trust",
                    f"host all all {NETWORK}.0/24 trust",
                    f"host replication all {NETWORK}.0/24 trust",
                ],
                "authentication": {
                    "superuser": {"username": "postgres", **passwords},
                    "replication": {"username": "replicator", **passwords},
                    "rewind": {"username": "rewinder", **passwords},
                },
                "parameters": {"unix_socket_directories": str(self._folder)},
            },
        }

    def _run(self, name: str, program: str, *arguments: str) -> None:
        """Start a program on the machine as PostgreSQL's user."""
        shutil.chown(self._folder, USER)
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *as_user, program, *arguments],
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self._folder)},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self, name: str) -> None:
        if (process := self._processes.pop(name, None)) is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)

    def _inside(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)


class Cluster:
    """Three machines, of which one has the primary, one its synchronous standby, and one another standby."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.machines: list[Machine] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/var/tmp"))
            folder.chmod(0o755)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            ip("link", "add", BRIDGE, "type", "bridge")
            stack.callback(ip, "link", "del", BRIDGE)
            ip("addr", "add", f"{HOST}/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            self.machines += [Machine(number, folder, stack) for number in range(1, SIZE + 1)]
            for machine in self.machines:
                machine.start_etcd(self.machines)
            for machine in self.machines:
                machine.start_patroni(self.machines)
            self.wait_until_whole()
            with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}".encode())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def address(self, database: str = DATABASE) -> str:
        """Of whichever machine has the primary."""
        hosts = ",".join(machine.address for machine in self.machines)
        ports = ",".join(["5432"] * SIZE)
        return (
            f"postgresql://postgres@{hosts}/{database}?port={ports}&target_session_attrs=read-write&connect_timeout=2"
        )

    def primary(self) -> Machine | None:
        """The machine that takes writes and holds the leader's lock, if there is one now."""
        for machine in self.machines:
            state = machine.state()
            if state.get("role") in ("master", "primary") and state.get("state") == "running":
                return machine
        return None

    def wait_for_primary(self, other_than: Machine | None = None) -> Machine:
        """The machine that takes writes, again. Fails when none does."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = self.primary()
            if found is not None and found is not other_than and self._takes_writes(found):
                return found
            time.sleep(0.1)
        raise TimeoutError("no machine takes writes")

    def switch_over(self, primary: Machine) -> None:
        """Have a synchronous standby take over, as for maintenance; refused until Patroni knows which one is."""
        body = json.dumps({"leader": primary.name}).encode()
        until = time.monotonic() + PATIENCE
        while True:
            answer = httpx2.post(f"http://{primary.address}:8008/switchover", content=body, timeout=PATIENCE)
            if answer.status_code in (200, 202):
                return
            if time.monotonic() > until:
                raise TimeoutError(f"the switch-over is refused: {answer.text}")
            time.sleep(0.5)

    def heal(self) -> None:
        """Start what does not run; all machines are in their places when this returns."""
        for machine in self.machines:
            machine.reconnect()
            if not machine.runs:
                machine.start_patroni(self.machines)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """A primary, and two standbys that stream from it, one of them synchronously, as etcd knows.

        Until it does, nobody may take over: then what was acknowledged might be nowhere else.
        """
        until = time.monotonic() + PATIENCE
        while not self._is_whole():
            if time.monotonic() > until:
                raise TimeoutError(f"not whole: {[(machine.name, machine.state()) for machine in self.machines]}")
            time.sleep(0.2)

    def _is_whole(self) -> bool:
        primary = self.primary()
        if primary is None:
            return False
        following = primary.state().get("replication", [])
        streaming = [each for each in following if each.get("state") == "streaming"]
        roles = [member.get("role") for member in primary.state("cluster").get("members", [])]
        return len(streaming) == SIZE - 1 and "sync_standby" in roles

    @staticmethod
    def _takes_writes(machine: Machine) -> bool:
        with (
            suppress(psycopg.Error),
            psycopg.connect(f"postgresql://postgres@{machine.address}/postgres", connect_timeout=2) as connection,
        ):
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        return False


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)

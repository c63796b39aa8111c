"""A streaming standby of a test's own server, made with that server's own programs."""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg.conninfo import conninfo_to_dict

from infrastructure.embedded import SETTINGS
from infrastructure.programs import account_of, programs_for
from tests.waiting import eventually

PORT = 5432


class Standby:
    """Follows the server at `dsn`, the superuser's address; `dsn` of its own leads to the same database there."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._primary = dsn
        self._folder = Path(tempfile.mkdtemp(prefix="standby-"))
        self._account = account_of(Path(str(parts["host"])))
        self._programs = programs_for(self._account)
        self._process: subprocess.Popen[bytes] | None = None
        self.dsn = f"postgresql://postgres@/{parts['dbname']}?host={self._folder}&port={PORT}"
        if self._account.uid is not None:
            os.chown(self._folder, self._account.uid, self._account.gid or 0)
        copying = self._run("pg_basebackup", "-D", self._folder / "data", "-R", "-X", "stream", "-c", "fast", "-d", dsn)
        assert copying.wait(120) == 0, (self._folder / "log").read_text()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """It answers, read-only, when this returns."""
        options = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": self._folder,
            "max_connections": SETTINGS["max_connections"],
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self._process = self._run("postgres", "-D", self._folder / "data", *arguments)
        eventually(self._answers, 60, "the standby's first answer")

    def kill(self) -> None:
        """kill -9, with all its processes, which end when the first is gone."""
        if self._process is not None and self._process.poll() is None:
            processes = psutil.Process(self._process.pid).children()
            self._process.kill()
            self._process.wait(30)
            psutil.wait_procs(processes, timeout=30)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def pause(self) -> None:
        """Replay nothing more for now: it is behind by what happens meanwhile."""
        self.ask("SELECT pg_wal_replay_pause()")
        eventually(lambda: self.ask("SELECT pg_get_wal_replay_pause_state()") == [("paused",)], what="the pause")

    def resume(self) -> None:
        self.ask("SELECT pg_wal_replay_resume()")

    def caught_up(self) -> None:
        """It has all that the primary has when this returns."""
        with psycopg.connect(self._primary, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        eventually(lambda: self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{row[0]}'") == [(True,)], 60)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with suppress(psycopg.OperationalError):
            return self.ask("SELECT pg_is_in_recovery()") == [(True,)]
        return False

    def _run(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / program, *arguments],
                user=self._account.uid,
                group=self._account.gid,
                extra_groups=None if self._account.uid is None else [],
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

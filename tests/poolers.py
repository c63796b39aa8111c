"""Debian's PgBouncer in transaction mode, before a server of the tests."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.ports import free_port
from tests.waiting import eventually

SIZE = 4
"""Connections that it keeps to the server, for all its clients together."""


class Pooler:
    """Listens on TCP, as a process of its own. Whoever begins a transaction gets any connection to the server."""

    def __init__(self, dsn: str, size: int = SIZE) -> None:
        parts = conninfo_to_dict(dsn)
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("no PgBouncer on the PATH: install pgbouncer, so that the service is run behind it")
        self._program = program
        self._server = Path(str(parts["host"]))
        self._database = parts["dbname"]
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.dsn = f"{self._address}/{self._database}"
        (self._folder / "users").write_text('"postgres" ""\n')
        (self._folder / "ini").write_text(
            f"""
            [databases]
            {self._database} = host={self._server} port={parts["port"]}
            [pgbouncer]
            pool_mode = transaction
            default_pool_size = {size}
            max_client_conn = 1000
            listen_addr = 127.0.0.1
            listen_port = {self._port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {self._folder / "users"}
            admin_users = postgres
            server_login_retry = 0.2
            """.replace("            ", "")
        )
        self._owner = self._server.stat()
        for path in (self._folder, *self._folder.iterdir()):
            if os.geteuid() == 0:  # PgBouncer refuses to run as root, and others may not reach the server's socket
                os.chown(path, self._owner.st_uid, self._owner.st_gid)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """It takes connections when this returns."""
        as_root = os.geteuid() == 0
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, self._folder / "ini"],
                user=self._owner.st_uid if as_root else None,
                group=self._owner.st_gid if as_root else None,
                extra_groups=[] if as_root else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._answers, what="PgBouncer's first answer")

    def kill(self) -> None:
        """All its connections break at once, also those in the middle of a transaction."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)

    def asked(self, command: str) -> list[dict[str, Any]]:
        """The rows of one of its own commands, such as SHOW POOLS."""
        with psycopg.connect(f"{self._address}/pgbouncer", autocommit=True) as connection:
            cursor = psycopg.ClientCursor(connection, row_factory=psycopg.rows.dict_row)
            return cursor.execute(command.encode()).fetchall()

    @property
    def _address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with suppress(psycopg.OperationalError), psycopg.connect(self.dsn, connect_timeout=2):
            return True
        return False

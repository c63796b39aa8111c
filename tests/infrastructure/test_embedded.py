"""The embedded server keeps what was committed, belongs to one owner, and cleans up after a killed one."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from infrastructure.embedded import AlreadyRunning, EmbeddedPostgres
from infrastructure.programs import EmbeddedFailed
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")

OWNER = """
import sys
from pathlib import Path

import psycopg

from infrastructure.embedded import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]), lambda line: None)
with psycopg.connect(server.start()) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS orphaned AS SELECT 42 AS answer")
print(psycopg.conninfo.conninfo_to_dict(server.dsn)['host'], server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder below one that is closed to others, made once for all that only start it again."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    return closed / "data"


@pytest.fixture
def announced() -> list[str]:
    return []


@pytest.fixture
def server(data: Path, announced: list[str]) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(data, announced.append) as server:
        yield server


def ask(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row and row[0]


def write(server: EmbeddedPostgres, table: str) -> None:
    with psycopg.connect(server.dsn) as connection:
        connection.execute(f"CREATE TABLE {table} AS SELECT 42 AS answer".encode())


def socket_folder(server: EmbeddedPostgres) -> Path:
    return Path(str(psycopg.conninfo.conninfo_to_dict(server.dsn)["host"]))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ],
)
def test_server_is_durable_and_opens_no_port(server: EmbeddedPostgres, setting: str, value: str) -> None:
    assert ask(server, f"SHOW {setting}") == value


def test_nobody_else_reaches_the_socket(server: EmbeddedPostgres) -> None:
    assert socket_folder(server).stat().st_mode & 0o077 == 0


def test_interrupt_of_our_terminal_does_not_reach_the_server(server: EmbeddedPostgres) -> None:
    assert os.getsid(server.pid) == server.pid != os.getsid(0)


@as_root
def test_root_hands_the_server_to_another_user_and_opens_no_folder(server: EmbeddedPostgres, data: Path) -> None:
    with psycopg.connect(server.dsn) as connection:
        assert 0 not in psutil.Process(server.pid).uids()
        assert 0 not in psutil.Process(connection.info.backend_pid).uids()
    assert data.stat().st_mode & 0o077 == 0
    assert data.parent.stat().st_mode & 0o077 == 0


def test_second_start_is_refused_and_names_the_first(server: EmbeddedPostgres, data: Path) -> None:
    with pytest.raises(AlreadyRunning, match=str(data)) as refusal:
        EmbeddedPostgres(data, print).start()
    assert refusal.value.pid == os.getpid()
    with pytest.raises(AlreadyRunning):
        server.start()
    assert ask(server, "SELECT 1") == 1


def test_stop_leaves_neither_server_nor_socket_nor_lock(server: EmbeddedPostgres, data: Path) -> None:
    sockets, pid = socket_folder(server), server.pid
    server.stop()
    server.stop()
    assert not psutil.pid_exists(pid)
    assert not sockets.exists()
    with EmbeddedPostgres(data, print) as other:
        assert ask(other, "SELECT 1") == 1


def test_rows_outlast_a_restart(server: EmbeddedPostgres) -> None:
    write(server, "restarted")
    server.stop()
    server.start()
    assert ask(server, "SELECT answer FROM restarted") == 42


def test_committed_rows_outlast_a_killed_postmaster(server: EmbeddedPostgres) -> None:
    write(server, "killed")
    with psycopg.connect(server.dsn):
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        server.start()
    assert ask(server, "SELECT answer FROM killed") == 42


@pytest.mark.parametrize("cleaned", [False, True])
def test_killed_server_is_started_again_where_it_was(server: EmbeddedPostgres, *, cleaned: bool) -> None:
    """Also when the folder of its socket, which is a temporary one, was removed meanwhile."""
    write(server, f"again_{cleaned}")
    address = server.dsn
    with psycopg.connect(address):
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.alive, 30)
        if cleaned:
            shutil.rmtree(socket_folder(server))
        server.start_again()
    assert (server.alive, server.dsn) == (True, address)
    assert ask(server, f"SELECT answer FROM again_{cleaned}") == 42


@pytest.fixture(params=["sees all", "sees titles"])
def sight(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in a container is denied other users' working folders."""

    def deny(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    if request.param == "sees titles":
        monkeypatch.setattr(psutil.Process, "cwd", deny)


@pytest.mark.usefixtures("sight")
def test_backend_that_outlives_its_postmaster_is_ended(server: EmbeddedPostgres, announced: list[str]) -> None:
    with psycopg.connect(server.dsn) as connection:
        psutil.Process(connection.info.backend_pid).suspend()
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        server.start()
    assert "waiting for the processes of a killed PostgreSQL" in announced
    assert ask(server, "SELECT 1") == 1


def test_stale_pid_file_is_forgotten_though_its_number_lives_again(server: EmbeddedPostgres, data: Path) -> None:
    server.stop()
    owner = (data / "postgres").stat().st_uid if os.geteuid() == 0 else None
    stranger = subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=owner, cwd="/")
    with stranger:
        (data / "postgres" / "postmaster.pid").write_text(f"{stranger.pid}\n{data}/postgres\n")
        server.start()
        assert stranger.poll() is None
    assert ask(server, "SELECT 1") == 1


@pytest.mark.usefixtures("sight")
def test_server_of_a_killed_owner_is_stopped_and_its_rows_kept(data: Path, announced: list[str]) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        sockets, pid = owner.stdout.readline().split()
        owner.kill()
    orphan = psutil.Process(int(pid))
    with EmbeddedPostgres(data, announced.append) as server:
        assert announced == [f"stopping the PostgreSQL that was left running here (process {pid})"]
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        assert not Path(sockets).exists()
        assert ask(server, "SELECT answer FROM orphaned") == 42


def test_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    half_made = tmp_path / "postgres.new-killed"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path, print) as server:
        assert ask(server, "SELECT 1") == 1
    assert not list(tmp_path.glob("postgres.new*"))


def test_cluster_of_another_major_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres"
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedFailed, match=r"PostgreSQL 17.*(\n.*)*pg_dump"):
        EmbeddedPostgres(tmp_path, print).start()
    assert [(path.name, path.read_text()) for path in cluster.iterdir()] == [("PG_VERSION", "17\n")]


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedFailed, match=str(tmp_path / "file")):
        EmbeddedPostgres(tmp_path / "file" / "data", print).start()


def test_server_that_ends_at_once_is_quoted_and_the_folder_given_back(server: EmbeddedPostgres, data: Path) -> None:
    server.stop()
    configuration = data / "postgres" / "postgresql.auto.conf"
    before = configuration.read_bytes()
    configuration.write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedFailed, match="no_such_setting"):
        server.start()
    configuration.write_bytes(before)
    server.start()
    assert ask(server, "SELECT 1") == 1


def test_surroundings_do_not_reach_the_server(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.stop()
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", str(tmp_path))
    server.start()
    assert ask(server, "SHOW port") == "5432"
    server.stop()
    assert not list(deep.iterdir())


def test_long_log_is_set_aside(server: EmbeddedPostgres, data: Path) -> None:
    server.stop()
    log = data / "postgres.log"
    os.truncate(log, 11 * 1024 * 1024)
    server.start()
    assert log.stat().st_size < 1024 * 1024
    assert (data / "postgres.log.1").stat().st_size == 11 * 1024 * 1024

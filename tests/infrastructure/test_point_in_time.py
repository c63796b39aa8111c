"""What docs/operations.md says of a restore to a point in time: a base backup, and what the server archived since, are
the log of any moment between; the sealer goes on where nothing that it signed is missing, and refuses where it is.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from application.sealer import SealRefused
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.postgres.database import Database
from infrastructure.postgres.schema import health, migrate
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.infrastructure.test_backup import differences
from tests.infrastructure.test_restore import EVENTS, program
from tests.past import some_jobs
from tests.sealing import Sealing
from tests.waiting import eventually

LAST_FILE = "SELECT pg_walfile_name(pg_switch_wal())"
ARCHIVED = "SELECT last_archived_wal >= %s FROM pg_stat_archiver"


class Moment(NamedTuple):
    """A moment of the log: its time, and what there was by then."""

    at: datetime
    events: int
    sealed: int


class Archived(NamedTuple):
    """A log whose server is gone for good; what is left is what was kept elsewhere."""

    folder: Path
    owner: str
    events: list[tuple[object, ...]]
    before: Moment
    """Some was sealed after it."""
    after: Moment
    """All that was ever sealed is older; events followed that never were."""

    @property
    def seal(self) -> Path:
        return self.folder / "seal"


@pytest.fixture(scope="module")
def archived() -> Iterator[Archived]:
    """In a folder of its own, where the server's user gets to the archive."""
    folder = Path(tempfile.mkdtemp(prefix="point-in-time-"))
    folder.chmod(0o711)
    try:
        yield _lived(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lived(folder: Path) -> Archived:
    """Keep the write-ahead log of a server, and let three times jobs be done: before the first moment, the second, and
    after both.
    """
    log = EmbeddedPostgres(folder / "log", lambda line: None)
    with ExitStack() as stack:
        stack.callback(log.stop)
        dsn = log.start()
        owner = (folder / "log" / "postgres").owner()
        (folder / "wal").mkdir()
        shutil.chown(folder / "wal", owner)
        log.stop()
        with (folder / "log" / "postgres" / "postgresql.auto.conf").open("a") as settings:
            settings.write("archive_mode = on\n")
            settings.write(f"archive_command = 'test ! -f {folder}/wal/%f && cp %p {folder}/wal/%f'\n")
        dsn = migrated(log.start())
        program("pg_basebackup", f"--pgdata={folder / 'base'}", "--checkpoint=fast", f"--dbname={dsn}")
        sealing = Sealing(dsn, folder / "seal")
        stack.callback(sealing.close)
        with Node(dsn) as node:
            some_jobs(node)
            sealing.all()
            before = _moment(dsn)
            some_jobs(node)
            sealing.all()
            after = _moment(dsn)
            some_jobs(node)
        events, ((last,),) = ask(dsn, EVENTS), ask(dsn, LAST_FILE)
        eventually(lambda: ask(dsn, ARCHIVED, (last,)) == [(True,)])
        return Archived(folder, owner, events, before, after)


def _moment(dsn: str) -> Moment:
    """This one; what commits from now on is later."""
    ((at, events, sealed),) = ask(dsn, "SELECT clock_timestamp(), (SELECT count(*) FROM events), size FROM seal")
    return Moment(at, events, sealed)


@pytest.fixture
def restored(archived: Archived, tmp_path: Path) -> Iterator[Callable[[datetime | None], str]]:
    """Restores the log to a moment, or to its end: its address, on a server of its own."""
    servers = ExitStack()

    def to(at: datetime | None) -> str:
        cluster = tmp_path / "restored" / "postgres"
        shutil.copytree(archived.folder / "base", cluster)
        with (cluster / "postgresql.auto.conf").open("a") as settings:
            settings.write("archive_mode = off\n")
            settings.write(f"restore_command = 'cp {archived.folder}/wal/%f %p'\n")
            if at is not None:
                settings.write(f"recovery_target_time = '{at.isoformat()}'\nrecovery_target_action = promote\n")
        (cluster / "recovery.signal").touch()
        for path in (cluster, *cluster.rglob("*")):
            shutil.chown(path, archived.owner, archived.owner)
        server = EmbeddedPostgres(tmp_path / "restored", lambda line: None)
        servers.callback(server.stop)
        return server.start()

    with servers:
        yield to


@pytest.fixture
def seal(archived: Archived, tmp_path: Path) -> Path:
    """The key and the checkpoint beside it, from where the service ran."""
    return shutil.copytree(archived.seal, tmp_path / "seal")


def goes_on(dsn: str) -> None:
    """Positions rise and jobs are made, with nothing to be done first."""
    database = Database(dsn)
    assert health(database).positions_rise
    assert migrate(database) == []
    database.close()
    ((last,),) = ask(dsn, "SELECT max(notification_id) FROM events")
    with Node(dsn) as node:
        (id,) = node.started(new_job(queue="goes on"))
    ((position,),) = ask(dsn, f"SELECT min(notification_id) FROM events WHERE originator_id = '{id}'")
    assert position > last


def test_to_its_end_nothing_is_missing(
    archived: Archived, restored: Callable[[datetime | None], str], seal: Path
) -> None:
    dsn = restored(None)
    assert ask(dsn, EVENTS) == archived.events
    goes_on(dsn)
    sealing = Sealing(dsn, seal)
    newest = (seal / "checkpoint").read_text("utf-8")
    assert sealing.all() > 0
    sealing.check()
    assert differences(sealing, newest) == []
    sealing.close()


def test_to_a_moment_by_which_all_was_sealed_the_sealer_goes_on(
    archived: Archived, restored: Callable[[datetime | None], str], seal: Path
) -> None:
    """What is lost was sealed by nobody: those who were told of it ask again."""
    dsn = restored(archived.after.at)
    assert ask(dsn, EVENTS) == archived.events[: archived.after.events]
    goes_on(dsn)
    sealing = Sealing(dsn, seal)
    newest = (seal / "checkpoint").read_text("utf-8")
    assert sealing.all() > 0
    assert sealing.store.lag().refusal is None
    assert sealing.check() > archived.after.sealed
    assert differences(sealing, newest) == []
    sealing.close()


def test_to_a_moment_before_what_was_sealed_the_sealer_refuses(
    archived: Archived, restored: Callable[[datetime | None], str], seal: Path
) -> None:
    """Also once the log has grown past the checkpoint: it is another log from there on."""
    dsn = restored(archived.before.at)
    assert ask(dsn, EVENTS) == archived.events[: archived.before.events]
    assert ask(dsn, "SELECT size FROM seal") == [(archived.before.sealed,)]
    goes_on(dsn)
    with Node(dsn) as node:
        while ask(dsn, "SELECT count(*) FROM events")[0][0] <= archived.after.sealed:
            some_jobs(node)
    sealing = Sealing(dsn, seal)
    newest = (seal / "checkpoint").read_text("utf-8")
    with pytest.raises(SealRefused, match="restored from an older backup"):
        sealing.sealer.run_once()
    assert "older backup" in (sealing.store.lag().refusal or "")
    assert (seal / "checkpoint").read_text("utf-8") == newest
    assert ask(dsn, "SELECT size FROM seal") == [(archived.before.sealed,)]
    (found,) = differences(sealing, newest)
    assert "was an older backup restored?" in found

    (seal / "checkpoint").unlink()  # they are lost for good, and somebody has said so
    assert sealing.all() > 0
    sealing.check()
    (found,) = differences(sealing, newest)
    assert "the log does not extend it" in found
    sealing.close()

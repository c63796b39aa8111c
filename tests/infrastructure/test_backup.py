"""What docs/operations.md says of backups: one taken while the service runs is the log of that moment, and the sealer
does not go on from an older one until somebody says so.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from application.sealer import SealRefused
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.postgres.database import Database
from infrastructure.postgres.log_verification import Verifier, plan
from infrastructure.postgres.schema import health, migrate
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.infrastructure.test_restore import EVENTS, program
from tests.past import some_jobs
from tests.sealing import Sealing


class Backup(NamedTuple):
    """A log that went on after its base backup was taken, and the backup as a server of its own."""

    log: str
    restored: str
    kept: Path
    """The folder `seal` of the log, which the backup does not have."""
    events: int


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backup]:
    folder = tmp_path_factory.mktemp("backup")
    log, restored = (EmbeddedPostgres(folder / name, lambda line: None) for name in ("log", "restored"))
    copy = folder / "restored" / "postgres"
    copy.parent.mkdir()
    try:
        dsn = migrated(log.start())
        with Node(dsn) as node:
            some_jobs(node)
            sealing = Sealing(dsn, folder / "log" / "seal")
            sealing.all()
            program("pg_basebackup", f"--pgdata={copy}", "--checkpoint=fast", f"--dbname={dsn}")
            program("pg_verifybackup", "--quiet", str(copy))
            ((events,),) = ask(dsn, "SELECT count(*) FROM events")
            some_jobs(node)
            sealing.all()
            sealing.close()
        owner = (folder / "log" / "postgres").stat()
        for path in (copy, *copy.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        yield Backup(dsn, restored.start(), folder / "log" / "seal", events)
    finally:
        restored.stop()
        log.stop()


def differences(sealing: Sealing, *known: str) -> list[str]:
    """What `audit verify` finds, held against checkpoints that somebody kept."""
    verifier = Verifier(sealing.database, sealing.keys.verifiers(), list(known))
    return [str(found.first) for found in map(verifier.check, plan(sealing.database).units) if found.differences]


def test_a_base_backup_is_the_log_of_that_moment(backup: Backup) -> None:
    database = Database(backup.restored)
    assert health(database).positions_rise
    assert migrate(database) == []
    database.close()
    assert ask(backup.restored, EVENTS) == ask(backup.log, EVENTS)[: backup.events]
    with Node(backup.restored) as node:
        ((last,),) = ask(backup.restored, "SELECT max(notification_id) FROM events")
        (id,) = node.started(new_job(queue="goes on"))
        ((position,),) = ask(backup.restored, f"SELECT min(notification_id) FROM events WHERE originator_id = '{id}'")
        assert position > last


def test_what_was_sealed_since_is_missed_until_somebody_says_that_it_is_lost(backup: Backup, tmp_path: Path) -> None:
    """The key and the checkpoint beside it are not in the backup: they are brought from where the service ran."""
    seal = tmp_path / "seal"
    shutil.copytree(backup.kept, seal)
    sealing = Sealing(backup.restored, seal)
    newest = (seal / "checkpoint").read_text("utf-8")
    with pytest.raises(SealRefused, match="restored from an older backup"):
        sealing.sealer.run_once()
    assert "older backup" in (sealing.store.lag().refusal or "")
    assert differences(sealing) == []
    (found,) = differences(sealing, newest)
    assert "was an older backup restored?" in found

    (seal / "checkpoint").rename(tmp_path / "checkpoint of the log that was lost")
    assert sealing.all() > 0
    assert sealing.store.lag().refusal is None
    sealing.check()
    while sealing.checkpoints()[-1].size < ask(backup.log, "SELECT size FROM seal")[0][0]:
        with Node(backup.restored) as node:
            node.create(*[new_job(queue="more") for _ in range(10)])
        sealing.all()
    assert differences(sealing) == []
    (found,) = differences(sealing, newest)
    assert "another root; the log does not extend it" in found, "who kept the checkpoint can prove that it was"
    sealing.close()

"""Whoever changes the log behind its back, as a superuser with triggers off, is found, and what he did is named."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from msgspec import Raw
from psycopg import Connection

from application.log_verification import Checked, Unit
from application.reports import CompletionReport, ProgressReport
from domain.audit import GENESIS, chain
from domain.merkle import SIZE, leaf_hash, split
from domain.notes import Checkpoint, read, write
from infrastructure.postgres.log_verification import Verifier, plan
from infrastructure.signing import SigningKey
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.sealing import Sealing


class Tampered:
    """A sealed log of some jobs, what somebody did to it, and what a verification says."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.sealing = Sealing(dsn, folder)
        with Node(dsn) as node:
            self.ids = node.started(*[new_job(input=Raw(b'{"n":%d}' % n)) for n in range(300)])
            for n, id in enumerate(self.ids[:10]):
                node.say(ProgressReport(job_id=id, attempt=1, progress=0.5, message=f"half of {n}"))
                node.say(CompletionReport(job_id=id, attempt=1, result=Raw(b"%d" % n)))
            self.sealing.all()
            node.create(new_job(queue="late"))
            self.sealing.all()

    def as_superuser(self, statement: LiteralString, values: Any = ()) -> int:
        """Do it with the triggers off; how many rows it was."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("SET session_replication_role = replica")
            return connection.execute(statement, values).rowcount

    def verified(self, keys: list[str] | None = None, known: list[str] | None = None) -> Checked:
        verification = plan(self.sealing.database)
        given = [key.key for key in self.sealing.store.sealing_keys()] if keys is None else keys
        kept = self.sealing.keys.last()
        verifier = Verifier(self.sealing.database, given, [kept] if known is None and kept else known or [])
        for n, unit in enumerate(verification.units):
            verification.done[n] = verifier.check(unit)
        return verification.total

    def first(self, **expected: Any) -> Checked:
        """What is found, of which the first must be this."""
        found = self.verified()
        assert found.first is not None, "not found"
        told = {name: getattr(found.first, name) for name in expected}
        assert told == expected, str(found.first)
        return found

    def position(self, id: UUID, version: int) -> int:
        query = "SELECT notification_id FROM events WHERE originator_id = %s AND originator_version = %s"
        ((position,),) = ask(self.dsn, query, [id, version])
        return int(position)


@pytest.fixture
def log(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Tampered]:
    tampered = Tampered(migrated(new_database()), tmp_path / "seal")
    found = tampered.verified()
    assert (found.differences, found.first) == (0, None)
    assert (found.events, found.jobs, found.leaves, found.checkpoints) == (621, 301, 621, 2)
    yield tampered
    tampered.sealing.close()


@pytest.fixture
def id(log: Tampered) -> UUID:
    return log.ids[3]


def test_a_changed_byte(log: Tampered, id: UUID) -> None:
    change = """
        UPDATE events SET state = convert_to(replace(convert_from(state, 'UTF8'), 'half of 3', 'half of 4'), 'UTF8')
        WHERE originator_id = %s AND originator_version = 3
    """
    assert log.as_superuser(change, [id]) == 1
    found = log.first(job_id=id, version=3, field="hash")
    assert found.differences == 2, "the view tells another message, too"


def test_a_changed_byte_with_its_hash_made_anew(log: Tampered, id: UUID) -> None:
    """The chain holds, since all of it was made anew; the seal does not."""
    rows = ask(log.dsn, "SELECT originator_version, topic, state FROM events WHERE originator_id = %s ORDER BY 1", [id])
    hash = GENESIS
    for version, topic, state in rows:
        state = state.replace(b'"n":3', b'"n":4') if version == 1 else state
        hash = chain(hash, id, version, topic, state)
        change = "UPDATE events SET state = %s, hash = %s WHERE originator_id = %s AND originator_version = %s"
        log.as_superuser(change, [state, hash, id, version])
    log.as_superuser("UPDATE jobs SET input = '{\"n\":4}'::bytea WHERE id = %s", [id])
    found = log.first(job_id=id, version=1, field="leaf")
    assert found.differences == 4, "every event of the job is another one"


def test_a_deleted_event(log: Tampered, id: UUID) -> None:
    log.as_superuser("DELETE FROM events WHERE originator_id = %s AND originator_version = 2", [id])
    found = log.first(job_id=id, version=2, field="version")
    assert "missing" in str(found.first)


def test_a_deleted_event_whose_followers_were_renumbered(log: Tampered, id: UUID) -> None:
    log.as_superuser("DELETE FROM events WHERE originator_id = %s AND originator_version = 3", [id])
    move = "UPDATE events SET originator_version = 3 WHERE originator_id = %s AND originator_version = 4"
    assert log.as_superuser(move, [id]) == 1
    log.first(job_id=id, version=3, field="hash")


def test_a_deleted_job(log: Tampered, id: UUID) -> None:
    log.as_superuser("DELETE FROM events WHERE originator_id = %s", [id])
    found = log.first(job_id=id, version=1, field="version")
    assert "the view has the job at version 4" in str(found.first)


def test_a_deleted_job_with_its_row(log: Tampered, id: UUID) -> None:
    position = log.position(id, 1)
    log.as_superuser("DELETE FROM events WHERE originator_id = %s", [id])
    log.as_superuser("DELETE FROM jobs WHERE id = %s", [id])
    found = log.first(job_id=None, position=str(position), field="leaf")
    assert found.differences == 4, "nothing is left that names the job, but each of its four leaves is missed"


def test_two_events_with_their_contents_swapped(log: Tampered, id: UUID) -> None:
    swap = """
        UPDATE events SET topic = other.topic, state = other.state, recorded_at = other.recorded_at
        FROM events AS other
        WHERE events.originator_id = %s AND other.originator_id = events.originator_id
          AND (events.originator_version, other.originator_version) IN ((3, 4), (4, 3))
    """
    assert log.as_superuser(swap, [id]) == 2
    log.first(job_id=id, version=3, field="hash")


def swap_positions(log: Tampered, one: UUID, other: UUID) -> None:
    """The first events of two jobs change places in the log."""
    first, second = log.position(one, 1), log.position(other, 1)
    move = "UPDATE events SET notification_id = %s WHERE originator_id = %s AND originator_version = 1"
    for position, id in ((1, one), (first, other), (second, one)):
        assert log.as_superuser(move, [position, id]) == 1


def test_two_positions_swapped_after_they_were_sealed(log: Tampered) -> None:
    one, other = log.ids[3], log.ids[4]
    swap_positions(log, one, other)
    found = log.first(job_id=other, version=1, field="leaf", position=str(log.position(other, 1)))
    assert "another event was sealed" in str(found.first)
    assert found.differences == 2


def test_two_positions_swapped_before_they_are_sealed_cannot_be_seen(log: Tampered) -> None:
    """The chain proves an order within each job, and the seal the order of all; before the seal there is none."""
    with Node(log.dsn) as node:
        one, other = node.create(new_job(), new_job())
    first, second = log.position(one, 1), log.position(other, 1)
    swap_positions(log, one, other)
    log.as_superuser("UPDATE jobs SET position = %s WHERE id = %s", [second, one])
    log.as_superuser("UPDATE jobs SET position = %s WHERE id = %s", [first, other])
    log.sealing.all()
    found = log.verified()
    assert (found.differences, found.leaves) == (0, 623)


def test_an_inserted_event(log: Tampered, id: UUID) -> None:
    """With a chain that holds, at a position of its own among those that are sealed."""
    ((topic, state, hash, at),) = ask(
        log.dsn,
        "SELECT topic, state, hash, recorded_at FROM events WHERE originator_id = %s AND originator_version = 4",
        [id],
    )
    insert = "INSERT INTO events VALUES (%s, 5, %s, %s, %s, %s, %s)"
    position = log.position(id, 4) + 1
    log.as_superuser("UPDATE jobs SET version = 5, position = %s WHERE id = %s", [position, id])
    forged = chain(hash, id, 5, topic, state)
    assert log.as_superuser(insert, [id, topic, state, forged, position, at]) == 1
    found = log.first(job_id=id, version=5, field="leaf")
    assert "inserted" in str(found.first)
    assert found.differences == 1


def test_a_truncated_tail(log: Tampered, id: UUID) -> None:
    log.as_superuser("DELETE FROM events WHERE originator_id = %s AND originator_version > 2", [id])
    found = log.first(job_id=id, version=2)
    assert found.differences > 2


def test_a_truncated_tail_with_the_view_put_back(log: Tampered) -> None:
    """The last event of the log is taken away, and the job with it."""
    ((position, id),) = ask(log.dsn, "SELECT notification_id, originator_id FROM events ORDER BY 1 DESC LIMIT 1")
    log.as_superuser("DELETE FROM events WHERE notification_id = %s", [position])
    log.as_superuser("DELETE FROM jobs WHERE id = %s", [id])
    log.first(position=str(position), field="leaf")


def test_a_view_that_was_changed(log: Tampered, id: UUID) -> None:
    log.as_superuser("UPDATE jobs SET result = '42'::bytea WHERE id = %s", [id])
    found = log.first(job_id=id, version=4, field="result")
    assert found.differences == 1
    assert found.first is not None
    assert "42" not in found.first.says, "what a job came to is not for a report"


def test_a_moment_that_was_changed(log: Tampered, id: UUID) -> None:
    move = "UPDATE events SET recorded_at = recorded_at - interval '1 h' WHERE originator_id = %s"
    log.as_superuser(f"{move} AND originator_version = 3", [id])
    log.first(job_id=id, version=3, field="recorded_at")


def test_an_event_that_cannot_be_read(log: Tampered, id: UUID) -> None:
    log.as_superuser("UPDATE events SET state = '{' WHERE originator_id = %s AND originator_version = 4", [id])
    found = log.first(job_id=id, version=4, field="hash")
    assert found.differences > 2


def test_a_checkpoint_signed_anew_with_another_key(log: Tampered) -> None:
    ((size, note),) = ask(log.dsn, "SELECT size, note FROM seal_checkpoints ORDER BY size DESC LIMIT 1")
    genuine = [key.key for key in log.sealing.store.sealing_keys()]
    other = SigningKey.make(Checkpoint.parse(read(note)[0]).origin)
    text = read(note)[0]
    change = "UPDATE seal_checkpoints SET note = %s WHERE size = %s"
    log.as_superuser(change, [write(text, [other.sign(text)]), size])
    found = log.first(field="signature")
    assert f"checkpoint of {size} events" in str(found.first)
    add = "INSERT INTO seal_keys VALUES (%s, now(), now())"
    log.as_superuser(add, [other.verifier])
    assert log.verified().differences == 0, "who takes the keys from the database believes the database"
    assert log.verified(keys=genuine).differences == 1


def test_a_seal_made_anew_from_a_changed_log(log: Tampered, id: UUID) -> None:
    """Tiles made to fit, but not the signed roots, for which one needs the key."""
    log.as_superuser("UPDATE events SET hash = %s WHERE originator_id = %s AND originator_version = 4", [b"x" * 32, id])
    position = log.position(id, 4)
    index = log.sealing.store.leaf(position)
    assert index is not None
    tile, at = divmod(index, 256)
    hashes = split(log.sealing.store.tile(0, tile))
    hashes[at] = leaf_hash(b"x" * 32)
    change = "UPDATE seal_tiles SET hashes = %s WHERE level = 0 AND index = %s"
    assert log.as_superuser(change, [b"".join(hashes), tile]) == 1
    found = log.first(job_id=id, version=4, field="hash")
    assert found.differences >= 3, "the chain, the tile above or the roots"


def test_checkpoints_that_were_removed(log: Tampered) -> None:
    log.as_superuser("DELETE FROM seal_checkpoints WHERE size = (SELECT max(size) FROM seal_checkpoints)")
    found = log.first(field="checkpoint")
    assert "some were removed" in str(found.first)


def test_tiles_that_were_removed(log: Tampered) -> None:
    log.as_superuser("DELETE FROM seal_tiles WHERE level = 0 AND index = 1")
    log.first(field="tile")


def test_a_log_that_is_behind_a_checkpoint_somebody_kept(log: Tampered) -> None:
    kept = log.sealing.keys.last()
    assert kept is not None
    smaller, _ = log.sealing.checkpoints()
    with psycopg.connect(log.dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM jobs WHERE position = (SELECT max(position) FROM jobs)")
        connection.execute("DELETE FROM events WHERE notification_id = (SELECT position FROM seal)")
        connection.execute("DELETE FROM seal_checkpoints WHERE size > %s", [smaller.size])
        _cut_seal(connection, smaller.size)
    found = log.first(field="checkpoint")
    assert "was an older backup restored?" in str(found.first)
    assert log.verified(known=[]).differences == 0, "nothing in the restored log itself is wrong"


def _cut_seal(connection: Connection, size: int) -> None:
    """Make the seal what it was at an earlier size within the same tile."""
    index, width = divmod(size, 256)
    cut = "UPDATE seal_tiles SET hashes = substr(hashes, 1, %s), positions = substr(positions, 1, %s)"
    connection.execute(f"{cut} WHERE level = 0 AND index = %s".encode(), [width * SIZE, width * 8, index])
    last = "SELECT notification_id FROM events ORDER BY 1 DESC LIMIT 1"
    connection.execute(f"UPDATE seal SET size = %s, position = ({last})".encode(), [size])


def test_units_cover_everything_once(log: Tampered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.postgres.log_verification.JOBS", 7)
    monkeypatch.setattr("infrastructure.postgres.log_verification.TILES", 1)
    monkeypatch.setattr("infrastructure.postgres.log_verification.CHECKPOINTS", 1)
    units = plan(log.sealing.database).units
    by_kind: dict[str, list[Unit]] = {}
    for unit in units:
        by_kind.setdefault(unit.of, []).append(unit)
    assert [len(by_kind[of]) for of in ("jobs", "leaves", "checkpoints")] == [44, 3, 3]
    for group in by_kind.values():
        assert all(one.high == two.low for one, two in pairwise(group))
    found = log.verified()
    assert (found.events, found.jobs, found.leaves, found.checkpoints, found.differences) == (621, 301, 621, 2, 0)

"""A seal whose key is lost: it goes on under a new one when told to, and only with what extends what was signed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from application.log_verification import Unit
from application.rekeying import Rekeyed, rekey
from application.sealer import SealRefused
from domain.merkle import check_consistency, consistency
from domain.notes import Malformed
from infrastructure.postgres.database import Database
from infrastructure.postgres.log_verification import Verifier
from infrastructure.postgres.seal import PostgresAccesses
from infrastructure.signing import SigningKey, signers
from tests.infrastructure.nodes import Node, ask, new_job
from tests.sealing import ORIGIN, Sealing

REASON = "the disk of the machine that sealed is gone"


@pytest.fixture
def node(own: str) -> Iterator[Node]:
    with Node(own) as node:
        yield node


@pytest.fixture
def sealing(own: str, node: Node, tmp_path: Path) -> Iterator[Sealing]:
    """A sealer that has sealed three jobs, and then has no key any more."""
    sealing = Sealing(own, tmp_path / "seal")
    node.create(*[new_job() for _ in range(3)])
    sealing.all()
    (tmp_path / "seal" / "keys").rename(tmp_path / "lost")
    node.create(new_job())
    yield sealing
    sealing.close()


def rekeyed(sealing: Sealing, *known: str) -> Rekeyed:
    lost = known or [key.key for key in sealing.store.sealing_keys()]
    return rekey(sealing.store, sealing.keys, PostgresAccesses(sealing.database), lost, REASON)


def notes(sealing: Sealing) -> list[str]:
    return [note for (note,) in ask(sealing.dsn, "SELECT note FROM seal_checkpoints ORDER BY size")]


def test_without_it_nothing_is_signed_and_the_way_out_is_named(sealing: Sealing) -> None:
    for _ in range(2):
        with pytest.raises(SealRefused, match="`jobledger audit rekey`"):
            sealing.sealer.run_once()
    assert len(notes(sealing)) == 1


def test_a_new_key_goes_on_where_the_lost_one_ended(sealing: Sealing, node: Node, tmp_path: Path) -> None:
    (old,) = [key.key for key in sealing.store.sealing_keys()]
    done = rekeyed(sealing)
    assert (done.size, done.lost) == (3, [old])
    assert len(notes(sealing)) == 1, "the command itself signs nothing"
    assert sealing.all() == 1
    node.create(new_job())
    assert sealing.all() == 1
    assert sealing.check() == 5
    assert [signers(note, [old, done.key]) for note in notes(sealing)] == [[old], [done.key], [done.key]]
    first, *_, last = sealing.checkpoints()
    proof = consistency(first.size, last.size, sealing.store.tile)
    check_consistency(first.size, last.size, first.root, last.root, proof)
    assert sealing.keys.verifiers() == [old, done.key]
    assert (tmp_path / "seal" / "keys").stat().st_mode & 0o777 == 0o600
    database = Database(sealing.dsn)
    checked = Verifier(database, sealing.keys.verifiers(), notes(sealing)).check(Unit("checkpoints", "0", "99"))
    database.close()
    assert (checked.checkpoints, checked.first) == (3, None), "checkpoints of the old key stay verifiable"


def test_it_is_recorded_who_did_it_and_why(sealing: Sealing) -> None:
    done = rekeyed(sealing)
    [access] = PostgresAccesses(sealing.database).page(100, 10)
    assert (access.by, access.action, access.job_id) == ("system:rekey", "rekey", None)
    assert (access.filter, access.reason) == (f"size=3&key={done.key}", REASON)


def test_the_new_key_can_be_exchanged_like_any(sealing: Sealing, node: Node) -> None:
    (old,) = [key.key for key in sealing.store.sealing_keys()]
    second = rekeyed(sealing).key
    third = sealing.keys.rotate(datetime.now(UTC) + timedelta(days=7))
    sealing.all()
    assert signers(notes(sealing)[-1], [old, second, third]) == [second, third]
    assert sealing.keys.verifiers() == [old, second, third]


def test_a_key_that_is_not_lost_is_not_replaced(sealing: Sealing, tmp_path: Path) -> None:
    (tmp_path / "lost").rename(tmp_path / "seal" / "keys")
    with pytest.raises(SealRefused, match="is here, and not lost; to exchange it, use `jobledger audit keys --rotate`"):
        rekeyed(sealing)
    assert sealing.all() == 1


def test_another_logs_key_is_to_be_moved_away_first(sealing: Sealing, tmp_path: Path) -> None:
    (tmp_path / "seal" / "keys").write_text(SigningKey.make(ORIGIN).written() + "\n")
    with pytest.raises(SealRefused, match="a key is here that signed nothing of this log"):
        rekeyed(sealing)


def test_a_log_that_was_never_sealed_needs_none(own: str, tmp_path: Path) -> None:
    sealing = Sealing(own, tmp_path / "seal")
    with pytest.raises(SealRefused, match="nothing of this log is sealed yet"):
        rekey(sealing.store, sealing.keys, PostgresAccesses(sealing.database), [], REASON)
    sealing.close()


def test_what_was_signed_by_a_key_that_does_not_count_is_not_gone_on_with(sealing: Sealing) -> None:
    with pytest.raises(SealRefused, match="signed by none of the public keys that count here"):
        rekeyed(sealing, SigningKey.make(ORIGIN).verifier)
    assert sealing.keys.verifiers() == []


@pytest.mark.parametrize("kept", [True, False], ids=["with the checkpoint kept beside", "with nothing left"])
def test_tiles_that_are_not_those_that_were_signed_are_not_gone_on_with(
    sealing: Sealing, tmp_path: Path, kept: bool
) -> None:
    if not kept:
        (tmp_path / "seal" / "checkpoint").unlink()
    with psycopg.connect(sealing.dsn) as superuser:
        superuser.execute("SET session_replication_role = replica")
        superuser.execute("UPDATE seal_tiles SET hashes = overlay(hashes PLACING '\\x00'::bytea FROM 40)")
    with pytest.raises(SealRefused, match="not those that the last checkpoint was signed for"):
        rekeyed(sealing)
    assert not (tmp_path / "seal" / "keys").exists()


def test_a_restored_backup_is_not_gone_on_with(sealing: Sealing, node: Node, tmp_path: Path) -> None:
    """The checkpoint kept beside the lost key knows more than the log."""
    (tmp_path / "lost").rename(tmp_path / "seal" / "keys")
    tiles = ask(sealing.dsn, "SELECT hashes, positions FROM seal_tiles")
    before = ask(sealing.dsn, "SELECT size, position, sealed_at FROM seal")
    sealing.all()
    (tmp_path / "seal" / "keys").unlink()
    with psycopg.connect(sealing.dsn) as restored:
        restored.execute("SET session_replication_role = replica")
        restored.execute("UPDATE seal_tiles SET hashes = %s, positions = %s", tiles[0])
        restored.execute("DELETE FROM seal_checkpoints WHERE size > 3")
        restored.execute("UPDATE seal SET size = %s, position = %s, sealed_at = %s", before[0])
    with pytest.raises(SealRefused, match="it was restored from an older backup"):
        rekeyed(sealing)
    assert sealing.keys.verifiers() == []


def test_a_key_in_the_settings_is_replaced_there(sealing: Sealing) -> None:
    sealing.keys._given = next(key.key for key in sealing.store.sealing_keys())
    with pytest.raises(Malformed, match="JOBLEDGER_SEAL_KEY is set"):
        rekeyed(sealing)

"""The sealer over a real log: what it seals, what it refuses, and that many sealers are one."""

import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest

from application.sealer import SealRefused
from domain.merkle import check_consistency, consistency
from infrastructure.signing import Keyring, SigningKey, signers
from tests.infrastructure.nodes import Node, ask, new_job
from tests.sealing import ORIGIN, Sealing
from tests.waiting import eventually

Make = Callable[[str], Sealing]


@pytest.fixture
def make(own: str, tmp_path: Path) -> Iterator[Make]:
    """Makes sealers over it, each with a named folder for its keys."""
    made: list[Sealing] = []

    def sealing(folder: str) -> Sealing:
        made.append(Sealing(own, tmp_path / folder))
        return made[-1]

    yield sealing
    for one in made:
        one.close()


@pytest.fixture
def node(own: str) -> Iterator[Node]:
    with Node(own) as node:
        yield node


def test_every_event_becomes_a_leaf_in_the_order_of_the_log(make: Make, node: Node) -> None:
    sealing = make("a")
    assert sealing.sealer.run_once() == 0
    for count in (1, 2, 255, 256, 1, 800):
        node.create(*[new_job() for _ in range(count)])
        assert sealing.all() == count
    assert sealing.check() == 1315
    assert sealing.all() == 0
    assert [one.size for one in sealing.checkpoints()] == [1, 3, 258, 514, 515, 1315]


def test_each_checkpoint_extends_the_one_before(make: Make, node: Node) -> None:
    sealing = make("a")
    for _ in range(5):
        node.started(new_job(), new_job())
        sealing.all()
    checkpoints = sealing.checkpoints()
    assert len(checkpoints) == 5
    for one, two in pairwise(checkpoints):
        proof = consistency(one.size, two.size, sealing.store.tile)
        check_consistency(one.size, two.size, one.root, two.root, proof)


def test_what_an_open_transaction_may_yet_precede_is_left_for_later(make: Make, node: Node, own: str) -> None:
    sealing = make("a")
    node.create(new_job())
    sealing.all()
    with psycopg.connect(own) as other:
        other.execute("SELECT pg_current_xact_id()")
        node.create(new_job())
        assert sealing.sealer.run_once() == 0
        assert sealing.store.lag().seconds > 0
    assert sealing.all() == 1
    assert sealing.store.lag().events == 0


def test_the_first_key_is_made_readable_by_its_owner_alone_and_stays(make: Make, node: Node, tmp_path: Path) -> None:
    node.create(new_job())
    make("a").all()
    kept = tmp_path / "a" / "keys"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    written = kept.read_text()
    node.create(new_job())
    make("a").all()
    assert kept.read_text() == written
    assert sorted(file.name for file in kept.parent.iterdir()) == ["checkpoint", "keys"]
    note = (tmp_path / "a" / "checkpoint").read_text()
    assert signers(note, [SigningKey.parse(written).verifier])
    assert note.startswith(f"{ORIGIN}\n2\n")


def test_many_sealers_are_one(make: Make, node: Node, tmp_path: Path) -> None:
    first = make("a")
    node.create(new_job())
    first.all()
    others = [make("a") for _ in range(3)]
    refused: list[BaseException] = []

    def seal(sealing: Sealing) -> None:
        try:
            while not stop.is_set():
                sealing.sealer.run_once()
        except BaseException as error:
            refused.append(error)

    stop = threading.Event()
    threads = [threading.Thread(target=seal, args=[one]) for one in others]
    for thread in threads:
        thread.start()
    for _ in range(40):
        node.create(*[new_job() for _ in range(30)])
    stop.set()
    for thread in threads:
        thread.join(30)
    assert refused == []
    first.all()
    assert first.check() == 1201


def test_a_sealer_that_another_forestalled_writes_nothing(make: Make, node: Node) -> None:
    sealing = make("a")
    node.create(new_job())
    sealing.all()
    before = sealing.store.sealed()
    node.create(new_job())
    new = sealing.store.unsealed(before.position, 10)
    late = sealing.sealer._extension(before, new, ORIGIN)
    with psycopg.connect(sealing.dsn) as other:
        other.execute("SELECT FROM seal FOR UPDATE")
        assert not sealing.store.extend(before, late)
    sealing.all()
    assert not sealing.store.extend(before, late)
    assert sealing.check() == 2


def test_a_sealer_that_takes_over_keeps_what_the_other_signed(make: Make, node: Node, tmp_path: Path) -> None:
    node.create(new_job())
    make("a").all()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "keys").write_text((tmp_path / "a" / "keys").read_text())
    assert make("b").all() == 0
    assert (tmp_path / "b" / "checkpoint").read_text() == (tmp_path / "a" / "checkpoint").read_text()


def test_a_sealer_without_the_logs_key_refuses(make: Make, node: Node, own: str) -> None:
    node.create(new_job())
    make("a").all()
    stranger = make("b")
    with pytest.raises(SealRefused, match="its key is not here"):
        stranger.sealer.run_once()
    stranger.keys.make()
    with pytest.raises(SealRefused, match="not signed by a key that is here"):
        stranger.sealer.run_once()
    assert ask(own, "SELECT refusal FROM seal") == [(None,)], "the log itself is well"


def test_keys_are_exchanged_with_overlap(make: Make, node: Node, tmp_path: Path) -> None:
    sealing = make("a")
    node.create(new_job())
    sealing.all()
    (old,) = [key.key for key in sealing.store.sealing_keys()]
    new = sealing.keys.rotate(datetime.now(UTC) + timedelta(days=7))
    node.create(new_job())
    sealing.all()
    notes = [note for (note,) in ask(sealing.dsn, "SELECT note FROM seal_checkpoints ORDER BY size")]
    assert [signers(note, [old, new]) for note in notes] == [[old], [old, new]]

    kept = tmp_path / "a" / "keys"
    first, second = kept.read_text().splitlines()
    past = datetime.now(UTC) - timedelta(seconds=1)
    kept.write_text(f"{first.partition(' until ')[0]} until {past.isoformat()}\n{second}\n")
    node.create(new_job())
    sealing.all()
    notes = [note for (note,) in ask(sealing.dsn, "SELECT note FROM seal_checkpoints ORDER BY size")]
    assert signers(notes[2], [old, new]) == [new]
    periods = {key.key: (key.first_signed_at, key.last_signed_at) for key in sealing.store.sealing_keys()}
    assert periods[old][0] < periods[new][0] < periods[old][1] + timedelta(seconds=1) < periods[new][1] + timedelta(1)
    assert periods[old][1] < periods[new][1]
    kept.write_text(f"{second} until {past.isoformat()}\n")
    node.create(new_job())
    with pytest.raises(SealRefused, match="the time of every key"):
        sealing.all()


def test_keys_may_come_from_a_setting(tmp_path: Path) -> None:
    one, two = SigningKey.make("log"), SigningKey.make("log")
    given = Keyring(tmp_path, lambda: "other", f"{one.written()} until 2020-01-01T00:00:00+00:00, {two.written()}")
    assert given.origin() == "log"
    assert given.sign("text\n", datetime.now(UTC))[1] == [two.verifier]
    assert list(tmp_path.iterdir()) == []


def test_a_log_restored_from_an_older_backup_is_not_sealed(make: Make, node: Node, own: str) -> None:
    sealing = make("a")
    node.create(new_job(), new_job())
    sealing.all()
    backup = ask(own, "SELECT size, position, sealed_at FROM seal")
    note = sealing.store.sealed_to()
    tiles = ask(own, "SELECT level, index, hashes, positions, first_position FROM seal_tiles")
    node.create(new_job())
    sealing.all()
    with psycopg.connect(own) as restored:
        restored.execute("SET session_replication_role = replica")
        restored.execute("DELETE FROM events WHERE notification_id > %s", [backup[0][1]])
        restored.execute("DELETE FROM jobs WHERE position > %s", [backup[0][1]])
        restored.execute("DELETE FROM seal_tiles")
        for tile in tiles:
            restored.execute("INSERT INTO seal_tiles VALUES (%s, %s, %s, %s, %s)", tile)
        restored.execute("DELETE FROM seal_checkpoints WHERE size > %s", [backup[0][0]])
        restored.execute("UPDATE seal SET size = %s, position = %s, sealed_at = %s", backup[0])
    assert sealing.store.sealed_to() == note
    with pytest.raises(SealRefused, match="is of 3 events, and this log has sealed 2: it was restored from an older"):
        sealing.sealer.run_once()
    node.create(new_job())
    with pytest.raises(SealRefused, match="restored from an older backup"):
        sealing.sealer.run_once()
    assert "older backup" in (sealing.store.lag().refusal or "")

    (sealing_elsewhere := make("b")).keys._given = (Path(sealing.keys._folder) / "keys").read_text()
    node.create(new_job(), new_job())
    assert sealing_elsewhere.all() == 3, "it has not seen the checkpoint that was lost, and cannot know"
    with pytest.raises(SealRefused, match="does not extend the checkpoint of 3 events"):
        sealing.sealer.run_once()
    (Path(sealing.keys._folder) / "checkpoint").unlink()
    assert sealing.sealer.run_once() == 0
    assert sealing.store.lag().refusal is None, "an operator who takes the checkpoint away has decided"


def test_tiles_that_were_changed_are_not_built_upon(make: Make, node: Node, own: str) -> None:
    sealing = make("a")
    node.create(*[new_job() for _ in range(3)])
    sealing.all()
    with psycopg.connect(own) as other:
        other.execute("SET session_replication_role = replica")
        other.execute("UPDATE seal_tiles SET hashes = overlay(hashes PLACING '\\x00'::bytea FROM 40)")
    node.create(new_job())
    with pytest.raises(SealRefused, match="not those that the last checkpoint was signed for"):
        sealing.sealer.run_once()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE seal_checkpoints SET note = 'x'",
        "DELETE FROM seal_checkpoints",
        "TRUNCATE seal_checkpoints",
        "DELETE FROM seal_tiles",
        "TRUNCATE seal_tiles",
        "UPDATE seal_tiles SET hashes = overlay(hashes PLACING '\\x00'::bytea FROM 1)",
        "UPDATE seal_tiles SET hashes = substr(hashes, 1, 32), positions = substr(positions, 1, 8)",
        "UPDATE seal_tiles SET positions = overlay(positions PLACING '\\x01'::bytea FROM 1)",
        "UPDATE accesses SET by = 'nobody'",
        "DELETE FROM accesses",
    ],
)
def test_what_is_sealed_cannot_be_changed(make: Make, node: Node, own: str, statement: str) -> None:
    sealing = make("a")
    node.create(new_job(), new_job())
    sealing.all()
    with psycopg.connect(own) as superuser, pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        superuser.execute(statement.encode())


def test_the_leaf_of_an_event_is_found_by_its_position(make: Make, node: Node, own: str) -> None:
    sealing = make("a")
    node.create(*[new_job() for _ in range(600)])
    sealing.all()
    places = [place for (place,) in ask(own, "SELECT notification_id FROM events ORDER BY 1")]
    for index in (0, 255, 256, 599):
        assert sealing.store.leaf(places[index]) == index
    assert sealing.store.leaf(places[0] - 1) is None
    assert sealing.store.leaf(places[-1] + 1) is None


def test_a_fresh_checkpoint_is_left_alone_for_a_while(make: Make, node: Node) -> None:
    sealing = make("a")
    node.create(new_job())
    sealing.all()
    node.create(new_job())
    assert sealing.sealer.run_once(age=3600) == 0
    eventually(lambda: sealing.sealer.run_once(age=0.01) == 1)

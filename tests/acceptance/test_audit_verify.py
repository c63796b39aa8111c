"""`jobledger audit verify` as a process: in parallel, stopped and gone on with, and what it says of differences."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from application.log_verification import Verification
from infrastructure.postgres import log_verification
from infrastructure.postgres.database import Database
from infrastructure.postgres.log_verification import plan
from tests.conftest import Start
from tests.infrastructure.nodes import Node, new_job
from tests.sealing import Sealing


@pytest.fixture(scope="module")
def data(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a sealed log."""
    data = tmp_path_factory.mktemp("data")
    with Node(dsn) as node:
        node.started(*[new_job() for _ in range(400)])
    sealing = Sealing(dsn, data / "seal")
    sealing.all()
    sealing.close()
    return data


@pytest.fixture
def tampered(dsn: str, data: Path) -> Iterator[str]:
    """A job of which an event was changed, until the test is over."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        row = connection.execute("SELECT originator_id, state FROM events WHERE originator_version = 2 LIMIT 1")
        ((id, state),) = row.fetchall()
        change = "UPDATE events SET state = %s WHERE originator_id = %s AND originator_version = 2"
        connection.execute(change, [state.replace(b'"w1"', b'"w2"'), id])
        yield str(id)
        connection.execute(change, [state, id])


def test_a_log_that_is_right(dsn: str, data: Path, start: Start) -> None:
    run = start("audit", "verify", "--workers", "2", "--data", str(data), DATABASE_URL=dsn)
    said = run.wait_for_line("events of 400 jobs")
    assert re.search(r"800 events of 400 jobs, 800 sealed, 1 checkpoints: [\d,]+ events/s", said)
    assert run.wait_for_line("nothing differs")
    assert run.process.wait(60) == 0
    assert not (data / "audit-verify.json").exists()


def test_a_log_that_was_changed(dsn: str, data: Path, start: Start, tampered: str) -> None:
    run = start("audit", "verify", "--data", str(data), DATABASE_URL=dsn)
    assert run.wait_for_line("2 differences, the first of them")
    assert f"job {tampered}, version 2: hash" in run.wait_for_line(tampered)
    assert run.process.wait(60) == 1
    run = start("audit", "verify", "--json", "--data", str(data), DATABASE_URL=dsn)
    found = json.loads(run.wait_for_line('"differences"'))
    assert (found["differences"], found["first"]["job_id"], found["first"]["version"]) == (2, tampered, 2)
    assert run.process.wait(60) == 1


def test_it_goes_on_where_it_was_stopped(
    dsn: str, data: Path, start: Start, tampered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that is done is not done again: the tampered job is in it, and it is on record as right."""
    monkeypatch.setattr(log_verification, "JOBS", 10)
    database = Database(dsn)
    stopped: Verification = plan(database)
    database.close()
    verifier = log_verification.Verifier(database, [], [])
    for n, unit in enumerate(stopped.units):
        if unit.of == "jobs" and not unit.low <= tampered < unit.high and n % 2:
            stopped.done[n] = verifier.check(unit)
    state = data / "state.json"
    state.write_bytes(msgspec.json.encode(stopped))
    database.close()
    arguments = ("audit", "verify", "--json", "--data", str(data), "--state", str(state))
    run = start(*arguments, DATABASE_URL=dsn)
    found = json.loads(run.wait_for_line('"differences"'))
    assert (found["events"], found["differences"]) == (800, 2)
    assert run.process.wait(60) == 1
    assert not state.exists()
    for n, unit in enumerate(stopped.units):
        if unit.of == "jobs" and unit.low <= tampered < unit.high:
            stopped.done[n] = msgspec.structs.replace(verifier.check(unit), differences=0, first=None)
    state.write_bytes(msgspec.json.encode(stopped))
    database.close()
    run = start(*arguments, DATABASE_URL=dsn)
    assert json.loads(run.wait_for_line('"differences"'))["differences"] == 0
    assert run.process.wait(60) == 0


def test_a_key_and_a_checkpoint_from_elsewhere_are_held_against_it(dsn: str, data: Path, start: Start) -> None:
    other = Sealing(dsn, data / "other")
    other.keys.make()
    (data / "kept").write_text(other.keys.sign("log\n900\n" + "A" * 43 + "=\n", other.store.sealed().now)[0])
    (key,) = other.keys.verifiers()
    other.close()
    run = start("audit", "verify", "--key", key, "--data", str(data), DATABASE_URL=dsn)
    assert "no key that counts has signed it" in run.wait_for_line("signature")
    assert run.process.wait(60) == 1
    run = start("audit", "verify", "--checkpoint", str(data / "kept"), "--data", str(data), DATABASE_URL=dsn)
    assert run.wait_for_line("checkpoint that was kept outside the database")
    assert run.process.wait(60) == 1


def test_what_is_no_key_is_refused_in_a_sentence(dsn: str, data: Path, start: Start) -> None:
    for arguments, said, status in (
        (("verify", "--key", "none"), "--key: this is no verifier key", 2),
        (("keys", "--rotate"), "there is no key in", 1),
    ):
        run = start("audit", *arguments, "--data", str(data / "nowhere"), DATABASE_URL=dsn)
        assert run.wait_for_line("jobledger: ").startswith(f"jobledger: {said}")
        assert run.process.wait(60) == status


def test_keys_that_signed_are_shown_to_who_cannot_read_the_data_folder(dsn: str, data: Path, start: Start) -> None:
    (data / "closed" / "seal" / "keys").mkdir(parents=True)  # also root cannot read that as a file
    run = start("audit", "keys", "--data", str(data / "closed"), DATABASE_URL=dsn)
    assert run.wait_for_line("jobledger/tests")
    assert run.process.wait(60) == 0


def test_keys_are_shown_and_exchanged(dsn: str, data: Path, start: Start) -> None:
    run = start("audit", "keys", "--data", str(data), DATABASE_URL=dsn)
    assert re.match(r"jobledger/tests\+[0-9a-f]{8}\+\S+  20", run.wait_for_line("jobledger/tests"))
    assert run.process.wait(60) == 0
    run = start("audit", "keys", "--rotate", "--overlap", "3", "--data", str(data), DATABASE_URL=dsn)
    assert re.match(r"jobledger/tests\+[0-9a-f]{8}\+\S+  has ", run.wait_for_line("has signed nothing yet"))
    assert run.process.wait(60) == 0
    run = start("audit", "keys", "--json", "--data", str(data), DATABASE_URL=dsn)
    signed, yet = json.loads(run.wait_for_line("last_signed_at"))
    assert (signed["last_signed_at"] is None, yet["last_signed_at"]) == (False, None)
    old, new = (data / "seal" / "keys").read_text().splitlines()
    assert " until 20" in old
    assert " until " not in new

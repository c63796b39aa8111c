"""A month leaves the log for an archive and comes back, and nothing is lost, changed or forgotten on the way."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from msgspec import structs

from application.archives import ArchiveRefused, Gone
from application.jobs import Requeue
from application.reports import Beat, CompletionReport, Say
from application.retention import Busy, RetentionRefused
from application.sweeper import Found
from domain.audit import GENESIS, chain
from domain.refusals import Conflict
from infrastructure.postgres.contents import PostgresContents
from infrastructure.postgres.log_verification import Verifier, plan
from infrastructure.postgres.projections import VIEWS
from infrastructure.postgres.schema import health, migrate
from interfaces.cli import verify
from tests.infrastructure.nodes import ASKED, Node, ask, new_job
from tests.infrastructure.test_partitions import writing
from tests.keeping import MONTH, Kept
from tests.past import at, month_before, some_jobs
from tests.sealing import Sealing

TABLES = ("events", "jobs", "archived_leaves")


@pytest.fixture
def kept(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(new_database(), tmp_path)
    yield kept
    kept.close()


def test_a_month_leaves_and_comes_back_as_it_was(kept: Kept) -> None:
    before = {table: kept.rows(table) for table in TABLES}
    partitions = ask(kept.dsn, "SELECT * FROM event_partitions")
    row = kept.retention.archive(MONTH)
    assert (row.state, row.jobs, row.events) == ("archived", 6, 20)
    assert kept.file.name == row.name
    assert len(kept.rows("jobs")) == len(before["jobs"]) - 6
    assert len(kept.rows("events")) == len(before["events"]) - 20
    assert ask(kept.dsn, f"SELECT to_regclass('events_{MONTH:%Y_%m}')") == [(None,)]
    found = kept.retention.check(MONTH)
    assert (found.month, found.jobs, found.events) == (MONTH, 6, 20)
    row = kept.retention.restore(MONTH)
    assert row.state == "returned"
    assert {table: kept.rows(table) for table in TABLES} == before
    assert ask(kept.dsn, "SELECT * FROM event_partitions") == partitions


class TestAMonthStays:
    def reasons(self, kept: Kept, day: date = MONTH) -> str:
        """What keeps it, by its plan and by the refusal, which changes nothing."""
        before = {table: kept.rows(table) for table in (*TABLES, "archives")}
        reasons = kept.retention.plan(day).reasons
        with pytest.raises(RetentionRefused) as refused:
            kept.retention.archive(day)
        assert {table: kept.rows(table) for table in before} == before
        assert all(reason in str(refused.value) for reason in reasons)
        assert kept.steps == []
        return "; ".join(reasons)

    def test_while_it_is_not_over(self, kept: Kept) -> None:
        assert "it is not over" in self.reasons(kept, datetime.now(UTC).date().replace(day=1))

    def test_while_a_job_has_not_ended_which_it_names(self, kept: Kept) -> None:
        with Node(kept.dsn) as node:
            for id in kept.old[:2]:
                node.one(Requeue(job_id=id, reason="again", asked=ASKED))
        kept.settle()
        first = f"{min(kept.old[:2])}, {max(kept.old[:2])}"
        assert f"2 of its jobs have not ended: {first}" in self.reasons(kept)

    def test_while_a_job_ended_within_a_day(self, kept: Kept) -> None:
        with Node(kept.dsn) as node:
            node.one(Requeue(job_id=kept.old[0], reason="again", asked=ASKED))
            assert node.claim() == [kept.old[0]]
            node.say(CompletionReport(job_id=kept.old[0], attempt=2))
        kept.settle()
        assert self.reasons(kept) == "1 of its jobs ended within the last 24 hours"

    def test_until_it_is_sealed_and_projected(self, kept: Kept) -> None:
        with Node(at(kept.dsn, month_before(2) + timedelta(days=5))) as node:
            some_jobs(node)
        reasons = self.reasons(kept)
        assert "are not sealed" in reasons
        assert "projection 'usage' has not got through it" in reasons
        kept.settle()
        assert kept.retention.archive(MONTH).jobs == 12

    def test_when_it_has_no_jobs_or_is_not_there(self, kept: Kept) -> None:
        assert self.reasons(kept, month_before(3).date()) == "it has no jobs"
        with pytest.raises(RetentionRefused, match="no partition"):
            kept.retention.plan(date(2001, 1, 1))

    def test_when_it_left_already_or_never_did(self, kept: Kept) -> None:
        with pytest.raises(RetentionRefused, match="is in the log"):
            kept.retention.restore(MONTH)
        kept.retention.archive(MONTH)
        with pytest.raises(RetentionRefused, match="was archived already, as"):
            kept.retention.archive(MONTH)

    def test_that_has_an_event_which_is_not_what_was_sealed(self, kept: Kept) -> None:
        before = {table: kept.rows(table) for table in ("jobs", "archives", "archived_leaves")}
        with psycopg.connect(kept.dsn) as connection:
            connection.execute("SET session_replication_role = replica")
            change = "UPDATE events SET state = %s WHERE originator_id = %s AND originator_version = 1"
            connection.execute(change, [b"{}", kept.old[0]])
        with pytest.raises(ArchiveRefused, match=f"event 1 of job {kept.old[0]} is not what was recorded"):
            kept.retention.archive(MONTH)
        assert {table: kept.rows(table) for table in before} == before
        with Node(kept.dsn) as node:
            node.one(Requeue(job_id=kept.old[1], reason="it can be appended to", asked=ASKED))

    def test_while_somebody_reads_or_verifies_and_no_writer_waits_for_that(
        self, kept: Kept, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("application.retention.PATIENCE", 1.0)
        with psycopg.connect(kept.dsn) as reader:
            reader.execute("SELECT 1 FROM events LIMIT 1")
            with writing(kept.dsn) as writers, pytest.raises(Busy, match="transactions that others have open"):
                kept.retention.archive(MONTH)
            assert writers.ids
        verifying = "INSERT INTO verifications (name, asked_by, reason, beat_at) VALUES ('usage', '', '', now())"
        ask(kept.dsn, verifying)
        kept.settle()
        with pytest.raises(Busy, match="'usage' is being verified"):
            kept.retention.archive(MONTH)
        ask(kept.dsn, "UPDATE verifications SET finished_at = now()")
        kept.office.operator.rebuild("usage", "key:test", "because")
        with pytest.raises(Busy, match="projection 'usage' has not got through it"):
            kept.retention.archive(MONTH)
        kept.office.desk.projector.build()
        assert kept.retention.archive(MONTH).state == "archived"


class TestWhileItLeaves:
    def test_its_jobs_are_closed_and_others_of_the_same_batch_are_not(self, kept: Kept) -> None:
        answers: list[Any] = []

        def requeue(step: str) -> None:
            if step == "written":
                with Node(kept.dsn) as node:
                    ids = (kept.old[0], kept.ids[6])
                    answers.extend(node.execute(*(Requeue(job_id=id, reason="x", asked=ASKED) for id in ids)))

        kept.with_steps(requeue).archive(MONTH)
        refused, accepted = answers
        assert isinstance(refused, Conflict)
        assert f"job {kept.old[0]} is of a month that is being archived" in str(refused)
        assert accepted.job_ids == (kept.ids[6],)

    def test_the_log_verifies_at_every_step(self, kept: Kept) -> None:
        checked: dict[str, int] = {}

        def verify(step: str) -> None:
            found = verified(kept)
            assert found.differences == 0, (step, str(found.first))
            checked[step] = found.archived

        retention = kept.with_steps(verify)
        retention.archive(MONTH)
        assert (checked["leaving"], checked["archived"]) == (0, 20)
        retention.restore(MONTH)
        assert checked.keys() >= {"closed", "removing", "loaded", "attached", "making rows", "returned"}
        assert checked["returned"] == 0

    def test_one_command_at_a_time(self, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("infrastructure.postgres.retention.ALONE_SECONDS", 0.0)

        def again(step: str) -> None:
            with pytest.raises(Busy, match="another `jobledger retention`"):
                kept.retention.archive(MONTH)

        kept.with_steps(again).archive(MONTH)


def verified(kept: Kept) -> Any:
    """What `audit verify` comes to, and what a verification of the view of jobs does."""
    verification = plan(kept.database)
    verifier = Verifier(kept.database, kept.sealing.keys.verifiers(), [])
    for n, unit in enumerate(verification.units):
        verification.done[n] = verifier.check(unit)
    assert kept.office.verified("jobs").differences == 0
    return verification.total


class TestWhatItLeavesBehind:
    def test_its_jobs_are_gone_wherever_one_asks(self, kept: Kept) -> None:
        kept.retention.archive(MONTH)
        id = kept.old[0]
        with Node(kept.dsn) as node:
            for command in (
                Requeue(job_id=id, reason="x", asked=ASKED),
                Say(report=CompletionReport(job_id=id, attempt=1), worker="w1"),
            ):
                with pytest.raises(
                    Gone, match=f"job {id} is of {MONTH:%Y-%m}, which left the log at 20.*{kept.file.name}"
                ):
                    node.one(command)
            assert node.leases.extend([Beat(id, 1, "w1")]) == [None]
            assert node.leases.archives([id, kept.live])[id].name == kept.file.name
            archive = node.views.archive_of(id)
            assert archive is not None
            assert (archive.month, archive.name) == (MONTH, kept.file.name)
            assert node.views.archive_of(kept.live) is None
        assert kept.sealing.store.entries(0) is None
        assert kept.sealing.store.archive_under(0) == archive

    def test_what_projections_made_of_it_stays_through_rebuilds_and_verifies(self, kept: Kept) -> None:
        names = [view.name for view in VIEWS]
        before = {name: kept.office.desk.rows(name) for name in names}
        assert sum(used.input_tokens for used in before["usage"].values()) == 22
        kept.retention.archive(MONTH)
        for name in names:
            assert kept.office.desk.rows(name) == before[name]
            assert kept.office.verified(name).differences == 0
            kept.office.rebuilt(name)
            rebuilt = kept.office.desk.rows(name)
            if name == "failures":  # which message came last cannot be told without the log
                rebuilt = {key: structs.replace(row, message="", examples=[]) for key, row in rebuilt.items()}
                before[name] = {key: structs.replace(row, message="", examples=[]) for key, row in before[name].items()}
            assert rebuilt == before[name]
            assert kept.office.verified(name).differences == 0
        kept.retention.restore(MONTH)
        for name in names:
            kept.office.rebuilt(name)
            assert kept.office.verified(name).differences == 0
        assert kept.office.desk.rows("usage") == before["usage"]
        assert ask(kept.dsn, "SELECT count(*) FROM usage WHERE generation < 0") == [(0,)]

    def test_a_view_that_was_changed_is_still_found(self, kept: Kept) -> None:
        kept.retention.archive(MONTH)
        ask(kept.dsn, "UPDATE usage SET attempts = attempts + 1 WHERE generation = 1 AND day < %s", [month_before(1)])
        assert kept.office.verified("usage").differences > 0

    def test_the_sweeper_leaves_its_files_alone(self, kept: Kept) -> None:
        kept.retention.archive(MONTH)
        ask(kept.dsn, "UPDATE artifact_contents SET stored_at = now() - interval '99 days'")
        found = [Found("ab/" + "ab" * 32, 123, month_before(2), "ab" * 32)]
        contents = PostgresContents(kept.database)
        contents.tidy(0)
        assert contents.unnamed(found, 0) == contents.condemn(found, 0) == set()

    def test_what_is_missing_beside_it_is_still_found(self, kept: Kept) -> None:
        kept.retention.archive(MONTH)
        with psycopg.connect(kept.dsn) as connection:
            connection.execute("SET session_replication_role = replica")
            remove = "DELETE FROM events WHERE originator_id = %s AND originator_version = 3"
            assert connection.execute(remove, [kept.ids[7]]).rowcount == 1
        kept_from_office = plan(kept.database)
        verifier = Verifier(kept.database, kept.sealing.keys.verifiers(), [])
        said = [verifier.check(unit) for unit in kept_from_office.units]
        assert any("was deleted, or moved" in str(checked.first) for checked in said)

    def test_a_new_cluster_goes_on_above_its_positions(self, kept: Kept) -> None:
        """The highest position may be of an event that has left the log."""
        ask(kept.dsn, "UPDATE seal SET position = ((pg_current_xact_id()::text::bigint + 1000) << 16) | 1")
        assert not health(kept.database).positions_rise
        assert migrate(kept.database) == []
        assert health(kept.database).positions_rise


CHANGED = {
    "test_in_an_event": "hash differs",
    "test_in_an_event_with_its_hashes_made_anew": "does not have this event at leaf",
    "test_by_an_event_less": "20 leaves are marked",
    "test_by_an_event_in_between": "one is missing, or was added",
    "test_by_a_job_twice": "out of order",
    "test_in_a_leaf": "do not make the root",
    "test_in_what_is_the_months": "is not marked as the month's",
    "test_by_another_checkpoint": "is not that key's",
    "test_that_has_no_end": "ends before its footer",
}
"""What the program for auditors says of each change."""


class TestAnArchiveThatWasChanged:
    def rewritten(self, kept: Kept, change: Callable[[list[Any]], Any], *, recorded: bool = True) -> None:
        """Write it anew, and have the database take it for the one that was written."""
        lines = [json.loads(line) for line in gzip.decompress(kept.file.read_bytes()).splitlines()]
        change(lines)
        content = gzip.compress(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        kept.file.write_bytes(content)
        if recorded:
            query = "UPDATE archives SET sha256 = %s, bytes = %s, jobs = %s, events = %s"
            jobs, events = lines[-1].get("jobs", 6), lines[-1].get("events", 20)
            ask(kept.dsn, query, [hashlib.sha256(content).digest(), len(content), jobs, events])

    def refused(self, kept: Kept, change: Callable[[list[Any]], Any], said: str, *, recorded: bool = True) -> None:
        kept.retention.archive(MONTH)
        self.rewritten(kept, change, recorded=recorded)
        before = {table: kept.rows(table) for table in TABLES}
        for act in (kept.retention.check, kept.retention.restore):
            with pytest.raises(ArchiveRefused, match=said):
                act(MONTH)
        assert {table: kept.rows(table) for table in TABLES} == before
        assert ask(kept.dsn, "SELECT state FROM archives") == [("archived",)]
        assert ask(kept.dsn, f"SELECT to_regclass('events_{MONTH:%Y_%m}')") == [(None,)]

    def test_by_one_byte(self, kept: Kept) -> None:
        self.refused(kept, lambda lines: None, "is another file than the one that was written", recorded=False)

    def test_in_an_event(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            event = events_of(lines)[0]
            event["state"] = event["state"].replace('"n":0', '"n":9')

        self.refused(kept, change, f"event 1 of job {kept.old[0]}: its content")

    def test_in_an_event_with_its_hashes_made_anew(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            previous = GENESIS
            for event in [e for e in events_of(lines) if e["job_id"] == str(kept.old[0])]:
                event["state"] = event["state"].replace('"n":0', '"n":9')
                place = (UUID(event["job_id"]), event["version"], event["topic"])
                previous = chain(previous, *place, event["state"].encode())
                event["hash"] = previous.hex()

        self.refused(kept, change, "the log that was signed does not have it at leaf")

    def test_by_an_event_less(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            del lines[-2]
            lines[-1]["events"] -= 1

        self.refused(kept, change, "20 leaves are marked as the month's")

    def test_by_an_event_in_between(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            lines.remove(next(e for e in events_of(lines) if e["version"] == 2))

        self.refused(kept, change, "one is missing, or was added")

    def test_by_a_job_twice(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            lines[-1:-1] = [e for e in events_of(lines) if e["job_id"] == str(kept.old[0])]

        self.refused(kept, change, "is out of order")

    def test_in_a_leaf(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            tile = next(line for line in lines if line.get("level") == 0)
            tile["hashes"] = "AAAA" + tile["hashes"][4:]

        self.refused(kept, change, "not that of this log's seal")

    def test_in_what_is_the_months(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            tile = next(line for line in lines if line.get("level") == 0)
            tile["leaves"] = "fe" + tile["leaves"][2:]

        self.refused(kept, change, "does not mark as the month's")

    def test_by_another_checkpoint(self, kept: Kept) -> None:
        def change(lines: list[Any]) -> None:
            lines[0]["checkpoint"] = lines[0]["checkpoint"].replace("jobledger/tests\n", "jobledger/other\n", 1)

        self.refused(kept, change, "is not that key's")

    def test_that_has_no_end(self, kept: Kept) -> None:
        self.refused(kept, lambda lines: lines.pop(), "ends before its footer")

    def test_that_is_not_there(self, kept: Kept) -> None:
        kept.retention.archive(MONTH)
        kept.file.unlink()
        with pytest.raises(ArchiveRefused, match="set JOBLEDGER_ARCHIVES to where it is"):
            kept.retention.restore(MONTH)


class TestWithoutAnythingOfOurs:
    """`jobledger verify` of an archive: a program that imports nothing of ours."""

    def test_an_archive_proves_itself(self, kept: Kept) -> None:
        kept.retention.archive(MONTH)
        keys = kept.sealing.keys.verifiers()
        found = verify.verify_archive(str(kept.file), keys)
        assert (found["month"], found["jobs"], found["events"], found["size"]) == (f"{MONTH:%Y-%m}", 6, 20, 41)
        assert verify.run(str(kept.file), keys) == verify.PROVEN
        other = Sealing(kept.dsn, kept.folder / "other")
        other.keys.make()
        with pytest.raises(verify.Difference, match="none of the keys given signed it"):
            verify.verify_archive(str(kept.file), other.keys.verifiers())
        other.close()

    @pytest.mark.parametrize("name", CHANGED)
    def test_what_was_changed_is_named(self, kept: Kept, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same changes as above, made by the same tests."""
        changed = TestAnArchiveThatWasChanged()

        def refused(kept: Kept, change: Callable[[list[Any]], Any], said: str) -> None:
            kept.retention.archive(MONTH)
            changed.rewritten(kept, change)
            with pytest.raises(verify.Difference, match=CHANGED[name]):
                verify.verify_archive(str(kept.file), kept.sealing.keys.verifiers())
            assert verify.run(str(kept.file), kept.sealing.keys.verifiers(), as_json=True) == verify.NOT_PROVEN

        monkeypatch.setattr(changed, "refused", refused)
        getattr(changed, name)(kept)

    def test_a_file_that_is_none_is_told_so(self, kept: Kept) -> None:
        kept.retention.archive(MONTH)
        content, file = kept.file.read_bytes(), kept.file
        for wrong in (content[: len(content) // 2], gzip.compress(b"{}\n"), gzip.compress(b"hello\n")):
            file.write_bytes(wrong)
            assert verify.run(str(file), kept.sealing.keys.verifiers()) == verify.USAGE


def test_a_month_of_many_tiles_that_others_have_leaves_in(kept: Kept) -> None:
    """Its jobs end while others of the next month are recorded; some tiles are full, and some are nobody else's."""
    then, later = (Node(at(kept.dsn, month_before(n) + timedelta(days=5))) for n in (2, 1))
    with then, later:
        for count in (300, 20, 3, 150):
            old = then.create(*[new_job(queue="many") for _ in range(count)])
            new = later.create(*[new_job(queue="others") for _ in range(count)])
            for node, queue, ids in ((then, "many", old), (later, "others", new)):
                assert set(node.claim(count=count, queue=queue)) == set(ids)
                node.execute(*(Say(report=CompletionReport(job_id=id, attempt=1), worker="w1") for id in ids))
    kept.settle()
    before = {table: kept.rows(table) for table in TABLES}
    row = kept.retention.archive(MONTH)
    assert (row.jobs, row.events) == (6 + 473, 20 + 3 * 473)
    assert kept.retention.check(MONTH).size == 41 + 6 * 473
    found = verify.verify_archive(str(kept.file), kept.sealing.keys.verifiers())
    assert (found["jobs"], found["events"]) == (row.jobs, row.events)
    checked = verified(kept)
    assert (checked.differences, checked.archived) == (0, row.events)
    kept.retention.restore(MONTH)
    assert {table: kept.rows(table) for table in TABLES} == before


def events_of(lines: list[Any]) -> list[Any]:
    return [line for line in lines if "topic" in line]

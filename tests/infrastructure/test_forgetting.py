"""The files of an archived month may go that nothing else names, and no others, however often somebody is killed."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from application.artifacts import Stored, pieces
from application.forgetting import Forgetting
from application.reports import ArtifactReport, CompletionReport
from application.retention import RetentionRefused
from application.sweeper import Sweeper
from domain.events import Artifact
from infrastructure.artifacts import ObjectArtifacts
from infrastructure.postgres.contents import PostgresContents, name_contents
from infrastructure.postgres.forgetting import PostgresNames
from infrastructure.postgres.projections import VIEWS
from infrastructure.postgres.retention import PostgresMonths
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.keeping import MONTH, Kept
from tests.past import at, month_before
from tests.waiting import eventually

NEXT = month_before(1).date()
ONLY, SHARED, REPLACED = b"only of this month", b"of both months", b"replaced by another of the same name"
WAITS = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%artifact_names%')"
ACCESSES = "SELECT by, action, filter, reason FROM accesses"


class Shelf:
    """A log with files: some of one month alone, one of this month and the next; and what sweeps them."""

    def __init__(self, kept: Kept, folder: Path) -> None:
        self.kept = kept
        self.dsn = kept.dsn
        self.folder = folder
        self.store = ObjectArtifacts(str(folder), folder / "uploads", lambda: "ours")
        self.sweeper = Sweeper(self.store, PostgresContents(kept.database))
        self.steps: list[str] = []
        self.forgetting = forgetting(kept, self.steps.append)
        self.id = self.job(month_before(2) + timedelta(days=4), REPLACED, ONLY, SHARED)
        self.job(month_before(1) + timedelta(days=4), SHARED)
        kept.settle()

    def job(self, moment: datetime, *contents: bytes) -> UUID:
        """One that named each of the contents as its one file, and has ended."""
        with Node(at(self.dsn, moment)) as node:
            (id,) = node.started(new_job())
            for content in contents:
                artifact = Artifact(name="a", sha256=self.save(content), size=len(content), media_type="text/plain")
                node.say(ArtifactReport(job_id=id, attempt=1, artifact=artifact))
            node.say(CompletionReport(job_id=id, attempt=1))
        return id

    def save(self, content: bytes) -> str:
        async def admit(stored: Stored) -> None:
            pass

        return asyncio.run(self.store.save(pieces(content), 1000, admit)).sha256

    def sweep(self) -> None:
        """As a week later."""
        ask(self.dsn, "UPDATE artifact_contents SET stored_at = stored_at - interval '7 days'")
        self.sweeper.run_once(0)

    def has(self, content: bytes) -> bool:
        sha256 = hashlib.sha256(content).hexdigest()
        return (self.folder / sha256[:2] / sha256).exists()

    def left(self) -> set[bytes]:
        """What is there after the sweeper was."""
        self.sweep()
        return {content for content in (ONLY, SHARED, REPLACED) if self.has(content)}


def forgetting(kept: Kept, tell: Callable[[str], None]) -> Forgetting:
    return Forgetting(PostgresMonths(kept.database, VIEWS), PostgresNames(kept.database), tell)


@pytest.fixture
def shelf(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Shelf]:
    kept = Kept(new_database(), tmp_path / "kept")
    yield Shelf(kept, tmp_path / "artifacts")
    kept.close()


def test_archiving_keeps_every_file(shelf: Shelf) -> None:
    shelf.kept.retention.archive(MONTH)
    assert shelf.left() == {ONLY, SHARED, REPLACED}


def test_what_only_the_month_names_is_left_to_the_sweeper(shelf: Shelf) -> None:
    shelf.kept.retention.archive(MONTH)
    assert shelf.forgetting.plan(MONTH).contents == 2
    assert shelf.left() == {ONLY, SHARED, REPLACED}, "that was dry"
    assert ask(shelf.dsn, ACCESSES) == []
    assert shelf.forgetting.forget(MONTH, "two years are over").contents == 2
    assert shelf.left() == {SHARED}
    assert shelf.kept.retention.archives()[f"{MONTH:%Y-%m}"].files_forgotten_at is not None
    shelf.forgetting.forget(MONTH, "once more")
    assert shelf.left() == {SHARED}
    assert ask(shelf.dsn, ACCESSES) == [("system:retention", "forget", f"month={MONTH:%Y-%m}", "two years are over")], (
        "what was recorded first stands"
    )
    assert shelf.kept.retention.check(MONTH).jobs == 7, "the archive is proven as before"


def test_files_of_a_month_in_the_log_are_kept(shelf: Shelf) -> None:
    with pytest.raises(RetentionRefused, match="is not archived"):
        shelf.forgetting.forget(MONTH, "why not")
    assert shelf.left() == {ONLY, SHARED, REPLACED}
    assert ask(shelf.dsn, ACCESSES) == []


def test_what_an_archive_names_whose_files_are_kept_is_kept_too(shelf: Shelf) -> None:
    for month in (MONTH, NEXT):
        shelf.kept.retention.archive(month)
    shelf.forgetting.forget(MONTH, "over")
    assert shelf.left() == {SHARED}
    assert shelf.forgetting.forget(NEXT, "over").contents == 2, "that of both months, and one of the jobs of `kept`"
    assert shelf.left() == set()


def test_what_a_job_stores_anew_is_kept(shelf: Shelf) -> None:
    shelf.kept.retention.archive(MONTH)
    shelf.forgetting.forget(MONTH, "over")
    shelf.job(month_before(0), ONLY)
    assert shelf.left() == {ONLY, SHARED}
    shelf.forgetting.forget(MONTH, "over")
    assert shelf.left() == {ONLY, SHARED}


def test_what_a_job_names_at_that_very_moment_is_kept(shelf: Shelf) -> None:
    """Its transaction is still open when the month is forgotten: it is waited for."""
    shelf.kept.retention.archive(MONTH)
    with shelf.kept.database.connection() as connection:
        connection.execute("BEGIN")
        name_contents(connection, {(hashlib.sha256(ONLY).hexdigest(), shelf.kept.live)}, datetime.now().astimezone())
        forgetting = threading.Thread(target=shelf.forgetting.forget, args=(MONTH, "over"), daemon=True)
        forgetting.start()
        eventually(lambda: ask(shelf.dsn, WAITS) == [(True,)], what="the wait for what is being named")
        connection.execute("COMMIT")
    forgetting.join(20)
    assert not forgetting.is_alive()
    assert shelf.left() == {ONLY, SHARED}


class TestAMonthThatComesBack:
    def test_keeps_what_was_not_swept_yet(self, shelf: Shelf) -> None:
        shelf.kept.retention.archive(MONTH)
        shelf.forgetting.forget(MONTH, "over")
        shelf.kept.retention.restore(MONTH)
        assert shelf.left() == {ONLY, SHARED, REPLACED}

    def test_has_its_jobs_as_they_were_and_lacks_what_was_swept(self, shelf: Shelf) -> None:
        before = {table: shelf.kept.rows(table) for table in ("jobs", "events", "artifact_names")}
        shelf.kept.retention.archive(MONTH)
        shelf.forgetting.forget(MONTH, "over")
        assert shelf.left() == {SHARED}
        shelf.kept.retention.restore(MONTH)
        assert {table: shelf.kept.rows(table) for table in before} == before
        assert shelf.left() == {SHARED}
        shelf.save(ONLY)
        assert shelf.left() == {SHARED, ONLY}, "who has the file can bring it back"

    def test_keeps_its_files_when_it_is_archived_again_until_that_is_asked_for_again(self, shelf: Shelf) -> None:
        for _ in range(2):
            shelf.kept.retention.archive(MONTH)
            assert shelf.left() == {ONLY, SHARED, REPLACED}
            shelf.forgetting.forget(MONTH, "over")
            shelf.kept.retention.restore(MONTH)
        assert len(ask(shelf.dsn, ACCESSES)) == 2

    def test_before_the_next_one_is_forgotten_keeps_what_both_name(self, shelf: Shelf) -> None:
        for month in (MONTH, NEXT):
            shelf.kept.retention.archive(month)
            shelf.forgetting.forget(month, "over")
        shelf.kept.retention.restore(MONTH)
        shelf.forgetting.forget(NEXT, "over")
        assert shelf.left() == {ONLY, SHARED, REPLACED}


class TestOfAnOlderRelease:
    """Which did not record what a month names."""

    def test_events_in_the_log_are_looked_through(self, shelf: Shelf) -> None:
        before = shelf.kept.rows("artifact_names")
        assert len(before) == 6
        ask(shelf.dsn, "DROP TABLE artifact_names")
        ask(shelf.dsn, "ALTER TABLE archives DROP files_named, DROP files_forgotten_at")
        ask(shelf.dsn, "DELETE FROM migrations WHERE number = 19")
        migrated(shelf.dsn)
        assert shelf.kept.rows("artifact_names") == before

    def test_what_its_servers_name_beside_the_migration_is_kept(self, shelf: Shelf) -> None:
        ask(shelf.dsn, "UPDATE migrations SET applied_at = now() WHERE number = 19")
        shelf.kept.retention.archive(MONTH)
        with Node(shelf.dsn) as node:
            (id,) = node.started(new_job())
            artifact = Artifact(name="a", sha256=shelf.save(ONLY), size=len(ONLY), media_type="text/plain")
            node.say(ArtifactReport(job_id=id, attempt=1, artifact=artifact))
        ask(shelf.dsn, "DELETE FROM artifact_names WHERE month = %s", [month_before(0).date()])
        shelf.forgetting.forget(MONTH, "over")
        assert shelf.left() == {ONLY, SHARED}

    def test_a_month_that_it_archived_has_to_come_back_first(self, shelf: Shelf) -> None:
        shelf.kept.retention.archive(MONTH)
        ask(shelf.dsn, "UPDATE archives SET files_named = false")
        ask(shelf.dsn, "DELETE FROM artifact_names WHERE month = %s", [MONTH])
        for refused in (MONTH, self.archived_since(shelf)):
            with pytest.raises(RetentionRefused, match=f"which files {MONTH:%Y-%m} names"):
                shelf.forgetting.forget(refused, "over")
        assert shelf.left() == {ONLY, SHARED, REPLACED}
        shelf.kept.retention.restore(MONTH)
        shelf.kept.retention.archive(MONTH)
        assert shelf.forgetting.forget(MONTH, "over").contents == 2
        assert shelf.left() == {SHARED}

    def archived_since(self, shelf: Shelf) -> date:
        shelf.kept.retention.archive(NEXT)
        return NEXT

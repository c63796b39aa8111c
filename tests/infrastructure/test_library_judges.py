"""The recorder cases of the `eventsourcing` library, run against our recorders.

Two things are said in other words before the library's cases judge ours (`Counted`): their streams begin at version 0,
ours at 1; and their positions are 1, 2, 3, which ours become when they are counted. What is not run is in `NOT_RUN`,
with the reason; a case that a new release of the library brings fails here until it is run or named there.
"""

import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, ClassVar, TypeVar, cast
from unittest import TestCase
from uuid import UUID

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    IntegrityError,
    Notification,
    NotSupportedError,
    ProcessRecorder,
    StoredEvent,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.utils import Environment

from infrastructure.postgres.database import Database
from infrastructure.postgres.persistence import DSN, Factory
from infrastructure.postgres.recorder import CheckpointRecorder, EventRecorder, transaction
from tests.infrastructure.nodes import UndisturbedRecorder, ask, migrated

NO_CIPHER = "an event is stored as the JSON that is hashed, so our mapper has neither a cipher nor a compressor"
NO_PROCESS = "followers of the log write views; only the ledger writes events, with the views they imply"
NOT_RUN = {
    "InfrastructureFactoryTestCase.test_mapper_with_cipher": NO_CIPHER,
    "InfrastructureFactoryTestCase.test_mapper_with_compressor": NO_CIPHER,
    "InfrastructureFactoryTestCase.test_mapper_with_cipher_and_compressor": NO_CIPHER,
    "InfrastructureFactoryTestCase.test_mapper_with_wrong_cipher_key": NO_CIPHER,
    "InfrastructureFactoryTestCase.test_create_process_recorder": NO_PROCESS,
    "ProcessRecorderTestCase.test_insert_select": NO_PROCESS,
    "ProcessRecorderTestCase.test_has_tracking_id": NO_PROCESS,
    "ProcessRecorderTestCase.test_raises_when_lower_inserted_later": NO_PROCESS,
    "ProcessRecorderTestCase.test_performance": NO_PROCESS,
}
"""Besides: TranscoderTestCase judges the library's transcoder, which our mapper does not use."""


def _judges() -> ModuleType:
    """The library's cases. They import its cipher, which needs a package that nothing of ours does."""
    cipher = ModuleType("eventsourcing.cipher")
    cipher.AESCipher = None  # type: ignore[attr-defined]
    present = sys.modules.setdefault(cipher.__name__, cipher)
    from eventsourcing.tests import persistence

    if present is cipher:
        del sys.modules[cipher.__name__]
    return persistence


judges = _judges()
Case = TypeVar("Case", bound=type[TestCase])


def judged(case: Case) -> Case:
    """Leaves out what is not run."""
    for name in NOT_RUN:
        judge, _, test = name.partition(".")
        if judge in [base.__name__ for base in case.__mro__]:
            setattr(case, test, None)
    return case


class Counted(UndisturbedRecorder):
    """Counts versions from 0, and positions 1, 2, 3 in the order of the log."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        ours = [replace(e, originator_version=e.originator_version + 1) for e in stored_events]
        positions = super().insert_events(ours, **kwargs)
        return [bisect_right(self._all(), position) for position in positions]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        gt, lte = (None if bound is None else bound + 1 for bound in (gt, lte))
        found = super().select_events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)
        return [replace(e, originator_version=e.originator_version - 1) for e in found]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        start, stop = self._position(start), self._position(stop)
        inclusive = inclusive_of_start
        found = super().select_notifications(start, limit, stop, topics, inclusive_of_start=inclusive)
        known = self._all()
        return [
            replace(n, id=bisect_right(known, n.id), originator_version=n.originator_version - 1)
            for n in cast("Sequence[Any]", found)
        ]

    def max_notification_id(self) -> int | None:
        position = super().max_notification_id()
        return None if position is None else bisect_right(self._all(), position)

    def _all(self) -> list[int]:
        rows = self.database.rows("SELECT notification_id FROM events ORDER BY notification_id")
        return [row[0] for row in rows]

    def _position(self, counted: int | None) -> int | None:
        return self._all()[counted - 1] if counted else counted


class AsAggregates(Counted):
    """What an aggregate recorder answers to an append: nothing. In ours there is one recorder for both."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Any:
        super().insert_events(stored_events, **kwargs)


class FromZero(Counted):
    """Counts versions only: for cases that append a lot."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        ours = [replace(e, originator_version=e.originator_version + 1) for e in stored_events]
        return EventRecorder.insert_events(self, ours, **kwargs)

    select_notifications = EventRecorder.select_notifications
    max_notification_id = EventRecorder.max_notification_id


class OnALogOfItsOwn:
    """Each case has a database."""

    INITIAL_VERSION = 0
    dsn: str
    database: Database

    @pytest.fixture(autouse=True)
    def _own(self, new_database: Callable[[], str]) -> Iterator[None]:
        before = threading.enumerate()
        self.dsn = migrated(new_database())
        self.database = Database(self.dsn)
        yield
        for thread in set(threading.enumerate()).difference(before):  # the library's cases leave readers behind
            thread.join(30)
        self.database.close()


@judged
class TestAggregateRecorder(OnALogOfItsOwn, judges.AggregateRecorderTestCase):  # type: ignore[misc, name-defined]
    def create_recorder(self) -> AggregateRecorder:
        return AsAggregates(self.database)


@judged
class TestApplicationRecorder(OnALogOfItsOwn, judges.ApplicationRecorderTestCase):  # type: ignore[misc, name-defined]
    COUNTED: ClassVar = {"test_insert_select", "test_insert_subscribe"}

    def create_recorder(self) -> ApplicationRecorder:
        return (Counted if self._testMethodName in self.COUNTED else FromZero)(self.database)

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


@judged
class TestNonInterleaving(OnALogOfItsOwn, judges.NonInterleavingNotificationIDsBaseCase):  # type: ignore[misc, name-defined]
    def create_recorder(self) -> ApplicationRecorder:
        return FromZero(self.database)


@judged
class TestTrackingRecorder(OnALogOfItsOwn, judges.TrackingRecorderTestCase):  # type: ignore[misc, name-defined]
    def create_recorder(self) -> TrackingRecorder:
        return CheckpointRecorder(self.database, "stats")


class OtherCheckpoints(CheckpointRecorder):
    pass


@judged
class TestFactory(OnALogOfItsOwn, judges.InfrastructureFactoryTestCase):  # type: ignore[misc, name-defined]
    @property
    def env(self) -> Environment:
        return self._env

    def setUp(self) -> None:
        module = "infrastructure.postgres.persistence"
        self._env = Environment("stats", {"PERSISTENCE_MODULE": module, DSN: self.dsn})
        super().setUp()

    def expected_factory_class(self) -> type[InfrastructureFactory[Any]]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return EventRecorder

    def expected_application_recorder_class(self) -> type[ApplicationRecorder]:
        return EventRecorder

    def expected_tracking_recorder_class(self) -> type[TrackingRecorder]:
        return CheckpointRecorder

    def tracking_recorder_subclass(self) -> type[TrackingRecorder]:
        return OtherCheckpoints

    def expected_process_recorder_class(self) -> type[ProcessRecorder]:
        raise AssertionError(NO_PROCESS)

    def test_there_is_no_process_recorder(self) -> None:
        with pytest.raises(NotSupportedError):
            self.factory.process_recorder()


def test_every_case_of_the_library_is_run_or_said_not_to_be() -> None:
    ours = (TestAggregateRecorder, TestApplicationRecorder, TestNonInterleaving, TestTrackingRecorder, TestFactory)
    run = {
        f"{base.__name__}.{name}"
        for case in ours
        for base in case.__mro__
        if base.__module__ == judges.__name__
        for name in vars(base)
        if name.startswith("test") and callable(getattr(case, name))
    }
    known = {
        f"{name}.{test}"
        for name, judge in vars(judges).items()
        if isinstance(judge, type) and issubclass(judge, TestCase) and name != "TranscoderTestCase"
        for test in vars(judge)
        if test.startswith("test")
    }
    assert run | set(NOT_RUN) == known
    assert run & set(NOT_RUN) == set()


class TestCheckpoints:
    @pytest.fixture
    def database(self, dsn: str) -> Iterator[Database]:
        database = Database(dsn)
        yield database
        database.close()

    def test_followers_of_one_log_have_checkpoints_of_their_own(self, database: Database) -> None:
        stats, usage = CheckpointRecorder(database, "stats"), CheckpointRecorder(database, "usage")
        stats.insert_tracking(Tracking("jobledger", 2**48))
        usage.insert_tracking(Tracking("jobledger", 7))
        assert (stats.max_tracking_id("jobledger"), usage.max_tracking_id("jobledger")) == (2**48, 7)

    def test_a_checkpoint_stands_or_falls_with_what_came_of_the_events(self, database: Database, dsn: str) -> None:
        recorder = CheckpointRecorder(database, "fold")
        ask(dsn, "CREATE TABLE folded (position bigint)")

        def fold(position: int) -> None:
            with transaction(database) as connection:
                connection.execute("INSERT INTO folded VALUES (%s)", [position])
                recorder.advance(connection, Tracking("jobledger", position))

        fold(5)
        for position in (5, 4):
            with pytest.raises(IntegrityError, match="at or beyond"):
                fold(position)
        fold(6)
        assert ask(dsn, "SELECT position FROM folded") == [(5,), (6,)]
        assert recorder.max_tracking_id("jobledger") == 6

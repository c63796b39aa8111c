"""What tests of retention share: a sealed log with a month that is over, and what moves it."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from application.retention import Retention
from infrastructure.archives import ObjectArchives
from infrastructure.postgres.database import Database
from infrastructure.postgres.projections import VIEWS
from infrastructure.postgres.retention import PostgresMonths
from infrastructure.signing import Keyring, signers
from tests.infrastructure.nodes import Node, ask, new_job
from tests.infrastructure.test_rebuilds import Office
from tests.past import at, migrated_then, month_before, some_jobs
from tests.sealing import ORIGIN, Sealing

MONTH = month_before(2).date()


def retention(database: Database, folder: Path, tell: Callable[[str], None]) -> Retention:
    """What moves months of a log whose seal, and whose archives, are in a folder."""
    keys = Keyring(folder / "seal", lambda: ORIGIN).verifiers()
    store = ObjectArchives(str(folder / "archives"))
    months = PostgresMonths(database, VIEWS)
    return Retention(months, store, VIEWS, lambda note: bool(signers(note, keys)), folder / "uploads", tell)


class Kept:
    """A sealed log with a month that is over, one after it, and this one, and what keeps it."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = migrated_then(dsn, month_before(3))
        self.folder = folder
        self.ids: list[UUID] = []
        for moment in (month_before(2) + timedelta(days=3), month_before(1) + timedelta(days=1)):
            with Node(at(dsn, moment)) as node:
                self.ids += some_jobs(node)
        with Node(dsn) as node:
            (self.live,) = node.create(new_job(queue="live"))
        self.old = self.ids[:6]
        self.sealing = Sealing(dsn, folder / "seal")
        self.office = Office(dsn)
        self.settle()
        self.steps: list[str] = []
        self.database = Database(dsn)
        self.retention = self.with_steps(self.steps.append)

    def with_steps(self, tell: Callable[[str], None]) -> Retention:
        return retention(self.database, self.folder, tell)

    def settle(self) -> None:
        """Seal and project what there is."""
        self.sealing.all()
        self.office.desk.catch_up()

    def rows(self, table: str) -> list[Any]:
        return self.ask(f"SELECT t::text FROM {table} AS t ORDER BY 1")

    def ask(self, query: str) -> list[Any]:
        return ask(self.dsn, query)

    @property
    def file(self) -> Path:
        (file,) = (self.folder / "archives").glob("*.ndjson.gz")
        return file

    def close(self) -> None:
        self.office.close()
        self.sealing.close()
        self.database.close()

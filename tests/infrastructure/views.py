"""What the tests of projections share: projectors over a real database, and views beside a fresh fold."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from application.projections import Rows, Stories
from application.projector import Projector, fold
from infrastructure.postgres.database import Database
from infrastructure.postgres.projections import VIEWS, PostgresCheckpoints, PostgresLog, View
from tests.infrastructure.nodes import ask
from tests.waiting import eventually


class Silence:
    """No news: the tests run batches themselves."""

    @contextmanager
    def listen(self, topics: Collection[str]) -> Iterator[Any]:
        yield None


class Desk:
    """One projector, and what it works on."""

    def __init__(self, dsn: str, views: Collection[View] = VIEWS) -> None:
        self.database = Database(dsn)
        self.views = {view.name: view for view in views}
        self.log = PostgresLog(self.database)
        self.checkpoints = PostgresCheckpoints(self.database, views)
        self.projector = Projector(dict(self.views), self.log, self.checkpoints, Silence())

    def close(self) -> None:
        self.database.close()

    def catch_up(self) -> None:
        """Until all that is recorded by now is in every view, but for parked ones."""
        with self.database.connection() as connection:
            end = connection.execute("SELECT coalesce(max(notification_id), 0) FROM events").fetchone()
        assert end is not None

        def caught_up() -> bool:
            self.projector.run_all()
            ours = [s for s in self.checkpoints.standings() if s.state == "live" and s.name in self.views]
            return all(s.position >= end[0] or s.parked for s in ours)

        eventually(caught_up)

    def rows(self, name: str) -> Rows:
        """The rows of the view that serves."""
        (standing,) = [s for s in self.checkpoints.standings() if (s.name, s.state) == (name, "live")]
        with self.database.connection() as connection:
            return self.views[name].rows(connection, standing.generation)

    def fresh(self, name: str) -> Rows:
        """The rows that all events make, folded at once."""
        (standing,) = [s for s in self.checkpoints.standings() if (s.name, s.state) == (name, "live")]
        page = [recorded for recorded in self.log.page(0, 10**6) if recorded.position <= standing.position]
        return fold(self.views[name], Stories(self.log.before).tell(page), 0).rows


UNHEARD_OF = '{"type":"job.unheard_of"}'
NUL_WORKER = '{"type":"job.started","at":"2026-01-01T00:00:00Z","by":"worker:w","attempt":1,"worker":"w\\u0000"}'


def append_by_hand(dsn: str, job_id: UUID, state: str) -> None:
    """Append an event to a job past all rules, as somebody with the owner's rights could."""
    query = """
        INSERT INTO events (originator_id, originator_version, topic, state, hash, notification_id, recorded_at)
        SELECT originator_id, originator_version + 1, substring(%s FROM '"type":"([^"]+)"'), convert_to(%s, 'UTF8'),
          hash,
          (pg_current_xact_id()::text::bigint + (SELECT epoch_offset FROM log_epoch)) << 16 | 1, clock_timestamp()
        FROM events WHERE originator_id = %s
        ORDER BY originator_version DESC LIMIT 1
    """
    ask(dsn, query, [state, state, job_id])

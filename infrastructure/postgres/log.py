"""The log of all jobs, as an application of the `eventsourcing` library, told in our words."""

from typing import cast
from uuid import UUID

from eventsourcing.application import Application

from domain.events import Event
from domain.job import Job
from infrastructure.postgres.database import Database
from infrastructure.postgres.mapper import JobEvent
from infrastructure.postgres.persistence import DSN, PREPARE, Factory
from infrastructure.postgres.recorder import EventRecorder


class Log(Application[UUID]):
    """Reads streams and folds them; the ledger writes through the same mapper and recorder."""

    name = "jobledger"

    def __init__(self, dsn: str, *, prepare: bool = True) -> None:
        module = "infrastructure.postgres.persistence"
        super().__init__({"PERSISTENCE_MODULE": module, DSN: dsn, PREPARE: "on" if prepare else "off"})

    @property
    def database(self) -> Database:
        return cast("EventRecorder", self.recorder).database

    @property
    def batches(self) -> Database:
        """Connections for the ledger's batches, which look everything up by index."""
        return cast("Factory", self.factory).batches

    @property
    def beats(self) -> Database:
        """Connections for leases, whose holders ask again when they hear nothing for two seconds."""
        return cast("Factory", self.factory).beats

    @property
    def reads(self) -> Database:
        """Connections for what is read for callers, who wait for two seconds and no longer."""
        return cast("Factory", self.factory).reads

    def stream(self, job_id: UUID, *, after: int = 0, to: int | None = None) -> list[Event]:
        """A job's events with versions above `after`, up to `to`."""
        return [cast("JobEvent", e).event for e in self.events.get(job_id, gt=after, lte=to)]

    def fold(self, job_id: UUID, *, to: int | None = None) -> Job:
        """The job as of version `to`, from its events alone; version 0 when it has none."""
        return Job.fold(job_id, self.stream(job_id, to=to))

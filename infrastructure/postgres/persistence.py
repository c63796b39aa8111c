"""The persistence module for the `eventsourcing` library (PERSISTENCE_MODULE): its parts, made from its settings."""

from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    Mapper,
    NotSupportedError,
    ProcessRecorder,
    TrackingRecorder,
    Transcoder,
)

from infrastructure.postgres.database import Database
from infrastructure.postgres.mapper import EventMapper
from infrastructure.postgres.recorder import EventRecorder

DSN = "JOBLEDGER_DSN"
PREPARE = "JOBLEDGER_PREPARE"


class Factory(InfrastructureFactory[TrackingRecorder]):
    """Makes the recorder and the mapper of the log."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.database = Database(self.env.get(DSN, ""), prepare=self.env.get(PREPARE, "on") != "off")

    def mapper(self, transcoder: Transcoder | None = None, mapper_class: Any = None) -> Mapper[UUID]:  # type: ignore[override]
        return EventMapper(transcoder or self.transcoder())

    def application_recorder(self) -> ApplicationRecorder:
        return EventRecorder(self.database)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        if purpose != "events":
            raise NotSupportedError(f"there is no store for {purpose}: jobs are folded from their events")
        return EventRecorder(self.database)

    def tracking_recorder(self, tracking_recorder_class: Any = None) -> TrackingRecorder:
        raise NotSupportedError("projections keep their own checkpoints")

    def process_recorder(self) -> ProcessRecorder:
        raise NotSupportedError("projections keep their own checkpoints")

    def close(self) -> None:
        self.database.close()

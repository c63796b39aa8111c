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
from eventsourcing.utils import resolve_topic

from application.jobs import READ_PATIENCE
from infrastructure.postgres.database import Database
from infrastructure.postgres.mapper import EventMapper
from infrastructure.postgres.recorder import CheckpointRecorder, EventRecorder

DSN = "JOBLEDGER_DSN"
PREPARE = "JOBLEDGER_PREPARE"
BATCH_PATIENCE = 30.0
"""Seconds that a statement of a batch may take. Its callers are told after ten, but a large one may take longer."""


class Factory(InfrastructureFactory[TrackingRecorder]):
    """Makes the recorders and the mapper of the log."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        dsn, prepare = self.env.get(DSN, ""), self.env.get(PREPARE, "on") != "off"
        self.database = Database(dsn, prepare=prepare)
        self.batches = Database(dsn, prepare=prepare, by_index=True, bitmaps=False, patience=BATCH_PATIENCE)
        self.beats = Database(dsn, prepare=prepare, patience=READ_PATIENCE)
        self.reads = Database(dsn, prepare=prepare, by_index=True, patience=READ_PATIENCE)

    def mapper(self, transcoder: Transcoder | None = None, mapper_class: Any = None) -> Mapper[UUID]:  # type: ignore[override]
        return EventMapper(transcoder or self.transcoder())

    def application_recorder(self) -> ApplicationRecorder:
        return EventRecorder(self.database)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        if purpose != "events":
            raise NotSupportedError(f"there is no store for {purpose}: jobs are folded from their events")
        return EventRecorder(self.database)

    def tracking_recorder(self, tracking_recorder_class: type[TrackingRecorder] | None = None) -> TrackingRecorder:
        """The checkpoints of the follower that the environment names."""
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        made: Any = tracking_recorder_class or (resolve_topic(topic) if topic else CheckpointRecorder)
        recorder: TrackingRecorder = made(self.database, self.env.name)
        return recorder

    def process_recorder(self) -> ProcessRecorder:
        raise NotSupportedError("followers of the log write views; only the ledger writes events")

    def close(self) -> None:
        self.database.close()
        self.batches.close()
        self.beats.close()
        self.reads.close()

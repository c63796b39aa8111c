"""Between our events and the library's stored events; here its words end and ours begin."""

from typing import cast
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, MapperDeserialisationError, StoredEvent
from msgspec import MsgspecError, Struct

from domain.events import TAGS, Event, decode, encode


class JobEvent(Struct, frozen=True):
    """An event in its place: the library's `originator_id` is the job, `originator_version` the version."""

    originator_id: UUID
    originator_version: int
    event: Event


def written(event: Event) -> tuple[str, bytes]:
    """An event's tag, and the JSON bytes that are stored and hashed."""
    return TAGS[type(event)], encode(event)


class EventMapper(Mapper[UUID]):
    """Stores an event under its tag as the JSON bytes that are hashed; neither compressed nor enciphered."""

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        said = cast("JobEvent", domain_event)
        return StoredEvent(said.originator_id, said.originator_version, *written(said.event))

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[UUID]:
        """Raises MapperDeserialisationError when the bytes are no event, or not the one their topic says."""
        try:
            event = decode(stored_event.state)
        except MsgspecError as error:
            raise MapperDeserialisationError(f"{_place(stored_event)} cannot be read: {error}") from error
        if TAGS[type(event)] != stored_event.topic:
            raise MapperDeserialisationError(f"{_place(stored_event)} says it is {TAGS[type(event)]}")
        job_event = JobEvent(cast("UUID", stored_event.originator_id), stored_event.originator_version, event)
        return cast("DomainEventProtocol[UUID]", job_event)


def _place(stored: StoredEvent) -> str:
    return f"event {stored.originator_version} of job {stored.originator_id} ({stored.topic})"

"""What a list of jobs asks for, as conditions in SQL and their values."""

from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg.types.json import Jsonb

from application.jobs import Filter, Moment, Sort
from domain.ids import first_id

LEAST_ID, MOST_ID = "'00000000-0000-0000-0000-000000000000'::uuid", "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid"
HELD = ("running", "cancelling")
ENDED = ("completed", "failed", "cancelled")


class Place(Struct, array_like=True, forbid_unknown_fields=True):
    """Where a page ended: its list, its last job, and that job's moment in the order of the list."""

    list_id: bytes
    id: UUID
    at: Moment


class Wanted:
    """A filter and an order, from their beginning or after a place; `way` and `beyond` are the order's words in SQL."""

    def __init__(self, filter: Filter, sort: Sort, after: Place | None) -> None:
        self.filter = filter
        self.by_update = sort == "-updated_at"
        self.way, self.beyond = ("", ">") if sort == "created_at" else (" DESC", "<")
        self.after = after

    def values(self, count: int) -> dict[str, Any]:
        wanted, after = self.filter, self.after
        values: dict[str, Any] = {
            "count": count,
            "namespace": wanted.namespace,
            "namespaces": [wanted.namespace] if wanted.namespace is not None else [],
            "statuses": list(wanted.status),
            "settled": self.settled_statuses,
            "held": [status for status in HELD if self.takes(status)],
            "queues": list(dict.fromkeys(wanted.queue)),
            "kinds": list(dict.fromkeys(wanted.kind)),
            "workers": list(wanted.worker),
            **{f"label_{n}": Jsonb({key: value}) for n, (key, value) in enumerate(wanted.label)},
        }
        if wanted.created_after:
            values |= {"after": wanted.created_after, "id_after": first_id(wanted.created_after)}
        if wanted.created_before:
            values |= {"before": wanted.created_before, "id_before": first_id(wanted.created_before)}
        return values | ({"last_id": after.id, "last_at": after.at} if after else {})

    def takes(self, status: str) -> bool:
        return not self.filter.status or status in self.filter.status

    @property
    def settled_statuses(self) -> list[str]:
        queued = self.takes("queued") or "scheduled" in self.filter.status
        return ["queued"] * queued + [status for status in ENDED if self.takes(status)]

    @property
    def at(self) -> str:
        return "updated_at" if self.by_update else "NULL::timestamptz"

    @property
    def start(self) -> tuple[str, str]:
        """The moment and the id that all of them are beyond."""
        if self.after:
            return "%(last_at)s", "%(last_id)s"
        return ("'-infinity'::timestamptz", LEAST_ID) if self.beyond == ">" else ("'infinity'::timestamptz", MOST_ID)

    @property
    def may_be_late(self) -> bool:
        """Whether some may have moved only after the span that they were created in."""
        before = self.filter.created_before
        return self.by_update and before is not None and (self.after is None or self.after.at >= before)

    def order(self, at: str, id: str) -> str:
        return f"{at} DESC, {id} DESC" if self.by_update else f"{id} {self.way}"

    def first(self, at: str, id: str) -> str:
        """The first of them in the list's order."""
        return f"ORDER BY {self.order(at, id)} LIMIT %(count)s"

    def fits(self) -> str:
        """All of the filter, and the place."""
        return every([self.but_marks(), self.has_status(), self.marks()])

    def but_marks(self) -> str:
        """All of the filter but the status, the labels and the workers."""
        conditions = [self.is_seen(), self.in_range()]
        conditions += ["queue = ANY(%(queues)s)"] * bool(self.filter.queue)
        conditions += ["kind = ANY(%(kinds)s)"] * bool(self.filter.kind)
        return every(conditions)

    def is_seen(self) -> str:
        return "namespace = ANY(%(namespaces)s)" if self.filter.namespace is not None else "true"

    def has_status(self) -> str:
        if not self.filter.status:
            return "true"
        scheduled = " OR status = 'queued' AND run_at > statement_timestamp()" * ("scheduled" in self.filter.status)
        return f"(status = ANY(%(statuses)s){scheduled})"

    def in_range(self) -> str:
        return every([self.beyond_last(), self.in_span()])

    def beyond_last(self) -> str:
        if not self.after:
            return "true"
        return "(updated_at, id) < (%(last_at)s, %(last_id)s)" if self.by_update else f"id {self.beyond} %(last_id)s"

    def in_span(self) -> str:
        """Created when it is wanted."""
        after = ["created_at > %(after)s AND id >= %(id_after)s"] * (self.filter.created_after is not None)
        before = ["created_at < %(before)s AND id < %(id_before)s"] * (self.filter.created_before is not None)
        return every(after + before)

    def marks(self) -> str:
        """What no lane is made of: labels and workers."""
        labels = " OR ".join(f"labels @> %(label_{n})s" for n in range(len(self.filter.label)))
        return every([f"({labels})"] * bool(labels) + ["worker = ANY(%(workers)s)"] * bool(self.filter.worker))


def every(conditions: list[str]) -> str:
    return " AND ".join(condition for condition in conditions if condition != "true") or "true"

"""Lists of jobs, a page at a time: few rows are read for it, whatever the filter and however many jobs there are.

Jobs of one status, queue and kind are a lane. The lanes are found by hopping from one to the next on an index, as the
claim does; of each lane the index yields as many jobs as a page may need, in the list's order; and the page is the best
of all lanes. So the cost grows with the number of lanes, not with that of jobs. Since a job that moves is written to
each index anew (docs/decisions.md has the price), a job is found in one of three places:

* fresh: queued since its creation and due from the start, where the claim finds it. It has not moved, so that the
  orders of creation, of update and of `run_at` are one;
* settled: scheduled, waiting for another attempt, or ended: `jobs_by_creation` and `jobs_by_update`;
* held by a worker: where its lease is. There are never many.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from msgspec import MsgspecError, Struct
from msgspec.json import decode, encode
from psycopg.types.json import Jsonb

from application.errors import FieldError, Invalid
from application.jobs import Filter, JobView, Sort
from domain.ids import first_id

WALKED = 10_000
"""Jobs that are looked at in the order of creation in hope of a page, before all with a mark, or all lanes, are."""
FEW = 5_000
"""Jobs created in a span of time that are all looked at for those that moved last."""
SAMPLE, COMMON, COMMON_IN_LANES = 2_000, 400, 20
"""Of so many of the newest jobs so many have a label that is so common that lanes show enough of it; fewer are enough
where a status, queue or kind leaves few lanes."""
SETTLED = "(status <> 'queued' OR version > 1 OR run_at <> created_at) AND status NOT IN ('running', 'cancelling')"
HELD = ("running", "cancelling")
ENDED = ("completed", "failed", "cancelled")


class Place(Struct, array_like=True, forbid_unknown_fields=True):
    """Where a page ended: its list, its last job, and that job's moment in the order of the list."""

    list_id: bytes
    id: UUID
    at: datetime


class Page:
    """The statement for up to `count` jobs of a list, from its beginning or after a cursor."""

    def __init__(self, wanted: Filter, sort: Sort, count: int, cursor: str | None) -> None:
        """Raises Invalid unless the cursor was given out for this very list."""
        self._wanted = wanted
        self._by_update = sort == "-updated_at"
        self._way, self._beyond = ("", ">") if sort == "created_at" else (" DESC", "<")
        self._list_id = sha256(encode((wanted, sort))).digest()[:6]
        self._after = self._place(cursor) if cursor is not None else None
        self.count = count

    def cursor(self, last: JobView) -> str:
        """What leads to the jobs after `last`."""
        return self.cursor_at(last.id, last.updated_at if self._by_update else last.created_at)

    def cursor_at(self, id: UUID, at: datetime) -> str:
        """What leads to the jobs after the one with this id and this moment in the order of the list."""
        return urlsafe_b64encode(encode(Place(self._list_id, id, at))).decode()

    def _place(self, cursor: str) -> Place:
        try:
            place = decode(urlsafe_b64decode(cursor), type=Place)
        except (MsgspecError, Base64Error, ValueError) as error:
            raise Invalid(FieldError("cursor", "is none that was given out here; begin again without it")) from error
        if place.list_id != self._list_id:
            raise Invalid(FieldError("cursor", "was given out for another filter or order; begin again without it"))
        return place

    @property
    def values(self) -> dict[str, Any]:
        wanted, after = self._wanted, self._after
        values: dict[str, Any] = {
            "count": self.count,
            "namespaces": [wanted.namespace] if wanted.namespace is not None else [],
            "statuses": list(wanted.status),
            "settled": self._settled_statuses,
            "held": [status for status in HELD if self._takes(status)],
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

    def query(self, columns: str) -> bytes:
        """`columns` are of `jobs` and of `leases`."""
        tables: list[str] = []
        sources: list[str] = []
        when = "true"
        plain = not (self._wanted.status or self._wanted.queue or self._wanted.kind)
        if not self._by_update and (plain or self._marks() != "true"):
            tables.append(f"walked AS MATERIALIZED ({self._walk()})")
            sources.append(_when("(SELECT count(*) FROM walked) >= %(count)s", "SELECT * FROM walked"))
            when = "(SELECT count(*) FROM walked) < %(count)s"
        if self._wanted.worker:
            sources.append(_when(when, self._of(self._marks())))
            when = "false"
        elif self._wanted.label:
            tables.append(f"sample AS MATERIALIZED ({self._sample()})")
            common = f"(SELECT count(*) FROM sample) >= {COMMON if plain else COMMON_IN_LANES}"
            sources.append(_when(f"{when} AND NOT {common}", self._of(self._marks())))
            when = f"{when} AND {common}"
        elif self._by_update and self._in_span() != "true":
            tables.append(f"few AS MATERIALIZED (SELECT FROM jobs WHERE {self._in_span()} LIMIT {FEW + 1})")
            sources.append(_when(f"(SELECT count(*) FROM few) <= {FEW}", self._of(self._in_span())))
            when = f"(SELECT count(*) FROM few) > {FEW}"
        if when != "false":
            self._add_lanes(tables, sources, when)
        order = "moment DESC, job DESC" if self._by_update else f"job {self._way}"
        return f"""
WITH RECURSIVE {", ".join(tables) or "none AS (SELECT)"}
SELECT {columns}
FROM (
  SELECT id, at FROM ({" UNION ALL ".join(sources)}) AS found (id, at) {self._first("at", "id")}
) AS page (job, moment)
CROSS JOIN LATERAL (SELECT * FROM jobs WHERE jobs.id = page.job OFFSET 0) AS jobs
LEFT JOIN LATERAL (SELECT heartbeat_at FROM leases WHERE leases.job_id = page.job OFFSET 0) AS leases ON true
ORDER BY {order}
""".encode()

    def _add_lanes(self, tables: list[str], sources: list[str], when: str) -> None:
        if self._takes("queued") and not self._wanted.worker:
            tables += self._lanes_of_fresh()
            sources.append(_when(when, self._fresh()))
        if self._settled_statuses:
            tables += self._lanes_of_settled()
            sources.append(_when(when, self._settled()))
        if any(self._takes(status) for status in HELD):
            sources.append(_when(when, self._held()))

    def _of(self, few: str) -> str:
        """Of the jobs that an index finds by a condition, all of which are looked at."""
        return f"""
SELECT id, {self._at} AS at FROM (SELECT * FROM jobs WHERE {few} OFFSET 0) AS jobs
WHERE {self._is_wanted()} AND {self._has_status()}
{self._first("updated_at", "id")}
"""

    def _sample(self) -> str:
        return f"SELECT FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT {SAMPLE}) AS jobs WHERE {self._marks()}"

    def _walk(self) -> str:
        return f"""
SELECT id, {self._at}
FROM (SELECT * FROM jobs WHERE {self._in_range()} ORDER BY id {self._way} LIMIT {WALKED}) AS jobs
WHERE {self._is_wanted()} AND {self._has_status()} AND {self._marks()}
LIMIT %(count)s
"""

    def _lanes_of_fresh(self) -> list[str]:
        among = "status = 'queued'"
        return [
            hops("fresh_queues", "(SELECT) AS above", [], "queue", among, "queues" if self._wanted.queue else None),
            hops(
                "fresh_kinds", "fresh_queues AS above", ["queue"], "kind", among, "kinds" if self._wanted.kind else None
            ),
            hops("fresh_lanes", "fresh_kinds AS above", ["queue", "kind"], "priority", among, None),
        ]

    def _fresh(self) -> str:
        conditions = [f"(run_at, id) {self._beyond} (%(last_at)s, %(last_id)s)"] * (self._after is not None)
        conditions += ["run_at > %(after)s"] * (self._wanted.created_after is not None)
        conditions += ["run_at < %(before)s"] * (self._wanted.created_before is not None)
        return f"""
SELECT job.id, job.run_at
FROM fresh_lanes AS lane
CROSS JOIN LATERAL (
  SELECT id, run_at FROM jobs
  WHERE status = 'queued' AND jobs.queue = lane.queue AND jobs.kind = lane.kind AND jobs.priority = lane.priority
    AND run_at <= statement_timestamp() AND {_all(conditions)}
    AND {_while_reading("version = 1 AND run_at = created_at", self._is_seen(), self._marks())}
  ORDER BY run_at {self._way}, id {self._way}
  LIMIT %(count)s
) AS job
"""

    def _lanes_of_settled(self) -> list[str]:
        wanted = self._wanted
        namespaces = "namespaces" if wanted.namespace is not None else None
        queues, kinds = ("queues" if wanted.queue else None), ("kinds" if wanted.kind else None)
        known = ["namespace", "status"]
        return [
            hops("namespaces", "(SELECT) AS above", [], "namespace", SETTLED, namespaces),
            hops("statuses", "namespaces AS above", ["namespace"], "status", SETTLED, "settled"),
            hops("queues", "statuses AS above", known, "queue", SETTLED, queues),
            hops("lanes", "queues AS above", [*known, "queue"], "kind", SETTLED, kinds),
        ]

    def _settled(self) -> str:
        scheduled = "true" if self._takes("queued") else "(status <> 'queued' OR run_at > statement_timestamp())"
        in_order, others = self._settled_bounds()
        return f"""
SELECT job.id, job.at
FROM lanes AS lane
CROSS JOIN LATERAL (
  SELECT id, {self._at} AS at FROM jobs
  WHERE {SETTLED} AND jobs.status = lane.status AND jobs.queue = lane.queue AND jobs.kind = lane.kind
    AND jobs.namespace = lane.namespace AND {in_order}
    AND {_while_reading(scheduled, others, self._marks())}
  {self._first("updated_at", "id")}
) AS job
"""

    def _settled_bounds(self) -> tuple[str, str]:
        """Where to begin and end in a lane, and what else must hold."""
        if not self._by_update:
            return self._in_range(), "true"
        bounds = [self._beyond_last()]
        if self._wanted.created_after:
            bounds.append("updated_at >= %(after)s")  # no job moves before it is there
        if self._wanted.created_before:
            bounds.append("id < %(id_before)s")  # seen in the index, without the row
        return _all(bounds), self._in_span()

    def _held(self) -> str:
        beyond = f"leases.job_id {self._beyond} %(last_id)s" if self._after and not self._by_update else "true"
        return f"""
SELECT job.id, job.at
FROM leases
CROSS JOIN LATERAL (
  SELECT id, {self._at} AS at FROM jobs
  WHERE jobs.id = leases.job_id AND status = ANY(%(held)s) AND {self._is_wanted()} AND {self._marks()}
  OFFSET 0
) AS job
WHERE {beyond}
{self._first("job.at", "leases.job_id")}
"""

    def _takes(self, status: str) -> bool:
        return not self._wanted.status or status in self._wanted.status

    @property
    def _settled_statuses(self) -> list[str]:
        queued = self._takes("queued") or "scheduled" in self._wanted.status
        return ["queued"] * queued + [status for status in ENDED if self._takes(status)]

    @property
    def _at(self) -> str:
        return "updated_at" if self._by_update else "NULL::timestamptz"

    def _first(self, at: str, id: str) -> str:
        """The first of them in the list's order."""
        order = f"{at} DESC, {id} DESC" if self._by_update else f"{id} {self._way}"
        return f"ORDER BY {order} LIMIT %(count)s"

    def _is_wanted(self) -> str:
        """All of the filter but the status, the labels and the workers."""
        conditions = [self._is_seen(), self._in_range()]
        conditions += ["queue = ANY(%(queues)s)"] * bool(self._wanted.queue)
        conditions += ["kind = ANY(%(kinds)s)"] * bool(self._wanted.kind)
        return _all(conditions)

    def _is_seen(self) -> str:
        return "namespace = ANY(%(namespaces)s)" if self._wanted.namespace is not None else "true"

    def _has_status(self) -> str:
        if not self._wanted.status:
            return "true"
        scheduled = " OR status = 'queued' AND run_at > statement_timestamp()" * ("scheduled" in self._wanted.status)
        return f"(status = ANY(%(statuses)s){scheduled})"

    def _in_range(self) -> str:
        return _all([self._beyond_last(), self._in_span()])

    def _beyond_last(self) -> str:
        if not self._after:
            return "true"
        return "(updated_at, id) < (%(last_at)s, %(last_id)s)" if self._by_update else f"id {self._beyond} %(last_id)s"

    def _in_span(self) -> str:
        """Created when it is wanted."""
        after = ["created_at > %(after)s AND id >= %(id_after)s"] * (self._wanted.created_after is not None)
        before = ["created_at < %(before)s AND id < %(id_before)s"] * (self._wanted.created_before is not None)
        return _all(after + before)

    def _marks(self) -> str:
        """What no lane is made of: labels and workers."""
        labels = " OR ".join(f"labels @> %(label_{n})s" for n in range(len(self._wanted.label)))
        return _all([f"({labels})"] * bool(labels) + ["worker = ANY(%(workers)s)"] * bool(self._wanted.worker))


def hops(table: str, above: str, known: list[str], column: str, among: str, given: str | None) -> str:
    """A table of the values that `column` has below each row of `above`: those that are given, or else all there are.

    min() on the index finds the next one, so that the jobs between are not read. The last one is NULL.
    """
    kept = "".join(f"above.{name}, " for name in known)
    there = f"WHERE above.{known[-1]} IS NOT NULL" if known else ""
    head = f"{table} ({', '.join([*known, column])})"
    if given:
        return (
            f"{head} AS (SELECT {kept}x.value FROM {above} CROSS JOIN unnest(%({given})s::text[]) AS x (value) {there})"
        )
    same = "".join(f" AND jobs.{name} = above.{name}" for name in known)
    least = f"SELECT min(jobs.{column}) FROM jobs WHERE {among}{same}"
    return f"""{head} AS (
  SELECT {kept}({least}) FROM {above} {there}
  UNION ALL
  SELECT {kept}({least} AND jobs.{column} > above.{column}) FROM {table} AS above WHERE above.{column} IS NOT NULL
)"""


def _when(condition: str, source: str) -> str:
    """The rows of a source; it is not looked at unless the condition, which is about none of them, holds."""
    return f"SELECT * FROM ({source}) AS source WHERE {condition}"


def _while_reading(*conditions: str) -> str:
    """Conditions that rows are tested for as they come in the order of the list.

    In a coalesce() they are nothing to the planner that an index could serve, or that would make a sort seem cheap.
    """
    wanted = _all(list(conditions))
    return wanted if wanted == "true" else f"coalesce({wanted}, false)"


def _all(conditions: list[str]) -> str:
    return " AND ".join(condition for condition in conditions if condition != "true") or "true"

"""Lanes: jobs of one status, queue and kind, of each of which an index yields the first in the list's order.

They are found by hopping from one to the next on an index, as the claim does.
"""

from application.jobs import DEFAULT, Filter
from infrastructure.postgres.wanted import LEAST_ID, MOST_ID, Wanted, every

QUEUED = "status = 'queued'"
PLACE = "(jobs.namespace || '/' || jobs.queue)"
"""What `jobs_ready_in_namespace` is ordered by, in which the default namespace is not; `jobs_ready` is by the queue."""
FRESH = "version = 1 AND run_at = created_at"
SETTLED = "(status <> 'queued' OR version > 1 OR run_at <> created_at) AND status NOT IN ('running', 'cancelling')"


class Lane:
    """Lanes of one sort: how they are found, what is in one, and in which order."""

    def __init__(
        self, name: str, hops: list[str], inside: str, tested: list[str], at: str, start: tuple[str, str], by_id: bool
    ) -> None:
        """`inside`: which jobs are in the one called `lane`; `tested`: what must hold of a job of it, too.

        `at`: a job's moment in the order of the list; `start`: the moment and the id that all of them are beyond.
        `by_id`: moments are none, the order is that of ids.
        """
        self.name = name
        self.start = start
        self.hops = hops
        self.inside = inside
        self.tested = every(tested)
        self.at = at
        self.by_id = by_id


def fresh(wanted: Wanted) -> Lane:
    """Of jobs that wait since their creation; they are due."""
    filter = wanted.filter
    descends = wanted.beyond == "<"
    among, found_by, seen = _namespace_of_fresh(filter)
    kinds = "kinds" if filter.kind else None
    hopped = [
        hops("fresh_queues", "(SELECT) AS above", [], "queue", QUEUED, "queues" if filter.queue else None),
        "fresh_places (queue, place) AS (SELECT queue, %(namespace)s || '/' || queue FROM fresh_queues)",
        hops("fresh_kinds", "fresh_places AS above", [found_by], "kind", among, kinds),
        hops("fresh", "fresh_kinds AS above", [found_by, "kind"], "priority", among, None),
    ]
    inside = [
        seen,
        f"{_column(found_by)} = lane.{found_by} AND jobs.kind = lane.kind AND jobs.priority = lane.priority",
        # Where the lane ends. Where it begins is said once: of two such bounds the index begins at the first.
        *["run_at > %(after)s"] * (descends and filter.created_after is not None),
        *["run_at <= statement_timestamp()"] * (not descends),
        *["run_at < %(before)s"] * (not descends and filter.created_before is not None),
    ]
    return Lane("fresh", hopped, every(inside), [FRESH, wanted.marks()], "run_at", _start_of_fresh(wanted), False)


def settled(wanted: Wanted) -> Lane:
    """Of jobs that wait for a moment or for another attempt, and of those that have ended."""
    namespaces = "namespaces" if wanted.filter.namespace is not None else None
    queues, kinds = ("queues" if wanted.filter.queue else None), ("kinds" if wanted.filter.kind else None)
    known = ["namespace", "status"]
    hopped = [
        hops("namespaces", "(SELECT) AS above", [], "namespace", SETTLED, namespaces),
        hops("statuses", "namespaces AS above", ["namespace"], "status", SETTLED, "settled"),
        hops("queues", "statuses AS above", known, "queue", SETTLED, queues),
        hops("settled", "queues AS above", [*known, "queue"], "kind", SETTLED, kinds),
    ]
    inside = [
        SETTLED,
        "jobs.namespace = lane.namespace AND jobs.status = lane.status",
        "jobs.queue = lane.queue AND jobs.kind = lane.kind",
    ]
    scheduled = "true" if wanted.takes("queued") else "(status <> 'queued' OR run_at > statement_timestamp())"
    tested = [scheduled, wanted.marks()]
    if wanted.by_update:
        # No job moves before it is there; and an id is seen in the index, without the row. Not the least one, too:
        # with two bounds for ids the planner would rather go by those than by the order.
        inside += ["updated_at >= %(after)s"] * (wanted.filter.created_after is not None)
        inside += ["id < %(id_before)s"] * (wanted.filter.created_before is not None)
        tested.append(wanted.in_span())
    else:
        inside.append(wanted.in_span())
    return Lane("settled", hopped, every(inside), tested, wanted.at, _start_of_settled(wanted), not wanted.by_update)


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
    same = "".join(f" AND {_column(name)} = above.{name}" for name in known)
    least = f"SELECT min(jobs.{column}) FROM jobs WHERE {among}{same}"
    return f"""{head} AS (
  SELECT {kept}({least}) FROM {above} {there}
  UNION ALL
  SELECT {kept}({least} AND jobs.{column} > above.{column}) FROM {table} AS above WHERE above.{column} IS NOT NULL
)"""


def _namespace_of_fresh(filter: Filter) -> tuple[str, str, str]:
    """Among which jobs lanes of the fresh are looked for, by what they are found, and which jobs of one are seen.

    The index of those that wait ends with the namespace: in it jobs of others are passed over without their rows.
    """
    if filter.namespace is None:
        return QUEUED, "queue", QUEUED
    if filter.namespace == DEFAULT:
        return QUEUED, "queue", f"{QUEUED} AND jobs.namespace = '{DEFAULT}'"
    of_others = f"{QUEUED} AND jobs.namespace <> '{DEFAULT}'"
    return of_others, "place", of_others


def _start_of_settled(wanted: Wanted) -> tuple[str, str]:
    if wanted.may_be_late:
        return "(SELECT at FROM prompt)", "(SELECT id FROM prompt)"
    return wanted.start


def _start_of_fresh(wanted: Wanted) -> tuple[str, str]:
    last = wanted.after
    if wanted.beyond == "<":
        until = wanted.filter.created_before
        if until and (last is None or last.at >= until):
            return "least(%(before)s, statement_timestamp())", LEAST_ID
        if last is None:
            return "statement_timestamp()", MOST_ID
        return "least(%(last_at)s, statement_timestamp())", "%(last_id)s"
    since = wanted.filter.created_after
    if since and (last is None or last.at <= since):
        return "%(after)s", MOST_ID
    return ("%(last_at)s", "%(last_id)s") if last else ("'-infinity'::timestamptz", LEAST_ID)


def _column(name: str) -> str:
    return PLACE if name == "place" else f"jobs.{name}"

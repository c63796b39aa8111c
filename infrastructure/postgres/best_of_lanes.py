"""The best of all lanes: the first jobs of a list, wherever they are.

Of all lanes together `count` jobs are wanted, and most lanes have none of these. So first a few are read of each,
until so many fit or so many were looked at: the `count`-th best of what fits is the bound, beyond which nothing is
wanted any more. Then each lane is read on, from its last one that fits up to the bound (Fagin's threshold algorithm, in
two steps). The closer the first comes, the less is left to the second; so where jobs must be looked at to see what
fits, lanes have their share of that by pace: one that gets a thousand times as many jobs as another is looked at as far
back in time, not in number.
"""

from infrastructure.postgres.lanes import FRESH, Lane, fresh, settled
from infrastructure.postgres.wanted import HELD, LEAST_ID, MOST_ID, Wanted

LOOKED_AT = 20_000
"""Jobs that are looked at for the bound, in all lanes together, in hope of some that fit."""
MANY = 80_000
"""When more are left up to the bound, in all lanes together, all jobs with the mark are looked at instead."""
LATE = 20_000
"""Jobs that moved after the span in which they were created, up to which lanes are read from the end of the span."""
PACED = 8
"""The pace of a lane is told by its job of this number."""


class BestOfLanes:
    """Tables and sources for up to `count` jobs that fit, wherever they are."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._lanes = [fresh(wanted)] * (wanted.takes("queued") and not wanted.filter.worker)
        self._lanes += [settled(wanted)] * bool(wanted.settled_statuses)
        self._may_be_late = wanted.may_be_late and bool(wanted.settled_statuses)
        self._may_be_ahead = "queued" in wanted.settled_statuses and not wanted.filter.worker

    @property
    def tables(self) -> list[str]:
        tables = [table for lane in self._lanes for table in lane.hops]
        tables += [f"held AS MATERIALIZED ({self._held()})"]
        tables += [f"ahead AS MATERIALIZED ({self._ahead()})"] * self._may_be_ahead
        if self._may_be_late:
            late = self._late(self._lanes[-1])
            tables += [f"maybe_late AS MATERIALIZED ({late})", f"prompt AS MATERIALIZED ({self._prompt()})"]
            tables += [f"late AS MATERIALIZED ({self._late_that_fit(self._lanes[-1])})"]
        if self._lanes:
            tables += [f"{lane.name}_paced AS MATERIALIZED ({self._paced(lane)})" for lane in self._lanes]
            tables += [f"shared AS MATERIALIZED ({self._shared()})"]
            tables += [f"{lane.name}_begun AS MATERIALIZED ({self._begun(lane)})" for lane in self._lanes]
            tables += [f"bound AS MATERIALIZED ({self._bound()})"]
        return tables

    @property
    def source(self) -> str:
        """Jobs that fit; among them the first ones of the list up to the bound, or to the end when there is none."""
        return " UNION ALL ".join([*self._found, *(self._read_on(lane) for lane in self._lanes)])

    @property
    def lead_there(self) -> str:
        """Whether not many are left to be looked at, up to the bound or to the end, as the index tells without them."""
        if not self._lanes:
            return "true"
        limit = f"LIMIT {MANY + 1}"
        left = " UNION ALL ".join(
            f"SELECT FROM {lane.name}_begun AS lane CROSS JOIN LATERAL ({self._left(lane, 'true', limit)}) AS job"
            for lane in self._lanes
        )
        return f"(SELECT count(*) FROM (SELECT FROM ({left}) AS jobs {limit}) AS counted) <= {MANY}"

    def _held(self) -> str:
        """Those that workers hold, found by their leases. There are never many, and all are looked at."""
        wanted = self._wanted
        if not any(wanted.takes(status) for status in HELD):
            return "SELECT NULL::uuid AS id, NULL::timestamptz AS at WHERE false"
        beyond = f"leases.job_id {wanted.beyond} %(last_id)s" if wanted.after and not wanted.by_update else "true"
        return f"""
SELECT job.id, job.at
FROM leases
CROSS JOIN LATERAL (
  SELECT id, {wanted.at} AS at FROM jobs
  WHERE jobs.id = leases.job_id AND status = ANY(%(held)s) AND {wanted.but_marks()} AND {wanted.marks()}
  OFFSET 0
) AS job
WHERE {beyond}
{wanted.first("job.at", "leases.job_id")}
"""

    def _ahead(self) -> str:
        """Those that wait since their creation, which is ahead of the clock: it was set back, or is another server's.

        Lanes of the fresh end at the clock, since what is scheduled is in them beyond it.
        """
        wanted = self._wanted
        return f"""
SELECT id, {wanted.at} AS at
FROM (SELECT * FROM jobs WHERE id >= first_id_of(statement_timestamp()) OFFSET 0) AS jobs
WHERE status = 'queued' AND {FRESH} AND run_at > statement_timestamp() AND {wanted.but_marks()} AND {wanted.marks()}
{wanted.first("updated_at", "id")}
"""

    def _late(self, lane: Lane) -> str:
        """Those that moved after the span in which they were created: all younger jobs are gone over, in the index.

        That is done once, and only then are lanes read from where the rest of the span begins, not in each step.
        """
        beyond = self._beyond(lane, *self._wanted.start)
        return f"""
SELECT job.id, job.at
FROM {lane.name} AS lane
CROSS JOIN LATERAL (
  SELECT id, {lane.at} AS at FROM jobs
  WHERE {lane.inside} AND {beyond} AND updated_at >= %(before)s
  ORDER BY {self._key(lane)}
  LIMIT {LATE + 1}
) AS job
LIMIT {LATE + 1}
"""

    def _prompt(self) -> str:
        """Where those begin that moved within the span; where too many did not, all of them."""
        at, id = self._wanted.start
        few = f"count(*) <= {LATE}"
        return f"""
SELECT {few} AS alone, CASE WHEN {few} THEN %(before)s ELSE {at} END AS at,
  CASE WHEN {few} THEN {LEAST_ID} ELSE {id} END AS id
FROM maybe_late
"""

    def _late_that_fit(self, lane: Lane) -> str:
        wanted = self._wanted
        return f"""
SELECT late.id, late.at
FROM maybe_late AS late
CROSS JOIN LATERAL (SELECT FROM jobs WHERE jobs.id = late.id AND {lane.tested} OFFSET 0) AS job
WHERE (SELECT alone FROM prompt)
{wanted.first("late.at", "late.id")}
"""

    def _paced(self, lane: Lane) -> str:
        """Lanes with jobs a second; where what fits is common, none."""
        if self._wanted.marks() == "true":
            return f"SELECT *, 0::float8 AS pace FROM {lane.name} AS lane"
        moment = "created_at" if lane.by_id else lane.at
        from_start = f"abs(extract(epoch FROM {moment} - {self._start_moment()}))"
        return f"""
SELECT lane.*, coalesce(job.pace, 0) AS pace
FROM {lane.name} AS lane
LEFT JOIN LATERAL (
  SELECT 1 / greatest({from_start}, 0.000001)::float8 AS pace
  FROM ({self._beginning(lane, f"OFFSET {PACED - 1} LIMIT 1")}) AS jobs
) AS job ON true
"""

    def _start_moment(self) -> str:
        wanted = self._wanted
        last = [", %(last_at)s"] * (wanted.after is not None)
        if wanted.beyond == ">":
            since = [", %(after)s"] * (wanted.filter.created_after is not None)
            return f"greatest((SELECT created_at FROM jobs ORDER BY id LIMIT 1){''.join(last + since)})"
        until = [", %(before)s"] * (wanted.filter.created_before is not None and not wanted.by_update)
        until += [", (SELECT at FROM prompt)"] * self._may_be_late
        return f"least(statement_timestamp(){''.join(last + until)})"

    def _shared(self) -> str:
        """What is to be shared: how many that fit are read at first, of how many that are looked at."""
        lanes = " UNION ALL ".join(f"SELECT pace FROM {lane.name}_paced" for lane in self._lanes)
        return f"""
SELECT 2 * %(count)s::float8 AS fit, {LOOKED_AT}::float8 AS looked_at, greatest(count(*), 1) AS lanes,
  greatest(sum(pace), 0.000001) AS pace
FROM ({lanes}) AS lanes
"""

    def _begun(self, lane: Lane) -> str:
        marked = self._wanted.marks() != "true"
        share = "(1 / shared.lanes + lane.pace / shared.pace)"
        few = f"({8 if marked else 2} + shared.fit * {share})::bigint"
        looked_at = f"({8 if marked else 2} + (shared.fit + shared.looked_at / 2) * {share})::bigint"
        return f"""
SELECT lane.*, job.ids, job.ats, job.ids[cardinality(job.ids)] AS last_id, job.ats[cardinality(job.ats)] AS last_at
FROM {lane.name}_paced AS lane
CROSS JOIN shared
CROSS JOIN LATERAL (
  SELECT array_agg(id) AS ids, array_agg(at) AS ats
  FROM (
    SELECT id, {lane.at} AS at
    FROM ({self._beginning(lane, f"LIMIT {looked_at}")}) AS jobs
    WHERE {lane.tested}
    LIMIT {few}
  ) AS first
) AS job
"""

    def _beginning(self, lane: Lane, limit: str) -> str:
        beyond = self._beyond(lane, *lane.start)
        return f"SELECT * FROM jobs WHERE {lane.inside} AND {beyond} ORDER BY {self._key(lane)} {limit}"

    @property
    def _found(self) -> list[str]:
        return [
            "SELECT id, at FROM held",
            *["SELECT id, at FROM ahead"] * self._may_be_ahead,
            *["SELECT id, at FROM late"] * self._may_be_late,
            *(f"SELECT unnest(ids), unnest(ats) FROM {lane.name}_begun" for lane in self._lanes),
        ]

    def _bound(self) -> str:
        wanted = self._wanted
        created = "(SELECT created_at FROM jobs WHERE jobs.id = found.id)"
        return f"""
SELECT id, {"at" if wanted.by_update else f"{created} AS at"}
FROM ({" UNION ALL ".join(self._found)}) AS found (id, at)
ORDER BY {wanted.order("at", "id")}
OFFSET %(count)s - 1 LIMIT 1
"""

    def _read_on(self, lane: Lane) -> str:
        return f"""
SELECT job.id, job.at
FROM {lane.name}_begun AS lane
CROSS JOIN LATERAL ({self._left(lane, lane.tested, "LIMIT %(count)s")}) AS job
"""

    def _left(self, lane: Lane, tested: str, limit: str) -> str:
        """Of a lane, behind the last one that was found, up to the bound."""
        at, id = lane.start
        beyond = self._beyond(lane, f"coalesce(lane.last_at, {at})", f"coalesce(lane.last_id, {id})")
        return f"""
SELECT id, {lane.at} AS at FROM jobs
WHERE {lane.inside} AND {beyond} AND {self._up_to_bound(lane)} AND {_while_reading(tested)}
ORDER BY {self._key(lane)}
{limit}
"""

    def _beyond(self, lane: Lane, at: str, id: str) -> str:
        way = self._wanted.beyond
        return f"id {way} {id}" if lane.by_id else f"({lane.at}, id) {way} ({at}, {id})"

    def _up_to_bound(self, lane: Lane) -> str:
        way, id, at = (">", LEAST_ID, "-infinity") if self._wanted.beyond == "<" else ("<", MOST_ID, "infinity")
        id, at = f"coalesce((SELECT id FROM bound), {id})", f"coalesce((SELECT at FROM bound), '{at}'::timestamptz)"
        return f"id {way}= {id}" if lane.by_id else f"({lane.at}, id) {way}= ({at}, {id})"

    def _key(self, lane: Lane) -> str:
        way = self._wanted.way
        return f"id {way}" if lane.by_id else f"{lane.at} {way}, id {way}"


def _while_reading(tested: str) -> str:
    """What rows are tested for as they come in the order of the list.

    In a coalesce() it is nothing to the planner that an index could serve, or that would make a sort seem cheap.
    """
    return tested if tested == "true" else f"coalesce({tested}, false)"

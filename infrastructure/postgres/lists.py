"""Lists of jobs, a page at a time: few rows are read for it, whatever the filter and however many jobs there are.

Jobs of one status, queue and kind are a lane (lanes.py), in which the list's order is an index's; the page is the best
of all lanes (best_of_lanes.py). So the cost grows with the number of lanes, not with that of jobs. Since a job that
moves is written to each index anew (docs/decisions.md has the price), a job is found in one of three places:

* fresh: queued since its creation and due from the start, where the claim finds it. It has not moved, so that the
  orders of creation, of update and of `run_at` are one;
* settled: scheduled, waiting for another attempt, or ended: `jobs_by_creation` and `jobs_by_update`;
* held by a worker: where its lease is. There are never many.

Only what was created ahead of the clock, which was set back, is found by its id alone.

Labels and workers have indexes without an order, by which all jobs with one are looked at. That is the way when they
are few, and when lanes do not show enough of them.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from msgspec import MsgspecError, Struct
from msgspec.json import decode, encode

from application.errors import FieldError, Invalid
from application.jobs import Filter, JobView, Sort
from infrastructure.postgres.best_of_lanes import BestOfLanes
from infrastructure.postgres.wanted import Place, Wanted, every

WALKED = 10_000
"""Jobs that are looked at in the order of creation in hope of a page, before all with a mark, or all lanes, are."""
FEW = 5_000
"""Jobs created in a span of time that are all looked at for those that moved last."""
SAMPLE, COMMON, BUSY = 2_000, 20, 300
"""Of so many jobs so many have a label, or a worker, that is too common for all jobs with it to be looked at."""


class Way(Struct):
    """A way to the jobs of a page: what it reads first, by which one sees whether it leads there, and the jobs."""

    name: str
    tables: list[str]
    when: str
    source: str


class Page:
    """The statement for up to `count` jobs of a list, from its beginning or after a cursor."""

    def __init__(self, wanted: Filter, sort: Sort, count: int, cursor: str | None) -> None:
        """Raises Invalid unless the cursor was given out for this very list."""
        self._list_id = sha256(encode((wanted, sort))).digest()[:6]
        self._wanted = Wanted(wanted, sort, self._place(cursor) if cursor is not None else None)
        self.count = count

    def cursor(self, last: JobView) -> str:
        """What leads to the jobs after `last`."""
        return self.cursor_at(last.id, last.updated_at if self._wanted.by_update else last.created_at)

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
        return self._wanted.values(self.count)

    def query(self, columns: str) -> bytes:
        """`columns` are of `jobs` and of `leases`."""
        wanted = self._wanted
        tables: list[str] = []
        ways: list[str] = []
        sources: list[str] = []
        for tried in self._ways():
            tables += tried.tables
            ways.append(f"WHEN {tried.when} THEN '{tried.name}'")
            sources.append(f"SELECT * FROM ({tried.source}) AS source WHERE (SELECT name FROM way) = '{tried.name}'")
        return f"""
WITH RECURSIVE {", ".join(tables)},
way AS MATERIALIZED (SELECT CASE {" ".join(ways)} END AS name)
SELECT {columns}
FROM (
  SELECT id, at FROM ({" UNION ALL ".join(sources)}) AS found (id, at) {wanted.first("at", "id")}
) AS page (job, moment)
CROSS JOIN LATERAL (SELECT * FROM jobs WHERE jobs.id = page.job OFFSET 0) AS jobs
LEFT JOIN LATERAL (SELECT heartbeat_at FROM leases WHERE leases.job_id = page.job OFFSET 0) AS leases ON true
ORDER BY {wanted.order("moment", "job")}
""".encode()

    def _ways(self) -> Iterator[Way]:
        """Those that may be quickest, the first one first; the last one always leads there."""
        wanted, filter = self._wanted, self._wanted.filter
        marks, lanes = wanted.marks(), BestOfLanes(wanted)
        by_lane = bool(filter.status or filter.queue or filter.kind)
        if not wanted.by_update and (filter.worker or not by_lane):
            walked = f"walked AS MATERIALIZED ({self._walk()})"
            when = f"(SELECT count(*) FROM walked) >= %(count)s OR {self._are_few(wanted.in_range(), WALKED)}"
            yield Way("walk", [walked], when, "SELECT * FROM walked")
        if wanted.by_update and wanted.in_span() != "true":
            yield Way("span", [], self._are_few(wanted.in_span(), FEW), self._of(wanted.in_span()))
        if marks != "true":
            common = COMMON if filter.label else BUSY
            yield Way("rare", [], f"(SELECT count(*) FROM ({self._sample()}) AS sample) < {common}", self._of(marks))
        yield Way("lanes", lanes.tables, lanes.lead_there if marks != "true" else "true", lanes.source)
        if marks != "true":
            yield Way("marks", [], "true", self._of(marks))

    def _are_few(self, condition: str, most: int) -> str:
        return f"(SELECT count(*) FROM (SELECT FROM jobs WHERE {condition} LIMIT {most + 1}) AS counted) <= {most}"

    def _walk(self) -> str:
        wanted = self._wanted
        return f"""
SELECT id, {wanted.at}
FROM (SELECT * FROM jobs WHERE {wanted.in_range()} ORDER BY id {wanted.way} LIMIT {WALKED}) AS jobs
WHERE {wanted.fits()}
LIMIT %(count)s
"""

    def _sample(self) -> str:
        """The newest jobs; for workers, whom those that wait tell nothing of, jobs from all over the table."""
        some = f"SELECT * FROM jobs ORDER BY id DESC LIMIT {SAMPLE}"
        if not self._wanted.filter.label:
            size = "(SELECT reltuples FROM pg_class WHERE oid = 'jobs'::regclass)"
            percent = f"least(100, 100 * {SAMPLE} / greatest({size}, 1))"
            some = f"SELECT * FROM jobs TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1) LIMIT {2 * SAMPLE}"
        return f"SELECT FROM ({some}) AS jobs WHERE {self._wanted.marks()}"

    def _of(self, some: str) -> str:
        """Of the jobs that an index finds by a condition, all of which are looked at.

        In a coalesce() the rest of the filter is nothing that another index could serve; what was found is not asked
        for its labels again.
        """
        wanted = self._wanted
        rest = wanted.fits() if some != wanted.marks() else every([wanted.but_marks(), wanted.has_status()])
        return f"""
SELECT id, {wanted.at} AS at
FROM (SELECT id, updated_at FROM jobs WHERE {some} AND coalesce({rest}, false) OFFSET 0) AS jobs
{wanted.first("updated_at", "id")}
"""

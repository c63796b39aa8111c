"""How long the server takes for a page of jobs among a million, for every filter and every two or three of them.

python -m benchmarks.lists [--of 2] [--slowest 40] [DSN of a database that tests/infrastructure/million.py filled]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from pathlib import Path
from typing import Any, get_args

from application.jobs import Filter, Sort
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.postgres.database import Database
from infrastructure.postgres.jobs import COLUMNS
from infrastructure.postgres.lists import Page
from infrastructure.postgres.schema import migrate
from tests.infrastructure import million

GOAL = 0.1
PAGE = 51
NOW = datetime.now(UTC)
VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "status": {
        name: {"status": tuple(name.split("|"))}
        for name in ("queued", "scheduled", "running", "completed", "failed", "cancelled", "failed|cancelled")
    },
    "kind": {name: {"kind": tuple(name.split("|"))} for name in ("kind-1", "kind-2", "rare", "retired")},
    "queue": {name: {"queue": tuple(name.split("|"))} for name in ("queue-3", "rare", "retired")},
    "label": {
        "rare": {"label": (("customer", "rare"),)},
        "2 %": {"label": (("trial", "yes"),)},
        "10 %": {"label": (("tier", "gold"),)},
        "50 %": {"label": (("region", "eu"),)},
        "of kind-2 alone": {"label": (("model", "large"),)},
        "absent": {"label": (("customer", "none"),)},
    },
    "worker": {name: {"worker": (name,)} for name in ("worker-2", "rare", "nobody")},
    "created": {
        "lately": {"created_after": NOW - timedelta(days=2)},
        "after": {"created_after": NOW - timedelta(days=500)},
        "before": {"created_before": NOW - timedelta(days=400)},
        "on a day": {"created_after": NOW - timedelta(days=500), "created_before": NOW - timedelta(days=499)},
    },
    "namespace": {"any": {"namespace": None}, "other": {"namespace": "other"}},
}
MIDDLE = f"SELECT id, created_at, updated_at FROM jobs WHERE id = (SELECT id FROM seed WHERE n = {million.JOBS // 2})"


def filters(most: int) -> Iterator[tuple[str, Filter]]:
    """Every choice of one value for up to so many fields."""
    for fields in (fields for count in range(most + 1) for fields in combinations(VALUES, count)):
        for names in product(*(VALUES[field] for field in fields)):
            chosen: dict[str, Any] = {"namespace": "default"}
            for field, name in zip(fields, names, strict=True):
                chosen |= VALUES[field][name]
            yield ", ".join(f"{field} {name}" for field, name in zip(fields, names, strict=True)), Filter(**chosen)


def measure(database: Database, most: int) -> Iterator[tuple[float, str]]:
    """Seconds, the best of three once it is planned, or of twenty when that is above the goal; and of what."""
    ((id, created_at, updated_at),) = database.rows(MIDDLE.encode())
    for name, wanted in filters(most):
        for sort in get_args(Sort):
            at = updated_at if sort == "-updated_at" else created_at
            middle = Page(wanted, sort, PAGE, None).cursor_at(id, at)
            for place, cursor in (("first page", None), ("in the middle", middle)):
                page = Page(wanted, sort, PAGE, cursor)
                seconds = min(_seconds(database, page) for _ in range(4))
                if seconds > GOAL:
                    seconds = min(seconds, *(_seconds(database, page) for _ in range(17)))
                yield seconds, f"{name or 'everything'}; {sort}; {place}"


def _seconds(database: Database, page: Page) -> float:
    query, values = page.query(COLUMNS), page.values
    begun = time.perf_counter()
    database.rows(query, values)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dsn", nargs="?")
    parser.add_argument("--of", type=int, default=2, help="how many fields are combined")
    parser.add_argument("--slowest", type=int, default=40, help="how many are shown")
    options = parser.parse_args()
    if options.dsn:
        report(options.dsn, options.of, options.slowest)
        return
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder), lambda line: print(line, file=sys.stderr))
        try:
            dsn = server.start()
            with closing(Database(dsn)) as database:
                migrate(database)
            million.fill(dsn)
            report(dsn, options.of, options.slowest)
        finally:
            server.stop()


def report(dsn: str, most: int, slowest: int) -> None:
    with closing(Database(dsn, by_index=True)) as database:
        figures = sorted(measure(database, most), reverse=True)
    above = sum(seconds > GOAL for seconds, _ in figures)
    median = figures[len(figures) // 2][0]
    print(f"{len(figures)} pages, median {median * 1000:.1f} ms, {above} above {GOAL * 1000:.0f} ms; the slowest:")
    for seconds, what in figures[:slowest]:
        print(f"{seconds * 1000:8.1f} ms  {what}")


if __name__ == "__main__":
    main()

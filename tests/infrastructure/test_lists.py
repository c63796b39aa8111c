"""Every filter, in every order, by every way: page by page to the end, no job is lost, doubled or out of its place."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any, get_args
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection

from application.jobs import Filter, Sort
from infrastructure.postgres import best_of_lanes, failures, lists
from infrastructure.postgres.database import Database
from infrastructure.postgres.jobs import PostgresViews
from tests.infrastructure.million import ID_OF

JOBS = 500
PAGE = 40
SEED = random.randrange(1_000_000)
NOW = datetime.now(UTC).replace(microsecond=0)
DAYS = 20
"""Jobs were created on so many moments, a day apart, and moved at one of these, so that there are many of each."""

FILL = f"""
INSERT INTO jobs (id, version, position, namespace, kind, queue, priority, status, attempt, max_attempts, progress,
  worker, input, labels, run_at, created_at, updated_at, started_at, finished_at)
SELECT id_of(created_at, n), version, n, namespace, kind, queue, priority, status, 1, 3, 0,
  CASE WHEN version > 1 THEN 'worker-' || (random() * 2)::int END, '{{}}',
  nullif('{{}}'::jsonb
    || CASE WHEN random() < 0.5 THEN '{{"region":"eu"}}'::jsonb ELSE '{{}}' END
    || CASE WHEN random() < 0.1 THEN '{{"tier":"gold"}}'::jsonb ELSE '{{}}' END
    || CASE WHEN kind = 'one' THEN '{{"of":"one"}}'::jsonb ELSE '{{}}' END
    || CASE WHEN n = 77 THEN '{{"customer":"rare"}}'::jsonb ELSE '{{}}' END, '{{}}'),
  CASE waits WHEN 0 THEN created_at WHEN 1 THEN now() + interval '1 day' ELSE updated_at + interval '1 minute' END,
  created_at, updated_at, CASE WHEN version > 1 THEN updated_at END,
  CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN updated_at END
FROM (
  SELECT *, CASE WHEN status = 'queued' AND waits < 2 THEN 1 WHEN status = 'queued' THEN 4 ELSE 3 END AS version,
    CASE WHEN status = 'queued' AND waits < 2 THEN created_at
      ELSE created_at + make_interval(days => least((random() * 4)::int, {DAYS} - day)) END AS updated_at
  FROM (
    SELECT n, day, %(first)s + make_interval(days => day) AS created_at, status,
      CASE WHEN status = 'queued' THEN n %% 3 ELSE 0 END AS waits,
      (ARRAY['default', 'default', 'default', 'other', 'third'])[1 + (random() * 4)::int] AS namespace,
      (ARRAY['one', 'two', 'two', 'two', 'three'])[1 + (random() * 4)::int] AS kind,
      (ARRAY['a', 'a', 'a', 'b', 'c/d'])[1 + (random() * 4)::int] AS queue,
      (ARRAY[0, 0, 50])[1 + (random() * 2)::int] AS priority
    FROM (
      SELECT n, (random() * {DAYS})::int AS day,
        (ARRAY['queued', 'queued', 'queued', 'completed', 'completed', 'completed', 'failed', 'cancelled', 'running',
          'cancelling'])[1 + (random() * 9)::int] AS status
      FROM generate_series(1, {JOBS}) AS n
    ) AS made
  ) AS placed
) AS moved
"""
LEASES = """
INSERT INTO leases (job_id, attempt, worker, heartbeat_timeout, heartbeat_at, expires_at)
SELECT id, 1, worker, 30, now(), now() + interval '1 day' FROM jobs WHERE status IN ('running', 'cancelling')
"""
FIRST = NOW - timedelta(days=DAYS - 1)
"""The last ones are created a day ahead of the clock, as on a server whose clock was ahead of its successor's."""
VALUES: dict[str, tuple[Any, ...]] = {
    "namespace": (None, "default", "other", "nobody"),
    "status": (
        *[(status,) for status in ("queued", "scheduled", "running", "completed", "failed")],
        ("queued", "completed"),
        ("scheduled", "cancelled", "cancelling"),
    ),
    "kind": (("one",), ("one", "three"), ("none",)),
    "queue": (("a",), ("b", "c/d")),
    "label": (
        *[
            ((label),)
            for label in (("region", "eu"), ("tier", "gold"), ("of", "one"), ("customer", "rare"), ("no", "no"))
        ],
        (("tier", "gold"), ("of", "one")),
    ),
    "worker": (("worker-1",), ("worker-0", "nobody")),
    "created_after": (FIRST + timedelta(days=3), FIRST + timedelta(days=DAYS - 1)),
    "created_before": (FIRST + timedelta(days=4), FIRST + timedelta(days=DAYS + 60)),
}
WAYS = {
    "as they are": {},
    "by lanes": {"WALKED": 20, "FEW": 10, "COMMON": 0, "BUSY": 0, "LOOKED_AT": 100, "MANY": 10**6},
    "by lanes or marks": {"WALKED": 5, "FEW": 1, "COMMON": 0, "BUSY": 0, "LOOKED_AT": 10, "MANY": 20, "LATE": 5},
    "by marks": {"WALKED": 1, "FEW": 0, "COMMON": 10**6, "BUSY": 10**6},
}
"""What the numbers are that decide on the way."""


@pytest.fixture(scope="module")
def views(dsn: str) -> Iterator[PostgresViews]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT setseed(%s)", [SEED / 1_000_000])
        connection.execute(ID_OF.encode())
        connection.execute(FILL.encode(), {"first": FIRST})
        connection.execute(LEASES)
        connection.execute("VACUUM ANALYZE jobs, leases")
    database = Database(dsn, by_index=True)
    yield PostgresViews(database)
    database.close()


def filters(most: int) -> Iterator[Filter]:
    """Every choice of one value for up to so many fields."""
    for fields in (fields for count in range(most + 1) for fields in combinations(VALUES, count)):
        for values in product(*(VALUES[field] for field in fields)):
            yield Filter(**dict(zip(fields, values, strict=True)))


def some_filters(count: int) -> list[Filter]:
    """Of all the fields, each given or not, as chance will have it."""
    chance = random.Random(SEED)
    return [
        Filter(**{field: chance.choice(values) for field, values in VALUES.items() if chance.random() < 0.4})
        for _ in range(count)
    ]


def expected(connection: Connection, wanted: Filter, sort: Sort) -> list[UUID]:
    """All of them, by the plainest statement there is."""
    conditions, values = ["true"], dict[str, Any]()
    for field in ("kind", "queue", "worker"):
        if getattr(wanted, field):
            conditions.append(f"{field} = ANY(%({field})s)")
            values[field] = list(getattr(wanted, field))
    if wanted.namespace is not None:
        conditions.append("namespace = %(namespace)s")
        values["namespace"] = wanted.namespace
    if wanted.status:
        conditions.append(
            "(status = ANY(%(status)s) OR %(scheduled)s AND status = 'queued' AND run_at > statement_timestamp())"
        )
        values |= {"status": list(wanted.status), "scheduled": "scheduled" in wanted.status}
    if wanted.label:
        conditions.append("(" + " OR ".join(f"labels ->> '{key}' = '{value}'" for key, value in wanted.label) + ")")
    for field, beyond in (("created_after", ">"), ("created_before", "<")):
        if getattr(wanted, field):
            conditions.append(f"created_at {beyond} %({field})s")
            values[field] = getattr(wanted, field)
    order = {"-created_at": "id DESC", "created_at": "id", "-updated_at": "updated_at DESC, id DESC"}[sort]
    query = f"SELECT id FROM jobs WHERE {' AND '.join(conditions)} ORDER BY {order}"
    return [row[0] for row in connection.execute(query.encode(), values)]


def listed(views: PostgresViews, wanted: Filter, sort: Sort, limit: int) -> list[UUID]:
    """All pages, one after the other; each but the last is full."""
    found: list[UUID] = []
    cursor = None
    while True:
        page, cursor = views.page(wanted, sort, limit, cursor)
        found += [view.id for view in page]
        if cursor is None:
            return found
        assert len(page) == limit


@pytest.mark.parametrize("sort", get_args(Sort))
@pytest.mark.parametrize("way", WAYS)
def test_all_pages_are_the_list(
    dsn: str, views: PostgresViews, monkeypatch: pytest.MonkeyPatch, way: str, sort: Sort
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(lists if hasattr(lists, name) else best_of_lanes, name, value)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for wanted in [*filters(1 if way == "as they are" else 2), *some_filters(60)]:
            assert listed(views, wanted, sort, PAGE) == expected(connection, wanted, sort), (SEED, way, wanted)


@pytest.mark.parametrize("sort", get_args(Sort))
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_pages_of_any_length_are(
    dsn: str, views: PostgresViews, monkeypatch: pytest.MonkeyPatch, limit: int, sort: Sort
) -> None:
    for name, value in WAYS["by lanes"].items():
        monkeypatch.setattr(lists if hasattr(lists, name) else best_of_lanes, name, value)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for wanted in (Filter(), Filter(label=(("tier", "gold"),)), Filter(namespace="other", status=("queued",))):
            if limit > 1 or wanted != Filter():
                assert listed(views, wanted, sort, limit) == expected(connection, wanted, sort), (SEED, wanted)


ALIKE = """
INSERT INTO failures (generation, namespace, kind, type, fingerprint, message, count, final, first_seen, last_seen,
  examples)
SELECT generation, namespace, 'one', 'Broken', '\\x00', 'it broke', count, 0, now(), now(), '{}'
FROM projections, (VALUES ('a', 1), ('b', 2), ('c', 3)) AS those (namespace, count)
WHERE projections.name = 'failures' AND state = 'live'
"""


def test_failures_that_namespaces_have_alike_are_each_listed(dsn: str) -> None:
    database = Database(dsn, by_index=True)
    with database.connection() as connection:
        connection.execute(ALIKE)
    found, cursor = failures.listed(database, None, 1, None)
    while cursor:
        page, cursor = failures.listed(database, None, 1, cursor)
        found += page
    assert [failure.count for failure in found] == [3, 2, 1]
    assert [failure.count for failure in failures.listed(database, "b", 1, None)[0]] == [2]
    database.close()

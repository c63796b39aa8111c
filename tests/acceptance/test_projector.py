"""`jobledger projector` as a process: it follows the log, is replaced at once when it dies, and stops when told."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import psycopg

from tests.conftest import Start

CREATED = "SELECT coalesce(sum(created), 0) FROM stats WHERE queue = %s"


def created(dsn: str, queue: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(CREATED, (queue,)).fetchone()
    return int(row[0]) if row else 0


def test_one_of_two_goes_on_when_the_other_is_killed(
    dsn: str, api: str, start: Start, wait_until: Callable[[Callable[[], object], str], object]
) -> None:
    projectors = [start("projector", DATABASE_URL=dsn) for _ in range(2)]
    for projector in projectors:
        projector.wait_for_line("jobledger projector following the log")
    with httpx2.Client(base_url=api) as http:
        for n, projector in enumerate(projectors, 1):
            assert http.post("/v1/jobs", json={"kind": "test", "queue": "two", "input": None}).status_code == 202
            wait_until(lambda: created(dsn, "two") == n, "the job is counted")  # noqa: B023  asked at once
            if n == 1:
                projector.kill()
            else:
                assert projector.stop() == 0


def test_up_runs_one(start: Start, wait_until: Callable[[Callable[[], object], str], object], tmp_path: Path) -> None:
    up = start("up", "--port", "0", "--data", str(tmp_path / "up"))
    assert up.url
    up.wait_for_line("jobledger projector following the log")
    assert up.stop() == 0

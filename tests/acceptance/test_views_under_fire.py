"""Views under fire: projectors are killed at random while jobs run and views are built anew, and no view is wrong."""

import os
import random
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from infrastructure.postgres.projections import VIEWS
from tests.conftest import Start
from tests.infrastructure.views import Desk
from tests.waiting import eventually

KILLS = int(os.environ.get("JOBLEDGER_TEST_KILLS", "20"))
SEED = 20
HANDLERS = '''
"""Jobs that end in every way."""

import random

from application.handlers import GiveUp, JobContext, handles


@handles("mixed")
async def mixed(job: JobContext, input: int) -> int:
    await job.progress(0.5, "half way")
    if random.random() < 0.2:
        raise GiveUp(f"order {input} is torn")
    return input
'''


def test_killed_projectors_leave_every_view_equal_to_a_fresh_fold(
    dsn: str, api: str, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "mixed_handlers.py").write_text(HANDLERS)
    dice = random.Random(SEED)
    projectors = [start("projector", DATABASE_URL=dsn) for _ in range(3)]
    start("worker", DATABASE_URL=dsn, JOBLEDGER_HANDLERS="mixed_handlers")
    rebuilds = 0
    with httpx2.Client(base_url=api, timeout=60) as http:
        for kill in range(KILLS):
            struck = projectors.pop(0)
            struck.wait_for_line("following the log")
            if kill % 3 == 0:
                name = dice.choice(VIEWS).name
                answer = http.post(f"/v1/projections/{name}/rebuilds", json={"reason": "under fire"})
                rebuilds += answer.status_code == 202
            before = checkpoints(dsn)
            jobs = [{"kind": "mixed", "input": n} for n in range(200)]
            assert http.post("/v1/jobs/batch", json={"jobs": jobs}).status_code == 202
            eventually(lambda: moved(before, checkpoints(dsn)), 60)  # noqa: B023  asked at once
            struck.kill()
            projectors.append(start("projector", DATABASE_URL=dsn))
        eventually(lambda: settled(http), 120)
        views = http.get("/v1/projections").json()["items"]
    assert rebuilds
    assert sum(view["generation"] - 1 for view in views if view["generation"]) == rebuilds
    for projector in projectors:
        projector.wait_for_line("following the log")
        assert projector.stop() == 0
    desk = Desk(dsn)
    desk.catch_up()
    for view in VIEWS:
        assert desk.rows(view.name) == desk.fresh(view.name), view.name
    assert sum(counts.created for counts in desk.rows("stats").values()) == 200 * KILLS
    desk.close()


def checkpoints(dsn: str) -> dict[tuple[str, int], int]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT name, generation, position FROM projections WHERE state <> 'retired'")
        return {(name, generation): position for name, generation, position in rows}


def moved(before: dict[tuple[str, int], int], after: dict[tuple[str, int], int]) -> bool:
    """Whether somebody writes views at all."""
    return any(position > before.get(key, position) for key, position in after.items())


def settled(http: httpx2.Client) -> bool:
    """Nothing is left to fold or to build."""
    views: list[Any] = http.get("/v1/projections").json()["items"]
    running = http.get("/v1/jobs", params={"status": ["queued", "running"], "limit": 1}).json()["items"]
    return not running and all(view["lag_events"] == 0 and view["rebuild"] is None for view in views)

"""The sealer as a process: killed at random moments under load, it loses no checkpoint and contradicts none."""

import random
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import httpx2
import psycopg

from domain.merkle import check_consistency, consistency
from tests.conftest import Start
from tests.infrastructure.nodes import Node, ask, new_job
from tests.sealing import Sealing

KILLS = 20
WaitUntil = Callable[[Callable[[], object], str], object]


def test_a_sealer_that_is_killed_leaves_no_hole(dsn: str, start: Start, wait_until: WaitUntil, tmp_path: Path) -> None:
    """Two at a time, so that the other goes on; both are killed within a few seals of each other."""
    data, stop = tmp_path / "data", threading.Event()
    rng = random.Random(6962)
    seen: dict[int, str] = {}

    def load() -> None:
        with Node(dsn) as node:
            while not stop.is_set():
                node.create(*[new_job() for _ in range(rng.randrange(1, 50))])

    def sealers_work() -> bool:
        size = ask(dsn, "SELECT size FROM seal")[0][0]
        return bool(size > before)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        before = -1
        sealers = [start("projector", "--data", str(data), DATABASE_URL=dsn)]
        wait_until(lambda: (data / "seal" / "checkpoint").exists(), "the first checkpoint is kept")
        sealers.append(start("projector", "--data", str(data), DATABASE_URL=dsn))
        for kill in range(KILLS):
            ((before,),) = ask(dsn, "SELECT size FROM seal")
            wait_until(sealers_work, "the log is sealed on")
            with psycopg.connect(dsn) as connection:
                notes: dict[int, str] = dict(connection.execute("SELECT size, note FROM seal_checkpoints").fetchall())
            assert seen.items() <= notes.items(), "a checkpoint was lost or changed"
            seen = notes
            stop.wait(rng.random() / 5)
            sealers[kill % 2].kill()
            sealers[kill % 2] = start("projector", "--data", str(data), DATABASE_URL=dsn)
    finally:
        stop.set()
        loading.join(30)
    for sealer in sealers:
        sealer.wait_for_line("following the log")
        assert sealer.stop() == 0
    sealing = Sealing(dsn, data / "seal")
    sealing.all()
    assert sealing.check() == ask(dsn, "SELECT count(*) FROM events")[0][0]
    for one, two in pairwise(sealing.checkpoints()):
        proof = consistency(one.size, two.size, sealing.store.tile)
        check_consistency(one.size, two.size, one.root, two.root, proof)
    assert len(sealing.store.sealing_keys()) == 1
    sealing.close()


def test_up_seals_what_it_records(start: Start, wait_until: WaitUntil, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors"
    up = start("up", "--port", "0", "--data", str(tmp_path / "up"), "--anchor", str(anchors))
    assert up.url
    with httpx2.Client(base_url=up.url) as http:
        assert http.post("/v1/jobs", json={"kind": "test", "queue": "seal", "input": None}).status_code == 202
    kept = tmp_path / "up" / "seal" / "checkpoint"
    wait_until(kept.exists, "the job is sealed")
    assert kept.read_text().startswith("jobledger/")

    def anchored() -> list[str]:
        return [file.read_text() for file in anchors.rglob("*") if file.is_file()]

    wait_until(lambda: kept.read_text() in anchored(), "the checkpoint is anchored")
    assert up.stop() == 0

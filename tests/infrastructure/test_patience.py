"""A server that hangs: whoever waits for it gives up in time, and is served by new connections once it goes on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import Raw

from application.errors import Unavailable
from application.ledger import Expired
from application.reports import Beat, CompletionReport
from application.rescue import MissHeartbeat
from domain.job import Cause
from tests.infrastructure.nodes import PATIENCE, Node, ask, migrated, new_job
from tests.plugs import Plug
from tests.waiting import eventually


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    with Plug(tmp_path / "postgres") as plug:
        migrated(plug.dsn)
        yield plug


def test_heartbeats_and_batches_give_up_on_a_server_that_hangs(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.postgres.persistence.READ_PATIENCE", 0.3)
    monkeypatch.setattr("infrastructure.postgres.persistence.BATCH_PATIENCE", 0.3)
    with Node(plug.dsn) as node:
        ids = node.started(*[new_job() for _ in range(3)])
        node.leases.extend([Beat(id, 1, "w1") for id in ids])
        ask(plug.dsn, "UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id = %s", [ids[1]])
        lost = MissHeartbeat(expired=Expired(ids[1], 1, datetime.now(UTC)))
        with ThreadPoolExecutor(3) as threads:
            with plug.frozen():
                beat = threads.submit(node.leases.extend, [Beat(ids[0], 1, "w1")])
                rescue = threads.submit(node.execute, lost)
                with pytest.raises(Unavailable):
                    beat.result(PATIENCE)
                (answer,) = rescue.result(PATIENCE)
                assert isinstance(answer, Unavailable)
            (lease,) = node.leases.extend([Beat(ids[0], 1, "w1")])
            assert lease is not None
            assert lease.extended
            eventually(lambda: node.one(lost) == "queued")
            assert node.say(CompletionReport(job_id=ids[2], attempt=1)).version == 3


def test_a_commit_that_a_hanging_server_did_not_answer_is_looked_up(
    plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infrastructure.postgres.persistence.BATCH_PATIENCE", 0.3)
    with Node(plug.dsn) as node, ExitStack() as stack:
        (id,) = node.started(new_job())

        def complete() -> None:
            with node.ledger.batch([id]) as batch:
                job = batch.job(id)
                batch.record(job, job.complete(1, "w1", Raw(b"1"), Cause(batch.now, "worker:w1")))
                stack.enter_context(plug.frozen())

        with pytest.raises(Unavailable, match="may or may not have"):
            complete()
        stack.close()
        eventually(lambda: len(node.log.stream(id)) == 3)

"""Random commands, after any of which each row must be what its stream says."""

import random
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

import msgspec
from msgspec import Raw

from application.commands import Command
from application.errors import Invalid, Unavailable
from application.jobs import Cancel, JobView, NewJob, Requeue, Retry
from application.ledger import Expired
from application.reports import (
    ArtifactReport,
    CancelReport,
    CompletionReport,
    Decided,
    FailureReport,
    ProgressReport,
    ReleaseReport,
    ReportedError,
    Say,
)
from application.rescue import MissHeartbeat
from domain.events import Artifact
from domain.job import Job
from tests.infrastructure.commands import EVENTS
from tests.infrastructure.nodes import ASKED, Node, ask, new_job


class Story:
    """Random commands to a handful of jobs, through the servers in turn; also such as must be refused."""

    def __init__(self, chance: random.Random, nodes: list[Node]) -> None:
        self._chance = chance
        self._nodes = nodes
        self._said = 0
        self.ids: list[UUID] = []

    def go_on(self) -> None:
        """One batch of commands, or a claim, through one of the servers."""
        node = self._chance.choice(self._nodes)
        if not self.ids or (len(self.ids) < 8 and self._chance.random() < 0.3):
            self.ids += node.create(*[self._new_job() for _ in range(self._chance.randint(1, 3))])
        elif self._chance.random() < 0.35:
            node.claim(self._chance.choice(("w1", "w2")), self._chance.randint(1, 4), claim_id="claim")
        else:
            for answer in node.execute(*[self._command() for _ in range(self._chance.randint(1, 6))]):
                assert not isinstance(answer, Unavailable | Invalid), answer

    def check(self) -> None:
        """All columns of all rows, and the leases, are what the streams say."""
        node = self._chance.choice(self._nodes)
        dsn = node.dsn
        positions = dict(ask(dsn, "SELECT originator_id, max(notification_id) FROM events GROUP BY originator_id"))
        leases = {row[0]: row[1:] for row in ask(dsn, "SELECT job_id, attempt, worker, heartbeat_at FROM leases")}
        jobs = [node.log.fold(id) for id in self.ids]
        assert node.views.jobs(self.ids) == [
            JobView.of(job, positions[job.id], leases[job.id][2] if job.held else None) for job in jobs
        ]
        assert {id: lease[:2] for id, lease in leases.items()} == {
            job.id: (job.attempt, job.worker) for job in jobs if job.held
        }

    def recorded(self) -> list[str]:
        return [row[2] for row in ask(self._nodes[0].dsn, EVENTS, [self.ids])]

    def _new_job(self) -> NewJob:
        some = self._chance
        return new_job(
            input=Raw(msgspec.json.encode({"n": some.random(), "text": "żółw 🐢"})),
            queue="default",
            kind=some.choice(("a", "b")),
            priority=some.randint(-100, 100),
            run_at=datetime.now(UTC) + timedelta(seconds=some.choice((-60, 0))),
            max_attempts=some.randint(1, 3),
            retry=Retry(initial=0, factor=1, max=0),
            heartbeat_timeout=some.choice((0.5, 30.0)),
            time_limit=some.choice((None, 5.0)),
            labels=some.choice((None, {"team": "ż", "tier": ""})),
        )

    def _command(self) -> Command:
        some = self._chance
        id = some.choice(self.ids)
        job = self._nodes[0].log.fold(id)
        if some.random() < (0.15 if job.held else 0.6):
            return self._intervention(id, job)
        worker = (job.worker or "w1") if some.random() < 0.9 else "w3"
        return Say(report=self._report(id, max(1, job.attempt - (some.random() < 0.1))), worker=worker)

    def _intervention(self, id: UUID, job: Job) -> Command:
        match self._chance.randint(0, 3):
            case 0:
                return cast("Command", Cancel(job_id=id, reason=self._words(), asked=ASKED))
            case 1 | 2:
                afresh = self._chance.random() < 0.5
                return Requeue(job_id=id, reason=self._words(), asked=ASKED, afresh=afresh)
            case _:
                ask(self._nodes[0].dsn, "UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id = %s", [id])
                return MissHeartbeat(expired=Expired(id, job.attempt, datetime.now(UTC)))

    def _report(self, id: UUID, attempt: int) -> Decided:
        some = self._chance
        match some.randint(0, 8):
            case 0:
                return CompletionReport(job_id=id, attempt=attempt, result=Raw(b'{"ok": [1, 2.5, null]}'))
            case 1 | 2:
                error = ReportedError(type="Boom", message=self._words(), detail=Raw(b'{"at": 1}'))
                return FailureReport(job_id=id, attempt=attempt, error=error, final=some.random() < 0.2, retry_in=0)
            case 3:
                return ReleaseReport(job_id=id, attempt=attempt, reason=self._words())
            case 4:
                return CancelReport(job_id=id, attempt=attempt)
            case 5:
                name = some.choice(("page.html", "ż.png"))
                artifact = Artifact(name=name, sha256=f"{some.getrandbits(256):064x}", size=7, media_type="text/html")
                return ArtifactReport(job_id=id, attempt=attempt, artifact=artifact)
            case 6:
                return ProgressReport(job_id=id, attempt=attempt, step=self._words(), handle=Raw(b'"render-1"'))
            case 7:
                return ProgressReport(job_id=id, attempt=attempt, step=self._words(), output=Raw(b"[1]"))
            case _:
                return ProgressReport(job_id=id, attempt=attempt, progress=some.random(), message=self._words())

    def _words(self) -> str:
        self._said += 1
        return f"said {self._said}: ½ – żółw"

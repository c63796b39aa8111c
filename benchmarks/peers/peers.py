"""Who is compared: releases, settings in words, and what their tables say of jobs that are done or not."""

from msgspec import Struct


class Peer(Struct, frozen=True, kw_only=True):
    """`share` of the jobs of a bulk measure is what one that is slower gets, so that a round does not take an hour."""

    name: str
    settings: str
    lane: str
    requirements: tuple[str, ...] = ()
    share: float = 1.0
    unfinished: str | None = None
    finished: str | None = None

    @property
    def works(self) -> bool:
        """Whether it has workers."""
        return self.unfinished is not None


JOBLEDGER = Peer(
    name="jobledger",
    settings="`Jobs` in the asking process; `jobledger worker --concurrency 2000`",
    lane="jobledger",
    unfinished="SELECT EXISTS (SELECT FROM jobs WHERE status = 'queued') OR EXISTS (SELECT FROM leases)",
    finished="SELECT count(*) FROM jobs WHERE status = 'completed'",
)
PGQUEUER = Peer(
    name="PGQueuer",
    settings="asyncpg, uvloop, `batch_size=1000`, `max_concurrent_tasks=2000`, durable tables; enqueues 1 000 at once",
    lane="pgqueuer",
    requirements=("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
    unfinished="SELECT EXISTS (SELECT FROM pgqueuer)",
    finished="SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
)
PROCRASTINATE = Peer(
    name="procrastinate",
    settings="psycopg pool of 32, `concurrency=20`, LISTEN; `batch_defer_async` of 1 000",
    lane="procrastinate",
    requirements=("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
    share=0.1,
    unfinished="SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
    finished="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
)
DBOS = Peer(
    name="DBOS",
    settings="async workflow without steps, queue without limits, `polling_interval_sec=0.001`; 1 000 in a transaction",
    lane="dbos",
    requirements=("dbos==3.4.0",),
    share=0.2,
    unfinished="SELECT EXISTS (SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING'))",
    finished="SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
)
EVENTSOURCING = Peer(
    name="eventsourcing",
    settings="`PostgresApplicationRecorder` with its table lock, 32 threads; three events a job, 1 000 in a save",
    lane="eventsourcing",
    requirements=("eventsourcing==9.5.6", "psycopg[binary,pool]==3.3.9"),
)
PEERS = (JOBLEDGER, PGQUEUER, PROCRASTINATE, DBOS, EVENTSOURCING)

BARE_LOG = Peer(
    name="bare log", settings="the script given with --yardstick: neither refusals nor lists nor notifications", lane=""
)

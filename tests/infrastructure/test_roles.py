"""The service does all its work as a role that can add to the log and never change it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2
import psycopg
import pytest

from application.jobs import Accepted, Asked, Cancel, Create, Requeue
from application.ledger import IdempotencyKey
from application.reports import ArtifactReport, Beat, CompletionReport, ProgressReport
from application.rescue import MissHeartbeat
from application.sweeper import Found
from domain.events import Artifact
from infrastructure.postgres import schema
from infrastructure.postgres.contents import PostgresContents
from infrastructure.postgres.database import Database
from infrastructure.postgres.idempotency import forget_old_keys
from infrastructure.postgres.installation import link_secret
from infrastructure.postgres.schema import health, migrations
from tests.conftest import Start
from tests.infrastructure.nodes import ASKED, Node, ask, migrated, new_job
from tests.sealing import Sealing
from tests.waiting import eventually

ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"
OWNER, APP, AUDITOR = "jobledger_owner", "jobledger_app", "jobledger_auditor"
SECRETS = {"keys", "key_uses", "installation", "idempotency_keys"}
"""Tables that auditors do not read, or not all of."""
READABLE = """
SELECT relname, has_table_privilege('jobledger_app', oid, 'SELECT'),
  has_table_privilege('jobledger_auditor', oid, 'SELECT'),
  has_table_privilege('jobledger_auditor', oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition
"""
PARTITIONS = "SELECT name FROM event_partitions"


def as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{role}@"))


def with_roles(postgres: str, name: str) -> str:
    """A database with the roles, migrated by the one that is to own it, as its superuser."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    dsn = urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
    for _ in range(2):
        with psycopg.connect(dsn) as connection:
            connection.execute(ROLES.read_bytes())
        migrated(as_role(dsn, OWNER))
    return dsn


@pytest.fixture(scope="module")
def superuser(postgres: str) -> str:
    return with_roles(postgres, "roles")


@pytest.fixture(scope="module")
def owner(superuser: str) -> str:
    return as_role(superuser, OWNER)


@pytest.fixture(scope="module")
def app(superuser: str) -> str:
    return as_role(superuser, APP)


@pytest.fixture
def node(app: str) -> Iterator[Node]:
    with Node(app) as node:
        yield node


def test_it_is_no_superuser_and_its_transactions_end_by_themselves(app: str) -> None:
    assert ask(app, "SELECT current_user::text, rolsuper FROM pg_roles WHERE rolname = current_user") == [(APP, False)]
    assert ask(app, "SELECT current_setting('idle_in_transaction_session_timeout')") == [("10s",)]
    assert ask(app, "SELECT current_setting('transaction_timeout')") == [("1min",)]


def test_every_table_of_the_schema_is_granted_and_secrets_to_the_service_alone(superuser: str) -> None:
    rows = ask(superuser, READABLE)
    assert len(rows) > 20
    assert {name for name, app, _, _ in rows if not app} == set()
    assert {name for name, _, auditor, _ in rows if not auditor} == SECRETS
    assert not [name for name, _, _, changes in rows if changes]


def test_nobody_else_gets_in(superuser: str) -> None:
    ask(superuser, "CREATE ROLE stranger LOGIN")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(as_role(superuser, "stranger"))


def test_auditors_read_and_change_nothing(node: Node, superuser: str) -> None:
    (id,) = node.create(new_job(queue="audited"))
    auditor = as_role(superuser, AUDITOR)
    assert ask(auditor, "SELECT topic FROM events WHERE originator_id = %s", [id]) == [("job.created",)]
    assert ask(auditor, "SELECT safe_position() > 0, id IS NOT NULL FROM installation") == [(True, True)]
    for statement, refusal in {
        "SELECT * FROM keys": "denied",
        "SELECT link_secret FROM installation": "denied",
        "INSERT INTO events SELECT * FROM events": "read-only",
        "SET TRANSACTION READ WRITE; UPDATE jobs SET status = 'failed'": "denied",
    }.items():
        with psycopg.connect(auditor, autocommit=True) as connection, pytest.raises(psycopg.Error, match=refusal):
            connection.execute(statement.encode())


def test_it_creates_claims_reports_and_cancels(node: Node) -> None:
    first, second = node.started(new_job(), new_job(), claim_id="claim")
    assert node.leases.held_by("w1", "claim") == [first, second]
    assert node.say(ProgressReport(job_id=first, attempt=1, progress=0.5)).version == 3
    lease = node.leases.extend([Beat(first, 1, "w1")])[0]
    assert lease is not None
    assert lease.extended
    assert node.say(CompletionReport(job_id=first, attempt=1)).version == 4
    node.one(Cancel(job_id=second, reason="enough", asked=ASKED))
    node.one(Requeue(job_id=first, reason="again", asked=ASKED))
    statuses = [view.status if view else None for view in node.views.jobs([first, second])]
    assert statuses == ["queued", "cancelling"]


def test_it_rescues(node: Node, superuser: str) -> None:
    (id,) = node.started(new_job(queue="rescue", max_attempts=1))
    ask(superuser, "UPDATE leases SET expires_at = now() - interval '1 s' WHERE job_id = %s", [id])
    with node.ledger.batch() as batch:
        (expired,) = [one for one in batch.expired(3600, 100) if one.job_id == id]
        assert MissHeartbeat(expired=expired).run(batch) == "failed"


def test_it_stores_names_and_sweeps_artifacts(node: Node, superuser: str) -> None:
    contents = PostgresContents(node.log.database)
    assert len(link_secret(node.log.database)) == 32
    (id,) = node.started(new_job(queue="artifacts"))
    assert contents.hold("ab" * 32, id, 1)
    artifact = Artifact(name="a", sha256="ab" * 32, size=1, media_type="text/html")
    assert node.say(ArtifactReport(job_id=id, attempt=1, artifact=artifact)).version == 3
    old = [Found("cd/" + "cd" * 32, 1, datetime(2020, 1, 1, tzinfo=UTC), "cd" * 32)]
    assert contents.condemn(old, 0) == {"cd" * 32}
    contents.forget({"cd" * 32})
    contents.tidy(0)
    ask(superuser, "UPDATE installation SET swept_at = now() - interval '2 days'")
    assert contents.due(24 * 3600)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(node.dsn) as connection:
        connection.execute("UPDATE installation SET link_secret = 'known'")


def test_it_keeps_idempotency_keys_and_forgets_them(node: Node, superuser: str) -> None:
    create = Create([new_job(queue="keys")], Asked(by="key:test", key=IdempotencyKey("default", "once", b"request")))
    first = node.one(create)
    assert node.one(create) == Accepted(first.job_ids, first.position, replayed=True)
    ask(superuser, "UPDATE idempotency_keys SET used_at = now() - interval '25 hours'")
    assert forget_old_keys(node.log.database) == 1


def test_it_reads_the_log_and_knows_how_the_database_is(node: Node, owner: str) -> None:
    (id,) = node.create(new_job(queue="read"))
    eventually(lambda: id in [n.originator_id for n in node.log.recorder.select_notifications(None, 1000)])
    assert id in [entry.event.job_id for entry in node.views.log(0, 1000, None)]
    found = health(node.log.database)
    assert (found.schema_version, found.positions_rise) == (migrations()[-1].number, True)
    with psycopg.connect(owner) as other:
        other.execute("SELECT pg_current_xact_id()")
        eventually(lambda: health(node.log.database).oldest_writer_pid == other.info.backend_pid)


def test_it_seals(node: Node, tmp_path: Path) -> None:
    sealing = Sealing(node.dsn, tmp_path)
    for _ in range(2):
        node.create(new_job(queue="seal"))
        sealing.all()
    assert sealing.check() > 1
    assert sealing.store.lag().refusal is None
    sealing.store.refuse("not today")
    assert sealing.store.lag().refusal == "not today"
    sealing.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET topic = 'x'",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TRIGGER append_only ON {}",
        "ALTER TABLE {} DISABLE TRIGGER append_only",
        "DROP TABLE {}",
    ],
)
def test_it_has_no_right_to_change_history(app: str, statement: str, superuser: str) -> None:
    tables = ["events", *(name for (name,) in ask(superuser, PARTITIONS))]
    assert len(tables) > 25
    with psycopg.connect(app, autocommit=True) as connection:
        for table in tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"permission denied|must be owner"):
                connection.execute(statement.format(table).encode())


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO events_after SELECT * FROM events",
        "UPDATE log_epoch SET epoch_offset = 0",
        "DELETE FROM seal_tiles",
        "UPDATE seal_checkpoints SET note = ''",
        "TRUNCATE accesses",
        "DELETE FROM migrations",
        "SELECT add_event_partitions(60)",
        "CREATE TABLE mine ()",
        "SET session_replication_role = replica",
    ],
)
def test_it_has_no_way_round(app: str, statement: str) -> None:
    with psycopg.connect(app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"denied|owner"):
        connection.execute(statement.encode())


def test_months_that_the_owner_makes_later_take_its_events(node: Node, owner: str) -> None:
    before = ask(owner, PARTITIONS)
    assert ask(owner, "SELECT add_event_partitions(26)") == [(2,)]
    made = [name for (name,) in ask(owner, PARTITIONS) if (name,) not in before]
    for name in made:
        ((low,),) = ask(owner, "SELECT low FROM event_partitions WHERE name = %s", [name])
        with psycopg.connect(node.dsn) as connection:
            connection.execute(
                "INSERT INTO events VALUES (%s, 1, 'x', '', decode(repeat('00', 32), 'hex'), 1, now())", [low]
            )
            where = connection.execute("SELECT tableoid::regclass::text FROM events WHERE originator_id = %s", [low])
            assert where.fetchall() == [(name,)]
            connection.rollback()


def test_upkeep_with_its_rights_only_makes_no_months_and_harms_nothing(
    app: str, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MONTHS_AHEAD", 30)
    before = ask(owner, PARTITIONS)
    assert upkeep(app) == 0
    assert ask(owner, PARTITIONS) == before
    assert upkeep(owner) == 30 + 3 - len(before)
    assert upkeep(app) == upkeep(owner) == 0


def upkeep(dsn: str) -> int:
    database = Database(dsn)
    try:
        return schema.add_partitions(database)
    finally:
        database.close()


def test_all_roles_of_the_service_run_on_it(postgres: str, start: Start) -> None:
    superuser = with_roles(postgres, "roles_of_all")
    environment = {"DATABASE_URL": as_role(superuser, APP), "MIGRATION_DATABASE_URL": as_role(superuser, OWNER)}
    server = start("api", "--port", "0", **environment)
    others = [start("worker", **environment), start("projector", **environment)]
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        question = client.post("/v1/visualizations", json={"question": "What is 15 % of 80?"}).json()
        created = client.post("/v1/jobs", json={"kind": "nothing", "input": {}, "queue": "http"})
        assert created.status_code == 202
        claimed = client.post("/v1/claims", json={"worker": "w1", "queues": ["http"]})
        (job,) = claimed.json()["jobs"]
        assert job["id"] == created.json()["id"]
        report = {"type": "completed", "job_id": job["id"], "attempt": 1, "result": 1}
        client.post("/v1/reports", json={"worker": "w1", "reports": [report]}).raise_for_status()
        for id in (job["id"], question["id"]):
            answer = client.get(f"/v1/jobs/{id}", headers={"Prefer": "wait=60"})
            assert answer.json()["status"] == "completed", answer.text

        def followed() -> bool:
            counts = client.get("/v1/projections").json()["items"]
            sealed = client.get("/v1/audit/checkpoint")
            rows = ask(superuser, "SELECT count(*) FROM events")
            return all(view["lag_events"] == 0 for view in counts) and f"\n{rows[0][0]}\n" in sealed.text

        eventually(followed, 60, "the views and the seal")
        eventually(lambda: len(ask(superuser, "SELECT worker FROM claimers")) > 1, 60, "claimers")
        assert len(client.get("/v1/events?limit=10000").json()["items"]) > 5
        assert client.get("/readyz").json()["status"] == "ready"
    for process in (server, *others):
        assert process.stop() == 0
        assert "permission denied" not in "".join(process.output)
    verified = start("audit", "verify", "--json", "--state", "none", DATABASE_URL=as_role(superuser, AUDITOR))
    assert json.loads(verified.wait_for_line('"differences"', 120))["differences"] == 0

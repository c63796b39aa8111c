"""`jobledger retention` as a process: what it says, and that killing it after any step harms nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.buckets import a_bucket
from tests.conftest import PATIENCE, _new_database
from tests.infrastructure.nodes import Node, ask
from tests.keeping import MONTH, Kept
from tests.past import at, month_before, some_jobs

ROOT = Path(__file__).parents[2]
NAMED = f"{MONTH:%Y-%m}"
TABLES = ("events", "jobs", "archived_leaves", "leases", "usage")
ARCHIVING = ("closed", "written", "named", "uploaded", "checked", "leaving", "removing", "archived")
RESTORING = ("received", "loaded", "attached", "making rows", "returned")
KILLED = """
import os, signal, sys
from datetime import date
from pathlib import Path
from infrastructure.postgres.database import Database
from tests.keeping import retention

dsn, folder, action, month, last = sys.argv[1:]

def tell(step):
    if step == last:
        os.kill(os.getpid(), signal.SIGKILL)

getattr(retention(Database(dsn), Path(folder), tell), action)(date.fromisoformat(month))
"""


@pytest.fixture(scope="module")
def kept(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    kept = Kept(_new_database(postgres), tmp_path_factory.mktemp("kept"))
    yield kept
    kept.close()


def run(kept: Kept, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    variables = {"DATABASE_URL": kept.dsn, "JOBLEDGER_DATA": str(kept.folder), **environment}
    return subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", "retention", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(kept.folder), "PYTHONPATH": str(ROOT), **variables},
        cwd=kept.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def told(kept: Kept, *arguments: str, **environment: str) -> Any:
    done = run(kept, *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def killed(kept: Kept, action: str, step: str) -> None:
    """Run it, and kill it right after a step."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, kept.dsn, str(kept.folder), action, str(MONTH), step],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -9, done.stderr


def state(kept: Kept) -> dict[str, list[Any]]:
    return {table: kept.rows(table) for table in TABLES}


def files(kept: Kept) -> list[str]:
    return sorted(path.name for path in (kept.folder / "archives").glob("*"))


def empty(kept: Kept) -> None:
    for name in files(kept):
        (kept.folder / "archives" / name).unlink()


def test_what_it_says(kept: Kept) -> None:
    assert told(kept, "list") == []
    assert run(kept, "list").stdout == "no month was ever archived\n"
    plans = {plan["month"]: plan for plan in told(kept, "plan")}
    this = f"{datetime.now(UTC):%Y-%m}"  # the month in which the tests began may be over
    assert list(plans)[:3] == [f"{month_before(n):%Y-%m}" for n in (3, 2, 1)]
    assert list(plans)[3:] == sorted({f"{month_before(0):%Y-%m}", this})
    assert plans[NAMED] == {"month": NAMED, "state": "in the log", "jobs": 6, "events": 20, "reasons": []} | {
        "bytes": plans[NAMED]["bytes"]
    }
    assert plans[this]["reasons"][0] == "it is not over"
    assert f"{NAMED}  20 events of 6 jobs" in run(kept, "plan").stdout
    dry = run(kept, "archive", NAMED, "--dry-run")
    assert (dry.returncode, "can be archived" in dry.stdout) == (0, True)
    assert run(kept, "archive", this, "--dry-run").returncode == 1
    before = state(kept)
    done = run(kept, "archive", NAMED)
    assert done.returncode == 0, done.stderr
    assert "jobledger: uploaded" in done.stderr
    (name,) = files(kept)
    assert f"{NAMED}  archived  20 events of 6 jobs in {name}" in done.stdout
    (row,) = told(kept, "list")
    assert (row["month"], row["state"], row["name"], row["jobs"], row["events"]) == (NAMED, "archived", name, 6, 20)
    assert "are as they were sealed" in run(kept, "verify", NAMED).stdout
    assert told(kept, "restore", NAMED, "--dry-run")["events"] == 20
    again = run(kept, "archive", NAMED)
    assert (again.returncode, "was archived already" in again.stderr) == (1, True)
    assert told(kept, "restore", NAMED)["state"] == "returned"
    assert state(kept) == before
    empty(kept)


@pytest.mark.parametrize("arguments", [("archive", "March"), ("archive", "2026-13"), ("archive",), ("burn", NAMED)])
def test_wrong_usage(kept: Kept, arguments: tuple[str, ...]) -> None:
    assert run(kept, *arguments).returncode == 2


def test_without_a_database_or_the_owners_rights(kept: Kept, tmp_path: Path) -> None:
    assert run(kept, "list", DATABASE_URL="", JOBLEDGER_DATA=str(tmp_path)).returncode == 3
    assert run(kept, "list", DATABASE_URL="postgresql://127.0.0.1:1/none").returncode == 3
    with_role = kept.dsn.replace("postgres@", "somebody@", 1)
    ask(kept.dsn, "CREATE ROLE somebody LOGIN")
    ask(kept.dsn, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO somebody")
    refused = run(kept, "archive", NAMED, DATABASE_URL=with_role)
    assert (refused.returncode, "set MIGRATION_DATABASE_URL" in refused.stderr) == (1, True)
    assert told(kept, "plan", DATABASE_URL=with_role, MIGRATION_DATABASE_URL=kept.dsn)
    ask(kept.dsn, "DROP OWNED BY somebody; DROP ROLE somebody")


def standing(kept: Kept) -> str | None:
    row = kept.retention.archives().get(NAMED)
    return row.state if row else None


@pytest.mark.parametrize("step", ARCHIVING)
def test_archiving_that_was_killed_is_gone_on_with(kept: Kept, step: str) -> None:
    before = state(kept)
    killed(kept, "archive", step)
    if step == "archived":
        assert standing(kept) == "archived"
    else:
        assert kept.retention.archive(MONTH).state == "archived"
    assert len(files(kept)) == 1, "what the killed one uploaded is gone"
    kept.retention.restore(MONTH)
    assert state(kept) == before
    empty(kept)


@pytest.mark.parametrize("step", ARCHIVING)
def test_archiving_that_was_killed_is_taken_back(kept: Kept, step: str) -> None:
    before = state(kept)
    killed(kept, "archive", step)
    assert kept.retention.restore(MONTH).state == "returned"
    assert state(kept) == before
    assert standing(kept) in ("returned", None)
    with Node(at(kept.dsn, month_before(2) + timedelta(days=9))) as node:
        some_jobs(node)  # nothing is closed
    kept.settle()
    empty(kept)


@pytest.mark.parametrize("step", RESTORING)
def test_bringing_back_that_was_killed_is_gone_on_with(kept: Kept, step: str) -> None:
    before = state(kept)
    kept.retention.archive(MONTH)
    killed(kept, "restore", step)
    if step != "returned":
        kept.retention.restore(MONTH)
    assert state(kept) == before
    assert standing(kept) == "returned"
    empty(kept)


def test_archives_in_a_bucket(kept: Kept) -> None:
    before = state(kept)
    with a_bucket() as bucket:
        place = {**bucket.environment, "JOBLEDGER_ARCHIVES": bucket.url}
        row = told(kept, "archive", NAMED, **place)
        assert bucket.contents() == {row["name"]: row["bytes"]}
        assert bucket.half_uploads() == []
        assert told(kept, "verify", NAMED, **place)["jobs"] == row["jobs"]
        missing = run(kept, "restore", NAMED)
        assert (missing.returncode, "JOBLEDGER_ARCHIVES" in missing.stderr) == (1, True)
        away = run(kept, "restore", NAMED, "--archives", "s3://nowhere/else", **place)
        assert away.returncode == 1
        assert told(kept, "restore", NAMED, **place)["state"] == "returned"
    assert state(kept) == before

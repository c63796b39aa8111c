"""`jobledger retention forget` as a process: what it says, and that killing it after any step harms nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_retention import ROOT, run
from tests.conftest import PATIENCE, _new_database
from tests.infrastructure.nodes import ask
from tests.infrastructure.test_forgetting import ONLY, REPLACED, SHARED, Shelf
from tests.keeping import MONTH, Kept

NAMED = f"{MONTH:%Y-%m}"
KILLED = """
import os, signal, sys
from datetime import date
from application.forgetting import Forgetting
from infrastructure.postgres.database import Database
from infrastructure.postgres.forgetting import PostgresNames
from infrastructure.postgres.projections import VIEWS
from infrastructure.postgres.retention import PostgresMonths
import application.forgetting

dsn, month, last = sys.argv[1:]
application.forgetting.PAGE = 1

def tell(step):
    if step == last:
        os.kill(os.getpid(), signal.SIGKILL)

database = Database(dsn)
Forgetting(PostgresMonths(database, VIEWS), PostgresNames(database), tell).forget(date.fromisoformat(month), "over")
"""


@pytest.fixture
def shelf(postgres: str, tmp_path: Path) -> Iterator[Shelf]:
    """With a month that is archived."""
    kept = Kept(_new_database(postgres), tmp_path / "kept")
    shelf = Shelf(kept, tmp_path / "artifacts")
    kept.retention.archive(MONTH)
    yield shelf
    kept.close()


def killed(shelf: Shelf, step: str) -> None:
    """Forget the month, a content at a time, and be killed right after a step: the first of its kind."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, shelf.dsn, str(MONTH), step],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("step", ["recorded", "forgetting"])
def test_forgetting_that_was_killed_is_gone_on_with(shelf: Shelf, step: str) -> None:
    killed(shelf, step)
    assert SHARED in shelf.left()
    shelf.forgetting.forget(MONTH, "over")
    assert shelf.left() == {SHARED}
    assert len(ask(shelf.dsn, "SELECT number FROM accesses")) == 1


@pytest.mark.parametrize("step", ["recorded", "forgetting"])
def test_forgetting_that_was_killed_is_taken_back(shelf: Shelf, step: str) -> None:
    """Before the sweeper comes, by bringing the month back."""
    killed(shelf, step)
    shelf.kept.retention.restore(MONTH)
    assert shelf.left() == {ONLY, SHARED, REPLACED}


def test_what_it_says(shelf: Shelf) -> None:
    def said(*arguments: str) -> Any:
        done = run(shelf.kept, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert run(shelf.kept, "forget", NAMED).returncode == 2, "it wants a reason"
    assert run(shelf.kept, "forget", NAMED, "--reason", " ").returncode == 2
    dry = run(shelf.kept, "forget", NAMED, "--reason", "over", "--dry-run")
    assert dry.stdout == f"{NAMED}  2 files that nothing else names would be left to the sweeper\n"
    assert shelf.left() == {ONLY, SHARED, REPLACED}
    assert said("forget", NAMED, "--reason", "over") == {"month": NAMED, "contents": 2, "dry_run": False}
    assert "its files forgotten" in run(shelf.kept, "list").stdout
    (row,) = said("list")
    assert row["files_forgotten_at"] is not None
    assert shelf.left() == {SHARED}
    assert said("restore", NAMED)["state"] == "returned"
    refused = run(shelf.kept, "forget", NAMED, "--reason", "over")
    assert (refused.returncode, "is not archived" in refused.stderr) == (1, True)

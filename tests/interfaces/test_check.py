"""`jobledger check` says what is configured and whether it works, spends nothing and shows no key."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from tests.chat_server import KEY, Answer, ChatServer, chat_server, error

ROOT = Path(__file__).parents[2]
Check = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs it in a folder of the test's own, without Chromium; its exit status, and what it says by name."""
    (tmp_path / "bin").mkdir()

    def run(*flags: str, **environment: str) -> tuple[int, dict[str, Any]]:
        plain = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
        data = {"JOBLEDGER_DATA": str(tmp_path / "data")}
        done = subprocess.run(
            [sys.executable, "-m", "interfaces.cli.main", "check", "--json", *flags],
            env={**plain, **data, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert KEY not in done.stdout + done.stderr
        told = json.loads(done.stdout)
        assert told["ok"] == (done.returncode == 0)
        return done.returncode, {one["name"]: one for one in told["checks"]}

    return run


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


def test_with_nothing_configured_all_is_well_and_nothing_is_made(check: Check, tmp_path: Path) -> None:
    status, said = check()
    assert (status, [one["ok"] for one in said.values()]) == (0, [True] * len(said))
    looks = [
        "settings",
        "data folder",
        "database",
        "artifacts",
        "chromium",
        "video",
        "openai",
        "elai",
        "handlers",
        "traces",
    ]
    assert list(said) == looks
    assert "H.264" in said["video"]["says"]
    assert "PostgreSQL 18" in said["database"]["says"]
    assert "install chromium" in said["chromium"]["says"]
    assert "OPENAI_API_KEY is not set" in said["openai"]["says"]
    assert not (tmp_path / "data").exists()


def test_a_key_is_said_to_be_set_and_where_from_but_never_shown(check: Check, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\nOPENAI_MODEL=m\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".env").write_text(f"ELAI_API_KEY={KEY}\n")
    status, said = check()
    assert status == 0
    assert ".env" in said["settings"]["says"]
    assert said["openai"]["says"].startswith("OPENAI_API_KEY is set (in .env); model m")
    assert f"ELAI_API_KEY is set (in {tmp_path / 'data' / '.env'})" in said["elai"]["says"]
    assert "in the environment" in check(OPENAI_API_KEY=KEY)[1]["openai"]["says"]


def test_live_asks_whether_the_key_works_and_the_model_is_there_and_spends_no_token(
    check: Check, server: ChatServer
) -> None:
    live = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url}
    status, said = check("--live", OPENAI_MODEL="model-of-the-test", **live)
    assert (status, said["openai"]["ok"]) == (0, True)
    status, said = check("--live", OPENAI_MODEL="another", **live)
    assert (status, said["openai"]["ok"]) == (1, False)
    assert "check OPENAI_MODEL" in said["openai"]["says"]
    assert server.keys == [f"Bearer {KEY}"] * 2
    assert server.requests == []
    check(**live)
    assert len(server.keys) == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [(error(401), "check OPENAI_API_KEY"), (error(500), "busy (500)"), (Answer("<html>"), "check OPENAI_BASE_URL")],
)
def test_what_does_not_work_is_said(check: Check, server: ChatServer, answer: Answer, says: str) -> None:
    server.models = answer
    status, said = check("--live", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=server.base_url)
    assert (status, said["openai"]["ok"]) == (1, False)
    assert says in said["openai"]["says"]


def test_a_database_that_answers_is_told_from_one_that_does_not(
    check: Check, dsn: str, new_database: Callable[[], str]
) -> None:
    assert check(DATABASE_URL=dsn)[1]["database"]["ok"]
    for address, says in ((new_database(), "jobledger migrate"), ("postgresql://127.0.0.1:9/x", "does not answer")):
        status, said = check(DATABASE_URL=address)
        assert (status, said["database"]["ok"]) == (1, False)
        assert says in said["database"]["says"]


def test_why_a_database_is_not_reached_is_said(dsn: str, tmp_path: Path) -> None:
    done = ended(tmp_path, ["migrate"], DATABASE_URL=make_conninfo(dsn, user="nobody_of_ours"))
    assert done.returncode == 3
    assert "the database does not answer" in done.stderr
    assert 'role "nobody_of_ours" does not exist' in done.stderr


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "postgresql://u:sec%ret@db/x",
        "postgresql://u:sec@ret@db/x",
        "postgresql://u:sec/ret@db/x",
        "postgresql://u:secret@[db/x",
        "postgresql://u:secret@db/x?foo=1",
    ],
)
@pytest.mark.parametrize("command", [["migrate"], ["keys", "list"], ["up", "--port", "0"]], ids=lambda given: given[0])
def test_an_address_that_is_none_is_refused_and_not_repeated(command: list[str], address: str, tmp_path: Path) -> None:
    done = ended(tmp_path, command, DATABASE_URL=address)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jobledger: DATABASE_URL, or one beside it, cannot be read")
    assert not re.search("sec|ret|nonsense|Traceback", done.stderr)


@pytest.mark.parametrize("command", [["worker"], ["up", "--port", "0"]], ids=lambda given: given[0])
@pytest.mark.parametrize("module", ["nowhere", "shop.py", "nowhere.handlers"])
def test_handlers_that_are_not_there_are_refused_by_name(command: list[str], module: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").touch()
    done = ended(tmp_path, command, JOBLEDGER_URL="http://127.0.0.1:9", JOBLEDGER_HANDLERS=f"shop,{module}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"jobledger: JOBLEDGER_HANDLERS names {module!r}, and there is no such module in")


def test_what_handlers_lack_themselves_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import nowhere")
    done = ended(tmp_path, ["worker"], JOBLEDGER_URL="http://127.0.0.1:9", JOBLEDGER_HANDLERS="shop")
    assert done.returncode == 1
    assert "shop.py" in done.stderr
    assert "No module named 'nowhere'" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "worker --concurrency 0",
        "worker --concurrency -1",
        "worker --grace -1",
        "worker --grace nan",
        "worker --grace 1e9",
        "audit verify --workers 0",
        "audit keys --rotate --overlap -1",
        "audit keys --rotate --overlap nan",
    ],
)
def test_numbers_that_cannot_be_are_wrong_usage(command: str, tmp_path: Path) -> None:
    """A key of the seal that is on its way out since yesterday, say, or a worker that takes no job."""
    done = ended(tmp_path, command.split(), JOBLEDGER_URL="http://127.0.0.1:9")
    flag, number = command.split()[-2:]
    assert (done.returncode, done.stdout) == (2, "")
    assert f"argument {flag}: {number!r} is no number" in done.stderr


def ended(folder: Path, command: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command that ends by itself, in a folder of the test's own."""
    return subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", *command],
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_places_that_cannot_be_written_to_are_wrong(check: Check, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    status, said = check(JOBLEDGER_ARTIFACTS="s3://")
    assert status == 1
    assert (said["data folder"]["ok"], said["artifacts"]["ok"]) == (False, False)
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    assert check()[1]["data folder"]["says"] == f"{tmp_path / 'data'} can be written to"
    assert list((tmp_path / "data").iterdir()) == []


def test_a_chromium_that_opens_no_page_is_wrong(check: Check, chromium: str, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "chromium"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    status, said = check()
    assert (status, said["chromium"]["ok"]) == (1, False)
    program.write_text(f'#!/bin/sh\nexport PATH=/usr/bin:/bin\nexec "{chromium}" "$@"\n')
    status, said = check()
    assert (status, said["chromium"]["ok"]) == (0, True)
    assert said["chromium"]["says"].startswith("Chrome/")


def test_lines_for_people_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    done = subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", "check", "--data", str(tmp_path / "data")],
        env={"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert f"WRONG  data folder  {tmp_path / 'data'} cannot be made" in done.stdout

"""`jobledger check` looks at the handlers that a worker here would run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOP = """
from application.handlers import JobContext, handles


@handles("order")
async def order(job: JobContext, input: str) -> str:
    return input
"""


def said(folder: Path, handlers: str) -> tuple[int, bool, str]:
    """The exit status in a folder, whether its handlers are well, and what is said of them."""
    done = subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", "check", "--json", "--data", str(folder / "data")],
        env={"PATH": "", "HOME": str(folder), "PYTHONPATH": str(ROOT), "JOBLEDGER_HANDLERS": handlers},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    [look] = [one for one in json.loads(done.stdout)["checks"] if one["name"] == "handlers"]
    return done.returncode, look["ok"], look["says"]


def test_the_kinds_of_handlers_are_named(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    assert said(tmp_path, "shop") == (0, True, "JOBLEDGER_HANDLERS=shop, in the environment: order")
    assert said(tmp_path, "")[1:] == (
        True,
        "JOBLEDGER_HANDLERS is not set: a worker here runs the kinds that come along",
    )


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("shop.py", SHOP, "JOBLEDGER_HANDLERS names 'shop.py', and there is no such module in"),
        ("shop", "import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("shop", "def order(:", "SyntaxError"),
        ("shop", SHOP + SHOP, "ValueError: kind 'order' already has a handler"),
        ("shop", "", "decorate one with @handles"),
    ],
)
def test_handlers_that_no_worker_could_run_are_wrong(tmp_path: Path, module: str, source: str, says: str) -> None:
    (tmp_path / "shop.py").write_text(source)
    status, good, told = said(tmp_path, module)
    assert (status, good) == (1, False)
    assert says in told

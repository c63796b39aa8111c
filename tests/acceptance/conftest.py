"""What acceptance tests share: waiting for a condition, and plugs to pull."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

T = TypeVar("T")
PATIENCE = 90.0
HANDLERS = '''
"""Handlers whose steps leave a mark each time they run, and wait for a file where a test wants them to."""

import asyncio
from pathlib import Path

from application.handlers import JobContext, handles

HERE = Path(__file__).parent


async def run(name: str, wait_for: str | None = None) -> str:
    with (HERE / "calls").open("a") as calls:
        calls.write(name + "\\n")
    while wait_for and not (HERE / wait_for).exists():
        await asyncio.sleep(0.02)
    return name


@handles("three-steps")
async def three_steps(job: JobContext, input: dict[str, str]) -> list[str]:
    one = await job.step("one", run, "one")
    two = await job.step("two", run, "two", "go")
    three = await job.step("three", run, "three")
    return [one, two, three]
'''


class Handlers:
    """A user's handlers module in a folder; `calls` are the steps that ran, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"JOBLEDGER_HANDLERS": "marking_handlers"}
        (folder / "marking_handlers.py").write_text(HANDLERS)

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().split() if calls.exists() else []

    def go(self) -> None:
        """Let step two end, now and in later attempts."""
        (self.folder / "go").touch()


@pytest.fixture
def handlers(tmp_path: Path) -> Handlers:
    return Handlers(tmp_path)


def _wait_until(condition: Callable[[], T], what: str) -> T:
    """What `condition` returns once it is true; a service that is away meanwhile counts as not yet."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if found := condition():
                return found
        except (httpx2.TransportError, KeyError):
            pass
        time.sleep(0.05)
    pytest.fail(f"{what} did not come about within {PATIENCE:g} s")


@pytest.fixture
def wait_until() -> Callable[[Callable[[], T], str], T]:
    return _wait_until


def _kill_tree(pid: int) -> None:
    """kill -9 a process and everything it started, PostgreSQL too, all at once."""
    root = psutil.Process(pid)
    processes = [root, *root.children(recursive=True)]
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=PATIENCE)


@pytest.fixture
def kill_tree() -> Callable[[int], None]:
    return _kill_tree


def _children(pid: int, role: str) -> list[Any]:
    """The child processes of `jobledger up` that run `role`."""
    return [child for child in psutil.Process(pid).children() if role in _command(child)]


def _command(process: Any) -> list[str]:
    """A process's command line; empty for one that has just died."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.fixture
def children() -> Callable[[int, str], list[Any]]:
    return _children


@pytest.fixture
def jobledger(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a `jobledger` command to its end."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "interfaces.cli.main", *arguments],
            env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run

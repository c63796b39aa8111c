"""A benchmark that is told to end in the middle leaves nothing running, and nothing on the disk."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
ENDED_SECONDS = 90.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """For its temporary files, where the user of its server gets to them."""
    folder = Path(tempfile.mkdtemp(prefix="ended-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_its_server_and_its_processes(folder: Path, told: signal.Signals) -> None:
    """Twice, as by `timeout`, or by a terminal that is closed."""
    benchmark = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--rounds", "1", "--jobs", "2000", "--only", "pickup"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started: list[psutil.Process] = []
    try:
        eventually(lambda: _worker(benchmark.pid) is not None, 90, "a worker of the benchmark")
        started = psutil.Process(benchmark.pid).children(recursive=True)
        assert {"postgres"} < {process.name() for process in started}
        benchmark.send_signal(told)
        benchmark.send_signal(told)
        assert benchmark.wait(ENDED_SECONDS) == 128 + told
        assert psutil.wait_procs(started, timeout=5)[1] == []
        assert list(folder.iterdir()) == []
    finally:
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        benchmark.kill()
        benchmark.wait(30)


def _worker(benchmark: int) -> psutil.Process | None:
    """The process of ours that it measures."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(benchmark).children():
            if "interfaces.cli.main" in child.cmdline():
                return child
    return None

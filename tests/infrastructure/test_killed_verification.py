"""A verification of the log that is killed leaves no process behind."""

import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from tests.waiting import eventually

PROGRAM = """
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from infrastructure.postgres.log_verification import start_verifier

nowhere = ("postgresql://127.0.0.1:9/x", True, [], [])
with ProcessPoolExecutor(1, get_context("spawn"), start_verifier, nowhere) as executor:
    print(executor.submit(os.getpid).result(), flush=True)
    time.sleep(300)
"""


def test_its_processes_end_with_it() -> None:
    verifying = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    with verifying:
        assert verifying.stdout is not None
        process = psutil.Process(int(verifying.stdout.readline()))
        verifying.kill()
        try:
            eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 30)
        finally:
            if process.is_running():
                process.kill()

"""A log says what went wrong and where, never what was in hand."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import structlog
from infrastructure.logs import configure

def handle(token):
    raise ValueError("it went wrong")

configure(sys.argv[1])
try:
    handle("jl_client_" + "s" * 40)
except ValueError:
    structlog.get_logger().exception("handler.failed", job_id="j1")
"""


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_logged_error_has_its_traceback_but_no_local_variables(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, style],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "handler.failed" in done.stderr
    assert "it went wrong" in done.stderr
    assert "handle" in done.stderr
    assert "ssss" not in done.stderr

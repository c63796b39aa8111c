"""A log says what went wrong and where, never what was in hand."""

import json
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
    said = logged(PROGRAM, style)
    assert "handler.failed" in said
    assert "it went wrong" in said
    assert "handle" in said
    assert "ssss" not in said


HANDLING = """
import contextvars
import logging
from datetime import UTC, datetime
from uuid import UUID

import structlog

from application.claims import ClaimedJob
from application.context import handling
from domain.job import Job
from infrastructure.logs import configure

def handle():
    handling.set(ClaimedJob.of(Job(id=UUID(int=7), attempt=3), datetime(2026, 1, 1, tzinfo=UTC)))
    structlog.get_logger().info("order.packed", parcel=1)
    logging.getLogger("shop").warning("no paper")

configure("json")
contextvars.copy_context().run(handle)
structlog.get_logger().info("idle")
"""


def test_what_is_logged_on_the_way_of_a_job_names_it() -> None:
    packed, paper, idle = (json.loads(line) for line in logged(HANDLING).splitlines())
    assert (packed["event"], packed["parcel"]) == ("order.packed", 1)
    assert (packed["job_id"], packed["attempt"]) == ("00000000-0000-0000-0000-000000000007", 3)
    assert (paper["event"], paper["job_id"], paper["attempt"]) == ("no paper", packed["job_id"], 3)
    assert "job_id" not in idle


def logged(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stderr

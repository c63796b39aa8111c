"""What a process loads before it works."""

import subprocess
import sys

LOADED = "import sys, interfaces.cli.serve; print(*sys.modules)"


def test_workers_and_projectors_load_nothing_that_serves_http() -> None:
    """That would take a sixth of the time in which they start, and 12 MB."""
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60)
    assert not {"litestar", "jinja2", "interfaces.http.app"} & set(loaded.stdout.split())

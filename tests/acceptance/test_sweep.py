"""`jobledger sweep`, beside a service that runs."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_sweep_frees_what_no_event_names_and_keeps_the_rest(
    start: Start, jobledger: Run, wait_until: WaitUntil, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    url = start("up", "--port", "0", "--data", str(data)).url
    id = httpx2.post(f"{url}/v1/visualizations", json={"question": "What is 15 % of 80?"}, timeout=30).json()["id"]
    page = f"{url}/v1/visualizations/{id}/html"
    wait_until(lambda: httpx2.get(page, timeout=30).status_code == 200, "the page")
    sha256 = hashlib.sha256(b"orphan").hexdigest()
    orphan = data / "artifacts" / sha256[:2] / sha256
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"orphan")

    young = jobledger("sweep", "--data", str(data), "--json")
    assert (young.returncode, json.loads(young.stdout)["files"]) == (0, 0), young.stderr
    os.utime(orphan, (1e9, 1e9))
    for kept in data.glob("artifacts/*/*"):
        os.utime(kept, (1e9, 1e9))
    dry = jobledger("sweep", "--data", str(data), "--dry-run", "--json", "--older-than", "0")
    assert json.loads(dry.stdout) == {"files": 1, "bytes": 6, "dry_run": True}
    assert orphan.exists()
    assert "freed 6 bytes in 1 files" in jobledger("sweep", "--data", str(data)).stdout
    assert not orphan.exists()
    assert httpx2.get(page, timeout=30).status_code == 200


def test_sweep_says_when_there_is_no_database(jobledger: Run, tmp_path: Path) -> None:
    done = jobledger("sweep", "--data", str(tmp_path / "nothing"))
    assert done.returncode == 3
    assert "jobledger up" in done.stderr
    for wrong in ("-1", "nan", "inf", "soon"):
        assert jobledger("sweep", "--older-than", wrong).returncode == 2

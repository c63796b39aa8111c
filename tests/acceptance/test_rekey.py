"""`jobledger audit rekey`: the file with the key is gone, and the seal goes on when an operator says why it may."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WaitUntil = Callable[[Callable[[], object], str], object]


def test_a_lost_key_is_replaced_while_everything_runs(
    start: Callable[..., Any], jobledger: Run, wait_until: WaitUntil, tmp_path: Path
) -> None:
    data = tmp_path / "up"
    up = start("up", "--port", "0", "--data", str(data))
    with httpx2.Client(base_url=up.url, timeout=30) as http:
        checkpoint = data / "seal" / "checkpoint"

        def sealed_after(before: str) -> None:
            assert http.post("/v1/jobs", json={"kind": "t", "queue": "q", "input": None}).status_code == 202
            wait_until(lambda: checkpoint.exists() and checkpoint.read_text() != before, "the job is sealed")

        sealed_after("")
        (data / "seal" / "keys").unlink()
        assert http.post("/v1/jobs", json={"kind": "t", "queue": "q", "input": None}).status_code == 202
        assert "`jobledger audit rekey`" in up.wait_for_line("sealer.refused")
        [old] = [key["key"] for key in http.get("/v1/audit/keys").json()["items"]]
        kept = checkpoint.read_text()

        assert jobledger("audit", "rekey", "--data", str(data)).returncode == 2, "without a reason"
        refused = jobledger("audit", "rekey", "--data", str(data), "--reason", "a disk died", "--key", "nonsense")
        assert (refused.returncode, "no verifier key" in refused.stderr) == (2, True)
        done = jobledger("audit", "rekey", "--data", str(data), "--reason", "a disk died", "--key", old, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["lost"] == [old]

        wait_until(lambda: checkpoint.read_text() != kept, "the seal goes on, without a restart")
        keys = [key["key"] for key in http.get("/v1/audit/keys").json()["items"]]
        assert keys == [old, told["key"]]
        [access] = http.get("/v1/audit/accesses").json()["items"]
        assert (access["by"], access["action"], access["reason"]) == ("system:rekey", "rekey", "a disk died")
        again = jobledger("audit", "rekey", "--data", str(data), "--reason", "once more")
        assert (again.returncode, "not lost" in again.stderr) == (1, True)
        verified = jobledger("audit", "verify", "--data", str(data), "--json")
        assert (verified.returncode, json.loads(verified.stdout)["differences"]) == (0, 0), verified.stdout
    assert up.stop() == 0

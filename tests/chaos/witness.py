"""The witness: everything that callers were answered, and what they saw that must not be."""

import threading
from pathlib import Path
from typing import Any, NamedTuple

ASKED = "asked"
"""The label by which requests without an Idempotency-Key are known."""


class Recorded(NamedTuple):
    """A step's output that a worker's report was acknowledged for."""

    job_id: str
    attempt: int
    step: str
    output: str


class Witness:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.created: dict[str, str] = {}
        """The job that was acknowledged for each Idempotency-Key, or for each request without one, by its label."""
        self.unsure: set[str] = set()
        """Requests without a key, by their label, of which nobody knows whether they made a job."""
        self.ended: dict[str, dict[str, Any]] = {}
        """Each job as it was when a caller was told that it had ended."""
        self.cancelled: set[str] = set()
        """Jobs whose cancellation was acknowledged."""
        self.recorded: list[Recorded] = []
        self.checkpoints: list[str] = []
        """Signed checkpoints as they were served, in the order of their sizes."""
        self.violations: list[str] = []
        self.repeated = 0
        """Requests that had to be sent again."""

    def violation(self, text: str) -> None:
        with self._lock:
            self.violations.append(text)

    def again(self) -> None:
        with self._lock:
            self.repeated += 1

    def create(self, key: str, id: str) -> None:
        with self._lock:
            known = self.created.setdefault(key, id)
            if known != id:
                self.violations.append(f"the key {key} was answered with job {known} and with job {id}")

    def doubt(self, key: str) -> None:
        with self._lock:
            self.unsure.add(key)

    def end(self, view: dict[str, Any]) -> None:
        with self._lock:
            known = self.ended.setdefault(view["id"], view)
            told = ("status", "version", "result")
            if any(known[field] != view[field] for field in told):
                self.violations.append(f"job {view['id']} was told to have ended in two ways")

    def checkpoint(self, note: str) -> None:
        """A checkpoint that was served. One that is older than one that was seen is no fault: servers have tails."""
        with self._lock:
            if note not in self.checkpoints:
                self.checkpoints.append(note)

    def keep_checkpoints(self, folder: Path, most: int) -> list[Path]:
        """Some of them as files, the first and the last among them."""
        chosen = self.checkpoints[:: max(1, len(self.checkpoints) // most)] + self.checkpoints[-1:]
        files = [folder / f"checkpoint-{n}" for n in range(len(chosen))]
        for file, note in zip(files, chosen, strict=True):
            file.write_text(note)
        return files

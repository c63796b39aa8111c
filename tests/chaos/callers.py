"""Callers: each asks for a job, waits until it has ended, and asks for the next, at a steady pace."""

import threading
import time
from itertools import count
from typing import Any

from tests.chaos.client import Answer, Client, Doors
from tests.chaos.meter import Meter
from tests.chaos.streams import follow_job
from tests.chaos.witness import ASKED, Recorded, Witness

RETRY = {"initial": 0.1, "factor": 1, "max": 0.1}
ENDED = {"completed", "failed", "cancelled"}
HEARTBEAT_SECONDS = 3.0
"""A lease of this length outlives a silence of the database of two seconds."""
KINDS = ("steps", "plain", "file", "far", "slow")
SHARES = (64, 10, 12, 12, 2)
WAIT = "wait=2"
PATIENCE = 120.0


class Caller:
    """Works on a thread of its own until it is enough; a job under way is waited for."""

    def __init__(
        self,
        number: int,
        doors: Doors,
        witness: Witness,
        meter: Meter,
        enough: threading.Event,
        *,
        seed: int,
        period: float,
    ) -> None:
        self._enough = enough
        self._given_up = threading.Event()
        self._number = number
        self._doors = doors
        self._witness = witness
        self._meter = meter
        self._period = period
        self._ask = Client(doors, witness, seed, self._given_up)
        self._dice = self._ask.dice
        self._jobs = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for its end; what is left after a while is a violation."""
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._witness.violation(f"caller {self._number} still waits for its job {self._jobs}")
            self._given_up.set()

    def _run(self) -> None:
        self._enough.wait(self._dice.uniform(0, self._period))
        while not self._enough.is_set():
            due = time.monotonic() + self._period
            try:
                self._one_job()
            except Exception as error:  # whatever it is, the round goes on, and fails
                self._witness.violation(f"caller {self._number}, job {self._jobs}: {error!r}")
            self._enough.wait(max(due - time.monotonic(), 0))
        self._ask.close()

    def _one_job(self) -> None:
        """Now and then a request is repeated that was answered before, and a job is cancelled or followed."""
        self._jobs += 1
        (kind,) = self._dice.choices(KINDS, SHARES)
        key = f"caller {self._number}, job {self._jobs}"
        new = {"kind": kind, "input": self._jobs, "retry": RETRY, "max_attempts": 1000}
        new["heartbeat_timeout"] = HEARTBEAT_SECONDS
        if self._jobs % 3 == 0 and kind != "slow":  # one that nobody knows of must end by itself
            id, version = self._create_without_key(new, key)
        else:
            id, version = self._create(new, key)
            if self._jobs % 5 == 0:
                self._create(new, key)
        if kind == "slow":
            self._cancel(id)
        if self._jobs % 25 == 1:
            self._follow(id)
        view = self._wait(id, version)
        if view["status"] != "completed" and id not in self._witness.cancelled:
            self._witness.violation(f"job {id} ended as {view['status']}: {view['error']}")
        self._witness.end(view)
        self._meter.count()

    def _create(self, new: dict[str, Any], key: str) -> tuple[str, int]:
        return self._created(self._ask("POST", "/v1/jobs", new, Idempotency_Key=key), key)

    def _create_without_key(self, new: dict[str, Any], key: str) -> tuple[str, int]:
        """Another job each time that nobody says whether there is one."""
        until = time.monotonic() + PATIENCE
        for n in count(1):
            request = f"{key}, request {n}"
            answer = self._ask.once("POST", "/v1/jobs", new | {"labels": {ASKED: request}})
            if answer is not None:
                return self._created(answer, request)
            self._witness.doubt(request)
            if time.monotonic() > until:
                break
        raise TimeoutError(f"nobody makes a job for {key}")

    def _created(self, answer: Answer, key: str) -> tuple[str, int]:
        self._must(answer, 202, key)
        view = answer.json
        self._witness.create(key, view["id"])
        return view["id"], view["version"]

    def _cancel(self, id: str) -> None:
        answer = self._ask("POST", f"/v1/jobs/{id}/cancellations", {"reason": "chaos"})
        if answer.status != 409:  # it had ended
            self._must(answer, 202, id)
            self._witness.cancelled.add(id)

    def _follow(self, id: str) -> None:
        versions = follow_job(self._doors, id, self._dice, self._given_up.is_set)
        if versions is not None and versions != list(range(1, len(versions) + 1)):
            self._witness.violation(f"who followed job {id} saw the versions {versions}")

    def _wait(self, id: str, version: int) -> dict[str, Any]:
        """The job once it has ended; its version never falls, whichever server is asked."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            answer = self._ask("GET", f"/v1/jobs/{id}", Prefer=WAIT)
            self._must(answer, 200, id)
            view: dict[str, Any] = answer.json
            if view["version"] < version:
                self._witness.violation(f"job {id} was at version {version}, and then at {view['version']}")
            if view["status"] in ENDED:
                return view
            version = view["version"]
        raise TimeoutError(f"job {id} has not ended: {view}")

    @staticmethod
    def _must(answer: Answer, status: int, what: str) -> None:
        if answer.status != status:
            raise ValueError(f"{what} was answered {answer.status} {answer.body.decode()}")


class Hand:
    """A worker by hand, over HTTP: it says one step after the other, each until it is heard, and knows what was."""

    def __init__(self, doors: Doors, witness: Witness, enough: threading.Event, *, seed: int) -> None:
        self._enough = enough
        self._given_up = threading.Event()
        self._ask = Client(doors, witness, seed, self._given_up)
        self._witness = witness
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._witness.violation("the worker by hand is not heard")
            self._given_up.set()

    def _run(self) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            try:
                self._one_job(number)
            except Exception as error:  # whatever it is, the round goes on, and fails
                self._witness.violation(f"the worker by hand, job {number}: {error!r}")
        self._ask.close()

    def _one_job(self, number: int) -> None:
        key = f"by hand, job {number}"
        new = {"kind": "by hand", "queue": "by hand", "input": None, "heartbeat_timeout": 600}
        id = self._ask("POST", "/v1/jobs", new, Idempotency_Key=key).json["id"]
        self._witness.create(key, id)
        claim = {"worker": "hand", "queues": ["by hand"], "wait": 2, "claim_id": key}
        jobs: list[Any] = []
        while not jobs:
            jobs = self._ask("POST", "/v1/claims", claim).json["jobs"]
        said = {"job_id": id, "attempt": jobs[0]["attempt"]}
        for n in range(1, 101):
            recorded = Recorded(id, said["attempt"], f"step {n}", f"{key}, output {n}")
            step = {"type": "progressed", "step": recorded.step, "output": recorded.output, "progress": n / 100}
            if not self._report(said | step):
                return
            self._witness.recorded.append(recorded)
            if self._enough.wait(0.1):
                break
        if self._report(said | {"type": "completed", "result": key}):
            self._witness.end(self._ask("GET", f"/v1/jobs/{id}").json)

    def _report(self, report: dict[str, Any]) -> bool:
        """Say it until it is heard; whether the job is still ours, which it is."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            (result,) = self._ask("POST", "/v1/reports", {"worker": "hand", "reports": [report]}).json["results"]
            if result["ok"]:
                return True
            if result["problem"]["code"] != "unavailable":
                self._witness.violation(f"{report} was refused: {result['problem']}")
                return False
        raise TimeoutError(f"{report} is not heard")

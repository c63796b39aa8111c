"""The checker: reads everything when all is quiet again, and says what is not as it was acknowledged or must be."""

import json
import os
import subprocess
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import psycopg
from msgspec import UNSET, Struct
from msgspec.json import decode as read_json

from domain.audit import GENESIS, chain
from domain.events import Cancelled, Completed, Created, Failed, Progressed, Requeued, decode
from tests.chaos import marks
from tests.chaos.streams import LogFollower
from tests.chaos.witness import ASKED, Witness

PATIENCE = 300.0
PAUSE = 0.2
CHECKPOINTS = 20
BEGINNING = datetime.min.replace(tzinfo=UTC)
LOG = """
SELECT originator_id, originator_version, topic, state, hash, notification_id FROM events
ORDER BY originator_id, originator_version
"""
PLACES = "SELECT notification_id, originator_version FROM events ORDER BY notification_id"


class Output(Struct):
    """A step's recorded output: in which attempt, and what."""

    attempt: int
    value: Any


class Story(Struct):
    """What the log says of a job."""

    events: int = 0
    key: str | None = None
    status: str = ""
    result: Any = None
    ends: int = 0
    outputs: dict[str, list[Output]] = {}


class Checker:
    """Collects what differs; nothing is raised, so that one fault does not hide the others."""

    def __init__(self, dsn: str, urls: list[str], witness: Witness, folder: Path) -> None:
        self.differences: list[str] = []
        self.events = 0
        self._dsn = dsn
        self._urls = urls
        self._witness = witness
        self._folder = folder
        self._stories: dict[str, Story] = {}

    def check(self, followers: list[LogFollower], marked: list[marks.Mark], say: Callable[[str], None]) -> None:
        say("reading the log")
        self._wait_for_ends()
        self.read_log()
        self.check_answers()
        self.check_steps(marked)
        say("comparing what followers saw")
        self._check_followers(followers)
        say("comparing what the servers say")
        self._check_servers()
        say("verifying the views")
        self._check_views()
        say("verifying the seal")
        self._check_seal()

    def _differ(self, text: str) -> None:
        self.differences.append(text)

    def _wait_for_ends(self) -> None:
        """Of jobs that nobody waits for, since nobody knows of them."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            left = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
            _in_time(lambda: connection.execute(left).fetchone() == (0,))

    def read_log(self) -> None:
        before, last, at = GENESIS, 0, BEGINNING
        with psycopg.connect(self._dsn) as connection, connection.cursor("log") as cursor:
            cursor.itersize = 10_000
            for job_id, version, topic, state, hash, position in cursor.execute(LOG):
                id = str(job_id)
                story = self._stories.get(id)
                if story is None:
                    story = self._stories[id] = Story()
                    before, last, at = GENESIS, 0, BEGINNING
                event = decode(state)
                story.events += 1
                if version != story.events:
                    self._differ(f"job {id}: version {version} follows {story.events - 1}")
                if chain(before, job_id, version, topic, state) != hash:
                    self._differ(f"job {id}: version {version} does not bear the hash of what it says")
                if position <= last or event.at < at:
                    self._differ(f"job {id}: version {version} stands before the one it follows")
                before, last, at = hash, position, event.at
                self._fold(id, story, event)
                self.events += 1

    def _fold(self, id: str, story: Story, event: Any) -> None:
        match event:
            case Created():
                story.key = event.idempotency_key or (event.labels or {}).get(ASKED)
            case Progressed() if event.step is not None and event.output is not UNSET:
                output = Output(event.attempt, read_json(bytes(event.output)))
                story.outputs.setdefault(event.step, []).append(output)
            case Completed():
                story.ends += 1
                story.status, story.result = "completed", read_json(bytes(event.result))
            case Failed() if event.retry_at is None:
                story.ends += 1
                story.status = "failed"
            case Cancelled():
                story.ends += 1
                story.status = "cancelled"
            case Requeued():
                story.ends = 0
        if story.ends and not isinstance(event, Completed | Failed | Cancelled):
            self._differ(f"job {id}: {event} follows its end")

    def check_answers(self) -> None:
        """What was acknowledged is in the log, and what is in the log was asked for once."""
        keys: dict[str, str] = {}
        for id, story in self._stories.items():
            if story.key is None or keys.setdefault(story.key, id) != id:
                self._differ(f"the key {story.key} made job {id} beside {keys.get(story.key or '')}")
            if story.ends != 1:
                self._differ(f"job {id} ended {story.ends} times")
        for key, id in self._witness.created.items():
            if keys.get(key) != id:
                self._differ(f"the acknowledged job {id} of {key} is lost")
        for key in keys.keys() - self._witness.created.keys() - self._witness.unsure:
            self._differ(f"the job of {key} was never acknowledged, though its caller waited")
        for id, view in self._witness.ended.items():
            story = self._stories.get(id, Story())
            told = (view["status"], view["version"], view["result"])
            if told != (story.status, story.events, story.result):
                self._differ(f"job {id} was told to have ended as {told}; its log says otherwise")
        for id in self._witness.cancelled:
            if self._stories.get(id, Story()).status not in ("cancelled", "completed"):
                self._differ(f"job {id}, whose cancellation was acknowledged, was not cancelled")
        for said in self._witness.recorded:
            outputs = self._stories.get(said.job_id, Story()).outputs.get(said.step, [])
            if [(one.attempt, one.value) for one in outputs] != [(said.attempt, said.output)]:
                self._differ(f"job {said.job_id}: the acknowledged {said.step!r} is recorded as {outputs}")

    def check_steps(self, marked: list[marks.Mark]) -> None:
        """No step is recorded twice, none runs again once it is recorded, and results are of what was recorded."""
        calls: dict[str, dict[str, list[marks.Mark]]] = defaultdict(lambda: defaultdict(list))
        for mark in marked:
            calls[mark.job_id][mark.step].append(mark)
        for id, story in self._stories.items():
            for step, outputs in story.outputs.items():
                if len(outputs) != 1:
                    self._differ(f"job {id}: {step!r} is recorded {len(outputs)} times")
                if id in calls:
                    self._check_calls(id, step, outputs[0], calls[id][step])
            if id in calls and story.status == "completed":
                recorded = [outputs[0].value for outputs in story.outputs.values()]
                if story.result != recorded:
                    self._differ(f"job {id}: the result {story.result} is not of its steps {recorded}")

    def _check_calls(self, id: str, step: str, output: Output, calls: list[marks.Mark]) -> None:
        attempts = [call.attempt for call in calls]
        if len(set(attempts)) != len(attempts):
            self._differ(f"job {id}: {step!r} ran twice in an attempt: {attempts}")
        if max(attempts, default=0) > output.attempt:
            self._differ(f"job {id}: {step!r} was recorded in attempt {output.attempt} and ran in {attempts}")
        if (output.attempt, output.value) not in {(call.attempt, call.token) for call in calls}:
            self._differ(f"job {id}: {step!r} has an output that no call of its attempt returned")

    def _check_followers(self, followers: list[LogFollower]) -> None:
        positions, versions = self._places()
        for n, follower in enumerate(followers, 1):
            if positions and not follower.wait_until(positions[-1]):
                self._differ(f"follower {n} did not come to the end of the log")
            follower.close()
            if follower.versions != versions:
                self._differ(f"follower {n} saw other versions than there are")
            self.check_seen(f"follower {n}", follower.positions, positions)

    def check_seen(self, who: str, seen: Sequence[int], there: Sequence[int]) -> None:
        """Every event once, in order."""
        missing, strange = len(set(there) - set(seen)), len(set(seen) - set(there))
        twice = len(seen) - len(set(seen))
        if missing or strange or twice:
            self._differ(f"{who} saw {missing} events of {len(there)} not, {twice} twice, {strange} that are not there")
        elif list(seen) != list(there):
            self._differ(f"{who} saw events in another order than they have")

    def _places(self) -> tuple["array[int]", "array[int]"]:
        """Positions and versions of all events."""
        positions, versions = array("q"), array("q")
        with psycopg.connect(self._dsn) as connection, connection.cursor("places") as cursor:
            cursor.itersize = 50_000
            for position, version in cursor.execute(PLACES):
                positions.append(position)
                versions.append(version)
        return positions, versions

    def _check_servers(self) -> None:
        """Every server tells the same: all jobs, the whole log, and some histories."""
        ids = list(self._stories)[:: max(1, len(self._stories) // 20)]
        stories = [_told(url, ids) for url in self._urls]
        for url, story in zip(self._urls, stories, strict=True):
            if story != stories[0]:
                self._differ(f"{url} tells another story than {self._urls[0]}")

    def _check_views(self) -> None:
        """By the product's own verification: each view beside a fresh fold."""
        with httpx2.Client(base_url=self._urls[0], timeout=60) as http:

            def views() -> list[Any]:
                found: list[Any] = http.get("/v1/projections").json()["items"]
                return found

            if not _in_time(lambda: all(view["lag_events"] == 0 and view["rebuild"] is None for view in views())):
                self._differ(f"views do not catch up: {[(view['name'], view['lag_events']) for view in views()]}")
            for view in views():
                answer = http.post(f"/v1/projections/{view['name']}/verifications", json={"reason": "chaos"})
                if answer.status_code not in (202, 409):
                    self._differ(f"the view {view['name']} cannot be verified: {answer.text}")
            if not _in_time(lambda: all(view["verification"]["state"] == "done" for view in views())):
                self._differ("the views are not verified in time")
            for view in views():
                found = view["verification"]
                if view["parked"] or found["error"] or found["differences"]:
                    self._differ(f"the view {view['name']} differs from its fold: {json.dumps(view)}")

    def _check_seal(self) -> None:
        """Everything is sealed; the whole log is verified with all its checkpoints, and those served before."""

        def sealed() -> bool:
            with psycopg.connect(self._dsn) as connection:
                row = connection.execute("SELECT size = (SELECT count(*) FROM events) FROM seal").fetchone()
            return bool(row and row[0])

        if not _in_time(sealed):
            self._differ("the log is not sealed to its end")
        known = self._witness.keep_checkpoints(self._folder, CHECKPOINTS)
        given = [part for file in known for part in ("--checkpoint", str(file))]
        command = [sys.executable, "-m", "interfaces.cli.main", "audit", "verify", "--json", "--workers", "2", *given]
        environment = {"DATABASE_URL": self._dsn, "JOBLEDGER_DATA": str(self._folder / "service")}
        verified = subprocess.run(
            command,
            env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        if verified.returncode != 0:
            self._differ(f"the log is not verified: {verified.stdout} {verified.stderr}")


def _told(url: str, ids: list[str]) -> str:
    """A digest of all that a server tells."""
    told = sha256()
    cursor: str | None = ""
    with httpx2.Client(base_url=url, timeout=60) as http:
        while cursor is not None:
            page = http.get("/v1/jobs", params={"limit": 1000} | ({"cursor": cursor} if cursor else {})).json()
            told.update(json.dumps(page["items"]).encode())
            cursor = page["next"]
        with http.stream("GET", "/v1/events", headers={"Accept": "application/x-ndjson"}) as log:
            for piece in log.iter_bytes():
                told.update(piece)
        for id in ids:
            told.update(http.get(f"/v1/jobs/{id}/events").content)
    return told.hexdigest()


def _in_time(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE)
    return True

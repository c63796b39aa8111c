"""Visualizations end to end, with a small server in OpenAI's place: killed in each step, refused in each way."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from application.language import Analysis, Counterpart, Story
from tests.chat_server import KEY, MODEL, Answer, ChatServer, as_json, chat_server, completion, error, stream

Start = Callable[..., Any]
Wait = Callable[[Callable[[], Any], str], Any]
ANALYSIS = Analysis(type="science", subject="light", difficulty="easy", concepts=["sky", "blue"], asked="Why?")
STORY = Story(
    title="The long way of the light",
    setting="Above a town at noon.",
    text="Once a ray of light set out.",
    mapping=[Counterpart("the crowd", "molecules of air")],
)
GOOD = f"<!doctype html>\n<html><body>{'<p>sky</p>' * 900}</body></html>\n"
BAD = GOOD.replace("<p>sky</p>", '<img src="https://sky.example/blue.png">', 1)
WELL = {
    "analysis": lambda: completion(as_json(ANALYSIS)),
    "story": lambda: completion(as_json(STORY)),
    "page": lambda: stream(GOOD),
    "redraw": lambda: stream(GOOD),
}


class Studio:
    """An API server, workers that ask a server of ours as if it were OpenAI, and what that was asked, by step."""

    def __init__(self, start: Start, dsn: str, server: ChatServer, artifacts: Path) -> None:
        environment = {"DATABASE_URL": dsn, "JOBLEDGER_ARTIFACTS": str(artifacts)}
        self.url = start("api", "--port", "0", **environment).url
        self.server = server
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, list[Answer]] = {}
        self._environment = {
            **environment,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_MODEL": MODEL,
            "NO_PROXY": "127.0.0.1",
        }
        server.respond = self._respond

    def worker(self, start: Start, **environment: str) -> Any:
        return start("worker", **{**self._environment, **environment})

    def create(self, **fields: Any) -> str:
        at_once = {"heartbeat_timeout": 1, "retry": {"initial": 0, "factor": 1, "max": 0}}
        job = {"kind": "visualization", "input": {"question": "Why is the sky blue?"}, **at_once, **fields}
        answer = httpx2.post(f"{self.url}/v1/jobs", json=job, timeout=30)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, path: str) -> Any:
        return httpx2.get(f"{self.url}{path}", timeout=30).json()

    def ended(self, id: str) -> Any:
        job = self.get(f"/v1/jobs/{id}")
        return job if job["finished_at"] else None

    def steps(self, id: str) -> dict[str, Any]:
        events = self.get(f"/v1/jobs/{id}/events")["items"]
        return {e["data"]["step"]: e["data"]["output"] for e in events if "output" in e["data"]}

    def _respond(self, request: dict[str, Any]) -> Answer:
        step = _step(request)
        self.asked[step] += 1
        scripted = self.answers.get(step)
        return scripted.pop(0) if scripted else WELL[step]()


def _step(request: dict[str, Any]) -> str:
    if "response_format" in request:
        return str(request["response_format"]["json_schema"]["name"])
    return "redraw" if any(message["role"] == "assistant" for message in request["messages"]) else "page"


@pytest.fixture(scope="module")
def building(start_for_module: Start, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with chat_server() as server:
        yield Studio(start_for_module, dsn, server, tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def studio(building: Studio) -> Studio:
    """The studio without a worker, and without a memory of other tests."""
    building.asked.clear()
    building.answers = {}
    building.server.requests.clear()
    return building


@pytest.fixture(scope="module")
def worker(building: Studio, start_for_module: Start) -> Any:
    """A worker for all tests but those above, which kill theirs."""
    return building.worker(start_for_module)


def waiting_chromium(folder: Path, chromium: str) -> str:
    """A PATH on which Chromium, each time it is started, says so and waits for the file `go`."""
    spy = folder / "bin" / "chromium"
    spy.parent.mkdir()
    wait = f'n=0; while [ ! -e "{folder}/go" ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n+1)); done'
    spy.write_text(f'#!/bin/sh\necho started >> "{folder}/started"\n{wait}\nexec "{chromium}" "$@"\n')
    spy.chmod(0o755)
    return f"{spy.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("step", ["analysis", "story", "page", "redraw"])
def test_a_worker_killed_while_the_model_answers_buys_nothing_again_that_was_recorded(
    studio: Studio, start: Start, wait_until: Wait, step: str
) -> None:
    held = threading.Event()
    answer = stream(GOOD) if step in ("page", "redraw") else WELL[step]()
    if step in ("page", "redraw"):
        answer.body.insert(len(answer.body) // 2, held)  # half of it has come
    else:
        answer.after = held
    studio.answers = {"page": [stream(BAD)], step: [answer]}
    if step == "page":
        studio.answers["page"] = [answer, stream(BAD)]
    first = studio.worker(start)
    id = studio.create()
    wait_until(lambda: studio.asked[step] == 1, "the call")
    before = studio.get(f"/v1/visualizations/{id}")
    assert (before["analysis"] is not None) == (step != "analysis")
    assert (before["story"] is not None) == (step in ("page", "redraw"))
    first.kill()
    held.set()
    studio.worker(start)
    job = wait_until(lambda: studio.ended(id), "the end")
    assert (job["status"], job["attempt"]) == ("completed", 2), job
    expected = Counter({"analysis": 1, "story": 1, "page": 1, "redraw": 1})
    expected[step] += 1  # the answer that nobody lived to record
    assert studio.asked == expected


@pytest.mark.parametrize("checks", [1, 2])
def test_a_worker_killed_while_a_page_is_checked_buys_nothing_again(
    studio: Studio, start: Start, wait_until: Wait, chromium: str, tmp_path: Path, checks: int
) -> None:
    path = waiting_chromium(tmp_path, chromium)
    started = tmp_path / "started"
    studio.answers = {"page": [stream(BAD)]}
    held = threading.Event()
    if checks == 2:
        (tmp_path / "go").touch()
        redrawn = stream(GOOD)
        redrawn.after = held
        studio.answers["redraw"] = [redrawn]
    first = studio.worker(start, PATH=path, TMPDIR=str(tmp_path))
    id = studio.create()
    if checks == 2:
        wait_until(lambda: studio.asked["redraw"] == 1, "the second page")
        (tmp_path / "go").unlink()
        held.set()
    wait_until(lambda: started.exists() and len(started.read_text().split()) == checks, "the check")
    first.kill()
    (tmp_path / "go").touch()
    studio.worker(start, PATH=path, TMPDIR=str(tmp_path))
    job = wait_until(lambda: studio.ended(id), "the end")
    assert (job["status"], job["attempt"]) == ("completed", 2), job
    assert studio.asked == Counter({"analysis": 1, "story": 1, "page": 1, "redraw": 1})
    assert list(studio.steps(id)) == ["analysis", "story", "page", "check", "redraw", "recheck"]
    assert studio.steps(id)["recheck"]["browser"].startswith("Chrome/")


def test_a_visualization_is_shown_as_it_is_recorded_and_what_it_cost_is_in_its_events(
    studio: Studio, worker: Any, wait_until: Wait
) -> None:
    id = studio.create(input={"question": "Which is blue?", "options": ["the sky", "grass"], "answer": "A"})
    job = wait_until(lambda: studio.ended(id), "the end")
    assert job["status"] == "completed", job
    shown = studio.get(f"/v1/visualizations/{id}")
    assert (shown["provider"], shown["error"]) == ("openai", None)
    assert (shown["question"], shown["options"], shown["answer"]) == ("Which is blue?", ["the sky", "grass"], "A")
    assert shown["analysis"]["concepts"] == ["sky", "blue"]
    assert (shown["story"]["title"], shown["story"]["setting"]) == (STORY.title, STORY.setting)
    assert shown["story"]["mapping"] == [{"element": "the crowd", "concept": "molecules of air"}]
    assert httpx2.get(f"{studio.url}{shown['html_url']}", timeout=30).text == GOOD
    usage = {"model": "m", "input_tokens": 100, "output_tokens": 20}
    assert [studio.steps(id)[step]["usage"] for step in ("analysis", "story", "page")] == [usage] * 3
    assert "B) grass" in studio.server.requests[0]["messages"][-1]["content"]
    progress = [e["data"]["progress"] for e in studio.get(f"/v1/jobs/{id}/events")["items"] if "progress" in e["data"]]
    assert progress == sorted(progress)


def test_progress_moves_while_the_page_streams(studio: Studio, worker: Any, wait_until: Wait) -> None:
    slow = stream(GOOD)
    held = threading.Event()
    slow.body.insert(12, held)
    studio.answers = {"page": [slow]}
    id = studio.create()
    moved = wait_until(lambda: studio.get(f"/v1/jobs/{id}")["progress"] > 0.5, "progress within the page")
    assert moved
    held.set()
    assert wait_until(lambda: studio.ended(id), "the end")["status"] == "completed"


AGAIN = {"Retry_After": "0"}
REFUSED = completion(None, refusal="I would rather not.")


@pytest.mark.parametrize(
    ("answers", "attempts"),
    [
        ({"analysis": [error(429, **AGAIN)]}, 2),
        ({"story": [error(500, **AGAIN)]}, 2),
        ({"page": [error(503, **AGAIN)]}, 2),
        ({"analysis": [completion("{not json")], "story": [REFUSED]}, 1),
        ({"page": [stream(GOOD, finish_reason="length")]}, 1),
        ({"page": [stream(BAD)]}, 1),
    ],
    ids=["429", "500", "503", "malformed, then refused", "too long a page", "a page with an outside URL"],
)
def test_what_can_be_mended_is_and_the_job_completes(
    studio: Studio, worker: Any, wait_until: Wait, answers: dict[str, list[Answer]], attempts: int
) -> None:
    studio.answers = {step: list(scripted) for step, scripted in answers.items()}
    id = studio.create()
    job = wait_until(lambda: studio.ended(id), "the end")
    assert (job["status"], job["attempt"]) == ("completed", attempts), job


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"analysis": [error(401, f"Incorrect API key provided: {KEY}")]}, "check OPENAI_API_KEY"),
        ({"analysis": [error(403)]}, "check OPENAI_API_KEY"),
        ({"page": [error(404)]}, "check OPENAI_MODEL"),
        ({"story": [error(400)]}, "refused the request"),
        ({"story": [REFUSED, REFUSED]}, "I would rather not"),
        ({"analysis": [completion("{"), completion(KEY)]}, "does not fit the schema"),
        (
            {"page": [stream(BAD)], "redraw": [stream(BAD.replace("blue.png", "red.png"))]},
            "https://sky.example/red.png",
        ),
        ({"page": [error(500, **AGAIN)] * 3}, "busy (500)"),
    ],
    ids=["401", "403", "404", "400", "refused twice", "malformed twice", "bad page twice", "500 for ever"],
)
def test_what_cannot_be_mended_fails_for_good_says_why_and_shows_no_key(
    studio: Studio, worker: Any, wait_until: Wait, answers: dict[str, list[Answer]], message: str
) -> None:
    studio.answers = {step: list(scripted) for step, scripted in answers.items()}
    id = studio.create()
    job = wait_until(lambda: studio.ended(id), "the end")
    assert job["status"] == "failed"
    assert message in job["error"]["message"]
    assert job["attempt"] == (3 if "500" in message else 1)
    assert studio.server.keys[-1] == f"Bearer {KEY}"
    paths = (f"/v1/jobs/{id}", f"/v1/jobs/{id}/events", f"/v1/jobs/{id}/why", f"/v1/visualizations/{id}")
    told = [httpx2.get(f"{studio.url}{path}", timeout=30).text for path in paths]
    assert studio.get(f"/v1/visualizations/{id}")["error"]["message"] == job["error"]["message"]
    assert not [text for text in (*told, *worker.output) if KEY in text]

"""Traces: one from a request to the steps of its job, whoever runs it; and a service that no collector can harm."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.collector import Collector, Span, collector
from tests.waiting import eventually

Start = Callable[..., Any]
SECRET = "a-word-of-the-input"
HANDLERS = """
from application.handlers import JobContext, PlainJobContext, handles


async def look(what: str) -> str:
    return what


async def order(what: str, *, idempotency_key: str) -> str:
    return what


async def break_down(what: str) -> str:
    raise ValueError(what)


def look_plainly(what: str) -> str:
    return what


@handles("traced")
async def traced(job: JobContext, input: str) -> str:
    await job.step("look", look, input)
    await job.submit("order", order, input)
    await job.save_artifact("file.txt", input.encode(), "text/plain")
    return input


@handles("traced-plainly")
def traced_plainly(job: PlainJobContext, input: str) -> str:
    return job.step("look", look_plainly, input)


@handles("broken")
async def broken(job: JobContext, input: str) -> str:
    return await job.step("break", break_down, input)
"""


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    with collector() as collecting:
        yield collecting


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, collected: Collector) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("handlers")
    (folder / "traced_handlers.py").write_text(HANDLERS)
    path = f"{Path(__file__).parents[2]}:{folder}"
    return {"JOBLEDGER_HANDLERS": "traced_handlers", "PYTHONPATH": path, **collected.environment}


@pytest.fixture(scope="module")
def url(dsn: str, environment: dict[str, str], start_for_module: Start) -> str:
    """A server and a worker whose spans are collected."""
    serving = start_for_module("api", "--port", "0", DATABASE_URL=dsn, **environment, OTEL_SERVICE_NAME="front")
    start_for_module("worker", DATABASE_URL=dsn, **environment).wait_for_line("worker.started")
    address: str = serving.url
    return address


def create(url: str, kind: str, **headers: str) -> str:
    job = {"kind": kind, "input": SECRET, "max_attempts": 1}
    answer = httpx2.post(f"{url}/v1/jobs", json=job, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


def ended(url: str, id: str) -> str:
    """How the job ended."""
    job = httpx2.get(f"{url}/v1/jobs/{id}", headers={"prefer": "wait=60"}, timeout=90).json()
    return str(job["status"])


def trace_of(url: str, id: str) -> str:
    """The trace in the job's events, which all carry the same."""
    events = httpx2.get(f"{url}/v1/jobs/{id}/events", timeout=30).json()["items"]
    [trace] = {event["trace"] for event in events}
    return str(trace)


def tree(spans: list[Span]) -> dict[str, str | None]:
    """The name of each span with that of the one it is under; of several with one name, the last."""
    names = {span.id: span.name for span in spans}
    return {span.name: names.get(span.parent) for span in spans}


def settled(collected: Collector, trace: str, *names: str) -> list[Span]:
    """The spans of a trace, once these are among them."""
    eventually(lambda: set(names) <= {span.name for span in collected.of(trace)}, what=f"spans {names}")
    return collected.of(trace)


def test_one_trace_from_a_request_to_the_steps(url: str, collected: Collector) -> None:
    id = create(url, "traced")
    assert ended(url, id) == "completed"
    spans = joined(collected, trace_of(url, id))
    [request] = [span for span in spans if span.name == "POST /v1/jobs"]
    assert request.attributes["http.response.status_code"] == 202
    assert request.resource["service.name"] == "front"
    [attempt] = [span for span in spans if span.name == "attempt traced"]
    assert attempt.resource["service.name"] == "jobledger"
    said = {"jobledger.job_id": id, "jobledger.kind": "traced", "jobledger.queue": "default", "jobledger.attempt": 1}
    assert attempt.attributes == said
    assert all(span.begun <= span.ended for span in spans)
    assert not any(SECRET.encode() in body for body in collected.bodies)


def joined(collected: Collector, trace: str) -> list[Span]:
    """The spans of a job of kind `traced`, which hang together from its request to its steps."""
    names = "POST /v1/jobs", "create", "append", "claim", "attempt traced", "step look", "submit order"
    settled(collected, trace, *names)
    eventually(lambda: "claim" in appended(collected.of(trace)), what="what the attempt says, in the same trace")
    spans = collected.of(trace)
    above = tree(spans)
    assert above["POST /v1/jobs"] is None
    assert above["create"] == "POST /v1/jobs"
    assert above["claim"] == "create"
    assert above["attempt traced"] == "claim"
    assert above["step look"] == above["submit order"] == "attempt traced"
    assert appended(spans)[0] == "create"
    return spans


def appended(spans: list[Span]) -> list[str | None]:
    """What the appends are under, in the order in which they began; they come as servers send them."""
    names = {span.id: span.name for span in spans}
    appends = sorted((span for span in spans if span.name == "append"), key=lambda span: span.begun)
    return [names.get(span.parent) for span in appends]


def test_a_callers_trace_is_gone_on_with(url: str, collected: Collector) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    id = create(url, "traced-plainly", traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    assert ended(url, id) == "completed"
    assert trace_of(url, id) == trace
    spans = settled(collected, trace, "POST /v1/jobs", "attempt traced-plainly", "step look")
    [request] = [span for span in spans if span.name == "POST /v1/jobs"]
    assert request.parent == "00f067aa0ba902b7"
    assert tree(spans)["step look"] == "attempt traced-plainly"


def test_what_went_wrong_is_told_by_its_type_alone(url: str, collected: Collector) -> None:
    id = create(url, "broken")
    assert ended(url, id) == "failed"
    spans = settled(collected, trace_of(url, id), "attempt broken", "step break")
    for span in spans:
        if span.name in ("attempt broken", "step break"):
            assert (span.failed, span.attributes["error.type"], span.events) == (True, "ValueError", [])
        else:
            assert not span.failed, span.name
    assert not any(SECRET.encode() in body for body in collected.bodies)


def test_a_worker_over_http_goes_on_with_the_trace(
    start: Start, new_database: Callable[[], str], environment: dict[str, str], collected: Collector
) -> None:
    url = start("api", "--port", "0", DATABASE_URL=new_database(), **environment).url
    start("worker", "--url", url, **environment).wait_for_line("working at")
    id = create(url, "traced")
    assert ended(url, id) == "completed"
    trace, upload = trace_of(url, id), "PUT /v1/jobs/{job_id}/attempts/{attempt}/artifacts/{name}"
    joined(collected, trace)
    assert tree(settled(collected, trace, upload))[upload] == "attempt traced"


def test_a_job_from_before_is_traced_by_its_id(start: Start, dsn: str, url: str, collected: Collector) -> None:
    """Created where no traces are made: its events have none, and its attempt's spans still are of one."""
    id = create(start("api", "--port", "0", DATABASE_URL=dsn).url, "broken")
    assert ended(url, id) == "failed"
    assert trace_of(url, id) == "None"
    eventually(lambda: [span for span in attempts(collected) if span.attributes["jobledger.job_id"] == id])
    [attempt] = [span for span in attempts(collected) if span.attributes["jobledger.job_id"] == id]
    spans = settled(collected, attempt.trace, "claim", "attempt broken", "step break")
    assert (tree(spans)["step break"], tree(spans)["attempt broken"]) == ("attempt broken", "claim")


def attempts(collected: Collector) -> list[Span]:
    return [span for span in collected.spans if span.name == "attempt broken"]


def test_a_share_of_traces_is_whole_ones(
    start: Start, new_database: Callable[[], str], environment: dict[str, str], collected: Collector
) -> None:
    dsn = new_database()
    share = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    url = start("api", "--port", "0", DATABASE_URL=dsn, **environment, **share).url
    start("worker", DATABASE_URL=dsn, **environment, **share).wait_for_line("worker.started")
    ids = [create(url, "traced") for _ in range(24)]
    assert {ended(url, id) for id in ids} == {"completed"}
    traces = [trace_of(url, id) for id in ids]

    def sampled(name: str) -> set[str]:
        return {span.trace for span in collected.spans if span.name == name} & set(traces)

    eventually(lambda: sampled("POST /v1/jobs") == sampled("step look") != set())
    assert 0 < len(sampled("step look")) < len(traces)


def test_a_collector_that_is_away_harms_nothing(
    start: Start, new_database: Callable[[], str], environment: dict[str, str]
) -> None:
    dsn = new_database()
    refuses = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:secret@127.0.0.1:9"}  # the port of discard: nobody listens
    with socket.create_server(("127.0.0.1", 0)) as silent:  # somebody does, and says nothing
        hangs = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        api = start("api", "--port", "0", DATABASE_URL=dsn, **{**environment, **refuses})
        worker = start("worker", DATABASE_URL=dsn, **{**environment, **hangs})
        worker.wait_for_line("worker.started")
        for _ in range(20):
            assert ended(api.url, create(api.url, "traced")) == "completed"
        api.wait_for_line("traces.unavailable")
        assert (worker.stop(), api.stop()) == (0, 0)
    for process in (worker, api):
        assert sum("traces.unavailable" in line for line in process.output) <= 1
        assert not any("Traceback" in line or "secret" in line for line in process.output)


@pytest.mark.parametrize("command", [["api", "--port", "0"], ["worker"], ["projector"], ["up", "--port", "0"]])
def test_without_the_sdk_an_endpoint_is_refused_at_the_start(dsn: str, tmp_path: Path, command: list[str]) -> None:
    """A finder that hides the SDK stands in for an installation without the extra."""
    hiding = tmp_path / "sitecustomize.py"
    hiding.write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry.sdk'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", *command, "--data", str(tmp_path / "data")],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}",
            "DATABASE_URL": dsn,
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:secret@127.0.0.1:4318",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert "pip install -c requirements.lock '.[traces]'" in run.stderr
    assert "Traceback" not in run.stderr
    assert "secret" not in run.stderr

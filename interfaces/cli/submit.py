"""`jobledger submit`: ask for a job and, if wanted, follow it to its end through any restart of the service."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from application.multiple_choice import read_question
from interfaces.settings import Settings

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
FINISHED = {"completed", "failed", "cancelled"}
POLL_SECONDS = 0.2
LONGEST_PAUSE = 2.0
Job = dict[str, Any]


class Unreachable(Exception):
    """The service did not answer."""


class Problem(Exception):
    """The service refused; the text is its problem's detail."""


def submit(settings: Settings, given: argparse.Namespace) -> int:
    """Create the job; with `--follow`, draw its progress and say where the result is."""
    try:
        path, body = _request(given)
    except (OSError, ValueError) as error:
        print(f"jobledger: {given.input}: {error}", file=sys.stderr)
        return USAGE
    headers = {"Authorization": f"Bearer {settings.key.get_secret_value()}"} if settings.key else {}
    with httpx2.Client(base_url=settings.url, headers=headers, timeout=10) as client:
        try:
            job = _create(client, path, body, given.patience)
            if given.follow:
                job = _follow(client, job["id"], quiet=given.json)
        except Problem as problem:
            print(f"jobledger: {problem}", file=sys.stderr)
            return REFUSED
        except Unreachable as away:
            print(f"jobledger: {settings.url} does not answer ({away}); is `jobledger up` running?", file=sys.stderr)
            return UNREACHABLE
        except KeyboardInterrupt:
            print(f"jobledger: the job goes on: {settings.url}{job['links']['self']}", file=sys.stderr)
            return 130
    _show(settings.url, job, as_json=given.json)
    return REFUSED if job["status"] in ("failed", "cancelled") else DONE


def _request(given: argparse.Namespace) -> tuple[str, Job]:
    """The call that asks for the job. Raises OSError and ValueError for an input that cannot be read."""
    text = (sys.stdin.buffer.read() if given.input == "-" else Path(given.input).read_bytes()).decode("utf-8-sig")
    plain = given.kind == "visualization" and not given.input.endswith(".json")
    wanted: Job = {"kind": given.kind, "input": msgspec.to_builtins(read_question(text)) if plain else json.loads(text)}
    wanted |= {name: value for name in ("queue", "priority") if (value := getattr(given, name)) is not None}
    if plain and len(wanted) == 2:
        return "/v1/visualizations", wanted["input"]
    if given.kind == "presentation" and len(wanted) == 2:
        return "/v1/presentations", wanted["input"]
    return "/v1/jobs", wanted


def _create(client: httpx2.Client, path: str, body: Job, patience: float) -> Job:
    """The new job. One key for all tries, so that a lost answer makes no second job."""
    headers = {"Idempotency-Key": str(uuid4())}
    until = time.monotonic() + patience
    return _ask(lambda: client.post(path, json=body, headers=headers), lambda: time.monotonic() < until)


def _follow(client: httpx2.Client, id: str, *, quiet: bool) -> Job:
    """The job once it has ended; a service that is away meanwhile is waited for."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("queued", total=1.0)
        while True:
            job = _ask(lambda: client.get(f"/v1/jobs/{id}"), lambda: True)
            doing = job["message"] if job["status"] == "running" and job["message"] else job["status"]
            progress.update(bar, completed=job["progress"], description=doing)
            if job["status"] in FINISHED:
                return job
            time.sleep(POLL_SECONDS)


def _ask(call: Callable[[], httpx2.Response], patient: Callable[[], bool]) -> Job:
    """The answer, asked for again while the service is away and we are patient. Raises Problem or Unreachable."""
    pause = POLL_SECONDS
    while True:
        try:
            response = call()
        except httpx2.TransportError as error:
            away = str(error) or type(error).__name__
        else:
            if response.status_code < 400:
                answer: Job = response.json()
                return answer
            if response.status_code not in (502, 503, 504):
                raise Problem(_detail(response))
            away = _detail(response)
        if isinstance(away, str) and not patient():
            raise Unreachable(away)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _detail(response: httpx2.Response) -> str:
    try:
        problem = response.json()
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _show(url: str, job: Job, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(job, ensure_ascii=False))
        return
    print(f"job       {job['id']}  ({job['kind']}, {job['status']})")
    if job["error"] and job["status"] != "completed":
        print(f"error     {job['error']['type']}: {job['error']['message']}")
    if job["kind"] == "visualization" and job["status"] == "completed":
        print(f"page      {url}/v1/visualizations/{job['id']}/html")
    if job["kind"] == "presentation" and job["status"] == "completed":
        print(f"video     {url}/v1/presentations/{job['id']}/video")
    for artifact in job["artifacts"]:
        print(f"file      {url}{artifact['url']}  ({artifact['name']}, {artifact['size']} bytes)")
    print(f"history   {url}{job['links']['events']}")

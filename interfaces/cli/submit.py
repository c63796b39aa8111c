"""`jobledger submit`: ask for a job and, if wanted, follow it to its end through any restart of the service."""

import argparse
import json
import sys
import time
from pathlib import Path

import httpx2
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from application.multiple_choice import read_question
from application.texts import plain
from interfaces.cli.client import FINISHED, POLL_SECONDS, Job, connect, create, doing, look
from interfaces.cli.printed import as_json as told
from interfaces.settings import Settings

DONE, REFUSED, USAGE = 0, 1, 2


def submit(settings: Settings, given: argparse.Namespace) -> int:
    """Create the job; with `--follow`, draw its progress and say where the result is."""
    try:
        path, body = _request(given)
    except (OSError, ValueError) as error:
        print(f"jobledger: {given.input}: {error}", file=sys.stderr)
        return USAGE
    with connect(settings) as client:
        job = create(client, path, body, given.patience)
        try:
            if given.follow:
                job = _follow(client, job["id"], quiet=given.json)
        except KeyboardInterrupt:
            print(f"jobledger: the job goes on: {settings.url}{job['links']['self']}", file=sys.stderr)
            return 130
    _show(settings.url, job, as_json=given.json)
    return REFUSED if job["status"] in ("failed", "cancelled") else DONE


def _request(given: argparse.Namespace) -> tuple[str, Job]:
    """The call that asks for the job. Raises OSError and ValueError for an input that cannot be read."""
    text = (sys.stdin.buffer.read() if given.input == "-" else Path(given.input).read_bytes()).decode("utf-8-sig")
    plainly = given.kind == "visualization" and not given.input.endswith(".json")
    wanted: Job = {
        "kind": given.kind,
        "input": msgspec.to_builtins(read_question(text)) if plainly else json.loads(text),
    }
    wanted |= {name: value for name in ("queue", "priority") if (value := getattr(given, name)) is not None}
    if plainly and len(wanted) == 2:
        return "/v1/visualizations", wanted["input"]
    if given.kind == "presentation" and len(wanted) == 2:
        return "/v1/presentations", wanted["input"]
    return "/v1/jobs", wanted


def _follow(client: httpx2.Client, id: str, *, quiet: bool) -> Job:
    """The job once it has ended; a service that is away meanwhile is waited for."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("queued", total=1.0)
        while True:
            job = look(client, id)
            progress.update(bar, completed=job["progress"], description=doing(job))
            if job["status"] in FINISHED:
                return job
            time.sleep(POLL_SECONDS)


def _show(url: str, job: Job, *, as_json: bool) -> None:
    if as_json:
        print(told(job))
        return
    print(f"job       {job['id']}  ({plain(job['kind'])}, {job['status']})")
    if job["error"] and job["status"] != "completed":
        print(plain(f"error     {job['error']['type']}: {job['error']['message']}"))
    if job["kind"] == "visualization" and job["status"] == "completed":
        print(f"page      {url}/v1/visualizations/{job['id']}/html")
    if job["kind"] == "presentation" and job["status"] == "completed":
        print(f"video     {url}/v1/presentations/{job['id']}/video")
    for artifact in job["artifacts"]:
        print(f"file      {url}{artifact['url']}  ({artifact['name']}, {artifact['size']} bytes)")
    print(f"history   {url}{job['links']['events']}")

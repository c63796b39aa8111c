"""`jobledger demo`: a real question becomes a page and a real deck a video, while you watch."""

import argparse
import json
import sys
import time

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from application.texts import plain
from interfaces.cli.client import FINISHED, POLL_SECONDS, Job, connect, create, doing, look
from interfaces.cli.examples import example
from interfaces.cli.printed import as_json
from interfaces.settings import Settings

DONE, REFUSED = 0, 1
PATIENCE = 5.0
"""Seconds for a service that is just starting."""


def demo(settings: Settings, given: argparse.Namespace) -> int:
    """Submit both, follow both through any restart, and say where the page and the video are."""
    question = {"question": example("question.txt").read_text("utf-8")}
    deck = json.loads(example("deck.json").read_text("utf-8"))
    with connect(settings) as client:
        page = create(client, "/v1/visualizations", question, PATIENCE)
        video = create(client, "/v1/presentations", deck, PATIENCE)
        try:
            page, video = _follow(client, {"a question": page, "a deck": video}, quiet=given.json)
        except KeyboardInterrupt:
            print(f"jobledger: both jobs go on; see {settings.url}/v1/jobs", file=sys.stderr)
            return 130
    page_url = f"{settings.url}/v1/visualizations/{page['id']}/html"
    video_url = f"{settings.url}/v1/presentations/{video['id']}/video"
    if given.json:
        told = {"visualization": page, "presentation": video, "page_url": page_url, "video_url": video_url}
        print(as_json(told))
    else:
        _show("page", page, page_url)
        _show("video", video, video_url)
    return DONE if page["status"] == video["status"] == "completed" else REFUSED


def _follow(client: httpx2.Client, jobs: dict[str, Job], *, quiet: bool) -> list[Job]:
    """Both jobs once they have ended, each with a bar of its own meanwhile."""
    columns = (
        TextColumn("{task.fields[name]:<10}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bars = {name: progress.add_task("queued", total=1.0, name=name) for name in jobs}
        while under_way := [name for name, job in jobs.items() if job["status"] not in FINISHED]:
            for name in under_way:
                jobs[name] = look(client, jobs[name]["id"])
                _draw(progress, bars[name], jobs[name])
            time.sleep(POLL_SECONDS)
    return list(jobs.values())


def _draw(progress: Progress, bar: TaskID, job: Job) -> None:
    progress.update(bar, completed=job["progress"], description=doing(job))
    if job["status"] in FINISHED:
        progress.stop_task(bar)


def _show(what: str, job: Job, url: str) -> None:
    if job["status"] == "completed":
        print(f"{what:<9} {url}")
    else:
        error = job["error"] or {"type": job["status"], "message": "it does not say why"}
        print(plain(f"{what:<9} {job['status']}: {error['type']}: {error['message']}"))

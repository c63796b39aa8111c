"""Asking a running service: tables for people, JSON for programs."""

import argparse
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from shlex import quote as quoted
from typing import Any
from urllib.parse import quote

import httpx2
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from application.texts import plain
from interfaces.cli import client
from interfaces.cli.printed import as_json
from interfaces.cli.tables import console
from interfaces.settings import Settings

DONE, USAGE = 0, 2
LONGEST_MINUTES = 10 * 366 * 24 * 60
Json = Any
Given = argparse.Namespace


class WrongUsage(Exception):
    """Arguments that do not go together."""


class Service:
    """The service as questions ask it, once. Raises Unavailable, and what the service refused with."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def get(self, path: str, **query: Json) -> Json:
        given = {name: value for name, value in query.items() if value is not None}
        return client.ask(self._client, "GET", path, params=given)

    def post(self, path: str, body: Json) -> Json:
        return client.ask(self._client, "POST", path, json=body)

    def delete(self, path: str) -> None:
        client.ask(self._client, "DELETE", path)


class Question(Struct, frozen=True):
    """What is asked, and how the answer is shown."""

    ask: Callable[[Service, Given], Json]
    show: Callable[[Json, Console], None]


def ask(settings: Settings, given: Given) -> int:
    """Ask one question, print the answer, and return the exit status."""
    question = QUESTIONS[given.question]
    try:
        with client.connect(settings) as connected:
            answer = question.ask(Service(connected), given)
    except WrongUsage as wrong:
        print(f"jobledger {given.question}: {wrong}", file=sys.stderr)
        return USAGE
    if given.json:
        print(as_json(answer))
    else:
        question.show(answer, console())
    return DONE


def _jobs(asked: Service, given: Given) -> Json:
    names = ("status", "kind", "queue", "label", "worker", "sort", "limit", "cursor")
    return asked.get("/v1/jobs", **{name: getattr(given, name) for name in names})


def _show_jobs(answer: Json, console: Console) -> None:
    rows = (
        (job["id"], job["kind"], job["queue"], job["status"], _percent(job), _moment(job["updated_at"]), _note(job))
        for job in answer["items"]
    )
    _print(console, ("job", "kind", "queue", "status", "progress", "updated", ""), rows, answer["next"])


def _events(asked: Service, given: Given) -> Json:
    if given.job is None:
        return asked.get("/v1/events", after=given.after, limit=given.limit)
    return asked.get(f"/v1/jobs/{quote(given.job, '')}/events", after_version=given.after, limit=given.limit)


def _show_events(answer: Json, console: Console) -> None:
    rows = (
        (event["position"], event["job_id"], event["version"], event["type"], event["by"], _moment(event["at"]))
        for event in answer["items"]
    )
    _print(console, ("position", "job", "version", "event", "by", "at"), rows, answer["next"], "--after")


def _why(asked: Service, given: Given) -> Json:
    return asked.get(f"/v1/jobs/{quote(given.job, '')}/why")


def _show_why(answer: Json, console: Console) -> None:
    console.print(f"job {answer['job_id']} is {answer['status']}:", markup=False, highlight=False)
    for reason in answer["reasons"]:
        console.print(f"  {plain(reason)}", markup=False, highlight=False)


def _cancel(asked: Service, given: Given) -> Json:
    return asked.post(f"/v1/jobs/{quote(given.job, '')}/cancellations", {"reason": given.reason})


def _retry(asked: Service, given: Given) -> Json:
    body = {"reason": given.reason, "afresh": given.afresh}
    return asked.post(f"/v1/jobs/{quote(given.job, '')}/retries", body)


def _show_job(job: Json, console: Console) -> None:
    console.print(f"job {job['id']} ({plain(job['kind'])}) is {job['status']}", markup=False, highlight=False)


def _stats(asked: Service, given: Given) -> Json:
    if not 1 <= given.minutes <= LONGEST_MINUTES:
        raise WrongUsage(f"--minutes must be from 1 to {LONGEST_MINUTES}")
    begin = datetime.now(UTC) - timedelta(minutes=given.minutes)
    return asked.get("/v1/stats", **{"from": begin.isoformat()}, queue=given.queue, kind=given.kind)


def _show_stats(answer: Json, console: Console) -> None:
    def row(lane: Json) -> tuple[Any, ...]:
        statuses = lane["statuses"]
        done = (lane["created"], lane["completed"], lane["failed"], lane["retried"] + lane["missed"])
        now = (statuses["queued"], statuses["running"] + statuses["cancelling"])
        return (lane["queue"], lane["kind"], *now, *done, _spans(lane["wait"]), _spans(lane["run"]))

    console.print(f"from {_moment(answer['from'])} to {_moment(answer['to'])}", highlight=False)
    done = ("created", "completed", "failed", "tried again", "waited p50 p95 p99", "ran p50 p95 p99")
    _print(console, ("queue", "kind", "queued", "running", *done), map(row, answer["items"]))


def _queues(asked: Service, given: Given) -> Json:
    if given.action is None:
        return asked.get("/v1/queues", limit=given.limit, cursor=given.cursor)
    if given.name is None:
        raise WrongUsage(f"say which queue to {given.action}")
    place = f"/v1/queues/{quote(given.name, '')}/pauses"
    if given.action == "unpause":
        asked.delete(place)
    elif given.reason is None:
        raise WrongUsage("say why it is paused, with --reason")
    else:
        asked.post(place, {"reason": given.reason})
    return asked.get("/v1/queues", limit=1000)


def _show_queues(answer: Json, console: Console) -> None:
    def row(queue: Json) -> tuple[Any, ...]:
        pause = queue["paused"]
        paused = f"{_moment(pause['since'])} by {pause['by']}: {pause['reason']}" if pause else ""
        waited = queue["oldest_waiting_seconds"]
        counts = (queue["ready"], queue["scheduled"], queue["running"])
        return (queue["name"], *counts, "" if waited is None else _span(waited), paused)

    columns = ("queue", "ready", "scheduled", "running", "oldest waits", "paused since")
    _print(console, columns, map(row, answer["items"]), answer["next"])


def _workers(asked: Service, given: Given) -> Json:
    return asked.get("/v1/workers", seen_within=given.seen_within, limit=given.limit, cursor=given.cursor)


def _show_workers(answer: Json, console: Console) -> None:
    rows = (
        (
            worker["name"],
            _moment(worker["first_seen"]),
            _moment(worker["last_seen"]),
            ", ".join(worker["queues"]),
            worker["holding"],
            worker["completed"],
            worker["failed"],
            worker["missed"],
            worker["released"],
        )
        for worker in answer["items"]
    )
    columns = ("worker", "first seen", "last seen", "queues", "holds", "completed", "failed", "missed", "released")
    _print(console, columns, rows, answer["next"])


def _failures(asked: Service, given: Given) -> Json:
    return asked.get("/v1/failures", limit=given.limit, cursor=given.cursor)


def _show_failures(answer: Json, console: Console) -> None:
    rows = (
        (
            failure["kind"],
            failure["type"],
            failure["count"],
            failure["final"],
            _moment(failure["first_seen"]),
            _moment(failure["last_seen"]),
            failure["examples"][-1],
            failure["message"],
        )
        for failure in answer["items"]
    )
    columns = ("kind", "error", "count", "for good", "first seen", "last seen", "such as", "message")
    _print(console, columns, rows, answer["next"])


def _usage(asked: Service, given: Given) -> Json:
    return asked.get("/v1/usage", **{"from": given.begin, "to": given.end}, group=given.group)


def _show_usage(answer: Json, console: Console) -> None:
    names = ("namespace", "day", "kind", "model")
    numbers = ("attempts", "seconds", "artifact_bytes", "input_tokens", "output_tokens")
    rows = [tuple(item[name] for name in (*names, *numbers)) for item in answer["items"]]
    _print(console, (*names, "attempts", "seconds", "bytes", "tokens in", "tokens out"), rows)


def _projections(asked: Service, given: Given) -> Json:
    if given.action is not None:
        if given.name is None or given.reason is None:
            raise WrongUsage(f"say which projection to {given.action}, and why, with --reason")
        place = f"/v1/projections/{quote(given.name, '')}"
        match given.action:
            case "rebuild":
                asked.post(f"{place}/rebuilds", {"reason": given.reason})
            case "verify":
                asked.post(f"{place}/verifications", {"reason": given.reason})
            case action:
                asked.post(f"{place}/resumptions", {"action": action, "reason": given.reason})
    return asked.get("/v1/projections")


def _show_projections(answer: Json, console: Console) -> None:
    rows = (
        (
            projection["name"],
            projection["state"],
            projection["checkpoint"],
            projection["lag_events"],
            _span(projection["lag_seconds"]),
            _doing(projection),
        )
        for projection in answer["items"]
    )
    _print(console, ("projection", "state", "checkpoint", "events behind", "behind", ""), rows)


def _doing(projection: Json) -> str:
    said = []
    if parked := projection["parked"]:
        said.append(f"event {parked['version']} of job {parked['job_id']}: {parked['error']}")
    if rebuild := projection["rebuild"]:
        said.append(f"rebuild is {rebuild['state']} at {rebuild['checkpoint']}")
    if verification := projection["verification"]:
        differences = verification["differences"]
        found = verification["error"] or ("" if differences is None else f", {differences} differences")
        said.append(
            f"{'rebuild in place' if verification['mends'] else 'verification'} is {verification['state']}{found}"
        )
    return "; ".join(said)


def _print(
    console: Console,
    columns: Iterable[str],
    rows: Iterable[tuple[Any, ...]],
    following: Json = None,
    flag: str = "--cursor",
) -> None:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else plain(cell)) for cell in row))
    console.print(table, highlight=False)
    if following is not None:
        console.print(
            f"there are more: {flag} {plain(quoted(str(following)))}", markup=False, highlight=False, soft_wrap=True
        )


def _percent(job: Json) -> str:
    return f"{job['progress']:.0%}"


def _note(job: Json) -> str:
    return str(job["error"]["message"]) if job["error"] else job["message"] or ""


def _moment(at: str) -> str:
    return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M:%SZ")


def _spans(percentiles: Json) -> str:
    given = [percentiles[name] for name in ("p50", "p95", "p99")]
    return "" if None in given else " ".join(_span(seconds) for seconds in given)


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


QUESTIONS = {
    "jobs": Question(_jobs, _show_jobs),
    "events": Question(_events, _show_events),
    "why": Question(_why, _show_why),
    "cancel": Question(_cancel, _show_job),
    "retry": Question(_retry, _show_job),
    "stats": Question(_stats, _show_stats),
    "queues": Question(_queues, _show_queues),
    "workers": Question(_workers, _show_workers),
    "failures": Question(_failures, _show_failures),
    "usage": Question(_usage, _show_usage),
    "projections": Question(_projections, _show_projections),
}

"""Requests that schemathesis generates from the description, and what no schema can say of them.

A case is left as it was generated, except for what depends on what is stored (an invented cursor, a version that a job
has not reached), for the limits of raw JSON, and for what would only take time. Each is put right here, by name.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx2
import msgspec
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case

from application.reports import AnyReport, Reports
from interfaces.http.openapi import describe

Json = Any
DESCRIPTION = schemathesis.openapi.from_dict(describe())
ALWAYS_THE_SAME = settings(
    derandomize=True, database=None, deadline=None, max_examples=30, suppress_health_check=list(HealthCheck)
)
RAW = ("input", "result", "output", "handle", "detail")
"""The members that are any JSON."""


def put_right(case: Case[Any], http: httpx2.Client) -> None:
    """Fit a request to what is stored, and to the limits that JSON schema has no words for."""
    job = _job(case, http)
    _headers(case, job)
    _query(case, job)
    if isinstance(case.body, dict | list):
        case.body = _body(case.body)
    said: Json = case.body
    if case.path == "/v1/reports" and isinstance(said, dict) and isinstance(said.get("reports"), list):
        said["reports"] = _all_or_none(said["reports"])


def wait_until(holds: Callable[[], bool], tries: int = 3000) -> None:
    """Ask again until it is so."""
    assert any(holds() for _ in range(tries)), "it did not come to pass"


def _job(case: Case[Any], http: httpx2.Client) -> Json:
    """The job that the path names, if there is one."""
    try:
        id = UUID((case.path_parameters or {})["job_id"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    answer = http.get(f"/v1/jobs/{id}")
    return answer.json() if answer.status_code == 200 else None


def _headers(case: Case[Any], job: Json) -> None:
    headers = case.headers
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(r"[!-~]([ -~]{0,253}[!-~])?", key):  # a used one names another request
        headers["Idempotency-Key"] = uuid4().hex + key[32:]
    if "If-Match" in headers and job and (is_valid(case) or re.fullmatch(r'(W/)?"[^"]*"', headers["If-Match"])):
        headers["If-Match"] = f'"{job["version"]}"'  # the generator, whose headers are letters and digits, has no tags


def _query(case: Case[Any], job: Json) -> None:
    query = case.query
    if re.fullmatch(r"[A-Za-z0-9_-]{1,500}={0,2}", str(query.get("cursor", ""))):  # nobody can invent one
        del query["cursor"]
    reached = {
        name: min(_whole(query.get(name)), job["version"] if job else 1) for name in ("at_version", "from", "to")
    }
    query.update({name: version for name, version in reached.items() if version > 0})
    if reached["from"] > reached["to"] > 0:
        query["from"] = reached["to"]
    if _moment(query.get("from"), float("-inf")) > _moment(query.get("to"), datetime.now(UTC).timestamp()):
        del query["from"]
    if "as_of" in query and ("at_version" in query or _lies_ahead(query["as_of"])):  # they exclude each other
        del query["as_of"]


def _body(body: Json) -> Json:
    """Whole numbers without a point, which JSON schema takes for the same; no wait for work; no NUL in raw JSON."""
    match body:
        case dict():
            read = {name: _without_nul(item) if name in RAW else _body(item) for name, item in body.items()}
            wait = read.get("wait")
            return {**read, "wait": 0} if isinstance(wait, int | float) and 0 < wait <= 30 else read
        case list():
            return [_body(item) for item in body]
        case float() if body.is_integer():
            return int(body)
    return body


def _all_or_none(reports: list[Json]) -> list[Json]:
    """Those that cannot be read, if there are any: they are refused with 400 where no other stands beside them."""
    unreadable = [report for report in reports if not _is_readable(report)]
    return unreadable if unreadable and len(reports) <= Reports.most else reports


def _is_readable(report: Json) -> bool:
    try:
        msgspec.convert(report, type=AnyReport)
    except msgspec.ValidationError:
        return False
    return True


def _without_nul(json: Json) -> Json:
    match json:
        case str():
            return json.replace("\0", "")
        case dict():
            return {_without_nul(name): _without_nul(item) for name, item in json.items()}
        case list():
            return [_without_nul(item) for item in json]
    return json


def is_valid(case: Case[Any]) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _whole(given: Json) -> int:
    """A version as it may be given in a query; 0 for what is none."""
    return int(given) if re.fullmatch(r"[0-9]{1,16}", str(given)) else 0


def _moment(given: Json, otherwise: float) -> float:
    """A day or a moment as it may be given in a query, in seconds since 1970."""
    try:
        return datetime.fromisoformat(given).timestamp()
    except (TypeError, ValueError, OverflowError):
        return otherwise


def _lies_ahead(given: Json) -> bool:
    try:
        return datetime.fromisoformat(given) > datetime.now(UTC)
    except (TypeError, ValueError):
        return False

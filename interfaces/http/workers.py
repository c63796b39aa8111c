"""What workers say and ask over HTTP: claims and reports."""

import asyncio
from typing import Annotated, Any

from litestar import Request, post
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import encode

from application.claims import Claim, ClaimedJob, Claims
from application.errors import Invalid
from application.jobs import Name
from application.payload import check_json
from application.reports import AnyReport, Reported, Reports
from interfaces.http.answers import JSONAnswer
from interfaces.http.guard import WORKER
from interfaces.http.jobs import NoQuery
from interfaces.http.problems import Problem, log, problem_of, request_id_of
from interfaces.http.requests import (
    BODY,
    LARGE_BODY,
    json_body,
    key_actor,
    namespace,
    off_the_loop,
    query,
    read_element,
    read_json,
    sent_body,
    trace,
)


class ClaimedJobs(Struct, frozen=True):
    jobs: list[ClaimedJob]


class ReportsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker says of its jobs, each report on its own merits."""

    worker: Name
    reports: Annotated[list[AnyReport], Meta(max_length=Reports.most)]


class _RawReports(Struct, frozen=True, forbid_unknown_fields=True):
    worker: Name
    reports: Annotated[list[Raw], Meta(max_length=Reports.most)]


class ReportResult(Struct, frozen=True, kw_only=True):
    """The answer to one report: the job's version and whether to stop, or the problem."""

    ok: bool
    version: int | UnsetType = UNSET
    cancel_requested: bool | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class ReportResults(Struct, frozen=True):
    """The answers, in the order of the reports."""

    results: list[ReportResult]


@post("/v1/claims", status_code=200, request_max_body_size=BODY, roles=WORKER)
async def claim_jobs(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    claim = await json_body(request, Claim)
    jobs = await _claim_for_one_who_waits(request, claim)
    return JSONAnswer(encode(ClaimedJobs(jobs)))


async def _claim_for_one_who_waits(request: Request[Any, Any, Any], claim: Claim) -> list[ClaimedJob]:
    """The claimed jobs; a caller that hung up meanwhile has its jobs released."""
    claims: Claims = request.app.state.service.claims
    claiming = asyncio.create_task(claims.claim(claim, "http", key_actor(request), namespace(request)))
    hanging_up = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({claiming, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if not hanging_up.done():
            return await claiming
        if claiming.done():
            await claims.give_back(await claiming, claim)
        return []
    finally:
        claiming.cancel()
        hanging_up.cancel()


async def _hung_up(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@post("/v1/reports", status_code=200, request_max_body_size=LARGE_BODY, roles=WORKER)
async def report(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    worker, said = await off_the_loop(await sent_body(request), _reports)
    readable = [report for report in said if not isinstance(report, Invalid)]
    reports: Reports = request.app.state.service.reports
    who = (trace(request), key_actor(request), namespace(request))
    answers = iter(await reports.say_all(worker, readable, *who))
    request_id = request_id_of(request)
    results = [_result(report if isinstance(report, Invalid) else next(answers), request_id) for report in said]
    return JSONAnswer(encode(ReportResults(results)))


def _reports(body: bytes) -> tuple[str, list[AnyReport | Invalid]]:
    """The worker and, for each report, what it says or why it cannot be read. Raises Invalid where none can."""
    said = read_json(body, _RawReports)
    check_json(encode(said.worker))
    reports = [_read(element, f"reports[{n}]") for n, element in enumerate(said.reports)]
    unreadable = [report for report in reports if isinstance(report, Invalid)]
    if unreadable and len(unreadable) == len(reports):
        raise Invalid(*(error for invalid in unreadable for error in invalid.errors))
    return said.worker, reports


def _read(element: Raw, within: str) -> AnyReport | Invalid:
    try:
        report: AnyReport = read_element(element, AnyReport, within)
    except Invalid as invalid:
        return invalid
    return report


def _result(answer: Reported | Exception, request_id: str) -> ReportResult:
    if isinstance(answer, Reported):
        return ReportResult(ok=True, version=answer.version, cancel_requested=answer.cancel_requested)
    told = problem_of(answer, request_id)
    if told.code == "internal":
        log.error("report.failed", request_id=request_id, exc_info=answer)
    return ReportResult(ok=False, problem=told)

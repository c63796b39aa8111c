"""Bulk over HTTP: requeueing and cancelling all jobs that a filter matches."""

from typing import Annotated, Any

from litestar import Request, post
from msgspec import Meta, Struct
from msgspec.json import encode

from application.bulk import Bulk, BulkFilter, Operation, count
from application.errors import FieldError, Invalid
from application.jobs import Jobs, Reason
from application.payload import check_size
from interfaces.http.answers import JSONAnswer
from interfaces.http.guard import OPERATOR
from interfaces.http.jobs import NoQuery, answer_job
from interfaces.http.requests import BODY, asked, query, raw_body, read_json

GivenFilter = Annotated[BulkFilter, Meta(extra_json_schema={"minProperties": 1})]


class BulkCancellation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cancel the jobs that wait or run. With `dry_run` they are only counted."""

    filter: GivenFilter
    reason: Reason
    dry_run: bool = True


class BulkRequeue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requeue the jobs that have finished; `afresh` forgets their steps. With `dry_run` they are only counted."""

    filter: GivenFilter
    reason: Reason
    afresh: bool = False
    dry_run: bool = True


@post("/v1/jobs/cancellations", request_max_body_size=BODY, roles=OPERATOR)
async def cancel_jobs(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    body = await raw_body(request)
    return await _move_jobs(request, body, "cancel", read_json(body, BulkCancellation))


@post("/v1/jobs/requeues", request_max_body_size=BODY, roles=OPERATOR)
async def requeue_jobs(request: Request[Any, Any, Any]) -> JSONAnswer:
    query(request, NoQuery)
    body = await raw_body(request)
    wanted: BulkRequeue = read_json(body, BulkRequeue)
    return await _move_jobs(request, body, "requeue", wanted, afresh=wanted.afresh)


async def _move_jobs(
    request: Request[Any, Any, Any],
    body: bytes,
    operation: Operation,
    wanted: BulkCancellation | BulkRequeue,
    *,
    afresh: bool = False,
) -> JSONAnswer:
    """200 with how many jobs there are, or 202 with the job that moves them."""
    if wanted.filter.is_empty:
        raise Invalid(FieldError("filter", "names no field; give at least one, so that not all jobs are meant"))
    check_size(encode(wanted.filter), "filter")
    wanted.filter.check_labels()
    jobs: Jobs = request.app.state.service.jobs
    who = asked(request, body)
    if wanted.dry_run:
        return JSONAnswer(encode(await count(jobs, wanted.filter, operation, who.namespace)))
    bulk = Bulk(
        operation=operation,
        filter=wanted.filter,
        reason=wanted.reason,
        by=who.by,
        trace=who.trace,
        afresh=afresh,
        quota=who.quota,
    )
    return await answer_job(request, await jobs.create([bulk.new_job()], who))

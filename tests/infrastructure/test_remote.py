"""jobledger across HTTP, against a real server: what is refused, what is split, and what is asked again."""

import asyncio
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from msgspec import Raw

from application.claims import Claim
from application.errors import Invalid, KeyRefused, NotFound, Unavailable
from application.reports import AnyReport, CompletionReport, Heartbeat, ProgressReport, Reported
from domain.refusals import JobFinished, LeaseLost
from infrastructure.remote import RemoteService
from tests.doors import door


def _create(api: str, kind: str, count: int = 1) -> None:
    jobs = [{"kind": kind, "input": {}} for _ in range(count)]
    httpx2.post(f"{api}/v1/jobs/batch", json={"jobs": jobs}, timeout=30).raise_for_status()


def _claim(kind: str, most: int = 1) -> Claim:
    return Claim(worker="w", queues=["default"], kinds=[kind], max=most)


def test_each_report_is_answered_on_its_own_merits(api: str) -> None:
    async def told() -> None:
        service = RemoteService(api, None)
        _create(api, "merits", 2)
        one, two = await service.claim(_claim("merits", 2))
        reports: list[AnyReport] = [
            Heartbeat(job_id=one.id, attempt=1),
            ProgressReport(job_id=one.id, attempt=1, step="x" * 1000),
            CompletionReport(job_id=one.id, attempt=1, result=Raw(b"1")),
            Heartbeat(job_id=two.id, attempt=2),
            Heartbeat(job_id=uuid4(), attempt=1),
        ]
        answers = await service.report("w", reports)
        assert [type(answer) for answer in answers] == [Reported, Invalid, Reported, LeaseLost, NotFound]
        assert str(two.id) in str(answers[3])
        (again,) = await service.report("w", [CompletionReport(job_id=one.id, attempt=1)])
        assert isinstance(again, JobFinished)
        await service.close()

    asyncio.run(told())


def test_reports_too_large_for_one_request_are_sent_in_several(api: str) -> None:
    async def told() -> None:
        service = RemoteService(api, None)
        _create(api, "large", 150)
        jobs = await service.claim(_claim("large", 150))
        assert len(jobs) == 150
        result = Raw(b'"' + b"x" * 250_000 + b'"')
        answers = await service.report("w", [CompletionReport(job_id=j.id, attempt=1, result=result) for j in jobs])
        assert all(isinstance(answer, Reported) for answer in answers)
        await service.close()

    asyncio.run(told())


def test_claims_of_the_same_side_by_side_are_given_different_jobs(api: str) -> None:
    async def told() -> None:
        service = RemoteService(api, None)
        _create(api, "both", 6)
        claims = await asyncio.gather(*(service.claim(_claim("both", 3)) for _ in range(2)))
        assert len({job.id for jobs in claims for job in jobs}) == sum(map(len, claims)) == 6
        await service.close()

    asyncio.run(told())


def test_of_claims_side_by_side_the_one_whose_answer_was_lost_is_answered_again(api: str) -> None:
    """The relay passes the first request on, and hangs up once the server has answered it."""
    upstream = httpx2.URL(api)
    lost: list[bytes] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        body = await reader.readexactly(length)
        answer = await asyncio.to_thread(httpx2.post, f"{api}/v1/claims", content=body, timeout=30)
        if not lost:
            lost.append(answer.content)
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer.content)}\r\nConnection: close\r\n\r\n".encode()
            writer.write(head + answer.content)
            await writer.drain()
        writer.close()

    async def told() -> None:
        server = await asyncio.start_server(relay, upstream.host)
        port = server.sockets[0].getsockname()[1]
        service = RemoteService(f"http://{upstream.host}:{port}", None)
        kinds = ["lost", "lost too"]
        for kind in kinds:
            _create(api, kind, 3)
        answers = await asyncio.gather(*(service.claim(_claim(kind, 3)) for kind in kinds), return_exceptions=True)
        ((unanswered, error),) = [(k, a) for k, a in zip(kinds, answers, strict=True) if isinstance(a, Exception)]
        assert isinstance(error, Unavailable)
        jobs = await service.claim(_claim(unanswered, 3))
        assert [job.kind for job in jobs] == [unanswered] * 3
        assert all(str(job.id).encode() in lost[0] and job.attempt == 1 for job in jobs)
        await service.close()
        server.close()

    asyncio.run(told())


def test_a_file_is_streamed_from_a_path(api: str, tmp_path: Path) -> None:
    async def told() -> None:
        service = RemoteService(api, None)
        _create(api, "file")
        (job,) = await service.claim(_claim("file"))
        path = tmp_path / "large"
        path.write_bytes(b"0123456789" * 300_000)
        saved = await service.save_artifact("w", job.id, 1, "a name.bin", path, "application/octet-stream")
        assert await service.read_artifact(job.id, saved) == path.read_bytes()
        assert saved.size == 3_000_000
        kept = httpx2.get(f"{api}/v1/jobs/{job.id}/artifacts/a%20name.bin", timeout=30)
        assert kept.content == path.read_bytes()
        with pytest.raises(LeaseLost):
            await service.save_artifact("another", job.id, 1, "b", b"", "text/plain")
        await service.close()

    asyncio.run(told())


@pytest.mark.parametrize(
    ("status", "headers", "asked"),
    [(503, {"Retry-After": "7"}, 7.0), (429, {"Retry-After": "9000"}, 30.0), (500, {}, None)],
)
def test_claims_and_reports_say_how_long_the_service_wants_to_be_left_alone(
    status: int, headers: dict[str, str], asked: float | None
) -> None:
    async def told(url: str) -> None:
        service = RemoteService(url, None)
        (answer,) = await service.report("w", [Heartbeat(job_id=uuid4(), attempt=1)])
        assert isinstance(answer, Unavailable)
        assert answer.retry_after == asked
        assert service.pause == 0.0
        with pytest.raises(Unavailable):
            await service.claim(_claim("any"))
        assert service.pause == (1.0 if asked is None else asked)
        await service.close()

    with door(status, headers) as url:
        asyncio.run(told(url))


def test_a_report_that_the_database_did_not_hear_is_said_again_after_a_while() -> None:
    """The request was answered, and what was said in it was not heard."""
    problem = {"type": "/problems/unavailable", "title": "No", "status": 503, "detail": "away", "code": "unavailable"}

    async def told(url: str) -> None:
        service = RemoteService(url, None)
        (answer,) = await service.report("w", [Heartbeat(job_id=uuid4(), attempt=1)])
        assert isinstance(answer, Unavailable)
        assert (str(answer), answer.retry_after) == ("away", None)
        await service.close()

    with door(200, answer={"results": [{"ok": False, "problem": problem}]}) as url:
        asyncio.run(told(url))


@pytest.mark.parametrize(
    ("status", "key", "advice"),
    [
        (401, None, "wants a key"),
        (401, "jl_worker_0", "does not know the key in JOBLEDGER_KEY"),
        (403, "jl_client_0", "the key in JOBLEDGER_KEY may not do this"),
    ],
)
def test_a_key_that_is_refused_is_told_with_what_to_do(status: int, key: str | None, advice: str) -> None:
    async def told(url: str) -> None:
        service = RemoteService(url, key)
        with pytest.raises(KeyRefused, match=advice):
            await service.claim(_claim("any"))
        (answer,) = await service.report("w", [Heartbeat(job_id=uuid4(), attempt=1)])
        assert isinstance(answer, KeyRefused)
        await service.close()

    with door(status) as url:
        asyncio.run(told(url))

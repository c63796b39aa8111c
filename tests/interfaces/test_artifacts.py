"""The files of jobs over HTTP: uploaded whole or not at all, named and never found by path, served in part or whole."""

import asyncio
import base64
import hashlib
import hmac
import http.client
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx2
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from interfaces.http.artifacts import moving
from interfaces.http.problems import HTTPProblem
from tests.buckets import a_bucket
from tests.conftest import Process, Start
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
PATIENCE = 60.0
MIB = 1024 * 1024
GIB = 1024 * MIB
FILE = bytes(range(256)) * 12
SHA256 = hashlib.sha256(FILE).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's server keeps its artifacts."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def server(dsn: str, folder: Path, start_for_module: Start) -> Process:
    return start_for_module("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_ARTIFACTS=str(folder))


@pytest.fixture(scope="module")
def api(server: Process) -> str:
    return server.url


@pytest.fixture
def job(service: "Service", queue: str) -> Json:
    """A job that `w1` runs."""
    return service.running(queue)


@pytest.fixture
def stored(service: "Service", job: Json) -> Json:
    """A file of a running job, as the job shows it."""
    assert put(service, job, "film 1.mp4", FILE, content_type="video/mp4").status_code == 201
    [file] = service.job(job["id"])["artifacts"]
    return file


def place(job: Json, name: str, attempt: Any = 1) -> str:
    return f"/v1/jobs/{job['id']}/attempts/{attempt}/artifacts/{name}"


def put(service: "Service", job: Json, name: str, content: Any, worker: str = "w1", **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.http.put(f"{place(job, quote(name, safe=''))}?worker={worker}", content=content, headers=named)


class Half:
    """An upload that was begun, and waits for us to go on."""

    def __init__(self, url: str, path: str, *headers: str, method: str = "PUT") -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), PATIENCE)
        self.socket.sendall("\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def answer(self) -> tuple[int, Json]:
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        content = response.read()
        return response.status, httpx2.Response(response.status, content=content).json()

    def close(self) -> None:
        self.socket.close()


@contextmanager
def begun(service: "Service", path: str, *headers: str) -> Iterator[Half]:
    half = Half(service.url, path, *headers)
    try:
        yield half
    finally:
        half.close()


def half_uploads(folder: Path) -> list[Path]:
    return list((folder / "uploads").glob("*"))


# --- uploading


def test_an_upload_is_recorded_with_name_size_hash_and_type(service: "Service", job: Json) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    traced = {"content_type": "video/mp4", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answer = put(service, job, "film.mp4", FILE, **traced)
    assert answer.status_code == 201
    view = answer.json()
    told = {"name": "film.mp4", "sha256": SHA256, "size": len(FILE), "media_type": "video/mp4"}
    assert {name: view[name] for name in told} == told
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}/artifacts/film.mp4"
    assert service.job(job["id"])["artifacts"] == [view]
    assert service.http.get(f"/v1/jobs/{job['id']}/artifacts").json() == {"items": [view], "next": None}
    [event] = [e for e in service.events(job["id"]) if e["type"] == "job.progressed"]
    assert (event["data"]["artifact"], event["by"], event["trace"]) == (told, "worker:w1", trace)
    assert service.http.get(view["url"]).content == FILE


def test_a_file_without_a_type_is_bytes(service: "Service", job: Json) -> None:
    assert put(service, job, "data", b"").json()["media_type"] == "application/octet-stream"
    assert service.http.get(f"/v1/jobs/{job['id']}/artifacts/data").content == b""


def test_the_same_upload_again_is_answered_as_done(service: "Service", job: Json) -> None:
    first = put(service, job, "a", FILE)
    put(service, job, "b", b"between")
    before = service.recorded()
    again = put(service, job, "a", FILE)
    assert (again.status_code, again.json()) == (200, first.json())
    assert service.recorded() == before


def test_other_bytes_under_a_name_replace_it_and_both_stay_in_history(service: "Service", job: Json) -> None:
    put(service, job, "a", b"one")
    assert put(service, job, "a", b"two").status_code == 201
    assert service.http.get(f"/v1/jobs/{job['id']}/artifacts/a").content == b"two"
    assert len(service.job(job["id"])["artifacts"]) == 1
    assert service.types(job["id"]).count("job.progressed") == 2


def test_a_body_of_unknown_length_is_taken(service: "Service", job: Json) -> None:
    answer = put(service, job, "a", iter([FILE, FILE]))
    assert (answer.status_code, answer.json()["size"]) == (201, 2 * len(FILE))


@pytest.mark.parametrize(
    ("of", "attempt", "worker", "name", "headers", "status", "code"),
    [
        ("nobody", 1, "w1", "a", [], 404, "not-found"),
        ("held", 1, "w2", "a", [], 409, "lease-lost"),
        ("held", 2, "w1", "a", [], 409, "lease-lost"),
        ("finished", 1, "w1", "a", [], 409, "job-finished"),
        ("queued", 1, "w1", "a", [], 409, "lease-lost"),
        ("held", "x", "w1", "a", [], 400, "invalid"),
        ("held", 0, "w1", "a", [], 400, "invalid"),
        ("held", 2**31, "w1", "a", [], 400, "invalid"),
        ("held", 1, "", "a", [], 400, "invalid"),
        ("held", 1, "w1", "a%2Fb", [], 400, "invalid"),
        ("held", 1, "w1", "a", ["Content-Type: no type"], 400, "invalid"),
        ("held", 1, "w1", "a", ["Content-Digest: sha-256=:AA==:"], 400, "invalid"),
        ("held", 1, "w1", "a", ["Content-Range: bytes 0-9/99"], 400, "invalid"),
        ("held", 1, "w1", "a", ["Content-Encoding: gzip"], 415, "unsupported-media-type"),
        ("held", 1, "w1", "a", [f"Content-Length: {5 * GIB + 1}"], 413, "too-large"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_a_byte_of_it_is_sent(
    service: "Service",
    queue: str,
    folder: Path,
    of: str,
    attempt: Any,
    worker: str,
    name: str,
    headers: list[str],
    status: int,
    code: str,
) -> None:
    made: dict[str, Callable[[], Json]] = {
        "nobody": lambda: {"id": str(uuid4())},
        "held": lambda: service.running(queue),
        "finished": lambda: service.completed(queue),
        "queued": lambda: service.create(queue=queue),
    }
    job = made[of]()
    before = service.recorded()
    length = [] if any(header.startswith("Content-Length") for header in headers) else [f"Content-Length: {5 * GIB}"]
    with begun(service, f"{place(job, name, attempt)}?worker={worker}", *length, *headers) as half:
        told_status, told = half.answer()
    assert (told_status, told["code"]) == (status, code)
    assert service.recorded() == before
    assert half_uploads(folder) == []


def test_an_upload_whose_sender_hangs_up_leaves_nothing(service: "Service", job: Json, folder: Path) -> None:
    before = service.recorded()
    for headers, half_a_body in (
        ([f"Content-Length: {GIB}"], b"x" * MIB),
        (["Transfer-Encoding: chunked"], b"9\r\nabc"),
    ):
        with begun(service, f"{place(job, 'a')}?worker=w1", *headers) as half:
            half.send(half_a_body)
            eventually(lambda: half_uploads(folder), PATIENCE, "the upload")
        eventually(lambda: not half_uploads(folder), PATIENCE, "the end of the upload")
    assert service.recorded() == before
    assert service.http.get(f"/v1/jobs/{job['id']}/artifacts/a").status_code == 404
    assert put(service, job, "a", FILE).status_code == 201


def test_a_slow_upload_keeps_its_lease(service: "Service", queue: str) -> None:
    job = service.running(queue, heartbeat_timeout=0.5)
    with begun(service, f"{place(job, 'a')}?worker=w1", f"Content-Length: {len(FILE)}") as half:
        half.send(FILE[:100])

        def has_outlived_its_lease() -> bool:
            now = service.job(job["id"])
            beat, began = (datetime.fromisoformat(now[of]) for of in ("heartbeat_at", "started_at"))
            return (beat - began).total_seconds() > 1.5

        eventually(has_outlived_its_lease, PATIENCE, "heartbeats")
        half.send(FILE[100:])
        assert half.answer()[0] == 201
    assert service.types(job["id"]) == ["job.created", "job.started", "job.progressed"]


def test_an_upload_whose_lease_is_lost_is_ended_at_once(service: "Service", queue: str, folder: Path) -> None:
    job = service.running(queue, heartbeat_timeout=2)
    with begun(service, f"{place(job, 'a')}?worker=w1", f"Content-Length: {GIB}") as half:
        half.send(FILE)
        eventually(lambda: half_uploads(folder), PATIENCE, "the upload")
        service.report({"job_id": job["id"], "attempt": 1, "type": "released", "reason": "enough"})
        status, told = half.answer()
    assert (status, told["code"]) == (409, "lease-lost")
    eventually(lambda: not half_uploads(folder), PATIENCE, "the end of the upload")
    assert service.job(job["id"])["artifacts"] == []


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


@pytest.mark.parametrize("field", ["content-digest", "repr-digest"])
def test_a_digest_that_is_right_is_no_matter(service: "Service", job: Json, field: str) -> None:
    assert put(service, job, "a", FILE, **{field: f"sha-512=:AAAA:, {digest(FILE)}"}).status_code == 201
    assert put(service, job, "b", FILE, **{field: "md5=:AAAA:"}).status_code == 201


@pytest.mark.parametrize("field", ["content-digest", "repr-digest"])
def test_a_digest_that_is_wrong_is_refused_and_nothing_is_kept(
    service: "Service", job: Json, folder: Path, field: str
) -> None:
    answer = put(service, job, "a", b"damaged", **{field: digest(b"undamaged")})
    assert service.invalid(answer) == ["Content-Digest"]
    assert hashlib.sha256(b"damaged").hexdigest() in service.problem(answer, 400, "invalid")["detail"]
    assert service.job(job["id"])["artifacts"] == []
    assert not list(folder.glob(f"*/{hashlib.sha256(b'damaged').hexdigest()}"))


def test_digests_that_differ_are_refused(service: "Service", job: Json) -> None:
    answer = put(service, job, "a", FILE, content_digest=digest(FILE), repr_digest=digest(b"other"))
    assert service.invalid(answer) == ["Repr-Digest"]


async def never() -> AsyncIterator[bytes]:
    yield b"some"
    await asyncio.Event().wait()


def test_a_body_that_stalls_is_not_waited_for() -> None:
    async def receive() -> list[bytes]:
        return [chunk async for chunk in moving(never(), 0.05)]

    with pytest.raises(HTTPProblem, match=r"nothing of the body arrived for 0\.05 s"):
        asyncio.run(receive())


# --- a full disk


def test_a_full_disk_is_told_and_no_half_file_is_ever_served(
    service: "Service", dsn: str, start: Start, tmp_path: Path, queue: str
) -> None:
    full = start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_ARTIFACTS=str(tmp_path / "kept"))
    job = service.running(queue)
    with httpx2.Client(base_url=full.url, timeout=PATIENCE) as client:
        url = f"{place(job, 'a')}?worker=w1"
        _, most = resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE, (MIB, most))  # no file may grow beyond
        answer = client.put(url, content=b"x" * 3 * MIB)
        told = service.problem(answer, 503, "unavailable")
        assert "no space left" in told["detail"]
        assert answer.headers["retry-after"]
        assert service.types(job["id"]) == ["job.created", "job.started"]
        assert client.get(f"/v1/jobs/{job['id']}/artifacts/a").status_code == 404
        assert {path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()} == {"owner"}
        resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE, (most, most))
        assert client.put(url, content=b"x" * 3 * MIB).status_code == 201


# --- names


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "/a",
        "a/",
        "..",
        ".",
        "../../etc/passwd",
        "a\\b",
        "a\0",
        "a\nb",
        "a\x7f",
        "\x85",
        "\u2028",
        "x" * 256,
        "%ff",
    ],
)
def test_a_name_that_could_be_a_path_or_hides_something_is_refused(service: "Service", job: Json, name: str) -> None:
    raw = name if name.startswith("%") else "".join(f"%{byte:02x}" for byte in name.encode())
    before = service.recorded()
    with begun(service, f"{place(job, raw)}?worker=w1", "Content-Length: 1000") as half:
        status, told = half.answer()
    assert (status, told["code"], [e["field"] for e in told["errors"]]) == (400, "invalid", ["name"])
    assert service.recorded() == before
    fetched = Half(service.url, f"/v1/jobs/{job['id']}/artifacts/{raw}", method="GET")
    assert fetched.answer()[0] == (400 if name in ("a\0", "%ff") else 404)
    fetched.close()


@pytest.mark.parametrize(
    "name", ["a b.txt", "...", "..a", "~", "a%2Fb", "%", "?#&=+;,", '"quoted"', "überläng.txt", "日本語", "🎬" * 255]
)
def test_any_other_name_is_taken_and_found_again(service: "Service", job: Json, name: str) -> None:
    view = put(service, job, name, FILE).json()
    assert view["name"] == name
    assert service.http.get(view["url"]).content == FILE
    assert service.http.get(f"/v1/jobs/{job['id']}/artifacts/{quote(name, safe='')}").content == FILE


def test_a_name_is_the_same_however_unicode_writes_it(service: "Service", job: Json) -> None:
    assert put(service, job, "u\u0308ber", FILE).json()["name"] == "über"
    assert put(service, job, "über", FILE).status_code == 200
    for written in ("über", "u\u0308ber"):
        assert service.http.get(f"/v1/jobs/{job['id']}/artifacts/{quote(written)}").content == FILE


# --- serving


def test_a_file_is_served_with_its_type_and_to_be_saved(service: "Service", stored: Json) -> None:
    answer = service.http.get(stored["url"])
    assert (answer.status_code, answer.content) == (200, FILE)
    headers = answer.headers
    assert headers["content-type"] == "video/mp4"
    assert headers["content-length"] == str(len(FILE))
    assert headers["etag"] == f'"{SHA256}"'
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-disposition"] == "attachment; filename=\"film 1.mp4\"; filename*=UTF-8''film%201.mp4"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("name", "plain"), [('a"b%.txt', "a_b_.txt"), ("übel.txt", "ubel.txt"), ("日本", "file"), ("a;b", "a;b")]
)
def test_a_name_beyond_ascii_is_told_in_both_ways(service: "Service", job: Json, name: str, plain: str) -> None:
    told = service.http.get(put(service, job, name, FILE).json()["url"]).headers["content-disposition"]
    assert told == f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def test_head_tells_what_get_would_and_sends_nothing(service: "Service", stored: Json) -> None:
    head, whole = service.http.head(stored["url"]), service.http.get(stored["url"])
    assert (head.status_code, head.content) == (200, b"")
    part = service.http.head(stored["url"], headers={"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (200, b""), "a range is of GET only"
    told, *others = [{n: v for n, v in answer.headers.items() if n != "date"} for answer in (whole, head, part)]
    assert others == [told, told]


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("Bytes=3070-", 3070, 3072),
        ("bytes=-2", 3070, 3072),
        ("bytes=-9999", 0, 3072),
        ("bytes=3000-9999", 3000, 3072),
    ],
)
def test_a_range_is_served(service: "Service", stored: Json, asked: str, start: int, end: int) -> None:
    answer = service.http.get(stored["url"], headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, FILE[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(FILE)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,5-9", "bytes=9-5", "bytes=", "bytes=-", "lines=1-2", "bytes=a-b", "bytes=1-" + "9" * 5000, "bytes 0-1"],
)
def test_a_range_that_is_none_of_ours_gets_the_whole(service: "Service", stored: Json, asked: str) -> None:
    answer = service.http.get(stored["url"], headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, FILE)


@pytest.mark.parametrize("asked", ["bytes=3072-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(service: "Service", stored: Json, asked: str) -> None:
    answer = service.http.get(stored["url"], headers={"range": asked})
    service.problem(answer, 416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(FILE)}"


def test_a_part_of_another_version_is_not_mixed_in(service: "Service", stored: Json) -> None:
    ours, other = f'"{SHA256}"', f'"{"0" * 64}"'
    part = service.http.get(stored["url"], headers={"range": "bytes=0-9", "if-range": ours})
    assert part.status_code == 206
    for said in (other, f"W/{ours}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        whole = service.http.get(stored["url"], headers={"range": "bytes=0-9", "if-range": said})
        assert (whole.status_code, whole.content) == (200, FILE)


@pytest.mark.parametrize("known", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_who_has_it_is_told_so(service: "Service", stored: Json, known: str) -> None:
    answer = service.http.get(stored["url"], headers={"if-none-match": known.format(SHA256)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{SHA256}"'
    assert service.http.get(stored["url"], headers={"if-none-match": '"other"'}).status_code == 200


def test_a_content_that_is_missing_is_a_problem_and_no_half_answer(service: "Service", job: Json, folder: Path) -> None:
    lost = uuid4().bytes
    view = put(service, job, "lost", lost).json()
    (folder / view["sha256"][:2] / view["sha256"]).unlink()
    told = service.problem(service.http.get(view["url"]), 404, "not-found")
    assert "is not in the store" in told["detail"]


def test_files_of_any_size_go_through_in_constant_memory_and_readers_who_hang_up_leave_nothing(
    service: "Service", server: Process, job: Json, folder: Path
) -> None:
    process = psutil.Process(server.process.pid)
    put(service, job, "warm", b"x" * 20 * MIB)
    before, open_files = process.memory_info().rss, process.num_fds()
    seen: list[int] = []

    def large() -> Iterator[bytes]:
        for n in range(300):
            seen.append(process.memory_info().rss)
            yield bytes([n % 256]) * MIB

    assert put(service, job, "large", large()).json()["size"] == 300 * MIB
    path = f"/v1/jobs/{job['id']}/artifacts/large"
    with service.http.stream("GET", path) as answer:
        size = 0
        for chunk in answer.iter_bytes(MIB):
            seen.append(process.memory_info().rss)
            size += len(chunk)
        assert size == 300 * MIB
    stuck = [Half(service.url, path, method="GET") for _ in range(10)]
    for half in stuck:
        assert half.socket.recv(1)
    seen.append(process.memory_info().rss)
    for half in stuck:
        half.close()
    assert max(seen) - before < 100 * MIB
    eventually(lambda: process.num_fds() <= open_files + 2, PATIENCE, "the end of all readers")


# --- signed links


def link(path: str, secret: bytes, expires: int) -> str:
    signature = hmac.digest(secret, f"GET\n{path}\n{expires}".encode(), "sha256")
    return f"{path}?expires={expires}&signature={base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


@pytest.fixture
def secret(dsn: str) -> bytes:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT link_secret FROM installation").fetchone()
    assert row is not None
    return bytes(row[0])


def test_a_link_is_signed_for_a_day_or_two(service: "Service", stored: Json, secret: bytes) -> None:
    path, _, parameters = stored["url"].partition("?")
    expires = int(parameters.removeprefix("expires=").partition("&")[0])
    assert len(secret) == 32
    assert stored["url"] == link(path, secret, expires)
    assert 24 * 3600 - 60 < expires - time.time() < 2 * 24 * 3600 + 60
    assert service.http.get(path).content == FILE


def test_a_link_that_is_not_right_is_refused(service: "Service", job: Json, stored: Json, secret: bytes) -> None:
    put(service, job, "other", b"other")
    path, _, parameters = stored["url"].partition("?")
    soon = int(time.time()) + 1000
    wrong = [
        f"/v1/jobs/{job['id']}/artifacts/other?{parameters}",
        stored["url"][:-1] + ("A" if stored["url"][-1] != "A" else "B"),
        stored["url"].replace("expires=1", "expires=2"),
        link(path, b"another secret", soon),
        f"{path}?expires={soon}",
        f"{path}?signature=x",
        f"{path}?expires={soon}&signature=%C3%BC",
        f"/v1/jobs/{uuid4()}/artifacts/a?{parameters}",
    ]
    for url in wrong:
        service.problem(service.http.get(url), 403, "forbidden")
    told = service.problem(service.http.get(link(path, secret, int(time.time()) - 1)), 403, "forbidden")
    assert "has expired" in told["detail"]
    assert service.http.get(link(path, secret, soon)).content == FILE


def test_all_servers_hand_out_the_same_link(
    service: "Service", stored: Json, job: Json, dsn: str, start: Start
) -> None:
    other = start("api", "--port", "0", DATABASE_URL=dsn).url
    for path in (f"/v1/jobs/{job['id']}", f"/v1/jobs/{job['id']}/artifacts", "/v1/jobs"):
        assert httpx2.get(f"{other}{path}", timeout=PATIENCE).text == service.http.get(path).text


def test_history_is_free_of_links(service: "Service", stored: Json, job: Json) -> None:
    here = f"/v1/jobs/{job['id']}"
    version = service.job(job["id"])["version"]
    assert "signature" in service.http.get("/v1/jobs").text
    for path in (f"?at_version={version}", "/events", f"/diff?from=1&to={version}"):
        told = service.http.get(f"{here}{path}")
        assert SHA256 in told.text
        assert "signature" not in told.text


# --- in a bucket


def test_files_are_kept_in_a_bucket(service: "Service", dsn: str, start: Start, queue: str) -> None:
    job = service.running(queue)
    with a_bucket() as bucket:
        servers = [
            start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_ARTIFACTS=bucket.url, **bucket.environment).url
            for _ in range(2)
        ]
        content = hashlib.shake_128(b"film").digest(12 * MIB + 5)
        sha256 = hashlib.sha256(content).hexdigest()
        stored = httpx2.put(f"{servers[0]}{place(job, 'film')}?worker=w1", content=content, timeout=PATIENCE)
        assert (stored.status_code, stored.json()["sha256"]) == (201, sha256)
        assert bucket.contents()[f"{sha256[:2]}/{sha256}"] == len(content)
        url = f"{servers[1]}{stored.json()['url']}"
        assert httpx2.get(url, timeout=PATIENCE).content == content
        part = httpx2.get(url, headers={"range": "bytes=1048570-1048580"}, timeout=PATIENCE)
        assert (part.status_code, part.content) == (206, content[1048570:1048581])
    told = service.problem(httpx2.get(url, timeout=PATIENCE), 503, "unavailable")
    assert "does not answer" in told["detail"]

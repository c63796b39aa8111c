"""The description at /schema/openapi.json: valid, whole, and true to every answer."""

import http.client
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx2
import jsonschema_rs
import pytest
import schemathesis
from schemathesis import APIOperation, Case
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok

from interfaces.http.contract import OPERATIONS
from interfaces.http.links import LINKS
from tests.infrastructure.nodes import ask
from tests.interfaces.generated import ALWAYS_THE_SAME, DESCRIPTION, put_right, wait_until
from tests.sealing import Sealing

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Service

Json = Any
DECK = {"title": "One slide", "slides": [{"title": "Only"}]}
METHODS = ("get", "put", "post", "delete", "patch")
CODES = {
    "invalid": 400,
    "forbidden": 403,
    "not-found": 404,
    "job-finished": 409,
    "lease-lost": 409,
    "conflict": 409,
    "precondition-failed": 412,
    "too-large": 413,
    "unsupported-media-type": 415,
    "idempotency-mismatch": 422,
    "unavailable": 503,
    "internal": 500,
}
"""The codes of the contract that can be met without keys, retention and rate limits."""


@pytest.fixture(scope="module")
def description(service: "Service") -> Json:
    answer = service.http.get("/schema/openapi.json")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_is_openapi_3_1(service: "Service", description: Json) -> None:
    assert description["openapi"].startswith("3.1.")
    assert "openapi" in service.http.get("/schema/openapi.json").headers["content-type"]
    loaded = schemathesis.openapi.from_dict(description)
    loaded.validate()
    assert {(o.path, o.method) for o in operations(loaded)} == {
        (path, method) for path, calls in description["paths"].items() for method in calls
    }


def test_its_schemas_are_valid_json_schema(description: Json) -> None:
    for name, schema in description["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert checker(description, {"$ref": f"#/components/schemas/{name}"})


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(description: Json) -> None:
    described = [operation for calls in description["paths"].values() for operation in calls.values()]
    assert len({operation["operationId"] for operation in described}) == len(described)
    assert all(operation["summary"] for operation in described)


def test_every_json_body_has_an_example_that_fits(description: Json) -> None:
    bodies = [
        o["requestBody"]
        for calls in description["paths"].values()
        for o in calls.values()
        if "application/json" in o.get("requestBody", {"content": {}})["content"]
    ]
    assert len(bodies) == sum(operation.body is not None for operation in OPERATIONS)
    for body in bodies:
        described = body["content"]["application/json"]
        checker(description, described["schema"]).validate(described["example"])


def test_every_link_leads_to_an_operation_that_takes_what_it_hands_on() -> None:
    assert DESCRIPTION.as_state_machine()  # raises for a link to nowhere, or with a parameter that nobody takes
    linked = {name for (name, _), ways in LINKS.items() if ways}
    assert linked <= {operation.id for operation in OPERATIONS}


@pytest.mark.parametrize(("code", "status"), CODES.items())
def test_every_code_is_described_and_has_a_page(service: "Service", description: Json, code: str, status: int) -> None:
    assert code in description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    page = service.http.get(f"/problems/{code}")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert code in page.text
    assert str(status) in page.text
    told = [
        answer
        for calls in description["paths"].values()
        for operation in calls.values()
        for answer in [operation["responses"].get(str(status), {"description": ""})]
        if f"`{code}`" in answer["description"]
    ]
    assert told
    assert all(answer["content"].keys() == {"application/problem+json"} for answer in told)


def test_a_code_nobody_knows_has_no_page(service: "Service") -> None:
    service.problem(service.http.get("/problems/unheard-of"), 404, "not-found")


class Tour:
    """Calls operations and holds every answer against its description."""

    def __init__(self, service: "Service", description: Json) -> None:
        self.http = service.http
        self.description = description
        self.seen: set[tuple[str, str, int]] = set()

    def call(self, method: str, path: str, status: int, **parts: Any) -> httpx2.Response:
        answer = self.http.request(method, path, **parts)
        return self.judge(method, answer.request.url.path, status, answer)

    def judge(self, method: str, path: str, status: int, answer: httpx2.Response) -> httpx2.Response:
        assert answer.status_code == status, answer.text
        place = self._place(path)
        described = self.description["paths"][place][method]["responses"][str(status)]
        self._check_content(answer, described.get("content", {}))
        for name, header in described.get("headers", {}).items():
            if name in answer.headers:
                checker(self.description, header["schema"]).validate(answer.headers[name])
        self.seen.add((method, place, status))
        return answer

    def _place(self, path: str) -> str:
        """The described path of an address; one without a parameter wins."""
        places: list[str] = sorted(self.description["paths"], key=lambda place: place.count("{"))
        return next(place for place in places if re.fullmatch(re.sub(r"{\w+}", "[^/]+", place), path))

    def _check_content(self, answer: httpx2.Response, described: Json) -> None:
        if not described:
            assert answer.content == b""
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = (described.get(media_type) or described["*/*"])["schema"]
        if media_type == "application/x-ndjson":
            checker(self.description, schema).validate(answer.text)
        elif media_type.endswith("json"):
            checker(self.description, schema).validate(answer.json())


def test_every_answer_of_a_tour_is_as_described(
    service: "Service", description: Json, start_for_module: "Start", dsn: str, tmp_path: Path
) -> None:
    tour = Tour(service, description)
    start_for_module("worker", DATABASE_URL=dsn)
    page = tour.call("post", "/v1/visualizations", 202, json={"question": "What is 15 % of 80?"}).json()
    tour_of_jobs(tour, dsn, tmp_path)
    tour_of_a_worker(tour)
    tour_of_a_page(tour, page["id"])
    tour_of_a_video(tour)
    tour_of_operations(tour, dsn)
    tour.call("get", "/livez", 200)
    tour.call("get", "/readyz", 200)
    tour.call("get", "/metrics", 200)
    described = {
        (method, path, int(status))
        for path, calls in description["paths"].items()
        for method, operation in calls.items()
        for status in operation["responses"]
        if int(status) < 500
        and int(status) not in (401, 410, 429)
        and not path.startswith("/v1/keys")  # test_keys, test_gone
    }
    assert described - tour.seen == set()


def tour_of_jobs(tour: Tour, dsn: str, folder: Path) -> None:
    body = {"kind": "toured", "input": {"n": [1]}, "labels": {"a": "b"}, "queue": "tour"}
    key = {"idempotency-key": uuid4().hex}
    id = tour.call("post", "/v1/jobs", 202, json=body, headers=key).json()["id"]
    tour.call("post", "/v1/jobs", 202, json=body, headers=key)
    tour.call("post", "/v1/jobs", 422, json={**body, "priority": 1}, headers=key)
    key = {"idempotency-key": uuid4().hex}
    tour.call("post", "/v1/jobs/batch", 202, json={"jobs": [body, body]}, headers=key)
    tour.call("post", "/v1/jobs/batch", 422, json={"jobs": [body]}, headers=key)
    tour.call("post", "/v1/visualizations", 422, json={"question": "Why?"}, headers=key)
    tour.call("post", "/v1/presentations", 422, json=DECK, headers=key)
    tour.call("get", "/v1/jobs", 200, params={"kind": "toured", "limit": 1, "status": ["queued", "running"]})
    tour.call("get", "/v1/jobs", 400, params={"limit": 0})
    here = f"/v1/jobs/{id}"
    tour.call("get", here, 200)
    tour.call("get", here, 304, headers={"if-none-match": '"1"'})
    tour.call("get", f"{here}/events", 200, params={"limit": 1})
    tour.call("get", f"{here}/artifacts", 200)
    tour.call("get", f"{here}/events", 200, headers={"accept": "application/x-ndjson"})
    tour.call("get", f"{here}/diff", 400, params={"from": 2, "to": 1})
    because = {"reason": "because"}
    tour.call("post", f"{here}/retries", 409, json=because)
    tour.call("post", f"{here}/cancellations", 412, json=because, headers={"if-match": '"9"'})
    tour.call("post", f"{here}/cancellations", 202, json=because)
    tour.call("get", f"{here}/diff", 200, params={"from": 1, "to": 2})
    tour.call("get", f"{here}/why", 200)
    tour.call("get", f"{here}/events", 204, headers={"accept": "text/event-stream", "last-event-id": "2"})
    tour.call("post", f"{here}/retries", 412, json=because, headers={"if-match": '"9"'})
    tour.call("post", f"{here}/retries", 422, json=because, headers=key)
    tour.call("post", f"{here}/retries", 202, json=because)
    for call in ("cancellations", "requeues"):
        all_of = {"filter": {"queue": ["nowhere"]}, "reason": "because"}
        tour.call("post", f"/v1/jobs/{call}", 200, json=all_of)
        tour.call("post", f"/v1/jobs/{call}", 202, json={**all_of, "dry_run": False})
        tour.call("post", f"/v1/jobs/{call}", 422, json={**all_of, "dry_run": False}, headers=key)
    tour_of_the_log(tour)
    tour_of_the_seal(tour, id, dsn, folder)
    tour_of_refusals(tour)


def tour_of_the_log(tour: Tour) -> None:
    tour.call("get", "/v1/events", 200, params={"limit": 2, "type": "job.created"})
    tour.call("get", "/v1/events", 200, params={"limit": 2, "format": "cloudevents"})
    tour.call("get", "/v1/events", 200, headers={"accept": "application/x-ndjson"})
    tour.call("get", "/v1/events", 400, params={"type": "job.exploded"})
    tour.call("get", "/v1/events", 400, headers={"last-event-id": "yesterday"})


def tour_of_the_seal(tour: Tour, id: str, dsn: str, folder: Path) -> None:
    bundle, proof = f"/v1/audit/jobs/{id}/bundle", f"/v1/audit/jobs/{id}/inclusion?version=1"
    ((position,),) = ask(dsn, "SELECT max(notification_id) FROM events")
    for path in ("checkpoint", "consistency?from=0", "tiles/0/000"):
        tour.call("get", f"/v1/audit/{path}", 404)
    tour.call("get", "/v1/audit/inclusion", 409, params={"position": position})
    tour.call("get", proof, 409)
    tour.call("get", bundle, 409)
    jobs = [{"kind": "toured", "input": None, "queue": "sealed"}] * 256
    tour.call("post", "/v1/jobs/batch", 202, json={"jobs": jobs})
    sealing = Sealing(dsn, folder)
    assert sealing.all() > 256
    sealing.close()
    tour.call("get", "/v1/audit/checkpoint", 200)
    assert len(tour.call("get", "/v1/audit/tiles/0/000", 200).content) == 8192
    tour.call("get", "/v1/audit/consistency", 200, params={"from": 3, "to": 200})
    tour.call("get", "/v1/audit/inclusion", 200, params={"position": position})
    tour.call("get", proof, 200)
    tour.call("get", proof.replace(id, str(uuid4())), 404)
    tour.call("get", "/v1/audit/inclusion", 404, params={"position": 1})
    tour.call("get", "/v1/audit/keys", 200)
    tour.call("get", "/v1/audit/archives", 200, params={"after": "0"})
    tour.call("get", bundle, 200)
    tour.call("get", bundle.replace(id, str(uuid4())), 404)
    tour.call("get", "/v1/audit/accesses", 200, params={"limit": 1})


def tour_of_refusals(tour: Tour) -> None:
    """What every operation of its sort may answer."""
    for unknown, status in ((str(uuid4()), 404), ("7", 400)):
        for of in ("", "/events", "/artifacts", "/artifacts/a.txt"):
            tour.call("get", f"/v1/jobs/{unknown}{of}", status)
        tour.call("get", f"/v1/jobs/{unknown}/diff", status, params={"from": 1, "to": 1})
        tour.call("get", f"/v1/jobs/{unknown}/why", status)
        for of in ("", "/html"):
            tour.call("get", f"/v1/visualizations/{unknown}{of}", status)
        for of in ("", "/video", "/thumbnail", "/slides/1"):
            tour.call("get", f"/v1/presentations/{unknown}{of}", status)
        for call in ("cancellations", "retries"):
            tour.call("post", f"/v1/jobs/{unknown}/{call}", status, json={"reason": "because"})
    foreign = {"origin": "http://example.org"}
    for path, calls in tour.description["paths"].items():
        place = path.format(job_id=uuid4(), name="a.txt", attempt=1, n=1, key_id=uuid4(), level=0, tile="000")
        for method in calls:
            tour.call(method, place, 403, headers=foreign)
            connection = http.client.HTTPConnection(urlsplit(str(tour.http.base_url)).netloc, timeout=60)
            connection.putrequest(method.upper(), place, skip_host=True)
            connection.endheaders()
            tour.judge(method, place, 400, answered(connection))
            if method == "post":
                tour.call(method, place, 400, json=[])
                tour.call(method, place, 415, content=b"{}", headers={"content-type": "text/plain"})
                mebibytes = 32 if place in ("/v1/jobs/batch", "/v1/reports") else 1
                tour.call(method, place, 413, content=b"x" * (mebibytes * 2**20 + 1))


def tour_of_operations(tour: Tour, dsn: str) -> None:
    because = {"reason": "because"}
    tour.call("post", "/v1/queues/gpu/pauses", 201, json=because)
    for of in ("projections", "queues", "workers", "failures", "usage", "stats"):
        tour.call("get", f"/v1/{of}", 200)
        tour.call("get", f"/v1/{of}", 400, params={"nothing": "1"})
    tour.call("delete", "/v1/queues/gpu/pauses", 204)
    tour.call("delete", "/v1/queues/gpu/pauses", 400, params={"nothing": "1"})
    for call in ("rebuilds", "verifications"):
        for status in (202, 409):
            tour.call("post", f"/v1/projections/usage/{call}", status, json=because)
        tour.call("post", f"/v1/projections/nothing/{call}", 404, json=because)
    resumption = {"action": "skip", **because}
    tour.call("post", "/v1/projections/nothing/resumptions", 404, json=resumption)
    tour.call("post", "/v1/projections/usage/resumptions", 409, json=resumption)
    park(dsn, "usage")
    tour.call("get", "/v1/projections", 200)
    tour.call("post", "/v1/projections/usage/resumptions", 202, json=resumption)


def park(dsn: str, name: str) -> None:
    """Let a projection find that it cannot fold the first event."""
    query = """
        UPDATE projections
        SET parked_at = clock_timestamp(), parked_position = notification_id, parked_job_id = originator_id,
          parked_version = originator_version, parked_error = 'no'
        FROM (SELECT * FROM events ORDER BY notification_id LIMIT 1) AS event
        WHERE name = %s AND projections.state = 'live'
    """
    ask(dsn, query, [name])


def tour_of_a_worker(tour: Tour) -> None:
    claim = {"worker": "tourist", "queues": ["tour"], "max": 3}
    jobs = tour.call("post", "/v1/claims", 200, json=claim).json()["jobs"]
    assert len(jobs) == 3
    held, done, broken = ({"job_id": job["id"], "attempt": 1} for job in jobs)
    failure = {"type": "Broken", "message": "it broke", "detail": {"a": 1}}
    progressed = {**held, "type": "progressed", "progress": 0.5, "step": "s", "output": 1, "handle": "h"}
    reports = [
        {**held, "type": "heartbeat"},
        progressed,
        {**done, "type": "completed", "result": None},
        {**broken, "type": "failed", "error": failure, "final": True},
        {**held, "attempt": 2, "type": "heartbeat"},
        {**held, "type": "progressed", "output": 1},
        {"job_id": str(uuid4()), "attempt": 1, "type": "completed"},
    ]
    tour.call("post", "/v1/reports", 200, json={"worker": "tourist", "reports": reports})
    tour_of_an_upload(tour, held["job_id"], done["job_id"])
    for job in jobs:
        tour.call("get", f"/v1/jobs/{job['id']}", 200)
        tour.call("get", f"/v1/jobs/{job['id']}/events", 200)
    tour.call("post", f"/v1/jobs/{done['job_id']}/cancellations", 409, json={"reason": "too late"})
    tour.call("post", "/v1/claims", 200, json=claim)
    tour.call("get", "/v1/jobs", 200)


def tour_of_an_upload(tour: Tour, held: str, done: str) -> None:
    place, worker = f"/v1/jobs/{held}/attempts/1/artifacts/a%20b.txt", {"worker": "tourist"}
    tour.call("put", place, 201, content=b"text", params=worker)
    tour.call("put", place, 200, content=b"text", params=worker)
    tour.call("put", place, 400, content=b"text")
    tour.call("put", place, 409, content=b"text", params={"worker": "another"})
    tour.call("put", place.replace(held, done), 409, content=b"text", params=worker)
    tour.call("put", place.replace(held, str(uuid4())), 404, content=b"text", params=worker)
    tour.call("put", place, 415, content=b"text", params=worker, headers={"content-encoding": "gzip"})
    # The client would send all that it announces, before it looks at the answer.
    connection = http.client.HTTPConnection(urlsplit(str(tour.http.base_url)).netloc, timeout=60)
    connection.request("PUT", f"{place}?worker=tourist", headers={"content-length": str(5 * 2**30 + 1)})
    tour.judge("put", f"/v1/jobs/{held}/attempts/1/artifacts/a", 413, answered(connection))


def answered(connection: http.client.HTTPConnection) -> httpx2.Response:
    """The answer to what was sent there; the connection is closed."""
    with closing(connection):
        told = connection.getresponse()
        return httpx2.Response(told.status, headers=told.getheaders(), content=told.read())


def tour_of_a_page(tour: Tour, id: str) -> None:
    here = f"/v1/visualizations/{id}"
    wait_until(lambda: bool(tour.call("get", here, 200).json()["status"] == "completed"))
    tour.call("get", f"/v1/jobs/{id}/events", 200)
    tour.call("get", f"/v1/jobs/{id}", 200)
    tour.call("get", f"/api/process/{id}", 200)
    tour.call("get", f"/presentations/{id}", 404)
    [file] = tour.call("get", f"/v1/jobs/{id}/artifacts", 200).json()["items"]
    for path in (file["url"], f"{here}/html"):
        tour_of_a_file(tour, path, file["size"])


def tour_of_a_video(tour: Tour) -> None:
    """The tour itself is the worker that makes it, of a queue of its own."""
    tour.call("post", "/v1/presentations", 202, json=DECK)
    new = {"kind": "presentation", "input": DECK, "queue": "tour of a video"}
    id = tour.call("post", "/v1/jobs", 202, json=new).json()["id"]
    claim = {"worker": "tourist", "queues": ["tour of a video"]}
    tour.call("post", "/v1/claims", 200, json=claim)
    here = f"/v1/presentations/{id}"
    tour.call("get", f"/presentations/{id}", 200)
    tour.call("get", f"/api/process/{id}", 404)
    assert tour.call("get", here, 200).json()["slides"] == [{"image_url": None, "continued": []}]
    files = {
        name: tour.call(
            "put",
            f"/v1/jobs/{id}/attempts/1/artifacts/{name}",
            201,
            content=name.encode() * 9,
            params={"worker": "tourist"},
            headers={"content-type": media_type},
        ).json()
        for name, media_type in {
            "slide-001.png": "image/png",
            "slide-001-2.png": "image/png",
            "thumbnail.png": "image/png",
            "video.mp4": "video/mp4",
        }.items()
    }
    tour.call("get", f"{here}/video", 404)
    result = {
        "video": files["video.mp4"],
        "thumbnail": files["thumbnail.png"],
        "slides": [{"image": files["slide-001.png"], "continued": [files["slide-001-2.png"]]}],
        "duration": 5.0,
        "width": 1920,
        "height": 1080,
        "renderer": "local",
    }
    done = {"job_id": id, "attempt": 1, "type": "completed", "result": result}
    tour.call("post", "/v1/reports", 200, json={"worker": "tourist", "reports": [done]})
    shown = tour.call("get", here, 200).json()
    [slide] = shown["slides"]
    for link, name in (
        (shown["video_url"], "video.mp4"),
        (shown["thumbnail_url"], "thumbnail.png"),
        (slide["image_url"], "slide-001.png"),
        (*slide["continued"], "slide-001-2.png"),
    ):
        assert tour.call("get", link, 200).text == name * 9
        tour_of_a_file(tour, link.partition("?")[0], files[name]["size"])
    tour.call("get", f"{here}/slides/2", 404)
    tour.call("get", f"{here}/slides/101", 400)


def tour_of_a_file(tour: Tour, path: str, size: int) -> None:
    whole = tour.call("get", path, 200)
    assert len(whole.content) == size
    part = tour.call("get", path, 206, headers={"range": "bytes=5-9"})
    assert part.content == whole.content[5:10]
    tour.call("get", path, 304, headers={"if-none-match": whole.headers["etag"]})
    tour.call("get", path, 416, headers={"range": "bytes=99999999-"})


@pytest.fixture(scope="module")
def held(service: "Service") -> Json:
    """Jobs to ask for, by a part of the path: one that a worker holds, a visualization and a presentation."""
    page = service.http.post("/v1/visualizations", json={"question": "Why?"})
    video = service.http.post("/v1/presentations", json=DECK)
    return {
        "jobs": service.running("generated")["id"],
        "visualizations": page.json()["id"],
        "process": page.json()["id"],
        "presentations": video.json()["id"],
    }


@DESCRIPTION.parametrize()
@ALWAYS_THE_SAME
def test_generated_requests_are_answered_as_described(case: Case[Any], service: "Service", held: Json) -> None:
    """Examples, boundaries, missing parts, unspecified methods and random requests, good and bad, and all checks."""
    if is_uuid(case.path_parameters.get("job_id")):
        case.path_parameters["job_id"] = next(held[part] for part in case.path.split("/") if part in held)
    put_right(case, service.http)
    case.call_and_validate(base_url=service.url)


def test_no_check_is_off() -> None:
    checks = DESCRIPTION.config.checks
    off = {name for name in CHECKS.get_all_names() if not getattr(checks, name).enabled}
    assert off == set()
    assert not checks.max_response_time.enabled  # a time says nothing on a machine that others share


def is_uuid(given: Json) -> bool:
    try:
        return bool(UUID(given))
    except (ValueError, TypeError, AttributeError):
        return False


def operations(loaded: schemathesis.BaseSchema) -> Iterator[APIOperation[Any, Any, Any, Any]]:
    for result in loaded.get_all_operations():
        assert isinstance(result, Ok)
        yield result.ok()


def checker(description: Json, schema: Json) -> jsonschema_rs.Draft202012Validator:
    """A validator of a schema within the description, formats included."""
    whole = {**schema, "components": description["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)

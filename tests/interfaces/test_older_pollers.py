"""Older front ends keep their pollers: every state of a job in the two shapes that they read."""

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.interfaces.conftest import Service

Json = Any
DECK = {"title": "Event sourcing", "slides": [{"title": "Facts do not change"}]}
KINDS = {"presentation": ("/presentations/{}", DECK), "visualization": ("/api/process/{}", {"question": "Why?"})}


def polled(service: "Service", job: Json) -> Json:
    answer = service.http.get(KINDS[job["kind"]][0].format(job["id"]))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def made(service: "Service", queue: str) -> Json:
    """A completed presentation with its two files."""
    job = service.running(queue, kind="presentation", input=DECK)
    place = f"/v1/jobs/{job['id']}/attempts/1/artifacts"
    video, thumbnail = (
        service.http.put(f"{place}/{name}", params={"worker": "w1"}, content=name.encode()).json()
        for name in ("video.mp4", "thumbnail.jpg")
    )
    files = {
        part: {name: file[name] for name in ("name", "sha256", "size", "media_type")}
        for part, file in (("video", video), ("thumbnail", thumbnail))
    }
    result = {**files, "slides": [], "duration": 1.0, "width": 2, "height": 2, "renderer": "elai"}
    [done] = service.report({"job_id": job["id"], "attempt": 1, "type": "completed", "result": result})
    assert done["ok"], done
    return job


def test_new_ones_are_queued(service: "Service") -> None:
    presentation = service.http.post("/v1/presentations", json=DECK).json()
    assert polled(service, presentation) == {
        "success": True,
        "status": "queued",
        "progress": 0,
        "videoUrl": None,
        "thumbnailUrl": None,
        "error": None,
    }
    visualization = service.http.post("/v1/visualizations", json={"question": "Why?"}).json()
    assert polled(service, visualization) == {
        "success": True,
        "status": "queued",
        "progress": 0,
        "currentStep": None,
        "visualizationId": visualization["id"],
        "error": None,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_running_one_is_processing_and_its_percents_are_whole(service: "Service", queue: str, kind: str) -> None:
    job = service.running(queue, kind=kind, input=KINDS[kind][1])
    said = {"job_id": job["id"], "attempt": 1, "type": "progressed"}
    service.report({**said, "progress": 0.459, "message": "drawing"})
    told = polled(service, job)
    assert (told["status"], told["progress"]) == ("processing", 45)
    assert told.get("currentStep") == ("drawing" if kind == "visualization" else None)
    service.report({**said, "progress": 1.0})
    assert polled(service, job)["progress"] == 99


def test_step_is_told_where_there_is_no_message(service: "Service", queue: str) -> None:
    job = service.running(queue, kind="visualization", input={"question": "Why?"})
    service.report({"job_id": job["id"], "attempt": 1, "type": "progressed", "step": "analysis", "output": 1})
    assert polled(service, job)["currentStep"] == "analysis"


@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_one_is_processing_and_a_cancelled_one_has_failed(service: "Service", queue: str, kind: str) -> None:
    job = service.running(queue, kind=kind, input=KINDS[kind][1])
    assert service.cancel(job["id"], "no longer needed").status_code == 202
    told = polled(service, job)
    assert (told["status"], told["error"]) == ("processing", None)
    service.report({"job_id": job["id"], "attempt": 1, "type": "cancelled"})
    told = polled(service, job)
    assert (told["success"], told["status"], told["error"]) == (True, "failed", "no longer needed")


@pytest.mark.parametrize("kind", KINDS)
def test_failed_one_says_why_and_one_that_is_tried_again_does_not(service: "Service", queue: str, kind: str) -> None:
    job = service.running(queue, kind=kind, input=KINDS[kind][1], max_attempts=2)
    failure = {"job_id": job["id"], "type": "failed", "error": {"type": "E", "message": "the ink is out"}}
    service.report({**failure, "attempt": 1, "retry_in": 0})
    told = polled(service, job)
    assert (told["status"], told["error"]) == ("queued", None)
    [again] = service.claim(queue, wait=20)
    service.report({**failure, "attempt": again["attempt"], "final": True})
    told = polled(service, job)
    assert (told["success"], told["status"], told["error"]) == (True, "failed", "the ink is out")


def test_completed_presentation_has_links_that_work(service: "Service", queue: str) -> None:
    told = polled(service, made(service, queue))
    assert (told["status"], told["progress"], told["error"]) == ("completed", 100, None)
    assert service.http.get(told["videoUrl"]).content == b"video.mp4"
    assert service.http.get(told["thumbnailUrl"]).content == b"thumbnail.jpg"
    assert "signature=" in told["videoUrl"]


def test_completed_visualization_is_at_100(service: "Service", queue: str) -> None:
    told = polled(service, service.completed(queue, kind="visualization", input={"question": "Why?"}))
    assert (told["status"], told["progress"]) == ("completed", 100)


@pytest.mark.parametrize("path", ["/presentations/{}", "/api/process/{}"])
@pytest.mark.parametrize("id", [str(uuid4()), "63ea63c1c00dfe1a72cc7426", "42", "%00"])
def test_unknown_id_is_told_in_their_shape(service: "Service", path: str, id: str) -> None:
    answer = service.http.get(path.format(id))
    assert answer.status_code == 404
    told = answer.json()
    assert told.keys() == {"success", "error"}
    assert told["success"] is False
    assert told["error"]


def test_each_tells_of_its_own_kind_only(service: "Service") -> None:
    ids = [service.create(kind=kind)["id"] for kind in ("visualization", "presentation")]
    for id, (path, _) in zip(ids, KINDS.values(), strict=True):
        assert service.http.get(path.format(id)).status_code == 404


def test_what_browsers_add_against_caches_is_ignored(service: "Service") -> None:
    job = service.http.post("/v1/presentations", json=DECK).json()
    assert service.http.get(f"/presentations/{job['id']}?_=1700000000000&t=a&t=b").status_code == 200


def test_they_can_be_switched_off(start: "Start", dsn: str, service: "Service") -> None:
    id = service.http.post("/v1/presentations", json=DECK).json()["id"]
    with httpx2.Client(
        base_url=start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_OLDER_POLLERS="off").url
    ) as newer:
        assert newer.get(f"/v1/presentations/{id}").status_code == 200
        for path, _ in KINDS.values():
            service.problem(newer.get(path.format(id)), 404, "not-found")
        described = newer.get("/schema/openapi.json").json()
    assert {"/presentations/{job_id}", "/api/process/{job_id}"}.isdisjoint(described["paths"])
    assert "OlderPresentation" not in described["components"]["schemas"]

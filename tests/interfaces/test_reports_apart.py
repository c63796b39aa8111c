"""Reports in one request: each on its own merits, and one that cannot be read costs those beside it nothing."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any


@pytest.fixture
def jobs(service: "Service", queue: str) -> list[Json]:
    """Three jobs that w1 holds."""
    return [service.running(queue) for _ in range(3)]


def of(job: Json, **said: Json) -> Json:
    return {"job_id": job["id"], "attempt": 1, **said}


def test_a_report_that_cannot_be_read_is_answered_in_its_place(service: "Service", jobs: list[Json]) -> None:
    one, two, three = jobs
    done, bad, beat, odd = service.report(
        of(one, type="completed", result=1),
        of(two, type="progressed", progress=2),
        of(three, type="heartbeat"),
        {"type": "completed", "job": two["id"]},
    )
    assert (done["ok"], beat["ok"]) == (True, True)
    assert bad.keys() == odd.keys() == {"ok", "problem"}
    assert bad["problem"]["code"] == odd["problem"]["code"] == "invalid"
    assert bad["problem"]["errors"][0]["field"] == "reports[1].progress"
    assert odd["problem"]["errors"][0]["field"].startswith("reports[3].")
    assert service.job(one["id"])["status"] == "completed"
    assert service.job(two["id"])["version"] == 2


def test_what_no_result_may_hold_is_the_fault_of_its_report(service: "Service", jobs: list[Json]) -> None:
    deep: Json = []
    for _ in range(70):
        deep = [deep]
    results = ("with a NUL \0", deep, "x" * 300 * 1024, 3)
    said = [of(job, type="completed", result=result) for job, result in zip([*jobs, jobs[0]], results, strict=True)]
    assert [answer["ok"] for answer in service.report(*said)] == [False, False, False, True]
    assert [service.job(job["id"])["status"] for job in jobs] == ["completed", "running", "running"]


def test_a_heartbeat_beside_the_end_of_its_job_is_of_one_that_is_held(service: "Service", queue: str) -> None:
    for _ in range(50):
        job = service.running(queue)
        assert all(answer["ok"] for answer in service.report(of(job, type="heartbeat"), of(job, type="completed")))


@pytest.mark.parametrize(
    "fault",
    [{"worker": ""}, {"reports": [1] * 1001}, {"reports": {}}, {"more": 1}],
    ids=["a nameless worker", "too many", "no list", "an unknown field"],
)
def test_a_request_that_cannot_be_read_is_refused_as_a_whole(service: "Service", jobs: list[Json], fault: Json) -> None:
    body = {"worker": "w1", "reports": [of(jobs[0], type="completed")], **fault}
    assert service.invalid(service.http.post("/v1/reports", json=body))
    assert service.job(jobs[0]["id"])["status"] == "running"

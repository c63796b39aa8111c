"""Filters by labels whose names and values have colons."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
LABELLED = (
    ({"app:team": "blue"}, "app:team:blue"),
    ({"image": "registry:5000/app:v1"}, "image:registry:5000/app:v1"),
    ({":odd:": ":"}, ":odd:::"),
    ({"n" * 100: "x:y"}, f"{'n' * 100}:x:y"),
    ({"plain": ""}, "plain:"),
)


def found(service: "Service", *labels: str, **more: Json) -> list[str]:
    answer = service.http.get("/v1/jobs", params={"label": list(labels), **more})
    assert answer.status_code == 200, answer.text
    return sorted(job["id"] for job in answer.json()["items"])


@pytest.mark.parametrize(("labels", "filter"), LABELLED)
def test_every_label_can_be_filtered_by(service: "Service", queue: str, labels: Json, filter: str) -> None:
    job = service.create(queue=queue, labels=labels)
    service.create(queue=queue, labels=dict.fromkeys(labels, "another"))
    assert found(service, filter, queue=queue) == [job["id"]]


def test_a_label_with_two_readings_finds_the_jobs_of_both(service: "Service", queue: str) -> None:
    both = [service.create(queue=queue, labels=labels)["id"] for labels in ({"a": "b:c"}, {"a:b": "c"})]
    service.create(queue=queue, labels={"a": "c"})
    assert found(service, "a:b:c", queue=queue) == sorted(both)


def test_a_label_that_no_job_can_have_finds_none(service: "Service", queue: str) -> None:
    service.create(queue=queue, labels={"a": "b"})
    assert found(service, f"{'n' * 101}:b", queue=queue) == []


def test_what_is_moved_in_bulk_is_found_the_same_way(service: "Service", queue: str) -> None:
    service.create(queue=queue, labels={"app:team": "blue"})
    wanted = {"filter": {"label": ["app:team:blue"], "queue": [queue]}, "reason": "a count"}
    assert service.http.post("/v1/jobs/cancellations", json=wanted).json()["matching"] == 1


def test_labels_with_too_many_readings_are_refused(service: "Service") -> None:
    labels = [f"{n}{':' * 99}" for n in range(12)]
    assert service.invalid(service.http.get("/v1/jobs", params={"label": labels})) == ["label"]


@pytest.mark.parametrize("operation", ["cancellations", "requeues"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_in_bulk_they_are_refused_before_there_is_a_job(service: "Service", operation: str, dry_run: bool) -> None:
    wanted = {"filter": {"label": [f"{n}{':' * 99}" for n in range(12)]}, "reason": "a count", "dry_run": dry_run}
    assert service.invalid(service.http.post(f"/v1/jobs/{operation}", json=wanted)) == ["label"]


@pytest.mark.parametrize("label", ["name", ":value", ""])
def test_a_label_without_a_name_or_a_value_is_refused(service: "Service", label: str) -> None:
    assert service.invalid(service.http.get("/v1/jobs", params={"label": label})) == ["label[0]"]

"""Walks along the links of the description: each answer leads to the next request, and every job stays what it is."""

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import settings
from schemathesis import BaseSchema, Case, Response

from tests.interfaces.generated import ALWAYS_THE_SAME, DESCRIPTION, is_valid, put_right

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
TERMINAL = ("job.completed", "job.failed", "job.cancelled")
WALKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "work": (
        ("create_job", "claim_jobs", "report", "get_job"),
        (
            "POST /v1/jobs -> [202] claim -> POST /v1/claims",
            "POST /v1/jobs -> [202] job -> GET /v1/jobs/{job_id}",
            "POST /v1/claims -> [200] report -> POST /v1/reports",
            "POST /v1/claims -> [200] job -> GET /v1/jobs/{job_id}",
            "POST /v1/reports -> [200] report -> POST /v1/reports",
            "POST /v1/reports -> [200] job -> GET /v1/jobs/{job_id}",
            "GET /v1/jobs/{job_id} -> [200] then -> GET /v1/jobs/{job_id}",
        ),
    ),
    "interventions": (
        ("create_job", "claim_jobs", "cancel_job", "retry_job", "why_job", "diff_job"),
        (
            "POST /v1/jobs -> [202] cancel -> POST /v1/jobs/{job_id}/cancellations",
            "POST /v1/jobs -> [202] why -> GET /v1/jobs/{job_id}/why",
            "POST /v1/jobs/{job_id}/cancellations -> [202] retry -> POST /v1/jobs/{job_id}/retries",
            "POST /v1/jobs/{job_id}/cancellations -> [202] diff -> GET /v1/jobs/{job_id}/diff",
        ),
    ),
    "looking": (
        ("create_jobs", "create_visualization", "list_jobs", "get_job", "list_events", "get_visualization"),
        (
            "POST /v1/jobs/batch -> [202] job -> GET /v1/jobs/{job_id}",
            "POST /v1/visualizations -> [202] visualization -> GET /v1/visualizations/{job_id}",
            "POST /v1/visualizations -> [202] events -> GET /v1/jobs/{job_id}/events",
            "GET /v1/jobs -> [200] job -> GET /v1/jobs/{job_id}",
            "GET /v1/jobs -> [200] next -> GET /v1/jobs",
            "GET /v1/jobs/{job_id}/events -> [200] next -> GET /v1/jobs/{job_id}/events",
        ),
    ),
}
"""Operations to walk among, and the links that a walk must have followed to an answer of 2xx."""


class Walk:
    """Where the run went: which links were followed to an answer of 2xx, and what became of which job."""

    def __init__(self) -> None:
        self.links: Counter[str] = Counter()
        self.created: set[str] = set()
        self.claimed: set[str] = set()
        self.completed: set[str] = set()
        self.read: set[str] = set()

    def note(self, case: Case[Any], answer: Response) -> None:
        body: Json = case.body
        match operation(case):
            case "create_job":
                self.created.add(answer.json()["id"])
            case "claim_jobs":
                self.claimed |= {job["id"] for job in answer.json()["jobs"]}
            case "report":
                results = zip(body["reports"], answer.json()["results"], strict=True)
                said = (report for report, result in results if result["ok"])
                self.completed |= {report["job_id"] for report in said if report["type"] == "completed"}
            case "get_job" if answer.status_code == 200:
                self.read.add(answer.json()["id"])


@pytest.mark.parametrize(("operations", "links"), WALKS.values(), ids=WALKS.keys())
def test_walks_along_the_links_keep_to_the_description(
    service: "Service", operations: tuple[str, ...], links: tuple[str, ...]
) -> None:
    walk = walked(service, DESCRIPTION.include(operation_id=list(operations)))
    assert set(links) <= walk.links.keys()
    if "report" in operations:
        assert walk.created & walk.claimed & walk.completed & walk.read, "no job went all the way"


def walked(service: "Service", described: BaseSchema) -> Walk:
    """Walk along the links of these operations, always the same ways, with all checks on after each step."""
    walk = Walk()
    described.config.phases.stateful.inference.algorithms = []  # our links, and none that are guessed

    class Walker(described.as_state_machine()):  # type: ignore[misc]  # made from the description as it runs
        def setup(self) -> None:
            self.home = f"walk-{uuid4().hex}"
            self.linked_reports = 0
            service.create(queue=self.home, kind=self.home, priority=-100)  # so that a list or a claim finds something

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            return {"base_url": service.url}

        def before_call(self, case: Case[Any]) -> None:
            put_right(case, service.http)
            if is_valid(case):
                keep_at_home(case, self.home)

        def step(self, input: Any) -> Any:
            if input.transition is not None and operation(input.case) == "report":
                self.linked_reports += 1
                if self.linked_reports % 2:
                    say_that_it_is_done(input.case)
            output = super().step(input)
            if output.response.status_code < 300:
                walk.note(output.case, output.response)
                if input.transition is not None:
                    walk.links[input.transition.id] += 1
            for id in jobs_of(output.case, output.response):
                is_what_its_events_fold_to(service, id)
            return output

    Walker.run(settings=settings(ALWAYS_THE_SAME, max_examples=25, stateful_step_count=40))
    return walk


def operation(case: Case[Any]) -> str:
    id: str = case.operation.definition.raw["operationId"]
    return id


def say_that_it_is_done(case: Case[Any]) -> None:
    """A link names a job and an attempt, and the rest of the report is generated; few of those would end a job."""
    body: Json = case.body
    if isinstance(body, dict) and isinstance(body.get("reports"), list):
        named = [said for said in body["reports"] if isinstance(said, dict) and {"job_id", "attempt"} <= said.keys()]
        done = [{"job_id": said["job_id"], "attempt": said["attempt"], "type": "completed"} for said in named]
        body["reports"] = done or body["reports"]


def keep_at_home(case: Case[Any], home: str) -> None:
    """Each scenario has a queue and a kind of its own, and a job waits for nothing but a claim: it can be repeated."""
    body: Json = case.body
    match operation(case):
        case "create_job":
            case.body = at_home(body, home)
        case "create_jobs":
            case.body = {"jobs": [at_home(job, home) for job in body["jobs"]]}
        case "claim_jobs":
            case.body = {"worker": body["worker"], "queues": [home], "max": body.get("max", 1)}
        case "list_jobs":
            case.query["queue"] = [home]


def at_home(job: Json, home: str) -> Json:
    left = {name: value for name, value in job.items() if name != "run_at"}
    return {**left, "queue": home, "kind": home, "heartbeat_timeout": 3600, "retry": {"initial": 0}}


def jobs_of(case: Case[Any], answer: Response) -> set[str]:
    """The jobs that a step asked for or that it answered."""
    named = {case.path_parameters["job_id"]} if "job_id" in (case.path_parameters or {}) else set()
    if not answer.headers.get("content-type", [""])[0].startswith("application/json"):
        return named
    shown = answer.json()
    return (
        named
        | {shown[name] for name in ("id", "job_id") if name in shown}
        | {job["id"] for job in shown.get("jobs", [])}
    )


def is_what_its_events_fold_to(service: "Service", id: str) -> None:
    """A job's view is the fold of its events, whose versions have no gap, and of which one ends a round at the most."""
    answer = service.http.get(f"/v1/jobs/{id}")
    if answer.status_code != 200:
        assert answer.status_code in (400, 404), answer.text
        return
    view = answer.json()
    then = service.http.get(f"/v1/jobs/{id}", params={"at_version": view["version"]}).json()
    assert {**view, "heartbeat_at": None} == then
    events = service.events(id)[: view["version"]]
    assert [event["version"] for event in events] == list(range(1, view["version"] + 1))
    assert events[-1]["position"] == view["position"]
    for round in rounds([event["type"] for event in events]):
        assert sum(type in TERMINAL for type in round) <= 1


def rounds(types: list[str]) -> list[list[str]]:
    """The types of a job's events, from its creation or a retry to the next."""
    return [list(round) for again, round in groupby(types, "job.requeued".__eq__) if not again]

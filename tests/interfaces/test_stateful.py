"""Walks along the links of the description: each answer leads to the next request, and every job stays what it is."""

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from hypothesis import settings
from schemathesis import Case, Response

from tests.interfaces.generated import ALWAYS_THE_SAME, DESCRIPTION, put_right, wait_until

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
TERMINAL = ("job.completed", "job.failed", "job.cancelled")
MUST_BE_WALKED = (
    "POST /v1/jobs -> claim -> POST /v1/claims",
    "POST /v1/jobs -> events -> GET /v1/jobs/{job_id}/events",
    "POST /v1/jobs/batch -> job -> GET /v1/jobs/{job_id}",
    "POST /v1/claims -> report -> POST /v1/reports",
    "POST /v1/claims -> job -> GET /v1/jobs/{job_id}",
    "POST /v1/reports -> job -> GET /v1/jobs/{job_id}",
    "GET /v1/jobs -> job -> GET /v1/jobs/{job_id}",
    "GET /v1/jobs -> next -> GET /v1/jobs",
    "GET /v1/jobs/{job_id} -> then -> GET /v1/jobs/{job_id}",
    "GET /v1/jobs/{job_id} -> diff -> GET /v1/jobs/{job_id}/diff",
    "POST /v1/visualizations -> visualization -> GET /v1/visualizations/{job_id}",
)


class Walk:
    """Where the run went: which links were followed to an answer of 2xx, and what became of which job."""

    def __init__(self) -> None:
        self.links: Counter[str] = Counter()
        self.created: set[str] = set()
        self.claimed: set[str] = set()
        self.reported: set[str] = set()
        self.read: set[str] = set()

    def note(self, case: Case[Any], answer: Response) -> None:
        match operation(case):
            case "create_job":
                self.created.add(answer.json()["id"])
            case "claim_jobs":
                self.claimed |= {job["id"] for job in answer.json()["jobs"]}
            case "report":
                results = zip(case.body["reports"], answer.json()["results"], strict=True)
                self.reported |= {said["job_id"] for said, result in results if result["ok"]}
            case "get_job" if answer.status_code == 200:
                self.read.add(answer.json()["id"])


def test_every_walk_along_the_links_keeps_to_the_description(service: "Service") -> None:
    walk = Walk()

    class Walker(DESCRIPTION.as_state_machine()):  # type: ignore[misc]  # made from the description as it runs
        def setup(self) -> None:
            self.home = f"walk-{uuid4().hex}"

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            return {"base_url": service.url}

        def before_call(self, case: Case[Any]) -> None:
            put_right(case, service.http)
            if case.meta.generation.mode.is_positive:
                keep_at_home(case, self.home)
            if operation(case) == "list_log":
                wait_until(lambda: logged(service, self.home) == recorded(service, self.home))

        def step(self, input: Any) -> Any:
            output = super().step(input)
            if output.response.status_code < 300:
                walk.note(output.case, output.response)
                if input.transition is not None:
                    walk.links[input.transition.id] += 1
            for id in jobs_of(output.case, output.response):
                is_what_its_events_fold_to(service, id)
            return output

    Walker.run(settings=settings(ALWAYS_THE_SAME, max_examples=60, stateful_step_count=15))
    print(
        len(walk.created),
        len(walk.claimed),
        len(walk.reported),
        len(walk.read),
        len(walk.created & walk.claimed & walk.reported & walk.read),
    )
    for k, v in sorted(walk.links.items()):
        print(v, k)


def operation(case: Case[Any]) -> str:
    id: str = case.operation.definition.raw["operationId"]
    return id


def keep_at_home(case: Case[Any], home: str) -> None:
    """Each scenario has a queue and a kind of its own, and a job waits for nothing but a claim: it can be repeated."""
    match operation(case):
        case "create_job":
            case.body = at_home(case.body, home)
        case "create_jobs":
            case.body = {"jobs": [at_home(job, home) for job in case.body["jobs"]]}
        case "claim_jobs":
            case.body = {"worker": case.body["worker"], "queues": [home], "max": case.body.get("max", 1)}
        case "list_jobs":
            case.query["queue"] = [home]
        case "list_log":
            case.query["kind"] = [home]


def at_home(job: Json, home: str) -> Json:
    left = {name: value for name, value in job.items() if name != "run_at"}
    return {**left, "queue": home, "kind": home, "heartbeat_timeout": 3600, "retry": {"initial": 0}}


def recorded(service: "Service", home: str) -> int:
    """How many events the jobs of a queue have."""
    jobs = service.http.get("/v1/jobs", params={"queue": home, "limit": 1000}).json()["items"]
    return sum(job["version"] for job in jobs)


def logged(service: "Service", home: str) -> int:
    """How many events of a kind of job the log shows."""
    return len(service.http.get("/v1/events", params={"kind": home, "limit": 10_000}).json()["items"])


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
    return [list(round) for again, round in groupby(types, lambda type: type == "job.requeued") if not again]

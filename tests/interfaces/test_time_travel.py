"""Time travel over HTTP: a job as it was at a version or a moment, and what changed between."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import pytest

from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
MOMENT = timedelta(microseconds=1)
LAST = 14
"""The version at which the life of a job below ends."""
PATIENCE = 30.0


class Life:
    """A job that went through most of what can happen to one, with what was shown of it at each version."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._queue = f"queue-{uuid4().hex}"
        self.views: dict[int, Json] = {}
        self.id = self._created()
        self._first_round()
        self._second_round()
        self.events: list[Json] = service.events(self.id)

    def _created(self) -> str:
        fields: Json = {"input": {"n": [1, 2.5, None]}, "labels": {"team": "a"}, "priority": 7, "max_attempts": 2}
        id: str = self._service.create(queue=self._queue, kind="life", retry={"initial": 0}, **fields)["id"]
        self._look(id)
        return id

    def _first_round(self) -> None:
        """Progress, a failure, progress again, and a failure for good."""
        self._start()
        self._say(type="progressed", progress=0.25, step="analysis", output={"words": 3}, message="analysed")
        self._say(type="progressed", progress=0.5, step="render", handle="render-7")
        self._say(type="failed", error={"type": "Busy", "message": "try later", "detail": [1]}, retry_in=0)
        self._start()
        self._say(type="progressed", progress=0.75, message="rendering")
        self._say(type="failed", error={"type": "Broken", "message": "it broke"}, final=True)

    def _second_round(self) -> None:
        """Sent round again, released, asked to stop, and completed all the same."""
        self._post("retries", {"reason": "once more"})
        self._start()
        self._say(type="released", reason="deploy")
        self._start()
        self._post("cancellations", {"reason": "enough"})
        self._say(type="completed", result={"pages": [1]})

    def _start(self) -> None:
        [claimed] = self._service.claim(self._queue)
        self._attempt = claimed["attempt"]
        self._look(claimed["id"])

    def _say(self, **report: Json) -> None:
        [result] = self._service.report({"job_id": self.id, "attempt": self._attempt, **report})
        assert result["ok"], result
        self._look(self.id)

    def _post(self, what: str, body: Json) -> None:
        assert self._service.http.post(f"/v1/jobs/{self.id}/{what}", json=body).status_code == 202
        self._look(self.id)

    def _look(self, id: str) -> None:
        view = self._service.job(id)
        self.views[view["version"]] = view


@pytest.fixture(scope="module")
def life(service: "Service") -> Life:
    return Life(service)


def get(service: "Service", life: Life, **query: Json) -> httpx2.Response:
    return service.http.get(f"/v1/jobs/{life.id}", params=query)


def at(event: Json) -> datetime:
    return datetime.fromisoformat(event["at"])


def shown(view: Json) -> Json:
    """A job without what is no part of its history: the last heartbeat, and whether the answer may still change."""
    return {field: value for field, value in view.items() if field not in ("heartbeat_at", "settled")}


def diff(service: "Service", life: Life, begin: int, end: int) -> httpx2.Response:
    return service.http.get(f"/v1/jobs/{life.id}/diff", params={"from": begin, "to": end})


def test_a_life_is_long_enough_to_tell(life: Life) -> None:
    assert sorted(life.views) == list(range(1, LAST + 1))
    assert {view["status"] for view in life.views.values()} == {
        "queued",
        "running",
        "failed",
        "cancelling",
        "completed",
    }


def test_at_a_version_a_job_is_what_was_shown_then(service: "Service", life: Life) -> None:
    for version, view in life.views.items():
        answer = get(service, life, at_version=version)
        assert answer.status_code == 200, answer.text
        assert answer.headers["etag"] == f'"{version}"'
        then = answer.json()
        assert shown(then) == shown(view), version
        assert then["heartbeat_at"] is None
        assert "settled" not in then


def test_as_of_an_events_time_a_job_is_what_that_event_made_it(service: "Service", life: Life) -> None:
    for event in life.events:
        answer = get(service, life, as_of=event["at"])
        assert answer.status_code == 200, answer.text
        assert shown(answer.json()) == shown(life.views[event["version"]])


def test_between_two_events_a_job_is_what_the_first_made_it(service: "Service", life: Life) -> None:
    for before, after in zip(life.events, life.events[1:], strict=False):
        assert at(before) < at(after)
        for moment in (at(after) - MOMENT, at(before) + (at(after) - at(before)) / 2):
            answer = get(service, life, as_of=moment.isoformat())
            assert answer.json()["version"] == before["version"]


def test_a_moment_may_be_told_in_any_time_zone(service: "Service", life: Life) -> None:
    moment = at(life.events[4]).astimezone(datetime.strptime("+0530", "%z").tzinfo)
    assert get(service, life, as_of=moment.isoformat()).json()["version"] == 5


def test_before_its_creation_there_is_no_job(service: "Service", life: Life) -> None:
    moment = at(life.events[0]) - MOMENT
    service.problem(get(service, life, as_of=moment.isoformat()), 404, "not-found")


def test_a_moment_is_settled_once_it_is_some_seconds_past(service: "Service") -> None:
    job = service.create()
    answers: list[Json] = []

    def settled() -> bool:
        answers.append(service.http.get(f"/v1/jobs/{job['id']}", params={"as_of": job["created_at"]}).json())
        return bool(answers[-1]["settled"])

    eventually(settled, PATIENCE, "a settled answer")
    assert not answers[0]["settled"]
    assert all(shown(answer) == shown(job) for answer in answers)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"at_version": 0}, "at_version"),
        ({"at_version": -1}, "at_version"),
        ({"at_version": LAST + 1}, "at_version"),
        ({"at_version": 2**53}, "at_version"),
        ({"at_version": "one"}, "at_version"),
        ({"as_of": "2040-01-01T00:00:00Z"}, "as_of"),
        ({"as_of": "2020-01-01T00:00:00"}, "as_of"),
        ({"as_of": "yesterday"}, "as_of"),
        ({"at_version": 1, "as_of": "2026-01-01T00:00:00Z"}, "as_of"),
    ],
)
def test_a_moment_that_is_none_is_refused(service: "Service", life: Life, query: Json, field: str) -> None:
    assert service.invalid(get(service, life, **query)) == [field]


@pytest.mark.parametrize("query", [{"at_version": 1}, {"as_of": "2026-01-01T00:00:00Z"}])
def test_an_unknown_job_has_no_past(service: "Service", query: Json) -> None:
    service.problem(service.http.get(f"/v1/jobs/{uuid4()}", params=query), 404, "not-found")


def test_what_changed_between_two_versions_is_told_field_by_field(service: "Service", life: Life) -> None:
    for begin, end in ((1, 2), (2, 3), (1, LAST), (5, 9), (8, LAST)):
        answer = diff(service, life, begin, end)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        before, after = shown(life.views[begin]), shown(life.views[end])
        changed = {change["field"]: (change["from"], change["to"]) for change in told["changes"]}
        differing = {field for field in before if before[field] != after[field]} - {"version", "position"}
        assert changed.keys() - {"version", "position"} == differing
        assert all(changed[field] == (before[field], after[field]) for field in differing)
        assert told["events"] == life.events[begin:end]
        assert (told["from"], told["to"]) == (begin, end)


def test_between_a_version_and_itself_nothing_changed(service: "Service", life: Life) -> None:
    told = diff(service, life, 4, 4).json()
    assert (told["changes"], told["events"]) == ([], [])


@pytest.mark.parametrize(
    ("begin", "end", "field"),
    [(5, 4, "from"), (0, 4, "from"), (1, LAST + 1, "to"), (LAST + 1, LAST + 1, "from"), (LAST + 1, 1, "from")],
)
def test_a_difference_of_versions_that_are_not_there_is_refused(
    service: "Service", life: Life, begin: int, end: int, field: str
) -> None:
    assert service.invalid(diff(service, life, begin, end)) == [field]


def test_a_difference_needs_both_versions(service: "Service", life: Life) -> None:
    for query in ({"from": 1}, {"to": 2}, {}):
        assert service.http.get(f"/v1/jobs/{life.id}/diff", params=query).status_code == 400


def test_an_unknown_job_has_no_differences(service: "Service") -> None:
    service.problem(service.http.get(f"/v1/jobs/{uuid4()}/diff?from=1&to=1"), 404, "not-found")

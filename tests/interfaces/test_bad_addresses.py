"""Bad addresses, ids, queries and methods: each gets its own problem, and nothing is recorded."""

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from tests.interfaces.malformed import POSTS

if TYPE_CHECKING:
    from tests.interfaces.conftest import Send, Service

Json = Any

pytestmark = pytest.mark.usefixtures("nothing_recorded")


@pytest.mark.parametrize("of", ["", "/events", "/artifacts", "/artifacts/a.txt"])
@pytest.mark.parametrize("id", ["7", "null", "%00", "%ff", "..%5c..", "0" * 31, "g" * 32, "x" * 5000])
def test_an_id_that_is_no_uuid_is_invalid(service: "Service", id: str, of: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs/{id}{of}")) == ["job_id"]


@pytest.mark.parametrize("call", ["cancellations", "retries"])
def test_an_id_to_act_on_that_is_no_uuid_is_invalid(service: "Service", call: str) -> None:
    assert service.invalid(service.http.post(f"/v1/jobs/7/{call}", json={"reason": "because"})) == ["job_id"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("colour", "colour"),
        ("%00=1", "\0"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1e2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=1&limit=2", "limit"),
        ("sort=created_at&sort=-created_at", "sort"),
        ("cursor=a&cursor=b", "cursor"),
        ("sort=priority", "sort"),
        ("status=done", "status[0]"),
        ("status=queued&status=", "status[1]"),
        ("kind=", "kind[0]"),
        ("kind=%00", "kind"),
        ("kind=" + "k" * 201, "kind[0]"),
        ("worker=", "worker[0]"),
        ("label=team", "label[0]"),
        ("label=:red", "label[0]"),
        ("label=a%00:b", "label"),
        ("created_after=2030-01-01T00:00:00", "created_after"),
        ("created_after=yesterday", "created_after"),
        ("created_after=5", "created_after"),
        ("created_after=nan", "created_after"),
        ("created_before=1e300", "created_before"),
        ("created_before=", "created_before"),
        ("created_before=10000-01-01T00:00:00Z", "created_before"),
        ("cursor=%00", "cursor"),
        ("cursor=%ff%fe", "cursor"),
        ("cursor=" + "A" * 4000, "cursor"),
        ("cursor=" + "W10=", "cursor"),
    ],
)
def test_a_bad_query_of_the_list_is_refused_by_name(service: "Service", query: str, field: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs?{query}")) == [field]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after_version=-1", "after_version"),
        ("after_version=last", "after_version"),
        ("after_version=1&after_version=2", "after_version"),
        ("after_version=" + "9" * 30, "after_version"),
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("cursor=1", "cursor"),
    ],
)
def test_a_bad_query_of_the_history_is_refused_by_name(service: "Service", held: Json, query: str, field: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs/{held['id']}/events?{query}")) == [field]


@pytest.mark.parametrize("path", POSTS)
def test_a_query_where_none_belongs_is_refused(service: "Service", send: "Send", path: str) -> None:
    assert service.invalid(send(f"{path}?dry_run=true", b"{}")) == ["dry_run"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/claims", "/livez"])
def test_another_method_is_refused_with_those_that_are_taken(service: "Service", method: str, path: str) -> None:
    answer = service.http.request(method, path)
    service.problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"]


def test_options_tells_all_methods_of_an_address(service: "Service") -> None:
    answer = service.http.options("/v1/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v2/jobs", "/v1/jobs/7/8/9", "/v1/%00", "/../etc/passwd", "/%2e%2e/%2e%2e"]
)
def test_an_address_with_nothing_there_is_not_found(service: "Service", path: str) -> None:
    service.problem(service.http.get(path), 404, "not-found")


NO_TEXT = ("%ff", "%C3%28", "a%80b", "%ed%a0%80", "%c0%80")


@pytest.mark.parametrize("written", NO_TEXT)
def test_a_query_that_is_no_utf8_is_refused_by_name(service: "Service", held: Json, written: str) -> None:
    for path, name in (
        ("/v1/jobs", "kind"),
        ("/v1/jobs", "worker"),
        ("/v1/events", "actor"),
        (f"/v1/jobs/{held['id']}", "as_of"),
        (f"/v1/jobs/{held['id']}/artifacts/a", "signature"),
    ):
        assert service.invalid(service.http.get(f"{path}?{name}={written}")) == [name]
    assert service.invalid(service.http.get(f"/v1/jobs?limit=5&{written}=1")) == [unquote(written)]


@pytest.mark.parametrize("written", [*NO_TEXT, "%00", "a%00b"])
def test_a_path_that_is_no_text_is_refused_by_name(service: "Service", held: Json, written: str) -> None:
    assert service.invalid(service.http.get(f"/v1/jobs/{held['id']}/artifacts/{written}")) == ["name"]
    place = f"/v1/jobs/{held['id']}/attempts/1/artifacts/{written}?worker=w1"
    assert service.invalid(service.http.put(place, content=b"x")) == ["name"]
    answer = service.http.put(f"/v1/jobs/{held['id']}/attempts/{written}/artifacts/a?worker=w1", content=b"x")
    assert service.invalid(answer) == ["attempt"]
    assert service.invalid(service.http.get(f"/v1/visualizations/{written}")) == ["job_id"]
    service.problem(service.http.get(f"/problems/{written}"), 404, "not-found")

"""Keys with a rate or a quota are told to wait."""

import re
from typing import Any
from uuid import uuid4

import pytest

from tests.interfaces.closed import Closed

Json = Any


def test_a_key_with_a_rate_is_told_to_wait(closed: Closed) -> None:
    closed.make("slow", "client", "--rate", "1")
    with closed.http("slow") as http, closed.http("client") as other:
        answers = [http.get("/v1/jobs") for _ in range(20)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        assert limited[0].json()["code"] == "rate-limited"
        assert int(limited[0].headers["retry-after"]) >= 1
        assert other.get("/v1/jobs").status_code == 200


def test_a_key_with_a_quota_waits_until_jobs_of_its_own_have_finished(closed: Closed) -> None:
    made = closed.command(
        "create", "--name", "few", "--role", "client", "--in-flight", "3", "--rate", "500/s", DATABASE_URL=closed.dsn
    )
    closed.secrets["few"] = re.findall(r"jl_client_\S+", made.stdout)[0]
    assert "500/s on each server, 3 jobs in flight" in made.stdout
    assert "3 jobs in flight" in " ".join(closed.command("list", DATABASE_URL=closed.dsn, COLUMNS="200").stdout.split())
    job = {"kind": "k", "input": 1, "queue": "few"}
    with closed.http("few", 0) as here, closed.http("few", 1) as there, closed.http("admin") as admin:
        listed = {key["name"]: key for key in admin.get("/v1/keys").json()["items"]}
        assert (listed["few"]["in_flight"], listed["few"]["rate"], listed["client"]["in_flight"]) == (3, 500, None)
        both = here.post("/v1/jobs/batch", json={"jobs": [job] * 2}).raise_for_status().json()["ids"]
        named = {"Idempotency-Key": uuid4().hex}
        third = there.post("/v1/jobs", json=job, headers=named).raise_for_status().json()["id"]
        full = [
            here.post("/v1/jobs", json=job),
            there.post("/v1/jobs/batch", json={"jobs": [job] * 2}),
            here.post("/v1/visualizations", json={"question": "What is 15 % of 80?"}),
        ]
        for refused in full:
            assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
            assert refused.headers["retry-after"] == "1"
            assert "'few' may have 3 jobs in flight" in refused.json()["detail"]
        assert here.post("/v1/jobs", json=job, headers=named).json()["id"] == third
        assert admin.post("/v1/jobs", json=job).status_code == 202
        here.post(f"/v1/jobs/{both[0]}/cancellations", json={"reason": "enough"}).raise_for_status()
        assert there.post("/v1/jobs", json=job).status_code == 202
        assert there.post(f"/v1/jobs/{both[0]}/retries", json={"reason": "again"}).status_code == 429


@pytest.mark.parametrize("wrong", [{"in_flight": 0}, {"in_flight": 100_001}, {"in_flight": 1.5}, {"rate": 0}])
def test_limits_that_make_no_sense_are_refused(closed: Closed, wrong: Json) -> None:
    with closed.http("admin") as http:
        refused = http.post("/v1/keys", json={"name": "nonsense", "role": "client", **wrong})
    assert [error["field"] for error in refused.json()["errors"]] == list(wrong)

"""No secret gets out: not in a log, an event, a metric, an error, or the arguments of a process."""

import json
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from interfaces.http.guard import COOKIE
from tests.collector import Collector, collector
from tests.conftest import Start
from tests.doors import door
from tests.infrastructure.nodes import ask
from tests.waiting import eventually

PASSWORD, OPENAI, ELAI = "the-password-of-it", "sk-the-openai-key-of-it", "the-elai-key-of-it"


@pytest.mark.parametrize("log", ["console", "json"])
def test_no_secret_gets_out(dsn: str, start: Start, log: str) -> None:
    """Of roles that run apart, one of which works over HTTP: nor in any span of any of them."""
    parts = urlsplit(dsn)
    named = urlunsplit(parts._replace(netloc=f"{parts.username or 'postgres'}:{PASSWORD}@{parts.hostname or ''}"))
    refusal = {"error": {"message": f"Incorrect API key provided: {OPENAI}", "type": "invalid"}}
    with door(401, answer=refusal) as outside, collector() as collecting:
        environment = {
            "DATABASE_URL": named,
            "JOBLEDGER_LOG": log,
            "OPENAI_API_KEY": OPENAI,
            "OPENAI_BASE_URL": f"{outside}/v1",
            "ELAI_API_KEY": ELAI,
            "ELAI_BASE_URL": outside,
            **collecting.environment,
        }
        made = start("keys", "create", "--name", f"a-{log}", "--role", "admin", "--json", **environment)
        key = json.loads(made.wait_for_line('"secret"'))["secret"]
        processes = [start("api", "--port", "0", **environment), start("projector", **environment)]
        url = processes[0].url
        far = {**environment, "JOBLEDGER_URL": url, "JOBLEDGER_KEY": key, "JOBLEDGER_QUEUES": f"far-{log}"}
        processes += [start("worker", **environment), start("worker", "--url", url, **far)]
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            deck = {"title": "t", "slides": [{"title": "s"}], "renderer": "elai"}
            asked = [("visualizations", {"question": "What is 15 % of 80?"}), ("presentations", deck)]
            asked += [("jobs", {"kind": "visualization", "queue": f"far-{log}", "input": asked[0][1]})]
            ids = [http.post(f"/v1/{path}", json=body).raise_for_status().json()["id"] for path, body in asked]
            shown = [http.get(f"/v1/jobs/{id}", headers={"Prefer": "wait=60"}).text for id in ids]
            shown += [http.get(f"/v1/jobs/{id}/{of}").text for id in ids for of in ("events", "why")]
            shown += [http.get(path).text for path in ("/metrics", "/readyz", "/v1/keys", "/v1/jobs/x", "/nowhere")]
            shown.append(http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}x"}).text)
        assert '"failed"' in shown[0], "the key was refused, and that was told"
        assert '"failed"' in shown[2], "also where the worker has no database"
        eventually(lambda: len(refused_attempts(collecting)) == len(ids), 60, "spans of attempts, of both workers")
        arguments = [" ".join(psutil.Process(process.process.pid).cmdline()) for process in processes]
        for process in processes:
            process.stop()
    recorded = ask(dsn, "SELECT convert_from(state, 'UTF8') FROM events") + ask(dsn, "SELECT jobs::text FROM jobs")
    said = ["".join(process.output) for process in processes]
    everything = [*shown, *arguments, *said, *(text for (text,) in recorded)]
    spans = b"".join(collecting.bodies)
    for secret in (PASSWORD, OPENAI, ELAI, key):
        assert not [text for text in everything if secret in text], secret
        assert secret.encode() not in spans, secret
    for span in collecting.spans:
        assert span.events == [], "the message of an exception would stand there"


def refused_attempts(collecting: Collector) -> set[str]:
    """The jobs of attempts that failed."""
    attempts = (span for span in collecting.spans if span.name.startswith("attempt ") and span.failed)
    return {span.attributes["jobledger.job_id"] for span in attempts}


HANDLERS = """
from application.handlers import JobContext, handles


@handles("filed")
async def filed(job: JobContext, input: str) -> str:
    await job.save_artifact("file.txt", input.encode(), "text/plain")
    return input


@handles("broken")
async def broken(job: JobContext, input: str) -> str:
    raise ValueError(input)
"""


def refused(http: httpx2.Client, link: str, expires: str, signature: str) -> list[str]:
    """What is said of a signed link, and of a key, that are not right, in all places where they may be sent."""
    path = link.partition("?")[0]
    job = path.rpartition("/artifacts")[0]
    wrong = [
        f"{path}?expires={expires}&signature={signature}x",
        f"{path}?expires=1&signature={signature}",
        f"{path}?expires=soon&signature={signature}",
        f"{path}?signature={signature}",
        f"{path}x?expires={expires}&signature={signature}",
        f"{job}?expires={expires}&signature={signature}",
        f"/v1/jobs?expires={expires}&signature={signature}",
        f"/nowhere?expires={expires}&signature={signature}",
    ]
    answers = [http.get(url) for url in wrong]
    assert all(400 <= answer.status_code < 500 for answer in answers), [answer.status_code for answer in answers]
    return [answer.text for answer in answers]


@pytest.mark.parametrize("log", ["console", "json"])
def test_no_secret_gets_out_of_a_whole_installation(start: Start, tmp_path: Path, log: str) -> None:
    """From one that keeps its own database: nor in that one's log and files, a span, an export, or a signed link."""
    (tmp_path / "filing_handlers.py").write_text(HANDLERS)
    data = tmp_path / "data"
    with ExitStack() as stack:
        outside = stack.enter_context(door(401, answer={"error": {"message": f"Incorrect: {OPENAI}"}}))
        collecting = stack.enter_context(collector())
        environment = {
            "JOBLEDGER_DATA": str(data),
            "JOBLEDGER_LOG": log,
            "JOBLEDGER_HANDLERS": "filing_handlers",
            "PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}",
            "OPENAI_API_KEY": OPENAI,
            "OPENAI_BASE_URL": f"{outside}/v1",
            "ELAI_API_KEY": ELAI,
            "ELAI_BASE_URL": outside,
            **collecting.environment,
        }
        service = start("up", "--port", "0", **environment)
        url = service.url
        made = start("keys", "create", "--name", "admin", "--role", "admin", "--json", **environment)
        key = json.loads(made.wait_for_line('"secret"'))["secret"]
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=90) as http:
            other = http.post("/v1/keys", json={"name": "other", "role": "client"}).raise_for_status().json()
            deck = {"title": "t", "slides": [{"title": "s"}], "renderer": "elai"}
            asked = [
                ("visualizations", {"question": "What is 15 % of 80?"}),
                ("presentations", deck),
                ("jobs", {"kind": "broken", "input": "i", "max_attempts": 1}),
                ("jobs", {"kind": "filed", "input": "i"}),
            ]
            ids = [http.post(f"/v1/{path}", json=body).raise_for_status().json()["id"] for path, body in asked]
            for id in ids[:3]:
                http.get(f"/v1/jobs/{id}", headers={"Prefer": "wait=60"}).raise_for_status()
            job = http.get(f"/v1/jobs/{ids[3]}", headers={"Prefer": "wait=60"}).raise_for_status().json()
            (file,) = job["artifacts"]
            given = parse_qs(urlsplit(file["url"]).query)
            (expires,), (signature,) = given["expires"], given["signature"]
            assert httpx2.get(url + file["url"]).text == "i", "the link is good, and was followed"
            shown = refused(http, file["url"], expires, signature)
            with httpx2.Client(base_url=url, timeout=60, headers={"Cookie": f"{COOKIE}={key}"}) as signed_in:
                page = signed_in.get(f"/jobs/{ids[3]}").raise_for_status().text
                assert signature in page, "the console's page has the link, and is no log, event, metric or error"
                assert key not in page
                shown += refused(signed_in, file["url"], expires, signature)
            http.delete(f"/v1/keys/{other['key']['id']}").raise_for_status()
            eventually(
                lambda: http.get("/v1/jobs", headers={"Authorization": f"Bearer {other['secret']}"}).status_code == 401
            )
            lines = {"Accept": "application/x-ndjson"}
            bundle = f"/v1/audit/jobs/{ids[3]}/bundle"
            eventually(lambda: http.get(bundle).status_code == 200, 60, "the seal")
            for path, headers in (
                ("/v1/events?limit=10000", lines),
                *((f"/v1/jobs/{id}/events", lines) for id in ids),
                *((f"/v1/jobs/{id}/why", {}) for id in ids),
                (bundle, {}),
                *(
                    (path, {})
                    for path in ("/v1/audit/accesses", "/v1/failures", "/v1/keys", "/v1/stats", "/v1/workers")
                ),
                *((path, {}) for path in ("/metrics", "/readyz", "/v1/projections", "/v1/queues", "/v1/usage")),
            ):
                shown.append(http.get(path, headers=headers).raise_for_status().text)
        eventually(
            lambda: (
                {"GET /v1/jobs/{job_id}/artifacts/{name}", "step analysis", "attempt broken"}
                <= {span.name for span in collecting.spans}
            ),
            60,
            "spans of a signed link, and of attempts",
        )
        assert service.stop() == 0
        spans = b"".join(collecting.bodies)
    said = "".join(service.output)
    kept = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert any(path.name.endswith(".log") for path in kept), "the log of the database"
    for secret in (OPENAI, ELAI, key, other["secret"], signature):
        assert not [text for text in (*shown, said) if secret in text], secret
        assert secret.encode() not in spans, secret
        assert not [path for path, content in kept.items() if secret.encode() in content], secret

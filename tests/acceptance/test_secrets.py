"""No secret gets out: not in a log, an event, a metric, an error, or the arguments of a process."""

import json
from urllib.parse import urlsplit, urlunsplit

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from tests.conftest import Start
from tests.doors import door
from tests.infrastructure.nodes import ask

PASSWORD, OPENAI, ELAI = "the-password-of-it", "sk-the-openai-key-of-it", "the-elai-key-of-it"


@pytest.mark.parametrize("log", ["console", "json"])
def test_no_secret_gets_out(dsn: str, start: Start, log: str) -> None:
    parts = urlsplit(dsn)
    named = urlunsplit(parts._replace(netloc=f"{parts.username or 'postgres'}:{PASSWORD}@{parts.hostname or ''}"))
    with door(
        401, answer={"error": {"message": f"Incorrect API key provided: {OPENAI}", "type": "invalid"}}
    ) as outside:
        environment = {
            "DATABASE_URL": named,
            "JOBLEDGER_LOG": log,
            "OPENAI_API_KEY": OPENAI,
            "OPENAI_BASE_URL": f"{outside}/v1",
            "ELAI_API_KEY": ELAI,
            "ELAI_BASE_URL": outside,
        }
        made = start("keys", "create", "--name", f"a-{log}", "--role", "admin", "--json", **environment)
        key = json.loads(made.wait_for_line('"secret"'))["secret"]
        processes = [start("api", "--port", "0", **environment), start("worker", **environment)]
        url = processes[0].url
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            deck = {"title": "t", "slides": [{"title": "s"}], "renderer": "elai"}
            asked = [("visualizations", {"question": "What is 15 % of 80?"}), ("presentations", deck)]
            ids = [http.post(f"/v1/{path}", json=body).raise_for_status().json()["id"] for path, body in asked]
            shown = [http.get(f"/v1/jobs/{id}", headers={"Prefer": "wait=60"}).text for id in ids]
            shown += [http.get(f"/v1/jobs/{id}/{of}").text for id in ids for of in ("events", "why")]
            shown += [http.get(path).text for path in ("/metrics", "/readyz", "/v1/keys", "/v1/jobs/x", "/nowhere")]
            shown.append(http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}x"}).text)
        assert '"failed"' in shown[0], "the key was refused, and that was told"
        arguments = [" ".join(psutil.Process(process.process.pid).cmdline()) for process in processes]
        for process in processes:
            process.stop()
    recorded = ask(dsn, "SELECT convert_from(state, 'UTF8') FROM events") + ask(dsn, "SELECT jobs::text FROM jobs")
    said = ["".join(process.output) for process in processes]
    everything = [*shown, *arguments, *said, *(text for (text,) in recorded)]
    for secret in (PASSWORD, OPENAI, ELAI, key):
        assert not [text for text in everything if secret in text], secret

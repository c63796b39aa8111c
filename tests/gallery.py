"""The pictures of the console in docs/images: `python -m tests.gallery` makes them anew, from a service of its own.

With a folder, `python -m tests.gallery FOLDER`, all pages are put there as PNG, at 1280 and at 360 pixels, to be looked
at. Needs Debian's chromium.
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from interfaces.http.guard import COOKIE
from tests.conftest import Process
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
THEMES = ("light", "dark")
WIDE, NARROW = 1280, 360
LOOKED_AT = ("running", "waiting", "filtered", "nothing", "error")
"""Pages that are looked at and stand in no README."""
TALL = 860
"""Pixels of height that a picture in the README has at the most."""
QUESTION = "Sort 7, 3, 9, 1 and 5 with bubble sort."
Json = Any


class Demo:
    """A service with something of everything on each of its pages; `jobs` are the ids of some, by what they show."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=90)
        self.jobs: dict[str, str] = {}

    def fill(self) -> None:
        self._rescued()
        for _ in range(14):
            self._done("invoice", "billing", "worker-2", [("total", "adding up"), ("pdf", "drawing")])
        for n in range(9):
            self._done("mail", "mail", "worker-3", [("send", f"to customer {n + 1}")])
        for n in range(4):
            error = ("CardDeclined", "the bank says no: insufficient funds")
            self._failed("charge", "billing", "worker-2", *error, final=n != 2)
        self._failed("import", "default", "worker-1", "FileNotFoundError", "orders-2026-11.csv is not in the bucket")
        self._running("export", "default", "worker-1", 0.62, "rows", "620 000 of 1 000 000 rows")
        self._running("thumbnail", "media", "worker-4", 0.25, "frames", "25 of 100 frames")
        self._waiting()
        for name, path, body in (
            ("question", "visualizations", {"question": QUESTION}),
            ("video", "presentations", json.loads((ROOT / "examples/deck.json").read_text())),
        ):
            self.jobs[name] = self._asked(f"/v1/{path}", body)
        for name in ("question", "video"):
            eventually(lambda name=name: self._status(self.jobs[name]) == "completed", 300, name)  # type: ignore[misc]
        self.jobs["done"] = self.jobs["rescued"]
        bundle = f"/v1/audit/jobs/{self.jobs['rescued']}/bundle"
        eventually(lambda: self.http.get(bundle).status_code == 200, 60, "the seal")
        self.http.post("/v1/queues/mail/pauses", json={"reason": "the provider is down until noon"}).raise_for_status()
        asked = {"reason": "the monthly look"}
        self.http.post("/v1/projections/usage/verifications", json=asked).raise_for_status()

    def keys(self, admin: str) -> None:
        """Keys of every role, one of which was revoked."""
        self.http.headers["Authorization"] = f"Bearer {admin}"
        for new in (
            {"name": "shop", "role": "client", "namespace": "shop", "rate": 50, "in_flight": 1000},
            {"name": "render-farm", "role": "worker"},
            {"name": "ops", "role": "operator"},
            {"name": "audit-2026", "role": "auditor"},
            {"name": "old-laptop", "role": "admin"},
        ):
            made = self.http.post("/v1/keys", json=new).raise_for_status().json()
            used = {"Authorization": f"Bearer {made['secret']}"}
            if new["name"] != "render-farm":
                self.http.get("/v1/jobs", headers=used).raise_for_status()
            if new["name"] == "old-laptop":
                self.http.delete(f"/v1/keys/{made['key']['id']}").raise_for_status()

        def noted() -> bool:
            keys = self.http.get("/v1/keys").json()["items"]
            return sum(key["last_used_at"] is not None for key in keys) >= 4

        eventually(noted, 60, "when keys were used")

    def _asked(self, path: str, body: Json) -> str:
        id: str = self.http.post(path, json=body).raise_for_status().json()["id"]
        return id

    def _status(self, id: str) -> str:
        status: str = self.http.get(f"/v1/jobs/{id}").json()["status"]
        return status

    def _create(self, kind: str, queue: str, **fields: Json) -> str:
        body = {"kind": kind, "queue": queue, "input": {"order": "A-1042"}, "heartbeat_timeout": 3600, **fields}
        return self._asked("/v1/jobs", body)

    def _claim(self, queue: str, worker: str) -> None:
        def claimed() -> bool:
            body = {"worker": worker, "queues": [queue], "wait": 5}
            return bool(self.http.post("/v1/claims", json=body).raise_for_status().json()["jobs"])

        eventually(claimed, 60, f"a job of {queue}")

    def _say(self, id: str, attempt: int, worker: str, type: str, **fields: Json) -> None:
        reports = [{"job_id": id, "attempt": attempt, "type": type, **fields}]
        answer = self.http.post("/v1/reports", json={"worker": worker, "reports": reports}).json()
        assert answer["results"][0]["ok"], answer

    def _done(self, kind: str, queue: str, worker: str, steps: list[tuple[str, str]]) -> None:
        id = self._create(kind, queue, labels={"customer": "acme"})
        self._claim(queue, worker)
        for n, (step, message) in enumerate(steps, 1):
            self._say(id, 1, worker, "progressed", step=step, message=message, progress=n / len(steps), output=n)
        self._say(id, 1, worker, "completed", result={"ok": True})

    def _failed(self, kind: str, queue: str, worker: str, type: str, message: str, *, final: bool = True) -> None:
        id = self._create(kind, queue)
        self._claim(queue, worker)
        self._say(id, 1, worker, "failed", error={"type": type, "message": message}, final=final, retry_in=3600)

    def _running(self, kind: str, queue: str, worker: str, progress: float, step: str, message: str) -> None:
        self.jobs[kind] = id = self._create(kind, queue)
        self._claim(queue, worker)
        self._say(id, 1, worker, "progressed", progress=progress, step=step, message=message)

    def _rescued(self) -> None:
        """Its first worker was never heard of again, the second attempt failed, the third completed it."""
        deck = {"order": "A-1041", "items": [{"sku": "tea", "count": 2}, {"sku": "cup", "count": 1}]}
        self.jobs["rescued"] = id = self._create(
            "order",
            "orders",
            input=deck,
            labels={"customer": "acme", "region": "north"},
            heartbeat_timeout=2,
            retry={"initial": 0.5, "factor": 1, "max": 0.5},
        )
        self._claim("orders", "worker-1")
        self._say(id, 1, "worker-1", "progressed", progress=0.3, step="charge", message="paid", output="pay_81")
        eventually(lambda: self._status(id) == "queued", 60, "the rescue")
        self._claim("orders", "worker-2")
        self._say(
            id, 2, "worker-2", "progressed", progress=0.6, step="pack", message="two parcels", output=["p1", "p2"]
        )
        error = {"type": "PrinterAway", "message": "label printer 3 does not answer"}
        self._say(id, 2, "worker-2", "failed", error=error)
        self._claim("orders", "worker-3")
        self._say(id, 3, "worker-3", "progressed", progress=0.9, step="label", message="printed", output="label-1041")
        path = f"/v1/jobs/{id}/attempts/3/artifacts/label.txt?worker=worker-3"
        self.http.put(path, content=b"A-1041\nNorth\n", headers={"Content-Type": "text/plain"}).raise_for_status()
        self._say(id, 3, "worker-3", "completed", result={"parcels": ["p1", "p2"], "label": "label-1041"})

    def _waiting(self) -> None:
        self.jobs["waiting"] = self._create("train", "gpu", priority=10)
        self._create("train", "gpu")
        self._create("report", "default", run_at="2026-12-24T08:00:00Z", labels={"customer": "acme"})
        cancelled = self._create("report", "default", run_at="2026-12-24T08:00:00Z")
        self.http.post(f"/v1/jobs/{cancelled}/cancellations", json={"reason": "asked for twice"}).raise_for_status()

    def close(self) -> None:
        self.http.close()

    def pages(self) -> dict[str, str]:
        """The addresses of all pages, by name."""
        names = ("overview", "jobs", "new", "log", "failures", "workers", "queues", "projections", "audit", "keys")
        shown = {"job": "rescued", "question": "question", "video": "video", "running": "export", "waiting": "waiting"}
        return {
            **{name: f"/{name}" for name in names},
            **{name: f"/jobs/{self.jobs[job]}" for name, job in shown.items()},
            "filtered": "/jobs?status=failed&kind=charge&label=customer:acme",
            "nothing": "/jobs?queue=nowhere",
            "error": "/jobs/nonsense",
        }


@contextmanager
def demo(folder: Path) -> Iterator[tuple[Demo, Callable[..., Process]]]:
    """A filled service in a folder, and what starts commands beside it."""
    started: list[Process] = []

    def start(*arguments: str, **environment: str) -> Process:
        process = Process(list(arguments), {"JOBLEDGER_DATA": str(folder / "data"), **environment}, folder)
        started.append(process)
        return process

    try:
        filled = Demo(start("up", "--port", "0").url)
        filled.fill()
        yield filled, start
        filled.close()
    finally:
        for process in reversed(started):
            process.close()


def looked_at(browser: Browser, demo: Demo, theme: Any, width: int, cookie: str | None) -> Page:
    """A page that somebody looks at, signed in if there is a key."""
    context = browser.new_context(viewport={"width": width, "height": TALL}, color_scheme=theme)
    if cookie:
        context.add_cookies([{"name": COOKIE, "value": cookie, "url": demo.url}])
    return context.new_page()


def picture(page: Page, url: str, *, whole: bool) -> bytes:
    """What a page looks like once it has come to rest, as PNG."""
    page.goto(url)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    for frame in page.locator("iframe").all():
        expect(frame.content_frame.locator("body")).to_be_visible()
    for video in page.locator("video").all():
        eventually(lambda video=video: video.evaluate("v => v.readyState >= 1"), 30)  # type: ignore[misc]
    page.wait_for_load_state("networkidle") if "/log" not in url and "/jobs/" not in url else page.wait_for_timeout(700)
    return page.screenshot(full_page=whole)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gallery", description="Make the pictures of the console anew."
    )
    parser.add_argument("folder", nargs="?", type=Path, help="where all pages go, to be looked at (docs/images, a few)")
    there = parser.parse_args().folder
    chromium = shutil.which("chromium")
    if chromium is None:
        print("chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory() as folder,
        demo(Path(folder)) as (filled, start),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        made = start("keys", "create", "--name", "anna", "--role", "admin", "--json")
        key = json.loads(made.wait_for_line('"secret"'))["secret"]
        filled.keys(key)
        for theme in THEMES:
            for width in (WIDE, NARROW) if there else (WIDE,):
                for name, path in {**filled.pages(), "sign-in": "/sign-in"}.items():
                    page = looked_at(browser, filled, theme, width, None if name == "sign-in" else key)
                    png = picture(page, filled.url + path, whole=there is not None)
                    page.context.close()
                    if there:
                        there.mkdir(parents=True, exist_ok=True)
                        (there / f"{name}-{theme}-{width}.png").write_bytes(png)
                    elif name not in LOOKED_AT:
                        kept = IMAGES / f"{name}-{theme}.webp"
                        Image.open(io.BytesIO(png)).save(kept, "WEBP", quality=72, method=6)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

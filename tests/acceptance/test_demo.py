"""Both products from an empty folder without a network, and `jobledger demo`, which outlasts a restart."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from interfaces.cli.examples import example

Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
NO_NETWORK = {**dict.fromkeys(PROXIES, "http://127.0.0.1:9"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
"""Whoever asks the outside is refused."""


class Demo:
    """`jobledger demo --json` in a process of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "interfaces.cli.main", "demo", "--json", "--url", url],
            env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self) -> Any:
        """What it printed, once it has ended well."""
        out, err = self._process.communicate(timeout=240)
        assert self._process.returncode == 0, err
        return json.loads(out)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def jobs(url: str) -> list[Any]:
    return list(httpx2.get(f"{url}/v1/jobs", timeout=30).json()["items"])


def test_both_products_from_an_empty_folder_without_a_network_through_a_restart(
    start: Start,
    wait_until: WaitUntil,
    children: Callable[[int, str], list[Any]],
    tmp_path: Path,
) -> None:
    service = start("up", "--port", "0", "--data", str(tmp_path / "new" / "data"), **NO_NETWORK)
    demo = Demo(service.url, tmp_path)
    try:
        wait_until(lambda: len(jobs(service.url)) == 2, "both jobs")
        (api,) = children(service.process.pid, "api")
        api.kill()
        psutil.wait_procs([api], timeout=30)
        told = demo.told()
    finally:
        demo.close()
    page = httpx2.get(told["page_url"], timeout=30)
    assert page.headers["content-type"].startswith("text/html")
    assert told["visualization"]["result"]["provider"] == "offline"
    deck = json.loads(example("deck.json").read_text())
    video = httpx2.get(told["video_url"], timeout=30)
    with av.open(BytesIO(video.content), "r") as container:
        assert container.duration is not None
        seconds = container.duration / av.time_base
    assert seconds == pytest.approx(told["presentation"]["result"]["duration"], rel=0.02)
    shown = httpx2.get(f"{service.url}/v1/presentations/{told['presentation']['id']}", timeout=30).json()
    assert len(shown["slides"]) == len(deck["slides"]) == 15
    assert len(jobs(service.url)) == 2
    part = httpx2.get(told["video_url"], headers={"Range": "bytes=100-199"}, timeout=30)
    assert (part.status_code, part.content) == (206, video.content[100:200])
    assert service.stop() == 0


def test_demo_says_when_nothing_answers(jobledger: Run) -> None:
    done = jobledger("demo", "--url", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "jobledger up" in done.stderr


def test_demo_says_what_failed(start: Start, tmp_path: Path, jobledger: Run) -> None:
    (tmp_path / "broken_handlers.py").write_text(BROKEN)
    service = start("up", "--port", "0", "--data", str(tmp_path / "data"), JOBLEDGER_HANDLERS="broken_handlers")
    done = jobledger("demo", "--url", service.url)
    assert done.returncode == 1
    assert f"page      {service.url}/v1/visualizations/" in done.stdout
    assert "video     failed: GiveUp: the projector is dark" in done.stdout


BROKEN = '''
"""A renderer that gives up at once."""

from typing import Any

from application.handlers import GiveUp, JobContext, handles


@handles("presentation")
async def present(job: JobContext, input: Any) -> None:
    raise GiveUp("the projector is dark")
'''

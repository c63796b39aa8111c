"""Slides become a video end to end, in Chromium too, and workers are killed in the middle of it."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import httpx2
import pytest
from msgspec.json import decode
from playwright.sync_api import sync_playwright

from tests.acceptance.test_first_light import events, job

Json = Any
Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]
DECK = Path(__file__).parents[2] / "examples" / "deck.json"
SLIDES = 15
PATIENT = {"heartbeat_timeout": 2, "retry": {"initial": 0}, "max_attempts": 10}
SEEK = """async second => {
    const video = document.querySelector("video");
    if (video.readyState < 1) await new Promise(done => video.onloadedmetadata = done);
    await new Promise(done => { video.onseeked = done; video.currentTime = second; });
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0);
    const footer = context.getImageData(0, canvas.height - 3, canvas.width, 1).data;
    let reached = 0;
    while (reached < canvas.width && footer[4 * reached] < 130) reached++;
    return {duration: video.duration, second: video.currentTime, reached: reached / canvas.width};
}"""
"""Shows the video at a moment, and reads in the line at the bottom how far the deck is."""


def submitted(url: str, **changes: Json) -> str:
    deck = {**decode(DECK.read_bytes()), "size": "720p", **changes}
    new = {"kind": "presentation", "input": deck, **PATIENT}
    answer = httpx2.post(f"{url}/v1/jobs", json=new, timeout=30).raise_for_status()
    return str(answer.json()["id"])


def shown(url: str, id: str) -> Json:
    return httpx2.get(f"{url}/v1/presentations/{id}", timeout=30).raise_for_status().json()


def said(url: str, id: str) -> list[str]:
    """Every message that was recorded, in order."""
    return [event["data"]["message"] for event in events(url, id) if event["data"].get("message")]


def drawn(url: str, id: str) -> Counter[int]:
    """How often each slide was drawn: one says so just before its image is saved, which is recorded in any case."""
    found = (re.fullmatch(r"slide (\d+) of \d+: drawn", message) for message in said(url, id))
    return Counter(int(match[1]) for match in found if match)


def steps(url: str, id: str) -> list[str]:
    return [event["data"]["step"] for event in events(url, id) if event["data"].get("output")]


def completed(url: str, id: str, wait_until: WaitUntil) -> Json:
    def ended() -> Json:
        found = job(url, id)
        assert found["status"] != "failed", found["error"]
        return found if found["status"] == "completed" else None

    return wait_until(ended, "the video")


@pytest.fixture
def server(start: Start, dsn: str) -> Any:
    return start("api", "--port", "0", DATABASE_URL=dsn)


def test_deck_becomes_a_video_that_chromium_plays_and_seeks(
    start: Start, server: Any, dsn: str, tmp_path: Path, wait_until: WaitUntil, chromium: str
) -> None:
    url = server.url
    start("worker", DATABASE_URL=dsn)
    deck = decode(DECK.read_bytes())
    answer = httpx2.post(f"{url}/v1/presentations", json={**deck, "size": "720p"}, timeout=30).raise_for_status()
    id = answer.json()["id"]
    completed(url, id, wait_until)
    view = shown(url, id)
    assert (view["status"], view["progress"], view["missing"]) == ("completed", 1.0, [])
    assert all(httpx2.get(url + slide["image_url"], timeout=30).content[1:4] == b"PNG" for slide in view["slides"])
    assert len(view["slides"]) == SLIDES
    assert httpx2.get(url + view["thumbnail_url"], timeout=30).headers["content-type"] == "image/jpeg"
    head = httpx2.get(url + view["video_url"], headers={"range": "bytes=0-7"}, timeout=30)
    assert (head.status_code, head.content[4:]) == (206, b"ftyp")
    assert head.headers["content-range"] == f"bytes 0-7/{view['size']}"
    assert head.headers["etag"] == f'"{view["sha256"]}"'
    with av.open(f"{url}{view['video_url']}") as container:
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(view["duration"], rel=0.02)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(bypass_csp=True)  # what is no page of ours shows no videos
        page.goto(f"{url}/livez")
        page.set_content(f'<video src="{url}{view["video_url"]}" muted preload="auto"></video>')
        for second, slide in ((1.0, 1), (view["duration"] - 1, SLIDES), (view["duration"] / 2, None)):
            found = page.evaluate(SEEK, second)
            assert found["duration"] == pytest.approx(view["duration"], rel=0.02)
            assert found["second"] == pytest.approx(second, abs=0.1)
            if slide is not None:
                assert found["reached"] == pytest.approx(slide / SLIDES, abs=0.01)
            else:
                assert 0.3 < found["reached"] < 0.7
        browser.close()


@pytest.mark.parametrize("remote", [False, True], ids=["with the database", "over HTTP"])
def test_a_worker_killed_again_and_again_draws_no_slide_twice(
    start: Start, server: Any, dsn: str, wait_until: WaitUntil, remote: bool
) -> None:
    """Killed while it draws, while it encodes and while it joins; what was under way is all that is done again."""
    url = server.url

    def another() -> Any:
        return start("worker", "--url", url) if remote else start("worker", DATABASE_URL=dsn)

    worker = another()
    id = submitted(url)
    moments: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: drawn(url, id)[3], "the third slide drawn"),
        (lambda: any(step == "segment-006" for step in steps(url, id)), "the sixth slide encoded"),
        (lambda: any(step == "slide-011" for step in steps(url, id)), "the eleventh slide drawn"),
    )
    for condition, what in moments:
        wait_until(condition, what)
        worker.kill()
        worker = another()
    done = completed(url, id, wait_until)
    kills = len(moments)
    assert done["attempt"] == kills + 1
    assert Counter(steps(url, id)) == Counter(
        [f"{part}-{n:03}" for n in range(1, SLIDES + 1) for part in ("slide", "segment")] + ["video"]
    )
    again = [slide for slide, times in drawn(url, id).items() if times > 1]
    assert sum(drawn(url, id).values()) <= SLIDES + kills
    assert len(again) <= kills
    assert set(drawn(url, id)) == set(range(1, SLIDES + 1))
    video = httpx2.get(url + shown(url, id)["video_url"], timeout=30)
    assert len(video.content) == shown(url, id)["size"]


def test_cancelled_in_the_middle_leaves_no_work_behind(
    start: Start, server: Any, dsn: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    url = server.url
    start("worker", DATABASE_URL=dsn, TMPDIR=str(tmp_path))
    id = submitted(url, slides=[{"title": f"Slide {n}", "seconds": 600} for n in range(1, 101)])
    wait_until(lambda: drawn(url, id)[2], "the second slide drawn")
    [base] = tmp_path.glob("jobledger-video-*")
    assert list(base.iterdir())
    httpx2.post(f"{url}/v1/jobs/{id}/cancellations", json={"reason": "no longer needed"}, timeout=30)
    wait_until(lambda: job(url, id)["status"] == "cancelled", "the end")
    wait_until(lambda: not list(base.iterdir()), "an empty folder")

"""Chromium opens a page as a reader would, tells what goes wrong, and leaves nothing behind."""

import asyncio
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import uvloop

from application.page import Opened
from infrastructure import chromium as module
from infrastructure.chromium import Chromium

PLAIN = "<!doctype html><title>x</title><p>x</p>"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles of this test's browsers are in a folder of its own: others may run, or have been killed, beside it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def opened(path: str, html: str) -> Opened:
    found = uvloop.run(Chromium(path).open(html))
    assert found is not None
    return found


def test_a_page_that_works_opens_without_findings(chromium: str) -> None:
    script = "document.querySelector('p').textContent = 'é'; console.log('fine'); requestAnimationFrame(() => {})"
    found = opened(chromium, f"{PLAIN}<script>{script}</script>")
    assert found.browser.startswith("Chrome/")
    assert found.findings == []


@pytest.mark.parametrize(
    ("markup", "finding"),
    [
        ("<script>nope()</script>", "line 1: ReferenceError: nope is not defined"),
        ("<script>\nlet a = ;</script>", "line 2: SyntaxError"),
        ("<script>setTimeout(() => { late() }, 100)</script>", "late is not defined"),
        ("<script>Promise.reject(new Error('unhandled'))</script>", "unhandled"),
        ("<script>console.error('on purpose', 5)</script>", "it logs an error: on purpose 5"),
        ("<script>localStorage.x = 1</script>", "SecurityError"),
        ("<img src='https://a.example/b.png'>", "https://a.example/b.png"),
        ("<script>fetch('https://a.example/').catch(() => {})</script>", "https://a.example/"),
        ("<script>location = 'https://a.example/'</script>", "it asks for https://a.example/"),
    ],
)
def test_what_goes_wrong_is_told(chromium: str, markup: str, finding: str) -> None:
    assert any(finding in found for found in opened(chromium, PLAIN + markup).findings)


def test_a_page_that_never_gets_ready_is_found_and_ended(
    chromium: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LOAD_SECONDS", 2.0)
    assert opened(chromium, PLAIN + "<script>while (true) {}</script>").findings == [
        "it is not ready 2 s after it was opened"
    ]
    assert left_behind(tmp_path) == []


def test_nothing_is_left_behind_also_when_it_is_cancelled(chromium: str, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        before, after = alone.submit(files_open_around, chromium, tmp_path).result(120)
    assert left_behind(tmp_path) == []
    assert list(tmp_path.glob("jobledger-page-*")) == []
    assert after <= before


def files_open_around(chromium: str, folder: Path) -> tuple[int, int]:
    """Open files before and after pages were opened, in a process in which nobody else opens any."""

    async def run() -> None:
        browser = Chromium(chromium)
        opening = asyncio.create_task(browser.open(PLAIN + "<script>while (true) {}</script>"))
        async with asyncio.timeout(60):
            while not left_behind(folder):  # noqa: ASYNC110  a process tells nobody that it is there
                await asyncio.sleep(0.05)
        opening.cancel()
        await asyncio.wait([opening], timeout=60)
        assert opening.cancelled()
        await asyncio.gather(*(browser.open(PLAIN) for _ in range(3)))

    tempfile.tempdir = str(folder)
    uvloop.run(asyncio.sleep(0))  # what loops share is made by the first
    before = len(list(Path("/proc/self/fd").iterdir()))
    uvloop.run(run())
    return before, len(list(Path("/proc/self/fd").iterdir()))


def test_the_loop_of_the_standard_library_will_do_too(chromium: str) -> None:
    for _ in range(3):
        assert asyncio.run(Chromium(chromium).open(PLAIN)) is not None


@pytest.mark.parametrize("path", [None, "/bin/false", "/bin/not-there"])
def test_without_a_browser_that_works_no_page_is_judged(path: str | None) -> None:
    assert uvloop.run(Chromium(path).open(PLAIN)) is None


def test_chromium_is_told_no_key(chromium: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    spy = tmp_path / "chromium"
    spy.write_text(f'#!/bin/sh\nenv > {tmp_path}/env\nexec {chromium} "$@"\n')
    spy.chmod(0o755)
    assert opened(str(spy), PLAIN).findings == []
    assert "sk-secret" not in (tmp_path / "env").read_text()


def left_behind(folder: Path) -> list[str]:
    """Processes of this test's browsers that are still there."""
    return [
        " ".join(process.cmdline()[:1])
        for process in psutil.process_iter()
        if alive(process) and any(f"{folder}/jobledger-page-" in word for word in command(process))
    ]


def command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False

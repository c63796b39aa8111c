"""Chromium, which opens a page as a reader would: alone, without a network, for a few seconds."""

import asyncio
import base64
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from application.page import PAGE_POLICY, Opened

log = structlog.get_logger()
Json = dict[str, Any]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADDRESS = "https://page.invalid/"
"""Where the page seems to be; what is asked for there never leaves the process."""
START_SECONDS = 30.0
LOAD_SECONDS = 20.0
SETTLE_MILLISECONDS = 500
"""How long a page that has loaded is watched."""
CLOSE_SECONDS = 5.0
AT_A_TIME = 2
LONGEST_MESSAGE = 16 * 1024 * 1024
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-breakpad",
    "--disable-sync",
    "--mute-audio",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
LAUNCHER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
"""Chromium reads its orders from descriptor 3 and answers on 4."""
REMOVALS = 40
"""Times to try to remove a profile, 50 ms apart."""
KEPT = ("PATH", "LANG", "TMPDIR")
"""What it is told of our environment, in which there may be keys."""


def find_chromium() -> str | None:
    """Where Chromium is on the PATH, under any of its names."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class ChromiumFailed(Exception):
    """Chromium did not start, or broke off; that is no fault of the page."""


class Refused(ChromiumFailed):
    """Chromium did not do as it was asked."""


class Chromium:
    """See the port, `application.page.Browser`. Each page has a browser of its own, two at a time."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._room = asyncio.Semaphore(AT_A_TIME)

    async def open(self, html: str) -> Opened | None:
        if self._path is None:
            return None
        async with self._room:
            try:
                return await _opened(self._path, html)
            except ChromiumFailed as failed:
                log.warning("chromium.failed", path=self._path, reason=str(failed))
                return None


async def _opened(path: str, html: str) -> Opened:
    async with _running(path) as line:
        async with _limit(START_SECONDS, "did not start"):
            version = await line.ask("Browser.getVersion")
            target = await line.ask("Target.createTarget", url="about:blank")
            session = await line.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        visit = _Visit(line, session["sessionId"], html)
        return Opened(str(version["product"]), await visit.findings())


class _Visit:
    """One page in one tab, and what it said."""

    def __init__(self, line: "_Line", session: str, html: str) -> None:
        self._line = line
        self._session = session
        self._html = html
        self._served = False
        self._found: list[str] = []
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def findings(self) -> list[str]:
        self._line.hear(self._session, self._heard)
        async with _limit(START_SECONDS, "does not open pages"):
            for domain in ("Runtime", "Log", "Page", "Inspector"):
                await self._ask(f"{domain}.enable")
            await self._ask("Fetch.enable", patterns=[{"urlPattern": "*"}])
        self._line.say("Page.navigate", self._session, url=ADDRESS)
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await self._line.while_alive(self._ready)
                await self._ask(
                    "Runtime.evaluate",
                    expression=f"new Promise(done => setTimeout(done, {SETTLE_MILLISECONDS}))",
                    awaitPromise=True,
                )
        except Refused:  # the tab has crashed or left the page, which is told already
            pass
        except TimeoutError:
            self._found.append(f"it is not ready {LOAD_SECONDS:g} s after it was opened")
        return list(dict.fromkeys(self._found))

    async def _ask(self, method: str, **parameters: Any) -> Json:
        return await self._line.ask(method, self._session, **parameters)

    def _heard(self, method: str, said: Json) -> None:
        match method:
            case "Fetch.requestPaused":
                self._answer(said["requestId"], said["request"]["url"])
            case "Runtime.exceptionThrown":
                self._found.append(f"in the browser: {_exception(said['exceptionDetails'])}")
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "assert"):
                self._found.append(f"in the browser: it logs an error: {_logged(said['args'])}")
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self._found.append(f"in the browser: {said['entry']['text']}")
            case "Inspector.targetCrashed":
                self._found.append("in the browser: it crashes the tab")
                self._loaded()
            case "Page.loadEventFired":
                self._loaded()

    def _answer(self, request: str, url: str) -> None:
        """Serve the page, once; whatever else is asked for is refused, and told."""
        if url == ADDRESS and not self._served:
            self._served = True
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": PAGE_POLICY}
            self._line.say(
                "Fetch.fulfillRequest",
                self._session,
                requestId=request,
                responseCode=200,
                responseHeaders=[{"name": name, "value": value} for name, value in headers.items()],
                body=base64.b64encode(self._html.encode()).decode(),
            )
            return
        self._line.say("Fetch.failRequest", self._session, requestId=request, errorReason="BlockedByClient")
        self._found.append(f"in the browser: it asks for {url}")

    def _loaded(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)


class _Line:
    """The DevTools protocol over a pair of pipes: JSON, each message ended by a NUL."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Json]] = {}
        self._last = 0
        self._ears: dict[str, Callable[[str, Json], None]] = {}
        self.reading = asyncio.create_task(self._read(reader))

    def hear(self, session: str, ear: Callable[[str, Json], None]) -> None:
        self._ears[session] = ear

    def say(self, method: str, session: str | None = None, **parameters: Any) -> int:
        self._last += 1
        to = {} if session is None else {"sessionId": session}
        self._writer.write(
            json.dumps({"id": self._last, "method": method, "params": parameters, **to}).encode() + b"\0"
        )
        return self._last

    async def ask(self, method: str, session: str | None = None, **parameters: Any) -> Json:
        """Its answer. Raises ChromiumFailed for a refusal, and when it is gone."""
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        number = self.say(method, session, **parameters)
        self._asked[number] = answer
        await self.while_alive(answer)
        said = answer.result()
        if "error" in said:
            raise Refused(f"{method}: {said['error'].get('message')}")
        result: Json = said["result"]
        return result

    async def while_alive(self, wanted: "asyncio.Future[Any]") -> None:
        """Wait for it. Raises ChromiumFailed when the other end is gone before."""
        await asyncio.wait([wanted, self.reading], return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise ChromiumFailed("it ended")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            while True:
                said = json.loads((await reader.readuntil(b"\0"))[:-1])
                if (answer := self._asked.pop(said.get("id"), None)) is not None and not answer.done():
                    answer.set_result(said)
                elif (ear := self._ears.get(said.get("sessionId", ""))) is not None and "method" in said:
                    ear(said["method"], said["params"])


@asynccontextmanager
async def _running(path: str) -> AsyncIterator[_Line]:
    """A Chromium with a profile of its own; ended, with all that it started, and its profile removed, in any case."""
    with tempfile.TemporaryDirectory(prefix="jobledger-page-", ignore_cleanup_errors=True) as home:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-I", "-S", "-c", LAUNCHER, str(theirs_in), str(theirs_out), path, *FLAGS],
                *["--no-sandbox"] * (os.geteuid() == 0),
                f"--user-data-dir={home}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs_in, theirs_out],
                env={"HOME": home, **{name: os.environ[name] for name in KEPT if name in os.environ}},
                start_new_session=True,
            )
        except BaseException as error:
            os.close(ours_in)
            os.close(ours_out)
            if isinstance(error, OSError):
                raise ChromiumFailed(str(error)) from error
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        try:
            async with _line(ours_in, ours_out) as line:
                yield line
                line.say("Browser.close")
                await asyncio.wait([line.reading], timeout=CLOSE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await asyncio.to_thread(_remove, Path(home))


def _remove(home: Path) -> None:
    """Its children die a little after it, and may write until then."""
    for _ in range(REMOVALS):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return
        time.sleep(0.05)


@asynccontextmanager
async def _line(ours_in: int, ours_out: int) -> AsyncIterator[_Line]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(LONGEST_MESSAGE)
    heard, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb"))
    said, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(ours_out, "wb"))
    line = _Line(reader, said)
    try:
        yield line
    finally:
        line.reading.cancel()
        await asyncio.wait([line.reading])
        if not said.is_closing():
            said.abort()
        heard.close()


@asynccontextmanager
async def _limit(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ChromiumFailed(f"it {what} within {seconds:g} s") from None


def _exception(details: Json) -> str:
    said = details.get("exception", {}).get("description") or details["text"]
    return f"line {details['lineNumber'] + 1}: {str(said).partition(chr(10))[0]}"


def _logged(arguments: list[Json]) -> str:
    return " ".join(str(argument.get("value", argument.get("description", ""))) for argument in arguments)

"""The processes of plain handlers, started when first needed and replaced when they die."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from msgspec import Raw

from application.ends import End
from application.plain import LENGTH_BYTES, Answer, Begin, Ended, FromHandler, FromWorker, Keep, Move, Read, Save, Stop
from application.record import Kept
from application.reports import ReportedError
from domain.events import Artifact
from domain.refusals import JobFinished, LeaseLost

log = structlog.get_logger()
ASKED_SECONDS = 5.0
"""What a handler that is asked to stop is given before its process is killed."""
LAST_WORDS_SECONDS = 1.0
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from application.plain import main; "
    "main(int(sys.argv[2]))"
)


class Recorder(Protocol):
    """What a handler's process asks of its worker: see `application.context.Context`."""

    def move(self, fraction: float, message: str | None) -> None: ...

    async def keep(self, kept: Kept, name: str, output: Raw, seconds: float) -> None: ...

    async def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact: ...

    async def read_artifact(self, artifact: Artifact) -> bytes: ...


class ProcessDied(Exception):
    """A handler's process came to its end before the handler did."""

    def __init__(self, status: int) -> None:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        if status == -signal.SIGKILL:
            how += ", which the kernel sends when memory runs out"
        super().__init__(f"the process of the handler {how}")


class Process:
    """One process, and the worker's end of its line."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._exited = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls) -> "Process":
        """A new interpreter, which inherits nothing but its end of the line."""
        ours, theirs = socket.socketpair()
        program = [sys.executable, "-c", PROGRAM, json.dumps(sys.path), str(theirs.fileno())]
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *program, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # a process that was begun ends when it finds its line closed
            raise
        log.debug("process.started", pid=process.pid)
        return cls(process, reader, writer)

    @property
    def alive(self) -> bool:
        return not self._exited.done()

    async def run(self, begin: Begin, recorder: Recorder, grace: Callable[[], float]) -> End | None:
        """How the handler ended; None when it stopped. Raises ProcessDied, LeaseLost or JobFinished.

        When this is cancelled the handler is asked to stop, and its process killed when it has not after `grace()`.
        """
        self._send(begin)
        serving = asyncio.create_task(self._serve(recorder))
        ended = False
        try:
            await asyncio.wait([serving, self._exited], return_when=asyncio.FIRST_COMPLETED)
            if self._exited.done():  # and a process that it left behind may hold the line open
                await asyncio.wait([serving], timeout=LAST_WORDS_SECONDS)
            ended = serving.done() and serving.exception() is None
            if self._exited.done() and not ended:
                raise ProcessDied(self._exited.result())
            return await serving
        except (EOFError, ConnectionError):
            await asyncio.wait([self._exited], timeout=LAST_WORDS_SECONDS)
            await self.kill()
            raise ProcessDied(self._exited.result()) from None
        finally:
            if not ended:
                await self._stop(serving, grace())

    async def end(self) -> None:
        """Let it end by itself, which it does when its line is closed; kill it when it does not."""
        self._writer.close()
        await asyncio.wait([self._exited], timeout=LAST_WORDS_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                self._process.kill()
        await asyncio.wait([self._exited])
        self._writer.close()

    async def _serve(self, recorder: Recorder) -> End | None:
        """Do what the handler asks for, until it ends. Raises EOFError when its process does."""
        while True:
            match await self._hear():
                case Ended(report):
                    return report
                case Move(fraction, message):
                    recorder.move(fraction, message)
                case word:
                    self._send(await self._answer(word, recorder))

    async def _answer(self, word: Keep | Save | Read, recorder: Recorder) -> Answer:
        try:
            if isinstance(word, Keep):
                await recorder.keep(word.kept, word.name, word.value, word.seconds)
                return Answer()
            if isinstance(word, Read):
                return Answer(content=await recorder.read_artifact(word.artifact))
            content = word.content if word.path is None else Path(word.path)
            return Answer(artifact=await recorder.save_artifact(word.name, content, word.media_type))
        except (LeaseLost, JobFinished):
            raise
        except Exception as error:
            return Answer(error=ReportedError(type=type(error).__name__, message=str(error)[:2000]))

    async def _stop(self, serving: "asyncio.Task[End | None]", grace: float) -> None:
        """Ask the handler to stop, hear what it has to record, and kill its process when it does not stop in time."""
        try:
            if self.alive and not serving.done():
                self._send(Stop())
                await asyncio.wait([serving], timeout=grace)
        finally:
            if not serving.done() or serving.cancelled() or serving.exception() is not None:
                serving.cancel()
                await self.kill()

    def _send(self, word: FromWorker) -> None:
        said = msgspec.json.encode(word)
        self._writer.write(len(said).to_bytes(LENGTH_BYTES, "big") + said)

    async def _hear(self) -> FromHandler:
        length = await self._reader.readexactly(LENGTH_BYTES)
        said = await self._reader.readexactly(int.from_bytes(length, "big"))
        word: FromHandler = msgspec.json.decode(said, type=FromHandler)
        return word


class Processes:
    """Hands one of up to `size` processes to one handler at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._room = asyncio.Semaphore(size)
        self._idle: list[Process] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Process]:
        """A process, once one is free."""
        async with self._room:
            self._idle = [process for process in self._idle if process.alive]
            process = self._idle.pop() if self._idle else await Process.start()
            try:
                yield process
            finally:
                if process.alive:
                    self._idle.append(process)

    async def close(self) -> None:
        """End the processes; nobody uses them any more."""
        while self._idle:
            await self._idle.pop().end()

"""The process that runs plain handlers, one at a time, and the words it exchanges with its worker over a socket."""

import importlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from application.claims import ClaimedJob
from application.ends import End, completed, failure, given, raised
from application.handlers import Handler, Stopped, handler_for
from application.record import Kept, Record, inside
from application.reports import CompletionReport, FailureReport, ReportedError
from domain.events import Artifact

T = TypeVar("T")
LENGTH_BYTES = 4


class Begin(Struct, frozen=True, tag=True):
    """Run the handler at `address`, as `module:name`."""

    job: ClaimedJob
    address: str
    retired: list[str]


class Stop(Struct, frozen=True, tag=True):
    """The handler is to stop."""


class Answer(Struct, frozen=True, tag=True):
    """To Keep, Save and Read: it is done, or why not."""

    artifact: Artifact | None = None
    content: bytes = b""
    error: ReportedError | None = None


class Move(Struct, frozen=True, tag=True):
    """Progress; it is not answered."""

    fraction: float
    message: str | None


class Keep(Struct, frozen=True, tag=True):
    """Record the output of a step, or the handle of a submission, which took so many seconds."""

    kept: Kept
    name: str
    value: Raw
    seconds: float


class Save(Struct, frozen=True, tag=True):
    """Save a file of the job, from bytes or from a path."""

    name: str
    content: bytes
    path: str | None
    media_type: str


class Read(Struct, frozen=True, tag=True):
    """Hand over the content of a file of the job."""

    artifact: Artifact


class Ended(Struct, frozen=True, tag=True):
    """The handler has ended; without a report because it was told to stop."""

    report: CompletionReport | FailureReport | None


FromWorker: TypeAlias = Begin | Stop | Answer
FromHandler: TypeAlias = Move | Keep | Save | Read | Ended


class NotDone(Exception):
    """What the worker was asked to record failed there, with an error of this type."""

    def __init__(self, error: ReportedError) -> None:
        super().__init__(error.message)
        self.type = error.type


class Line:
    """The handler's end of the socket. A thread reads it, so that a handler at work hears that it is to stop."""

    def __init__(self, end: socket.socket) -> None:
        self.stop = threading.Event()
        self.heard: queue.SimpleQueue[Begin | Answer] = queue.SimpleQueue()
        self._end = end
        self._speaking = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, word: FromHandler) -> None:
        said = msgspec.json.encode(word)
        with self._speaking:
            self._end.sendall(len(said).to_bytes(LENGTH_BYTES, "big") + said)

    def ask(self, word: Keep | Save | Read) -> Answer:
        self.send(word)
        return cast(Answer, self.heard.get())

    def _listen(self) -> None:
        try:
            self._hear()
        finally:
            os._exit(1)  # the worker is gone, whether it hung up or was killed amid a word, and with it the lease

    def _hear(self) -> None:
        """Take up what the worker says, until it hangs up."""
        decode = msgspec.json.Decoder(FromWorker).decode
        words = self._end.makefile("rb")
        while len(length := words.read(LENGTH_BYTES)) == LENGTH_BYTES:
            word = decode(words.read(int.from_bytes(length, "big")))
            if isinstance(word, Stop):
                self.stop.set()
            else:
                if isinstance(word, Begin):
                    self.stop.clear()
                self.heard.put(word)


class PlainContext:
    """See `application.handlers.PlainJobContext`."""

    def __init__(self, line: Line, job: ClaimedJob) -> None:
        self.record = Record(job)
        self._line = line
        self._job = job

    @property
    def id(self) -> UUID:
        return self._job.id

    @property
    def attempt(self) -> int:
        return self._job.attempt

    @property
    def cancelled(self) -> bool:
        return self._line.stop.is_set()

    def step(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        value: T = self._once("step", name, fn, lambda: fn(*args))
        return value

    def submit(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        value: T = self._once("handle", name, fn, lambda: fn(*args, idempotency_key=f"{self.id}:{name}"))
        return value

    def progress(self, fraction: float, message: str | None = None) -> None:
        self._go_on()
        self._line.send(Move(fraction, message))

    def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact:
        self._go_on()
        path = str(content.absolute()) if isinstance(content, Path) else None
        saved = self._ask(Save(name, b"" if isinstance(content, Path) else content, path, media_type))
        return cast(Artifact, saved.artifact)

    def read_artifact(self, artifact: Artifact) -> bytes:
        self._go_on()
        return self._ask(Read(artifact)).content

    def _once(self, kept: Kept, name: str, fn: Callable[..., Any], call: Callable[[], Any]) -> Any:
        self._go_on()
        if not self.record.ask(kept, name):
            begun = time.monotonic()
            with inside(name):
                value = self.record.written(kept, name, call())
            took = time.monotonic() - begun
            self._ask(Keep(kept, name, value, took))  # although it may be told to stop by now: what is done is kept
            self.record.keep(kept, name, value)
        return self.record.read(kept, name, fn)

    def _ask(self, word: Keep | Save | Read) -> Answer:
        answer = self._line.ask(word)
        if answer.error is not None:
            raise NotDone(answer.error)
        return answer

    def _go_on(self) -> None:
        if self.cancelled:
            raise Stopped


def main(descriptor: int) -> None:
    """Run one handler after the other, until the worker closes the line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _left_to_the_worker)
    os.set_inheritable(descriptor, False)
    line = Line(socket.socket(fileno=descriptor))
    while True:
        line.send(Ended(_run(line, cast(Begin, line.heard.get()))))


def _run(line: Line, begin: Begin) -> End | None:
    job = begin.job
    try:
        handler = _handler(begin)
    except Exception as error:
        return failure(job, "not-importable", f"the process of plain handlers cannot import {begin.address}: {error}")
    context = PlainContext(line, job)
    try:
        return completed(job, handler, context, handler.run(context, given(handler, job)))
    except Stopped:
        return None
    except NotDone as error:
        return failure(job, error.type, str(error))
    except BaseException as error:  # SystemExit too: it ends the attempt, not the process
        return raised(job, error)


def _handler(begin: Begin) -> Handler:
    module, name = begin.address.split(":")
    run = attrgetter(name)(importlib.import_module(module))
    return handler_for(begin.job.kind, run, retired=begin.retired)


def _left_to_the_worker(number: int, frame: object) -> None:
    """A signal to the whole group, such as Ctrl-C: the worker lets handlers end, or stops them."""

"""Handlers: the functions that do a job's work, registered by kind, and what they are given."""

import inspect
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints
from uuid import UUID

import msgspec
from msgspec import Raw

from domain.events import Artifact as Artifact

T = TypeVar("T")
MAX_OUTPUT = 256 * 1024
"""Bytes of JSON a job's input, result or step output may have; what is larger belongs in an artifact."""


class GiveUp(Exception):
    """Raised by a handler when trying again cannot help: the job fails for good."""


class RetryLater(Exception):
    """Raised by a handler to fail this attempt and be tried again after `delay` seconds."""

    def __init__(self, delay: float, reason: str = "asked to be tried later") -> None:
        super().__init__(reason)
        self.delay = delay


class JobContext(Protocol):
    """The job as its handler sees it."""

    @property
    def id(self) -> UUID: ...

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the job to be cancelled.

        A handler is stopped by CancelledError then, and also when its worker stops or has lost the lease: this tells
        when to withdraw what was ordered elsewhere.
        """
        ...

    async def step(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `await fn(*args)` once in the job's life and record what it returns under `name`.

        A later attempt is handed the recorded value, read back as the type `fn` is annotated to return, and
        `fn` is not called. Steps may run side by side, but not inside each other. Refuses, by `GiveUp`, a result
        over 256 KiB: save an artifact, return its reference.
        """
        ...

    async def submit(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Order something of an outside system once: `await fn(*args, idempotency_key=key)`.

        What `fn` returns, the order's id there, is recorded as the handle of `name` before anything waits on it; a
        later attempt is handed it and orders nothing. The key is `<job id>:<name>`, always the same: an attempt
        that dies between the order and its record is followed by one that sends the order again, which a system
        that honours the key answers with the first one's id.
        """
        ...

    async def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the work is, 0..1. Progress never falls; a lower fraction keeps the higher one.

        Returns at once. At most two a second are recorded, the last in any case.
        """
        ...

    async def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact:
        """Store `content`, or that of the file at a path, up to 5 GiB, and record it as the job's file `name`."""
        ...

    async def read_artifact(self, artifact: Artifact) -> bytes:
        """The content of a file that the job has saved, all of it in memory."""
        ...


class Stopped(BaseException):
    """Raised in a plain handler, at its next call of `job`, when it is to stop; not to be caught for long."""


class PlainJobContext(Protocol):
    """The job as a plain handler sees it, in a process of its own: as `JobContext`, without await."""

    @property
    def id(self) -> UUID: ...

    @property
    def attempt(self) -> int: ...

    @property
    def cancelled(self) -> bool:
        """Whether the handler is to stop; one that goes on regardless is ended, with its process, 5 s later."""
        ...

    def step(self, name: str, fn: Callable[..., T], *args: Any) -> T: ...

    def submit(self, name: str, fn: Callable[..., T], *args: Any) -> T: ...

    def progress(self, fraction: float, message: str | None = None) -> None: ...

    def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact: ...

    def read_artifact(self, artifact: Artifact) -> bytes: ...


Handle = Callable[[JobContext, Any], Awaitable[Any]]
PlainHandle = Callable[[PlainJobContext, Any], Any]
H = TypeVar("H", bound=Callable[..., Any])


class Handler(msgspec.Struct, frozen=True):
    """The function for a kind, and the types of what it takes and returns, read from its annotations.

    `read` makes the input of its JSON: a decoder made once, since making one for each job costs more than the reading.
    `plain` is where a plain function is found by the process it runs in, as `module:name`; None for an async one.
    `retired` are steps of earlier releases that it no longer asks for. A kind whose inputs call for different handlers
    has one that only chooses among them: `choose` names it by the input.
    """

    kind: str
    run: Callable[..., Any]
    input_type: Any
    result_type: Any
    read: Callable[[Raw], Any]
    plain: str | None = None
    retired: frozenset[str] = frozenset()
    choose: "Callable[[Any], Handler] | None" = None


registry: dict[str, Handler] = {}
"""The handlers of the modules imported so far, by kind."""


def handles(kind: str, *, retired: Collection[str] = ()) -> Callable[[H], H]:
    """Register `async def handler(job: JobContext, input: Input) -> Result` for jobs of `kind`.

    A plain `def handler(job: PlainJobContext, input: Input) -> Result` is run in a process of its own, so that it
    may use the processor for as long as it likes. `Input` and `Result` may be any type msgspec can read; input that
    does not fit fails the job for good with the field named. `retired` names steps that earlier releases recorded
    and this one has dropped; any other step that is on record and not asked for fails the job. Raises TypeError
    for a function whose input is not annotated, or a plain one that another process cannot import by name, and
    ValueError when the kind already has a handler.
    """

    def register(run: H) -> H:
        handler = handler_for(kind, run, retired=retired)
        if kind in registry and registry[kind].run is not run:
            raise ValueError(f"kind {kind!r} already has a handler")
        registry[kind] = handler
        return run

    return register


def handler_for(kind: str, run: Handle | PlainHandle, *, retired: Collection[str] = ()) -> Handler:
    """The handler that `run` is for `kind`. Raises TypeError as `handles` does."""
    if not inspect.isroutine(run) or inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        raise TypeError(f"the handler for {kind!r} must be an async or a plain function")
    hints = get_type_hints(run)
    parameters = list(inspect.signature(run).parameters)
    if len(parameters) != 2 or parameters[1] not in hints:
        raise TypeError(f"the handler for {kind!r} must take (job, input: SomeType)")
    plain = None if inspect.iscoroutinefunction(run) else _address(kind, run)
    input_type: Any = hints[parameters[1]]
    read = msgspec.json.Decoder(input_type).decode
    return Handler(kind, run, input_type, hints.get("return", Any), read, plain, frozenset(retired))


def _address(kind: str, run: PlainHandle) -> str:
    """Where another process finds it. Raises TypeError when it cannot."""
    module, name = getattr(run, "__module__", None), getattr(run, "__qualname__", "<nothing>")
    if not module or module == "__main__" or "<" in name:
        raise TypeError(
            f"the plain handler for {kind!r} runs in a process of its own, which cannot import {module}:{name}; "
            "define it with `def` at the top level of a module other than __main__, or make it async"
        )
    return f"{module}:{name}"

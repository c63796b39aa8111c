"""Handlers: the functions that do a job's work, registered by kind, and what they are given."""

import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints
from uuid import UUID

import msgspec

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

    async def step(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `await fn(*args)` once in the job's life and record what it returns under `name`.

        A later attempt is handed the recorded value, read back as the type `fn` is annotated to return, and
        `fn` is not called. Refuses, by `GiveUp`, a result over 256 KiB: save an artifact, return its reference.
        """
        ...

    async def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the work is, 0..1. Progress never falls; a lower fraction keeps the higher one."""
        ...

    async def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact:
        """Store `content`, or that of the file at a path, up to 5 GiB, and record it as the job's file `name`."""
        ...


Handle = Callable[[JobContext, Any], Awaitable[Any]]


class Handler(msgspec.Struct, frozen=True):
    """The function for a kind, and the types of what it takes and returns, read from its annotations."""

    kind: str
    run: Handle
    input_type: Any
    result_type: Any


registry: dict[str, Handler] = {}
"""The handlers of the modules imported so far, by kind."""


def handles(kind: str) -> Callable[[Handle], Handle]:
    """Register an `async def handler(job: JobContext, input: Input) -> Result` for jobs of `kind`.

    `Input` and `Result` may be any type msgspec can read; input that does not fit fails the job for good with the
    field named. Raises TypeError for a function that is not async or whose input is not annotated, and
    ValueError when the kind already has a handler.
    """

    def register(run: Handle) -> Handle:
        handler = handler_for(kind, run)
        if kind in registry and registry[kind].run is not run:
            raise ValueError(f"kind {kind!r} already has a handler")
        registry[kind] = handler
        return run

    return register


def handler_for(kind: str, run: Handle) -> Handler:
    """The handler that `run` is for `kind`. Raises TypeError as `handles` does."""
    if not inspect.iscoroutinefunction(run):
        raise TypeError(f"the handler for {kind!r} must be an async function")
    hints = get_type_hints(run)
    parameters = list(inspect.signature(run).parameters)
    if len(parameters) != 2 or parameters[1] not in hints:
        raise TypeError(f"the handler for {kind!r} must take (job, input: SomeType)")
    return Handler(kind, run, hints[parameters[1]], hints.get("return", Any))

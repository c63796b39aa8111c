"""A job in memory, for the renderer that draws on this machine: its steps are kept as JSON, its files as bytes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints
from uuid import UUID

import msgspec

from application.handlers import Artifact

T = TypeVar("T")


class Killed(BaseException):
    """The plug is pulled."""


class RecordedJob:
    """Each attempt goes on with what those before it have recorded; `killed_at` pulls the plug in one."""

    id = UUID("019371a0-0000-7000-8000-000000000002")
    cancelled = False

    def __init__(self) -> None:
        self.attempt = 1
        self.steps: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.said: list[tuple[float, str]] = []
        self.killed_at: Callable[[str], bool] = lambda message: False

    def step(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        if name not in self.steps:
            self.steps[name] = msgspec.json.encode(fn(*args))
        output: T = msgspec.json.decode(self.steps[name], type=get_type_hints(fn)["return"])
        return output

    def submit(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        raise AssertionError("nothing is ordered elsewhere")

    def progress(self, fraction: float, message: str | None = None) -> None:
        self.said.append((fraction, message or ""))
        if self.killed_at(message or ""):
            raise Killed

    def save_artifact(self, name: str, content: bytes | Path, media_type: str) -> Artifact:
        read = content if isinstance(content, bytes) else content.read_bytes()
        self.files[name] = read
        return Artifact(name=name, sha256=hashlib.sha256(read).hexdigest(), size=len(read), media_type=media_type)

    def read_artifact(self, artifact: Artifact) -> bytes:
        content = self.files[artifact.name]
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
        return content

    def drawn(self) -> list[int]:
        """The slides that were drawn, in order."""
        return [int(message.split()[1]) for _, message in self.said if message.endswith("drawn")]

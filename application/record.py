"""What a job has on record: the outputs of its steps, the handles of its submissions, and which were asked for."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, TypeAlias, get_type_hints

import msgspec
from msgspec import Raw

from application.claims import ClaimedJob
from application.handlers import MAX_OUTPUT, GiveUp

Kept: TypeAlias = Literal["step", "handle"]
_inside: ContextVar[str | None] = ContextVar("inside", default=None)


class Record:
    """What one attempt finds on record and adds to it."""

    __slots__ = ("_asked", "_values")

    def __init__(self, job: ClaimedJob) -> None:
        self._values: dict[Kept, dict[str, Raw]] = {"step": job.steps, "handle": job.handles}
        self._asked: set[tuple[Kept, str]] = set()

    def ask(self, kept: Kept, name: str) -> bool:
        """Whether it is on record. Refuses, by GiveUp, what is asked for inside a step: that is hidden once it is."""
        if (step := _inside.get()) is not None:
            raise GiveUp(
                f"{kept} {name!r} is asked for inside {step!r}; once that is on record its function is not called "
                "again, and nobody would ask: the handler itself must"
            )
        self._asked.add((kept, name))
        return name in self._values[kept]

    @staticmethod
    def written(kept: Kept, name: str, value: Any) -> Raw:
        """A value as it is recorded. Refuses, by GiveUp, one that is too large."""
        output = msgspec.json.encode(value)
        if len(output) > MAX_OUTPUT:
            raise GiveUp(
                f"the result of {kept} {name!r} has {len(output)} bytes, and at most {MAX_OUTPUT} are recorded; "
                "save it as an artifact and return its reference"
            )
        return Raw(output)

    def keep(self, kept: Kept, name: str, value: Raw) -> None:
        self._values[kept][name] = value

    def read(self, kept: Kept, name: str, fn: Callable[..., Any]) -> Any:
        """The value as the type that `fn` returns. Refuses, by GiveUp, one that no longer fits."""
        try:
            return msgspec.json.decode(self._values[kept][name], type=_return_type(fn))
        except msgspec.ValidationError as error:
            raise GiveUp(
                f"what {kept} {name!r} has on record is not what its function returns: {error}; "
                f"was the {kept}'s type changed?"
            ) from error

    def unasked(self, retired: Collection[str]) -> list[str]:
        """What earlier attempts recorded and this one never asked for, as `step 'name'`."""
        return [
            f"{kept} {name!r}"
            for kept, values in self._values.items()
            for name in values
            if (kept, name) not in self._asked and name not in retired
        ]


@contextmanager
def inside(name: str) -> Iterator[None]:
    """While the function of a step or submission runs."""
    token = _inside.set(name)
    try:
        yield
    finally:
        _inside.reset(token)


def _return_type(fn: Callable[..., Any]) -> Any:
    while isinstance(fn, partial):
        fn = fn.func
    try:
        return get_type_hints(fn).get("return", Any)
    except (TypeError, NameError):
        return Any

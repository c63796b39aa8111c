"""Waiting for what must come, with a bound."""

import time
from collections.abc import Callable

PAUSE = 0.01


def eventually(condition: Callable[[], object], seconds: float = 20.0, what: str = "it") -> None:
    """Wait until `condition` holds; fails when it does not within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not come about within {seconds:g} s"
        time.sleep(PAUSE)

"""The meter: how many jobs end in a second, and when that is as before again."""

import threading
import time
from bisect import bisect_left

PAUSE = 0.05
WINDOW = 2.0
"""Seconds over which throughput must be as before to count as recovered."""


class Meter:
    """Counts what callers were told has ended. Safe to share between threads."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._lock = threading.Lock()

    def count(self) -> None:
        with self._lock:
            self._ends.append(time.monotonic())

    def rate(self, begin: float, end: float) -> float:
        """Jobs a second between two moments."""
        with self._lock:
            return (bisect_left(self._ends, end) - bisect_left(self._ends, begin)) / max(end - begin, 0.001)

    def wait_for(self, rate: float, since: float, patience: float) -> float | None:
        """Seconds from `since` until throughput is `rate` for a while; None when it is not in time."""
        begin = since
        while begin - since < patience:
            if time.monotonic() < begin + WINDOW:
                time.sleep(PAUSE)
            elif self.rate(begin, begin + WINDOW) >= rate:
                return begin - since
            else:
                begin += PAUSE
        return None

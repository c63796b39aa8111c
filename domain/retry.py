"""When a failed attempt is tried again: exponential backoff with full jitter, as pure arithmetic."""

from msgspec import Struct


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """`initial` and `max` in seconds; each failure multiplies the ceiling by `factor`, up to `max`."""

    initial: float = 1.0
    factor: float = 2.0
    max: float = 3600.0

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds to wait after the `failures`-th failure of a round, for a `jitter` drawn evenly from 0..1.

        Full jitter: jitter * min(max, initial * factor ** (failures - 1)), after M. Brooker, "Exponential Backoff
        and Jitter" (AWS Architecture Blog, 2015).
        """
        try:
            ceiling = self.initial * self.factor ** (failures - 1)
        except OverflowError:
            ceiling = self.max if self.initial else 0.0
        return jitter * min(self.max, ceiling)

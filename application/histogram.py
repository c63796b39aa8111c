"""Histograms of durations that can be added up: percentiles of any window are true to within 5 %.

Bucket n holds what lasted at most 1.1^n ms, and longer than 1.1^(n-1) ms; bucket 0 what lasted at most a millisecond.
A percentile is told as the geometric middle of its bucket, which is off by a factor of at most the square root of 1.1.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import TypeAlias

BASE = 1.1
BOUNDS = tuple(round(1000 * BASE**n) for n in range(240))
"""The upper ends of the buckets, in microseconds; the last one is 90 days, and holds all that is longer."""
Histogram: TypeAlias = dict[int, int]
"""Counts by bucket, without those that are zero."""


def observe(histogram: Histogram, microseconds: int) -> None:
    bucket = min(bisect_left(BOUNDS, microseconds), len(BOUNDS) - 1)
    histogram[bucket] = histogram.get(bucket, 0) + 1


def histogram(stored: Mapping[str, int]) -> Histogram:
    """As it is kept in JSON, whose names are text."""
    return {int(bucket): count for bucket, count in stored.items()}


def percentile(histogram: Mapping[int, int], share: float) -> float | None:
    """The duration, in seconds, that a share of those observed did not exceed; None without any."""
    wanted = share * sum(histogram.values())
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= wanted:
            return float(round(BOUNDS[bucket] / BASE**0.5 / 1e6, 6))
    return None

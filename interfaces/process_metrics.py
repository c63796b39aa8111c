"""What a process measures itself, for Prometheus."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
EVENTS = (1, 3, 10, 30, 100, 300, 1_000, 3_000)


class Metrics:
    """What is measured on the disk of the data folder, and of the batches that this process records."""

    def __init__(self, data: Path) -> None:
        self.disk = CollectorRegistry()
        self.disk.register(_Disk(data))
        self.appends = CollectorRegistry()
        self._seconds = Histogram(
            "jobledger_append_seconds",
            "From sending a batch to the database to its commit, in this process",
            buckets=SECONDS,
            registry=self.appends,
        )
        self._events = Histogram(
            "jobledger_append_events", "Events of a batch, in this process", buckets=EVENTS, registry=self.appends
        )

    def appended(self, events: int, seconds: float) -> None:
        """A batch was recorded."""
        self._events.observe(events)
        self._seconds.observe(seconds)


class _Disk(Collector):
    """The file system of the data folder: the embedded server, artifacts and uploads may be there."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def collect(self) -> Iterator[Metric]:
        there = next(folder for folder in (self._data, *self._data.parents) if folder.exists())
        usage = shutil.disk_usage(there)
        yield GaugeMetricFamily("jobledger_disk_bytes", "Size of the data folder's file system", value=usage.total)
        yield GaugeMetricFamily("jobledger_disk_free_bytes", "What is free there", value=usage.free)

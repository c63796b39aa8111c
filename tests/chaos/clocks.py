"""The clock of a process, which jumps: Debian's libfaketime, preloaded."""

from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class Clock:
    """What the processes that have `environment` take for the time of day; the time that only rises is left alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set("+0")

    @property
    def environment(self) -> dict[str, str]:
        if LIBRARY is None:
            return {}
        return {
            "PYTHONPATH": f"{HERE / 'clocked'}:{HERE.parents[1]}",
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: str) -> None:
        """Be off by so much, such as `+1h` or `-30s`, within a second."""
        following = self._file.with_suffix(".next")
        following.write_text(f"{offset}\n")
        following.replace(self._file)

"""A small disk of the test's own, which can be filled."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 60.0
MIB = 1024 * 1024


class Disk:
    """A file with a file system of its own, mounted at `folder`. Only root may, and not in every container."""

    def __init__(self, folder: Path, size: int) -> None:
        """`size`: in MiB."""
        self.folder = folder
        self._size = size
        self._image = folder.with_suffix(".img")
        self._filler = folder / "filler"
        self.mounted = False
        """Whether it is a disk at all; else it is a folder like any other."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(self._size * MIB)
        commands = (
            ["mkfs.ext4", "-q", "-m", "0", str(self._image)],
            ["mount", "-o", "loop", str(self._image), str(self.folder)],
        )
        try:
            for command in commands:
                subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
            self.mounted = True
        except (OSError, subprocess.CalledProcessError):
            self._image.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True, capture_output=True, timeout=PATIENCE)
            self._image.unlink()

    def fill(self) -> None:
        """Leave no room on it."""
        with self._filler.open("ab", buffering=0) as filler:
            for piece in (256 * MIB, MIB, 4096):
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, piece)

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

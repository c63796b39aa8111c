"""Folders for work in progress, which do not outlast it for long, even when its process is killed."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "work-"


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder, locked while it is used. What others of this user left when they were killed is removed first."""
    base = _base()
    with _locked(base):
        for left in base.glob(f"{PREFIX}*"):
            _remove_if_left(left)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def _base() -> Path:
    """The folder of all work of this user. Raises PermissionError when somebody else made it."""
    base = Path(tempfile.gettempdir()) / f"jobledger-video-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{base} is not ours; remove it, or set TMPDIR")
    return base


def _remove_if_left(folder: Path) -> None:
    try:
        lock = _lock(folder, wait=False)
    except BlockingIOError:
        return
    shutil.rmtree(folder)
    os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _lock(folder)
    try:
        yield
    finally:
        os.close(lock)


def _lock(folder: Path, *, wait: bool = True) -> int:
    """The descriptor that holds the lock until it is closed. Raises BlockingIOError when another has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

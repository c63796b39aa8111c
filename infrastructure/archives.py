"""Where archives are kept: a folder, or a bucket."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from application.errors import NoSpace, StoreUnavailable
from infrastructure.artifacts import FULL

CHUNK = 8 * 1024 * 1024
"""Bytes that are read in one request: a request for all of a large archive would run out of its time."""
PARTS_AT_A_TIME = 2


class ObjectArchives:
    """See the port, `application.retention.ArchiveStore`."""

    def __init__(self, place: str) -> None:
        """`place` is a folder, made if it is not there, or the URL of a bucket (s3://, gs://, az://)."""
        self._place = place
        self._folder = None if "://" in place else Path(place).expanduser().absolute()
        self._made: ObjectStore | None = None

    def put(self, name: str, file: IO[bytes]) -> None:
        with self._told() as store:
            obstore.put(store, name, file, max_concurrency=PARTS_AT_A_TIME)
            if self._folder is not None:
                _sync(self._folder / name)

    def read(self, name: str) -> Iterator[bytes]:
        with self._told() as store:
            size = obstore.head(store, name)["size"]
        for at in range(0, size, CHUNK):
            with self._told() as store:
                chunk = obstore.get_range(store, name, start=at, end=min(at + CHUNK, size))
            yield bytes(chunk)

    def remove(self, name: str) -> None:
        with self._told() as store, suppress(FileNotFoundError):
            obstore.delete(store, name)

    @contextmanager
    def _told(self) -> Iterator[ObjectStore]:
        """The place; its errors in the application's words."""
        try:
            if self._made is None:
                self._made = _store(self._place, self._folder)
            yield self._made
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(error.strerror or "full") from error
            raise StoreUnavailable(f"archives cannot be kept at {self._place}: {error.strerror}") from error
        except (BaseError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise StoreUnavailable(f"archives cannot be kept at {self._place}: {why}") from error


def _store(place: str, folder: Path | None) -> ObjectStore:
    if folder is not None:
        return LocalStore(folder, mkdir=True)
    return from_url(place, retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=60)})


def _sync(path: Path) -> None:
    """Its events leave the log because it is there: it must be so after a power cut, too."""
    for changed in (path, path.parent, path.parent.parent):
        descriptor = os.open(changed, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

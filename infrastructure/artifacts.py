"""Artifacts in a folder or a bucket, through obstore: one object per content, named by its SHA-256."""

import asyncio
import errno
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from application.artifacts import Stored
from application.errors import NoSpace, NotOurs, StoreUnavailable, TooLarge
from application.sweeper import Found

log = structlog.get_logger()
CHUNK = 1024 * 1024
PAGE = 1000
THREADS = 8
PARTS_AT_A_TIME = 4
"""Of 5 MiB each, when a content goes to a bucket."""
UPLOADS = "uploads"
OWNER = "owner"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CONTENT = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})")


class ObjectArtifacts:
    """Keeps contents at `<first two hex digits>/<sha256>`, and at `owner` the id of the database that names them.

    A content is first written to a file of no name yet and hashed on the way: in a folder, below `uploads`, from where
    it is moved to its place; for a bucket, in a local folder, from where it is sent once it is whole. So a half content
    is never to be seen, and a caller who hangs up costs the bucket nothing.
    """

    def __init__(self, place: str, spool: Path, owner: Callable[[], str]) -> None:
        """`place` is a folder, made if it is not there, or the URL of a bucket (s3://, gs://, az://).

        `spool` is the local folder in which what goes to a bucket is gathered. `owner` tells the database's id; it
        blocks.
        """
        self._folder = None if "://" in place else Path(place)
        self._spool = spool if self._folder is None else self._folder / UPLOADS
        self._store: ObjectStore = _bucket(place) if self._folder is None else LocalStore(place, mkdir=True)
        self._owner = owner
        self._is_ours = False
        self._threads = ThreadPoolExecutor(THREADS, "artifacts")

    async def save(
        self, content: AsyncIterator[bytes], most: int, admit: Callable[[Stored], Awaitable[None]]
    ) -> Stored:
        await self._on_thread(self._claim)
        with self._spooling() as file:
            stored = await self._gather(content, file, most)
            await admit(stored)
            if self._folder is not None:
                await self._on_thread(_move, file, self._folder, stored.sha256)
            else:
                await self._send(file, stored)
        return stored

    async def read(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        for at in range(start, end, CHUNK):
            with _told():
                chunk = await obstore.get_range_async(self._store, _path(sha256), start=at, end=min(at + CHUNK, end))
            yield bytes(chunk)

    def pages(self) -> Iterator[list[Found]]:
        with _told():
            owner = self._written_owner()
            if owner is None:
                return  # nothing of ours was ever saved here
            if owner != self._owner():
                raise NotOurs
            for page in obstore.list(self._store, chunk_size=PAGE):
                found = [_found(one["path"], one["size"], one["last_modified"]) for one in page]
                yield [one for one in found if one is not None]

    def remove(self, found: Sequence[Found]) -> None:
        paths = [one.path for one in found]
        with _told():
            try:
                if paths:
                    obstore.delete(self._store, paths)
            except FileNotFoundError:
                for path in paths:
                    with suppress(FileNotFoundError):
                        obstore.delete(self._store, path)

    def _claim(self) -> None:
        """Make this the place of our database, unless it is another's. Raises NotOurs."""
        if self._is_ours:
            return
        owner = self._owner()
        with _told():
            if self._written_owner() is None:
                with suppress(AlreadyExistsError):
                    obstore.put(self._store, OWNER, owner.encode(), mode="create")
            if self._written_owner() != owner:
                raise NotOurs
        self._is_ours = True

    def _written_owner(self) -> str | None:
        try:
            return bytes(obstore.get(self._store, OWNER).bytes()).decode()
        except FileNotFoundError:
            return None

    @contextmanager
    def _spooling(self) -> Iterator[IO[bytes]]:
        """A file to gather a content in. It is gone afterwards unless it was moved; a bucket's has not even a name."""
        path = self._spool / secrets.token_hex(16)
        with ExitStack() as stack:
            with _told():
                self._spool.mkdir(parents=True, exist_ok=True)
                stack.callback(path.unlink, missing_ok=True)
                file = TemporaryFile(dir=self._spool) if self._folder is None else path.open("xb")  # noqa: SIM115
            stack.callback(_close, file)
            yield file

    async def _gather(self, content: AsyncIterator[bytes], file: IO[bytes], most: int) -> Stored:
        """Each chunk is written as it comes, so that the file of an upload that moves is always young."""
        digest, size = hashlib.sha256(), 0

        def write(chunk: bytes) -> None:
            with _told():
                digest.update(chunk)
                file.write(chunk)
                file.flush()

        async for chunk in content:
            size += len(chunk)
            if size > most:
                raise TooLarge(f"the file has more than {most} bytes")
            await self._on_thread(write, chunk)
        return Stored(digest.hexdigest(), size)

    async def _send(self, file: IO[bytes], stored: Stored) -> None:
        with _told():
            if await self._has(stored):
                return
            await self._on_thread(file.seek, 0)
            await obstore.put_async(self._store, _path(stored.sha256), file, max_concurrency=PARTS_AT_A_TIME)

    async def _has(self, stored: Stored) -> bool:
        try:
            return (await obstore.head_async(self._store, _path(stored.sha256)))["size"] == stored.size
        except FileNotFoundError:
            return False

    async def _on_thread(self, call: Callable[..., Any], *values: Any) -> None:
        """On a thread for files: those of the loop are not kept waiting by a disk that takes its time."""
        await asyncio.get_running_loop().run_in_executor(self._threads, call, *values)


def probe(bucket: str) -> None:
    """Put a small object in a bucket and take it away again. Raises StoreUnavailable."""
    name = f"{UPLOADS}/probe-{secrets.token_hex(8)}"
    with _told():
        store = _bucket(bucket)
        obstore.put(store, name, b"probe")
        obstore.delete(store, name)


def _bucket(url: str) -> ObjectStore:
    """The bucket at a URL, which is asked again a few times before it counts as away. Raises StoreUnavailable."""
    try:
        return from_url(url, retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=20)})
    except (BaseError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise StoreUnavailable(f"the settings of {url} are not enough, or wrong: {why}") from error


def _close(file: IO[bytes]) -> None:
    """What could not be written is tried once more by close, and fails once more."""
    with suppress(OSError):
        file.close()


def _move(file: IO[bytes], folder: Path, sha256: str) -> None:
    """To its place, in a way that outlives a power cut: an event may name it now."""
    place = folder / _path(sha256)
    with _told():
        os.fsync(file.fileno())
        place.parent.mkdir(exist_ok=True)
        Path(file.name).replace(place)
        for changed in (place.parent, folder):
            descriptor = os.open(changed, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _path(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _found(path: str, size: int, modified: datetime) -> Found | None:
    """What lies at a path, if we put it there."""
    content = _CONTENT.fullmatch(path)
    if content is None and not path.startswith(f"{UPLOADS}/"):
        return None
    return Found(path, size, modified, content[2] if content else None)


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors in the application's words."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(error.strerror or "full") from error
        log.warning("store.away", error=str(error))
        raise StoreUnavailable(f"the place where artifacts are kept fails: {error.strerror}") from error
    except BaseError as error:
        log.warning("store.away", error=str(error))
        raise StoreUnavailable("the place where artifacts are kept does not answer; try again") from error

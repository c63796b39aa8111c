"""Artifacts in a folder or a bucket, through obstore: one object per content, named by its SHA-256."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

CHUNK = 1024 * 1024


class ObjectArtifacts:
    """Keeps contents at `<first two hex digits>/<sha256>`.

    A content is written beside its place and moved there whole, so that a crash leaves no half file to be served.
    """

    def __init__(self, place: str) -> None:
        """`place` is a folder, made if it is not there, or the URL of a bucket (s3://, gs://, az://)."""
        self._folder = None if "://" in place else Path(place)
        self._store: ObjectStore = from_url(place) if self._folder is None else LocalStore(place, mkdir=True)

    async def save(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        path = _path(sha256)
        if not await self._has(path, len(content)):
            await obstore.put_async(self._store, path, content)
            if self._folder is not None:
                await asyncio.to_thread(_to_disk, self._folder / path)
        return sha256

    async def read(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        for at in range(start, end, CHUNK):
            chunk = await obstore.get_range_async(self._store, _path(sha256), start=at, end=min(at + CHUNK, end))
            yield bytes(chunk)

    async def _has(self, path: str, size: int) -> bool:
        try:
            return (await obstore.head_async(self._store, path))["size"] == size
        except FileNotFoundError:
            return False


def _path(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _to_disk(file: Path) -> None:
    """The content and its name outlive a power cut: an event may name them now."""
    for path in (file, file.parent, file.parent.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Artifacts are kept by their content, whole or not at all."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from infrastructure.artifacts import CHUNK, ObjectArtifacts

T = TypeVar("T")


def run(what: Awaitable[T]) -> T:
    async def main() -> T:
        return await what

    return asyncio.run(main())


async def read(store: ObjectArtifacts, sha256: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(sha256, start, end)])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "artifacts"


@pytest.fixture
def store(folder: Path) -> ObjectArtifacts:
    return ObjectArtifacts(str(folder))


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(range(256)) * 12_000], ids=["empty", "small", "3 MB"])
def test_content_is_kept_under_its_hash(store: ObjectArtifacts, folder: Path, content: bytes) -> None:
    sha256 = run(store.save(content))
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert files(folder) == [folder / sha256[:2] / sha256]
    assert files(folder)[0].read_bytes() == content
    assert run(read(store, sha256, 0, len(content))) == content


def test_the_same_content_twice_is_one_file_written_once(store: ObjectArtifacts, folder: Path) -> None:
    first = run(store.save(b"same"))
    written = files(folder)[0].stat()
    assert run(store.save(b"same")) == first
    again = files(folder)[0].stat()
    assert (len(files(folder)), again.st_ino, again.st_mtime_ns) == (1, written.st_ino, written.st_mtime_ns)


def test_the_same_content_from_many_at_once_is_one_file(store: ObjectArtifacts, folder: Path) -> None:
    content = b"x" * 300_000

    async def save_all() -> list[str]:
        return await asyncio.gather(*(store.save(content) for _ in range(12)))

    assert len(set(run(save_all()))) == 1
    assert [file.read_bytes() == content for file in files(folder)] == [True]


def test_a_half_file_of_a_crash_is_written_anew(store: ObjectArtifacts, folder: Path) -> None:
    sha256 = hashlib.sha256(b"whole").hexdigest()
    (folder / sha256[:2]).mkdir()
    (folder / sha256[:2] / sha256).write_bytes(b"who")
    run(store.save(b"whole"))
    assert run(read(store, sha256, 0, 5)) == b"whole"


def test_no_part_of_a_content_is_ever_seen_under_its_name(store: ObjectArtifacts, folder: Path) -> None:
    contents = [bytes([n]) * 6_000_000 for n in range(8)]
    places = [folder / sha256[:2] / sha256 for sha256 in (hashlib.sha256(c).hexdigest() for c in contents)]
    sizes: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            sizes.update(place.stat().st_size for place in places if place.exists())

    looking = threading.Thread(target=look)
    looking.start()
    for content in contents:
        run(store.save(content))
    done.set()
    looking.join()
    sizes.update(place.stat().st_size for place in places)
    assert sizes == {6_000_000}


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (5, 5), (7, 11), (CHUNK - 1, CHUNK + 1), (0, 2 * CHUNK), (CHUNK, 2 * CHUNK + 17)],
)
def test_a_range_is_read_exactly(store: ObjectArtifacts, start: int, end: int) -> None:
    content = hashlib.shake_128(b"content").digest(2 * CHUNK + 17)
    sha256 = run(store.save(content))
    assert run(read(store, sha256, start, end)) == content[start:end]


def test_a_large_content_is_read_in_pieces(store: ObjectArtifacts) -> None:
    sha256 = run(store.save(bytes(3 * CHUNK)))

    async def pieces() -> list[int]:
        return [len(chunk) async for chunk in store.read(sha256, 0, 3 * CHUNK)]

    assert run(pieces()) == [CHUNK] * 3


def test_content_nobody_saved_is_not_found(store: ObjectArtifacts) -> None:
    with pytest.raises(FileNotFoundError):
        run(read(store, "0" * 64, 0, 1))


def test_another_server_over_the_same_folder_reads_it(store: ObjectArtifacts, folder: Path) -> None:
    sha256 = run(store.save(b"shared"))
    assert run(read(ObjectArtifacts(str(folder)), sha256, 1, 4)) == b"har"

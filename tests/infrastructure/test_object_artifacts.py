"""Artifacts are kept by their content, whole or not at all, in a folder and in a bucket."""

import asyncio
import hashlib
import os
import resource
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import psutil  # type: ignore[import-untyped]
import pytest

from application.artifacts import Stored
from application.errors import NoSpace, NotOurs, StoreUnavailable, TooLarge
from infrastructure.artifacts import CHUNK, ObjectArtifacts, probe
from tests.buckets import (
    AzureBucket,
    Bucket,
    a_bucket,
    a_google_bucket,
    an_azure_bucket,
    azure_settings,
    find_azurite,
    google_settings,
)

T = TypeVar("T")
MIB = 1024 * 1024


def run(what: Awaitable[T]) -> T:
    async def main() -> T:
        return await what

    return asyncio.run(main())


async def in_chunks(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def admitted(stored: Stored) -> None:
    return


async def save(store: ObjectArtifacts, content: bytes, most: int = 100 * MIB) -> Stored:
    return await store.save(in_chunks(content), most, admitted)


async def read(store: ObjectArtifacts, sha256: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(sha256, start, end)])


class Place:
    """Where a store of the test keeps its contents, as seen from outside."""

    def __init__(self, url: str, spool: Path, bucket: Bucket | AzureBucket | None) -> None:
        self.url = url
        self.spool = spool
        self.bucket = bucket

    def store(self, owner: str = "this database") -> ObjectArtifacts:
        return ObjectArtifacts(self.url, self.spool, lambda: owner)

    def contents(self) -> dict[str, int]:
        """The sizes of everything there but the owner, by path; half-made uploads too, wherever they are gathered."""
        there = self.bucket.contents() if self.bucket else _files(Path(self.url))
        gathered = {f"spool/{name}": size for name, size in _files(self.spool).items()}
        return {name: size for name, size in {**there, **gathered}.items() if name != "owner"}


def _files(folder: Path) -> dict[str, int]:
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return {str(path.relative_to(folder)): path.stat().st_size for path in found}


def path_of(content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    return f"{sha256[:2]}/{sha256}"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with a_bucket() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def google_bucket() -> Iterator[Bucket]:
    with a_google_bucket() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def azure_bucket() -> Iterator[AzureBucket]:
    azurite = find_azurite()
    if azurite is None:
        pytest.skip("no Azurite: `npm install --prefix tests/azurite`, so that files are kept in Azure's storage, too")
    with an_azure_bucket(azurite) as bucket:
        yield bucket


@pytest.fixture(params=["folder", "bucket", "google_bucket", "azure_bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return Place(str(tmp_path / "deep" / "artifacts"), tmp_path / "spool", None)
    bucket: Bucket | AzureBucket = request.getfixturevalue(request.param)
    bucket.empty()
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return Place(bucket.url, tmp_path / "spool", bucket)


@pytest.fixture
def store(place: Place) -> ObjectArtifacts:
    return place.store()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


@pytest.fixture
def in_folder(folder: Path, tmp_path: Path) -> ObjectArtifacts:
    return ObjectArtifacts(str(folder), tmp_path / "spool", lambda: "this database")


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(range(256)) * 48_000], ids=["empty", "small", "12 MB"])
def test_content_is_kept_under_its_hash(store: ObjectArtifacts, place: Place, content: bytes) -> None:
    stored = run(save(store, content))
    assert stored == Stored(hashlib.sha256(content).hexdigest(), len(content))
    assert place.contents() == {path_of(content): len(content)}
    assert run(read(store, stored.sha256, 0, len(content))) == content


def test_the_same_content_from_many_at_once_is_one_file(store: ObjectArtifacts, place: Place) -> None:
    content = b"x" * 300_000

    async def save_all() -> list[Stored]:
        return await asyncio.gather(*(save(store, content) for _ in range(12)))

    assert len(set(run(save_all()))) == 1
    assert place.contents() == {path_of(content): len(content)}
    assert run(read(store, path_of(content)[3:], 0, len(content))) == content


def test_a_half_file_of_a_crash_is_written_anew(in_folder: ObjectArtifacts, folder: Path) -> None:
    (folder / path_of(b"whole")).parent.mkdir(parents=True)
    (folder / path_of(b"whole")).write_bytes(b"who")
    sha256 = run(save(in_folder, b"whole")).sha256
    assert run(read(in_folder, sha256, 0, 5)) == b"whole"


def test_no_part_of_a_content_is_ever_seen_under_its_name(in_folder: ObjectArtifacts, folder: Path) -> None:
    contents = [bytes([n]) * 6_000_000 for n in range(8)]
    places = [folder / path_of(content) for content in contents]
    sizes: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            sizes.update(place.stat().st_size for place in places if place.exists())

    looking = threading.Thread(target=look)
    looking.start()
    for content in contents:
        run(save(in_folder, content))
    done.set()
    looking.join()
    sizes.update(place.stat().st_size for place in places)
    assert sizes == {6_000_000}


def test_a_source_that_breaks_midway_leaves_nothing(store: ObjectArtifacts, place: Place) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        run(store.save(breaking(), 100 * MIB, admitted))
    assert place.contents() == {}
    assert not (place.bucket and place.bucket.half_uploads())


def test_a_save_that_is_cancelled_midway_leaves_nothing(store: ObjectArtifacts, place: Place) -> None:
    async def cancelled() -> None:
        waiting = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            yield b"x" * 6 * MIB
            waiting.set()
            await asyncio.Event().wait()

        saving = asyncio.create_task(store.save(stalling(), 100 * MIB, admitted))
        await waiting.wait()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving

    run(cancelled())
    assert place.contents() == {}


def test_a_content_that_is_not_admitted_leaves_nothing(store: ObjectArtifacts, place: Place) -> None:
    asked: list[Stored] = []

    async def refuse(stored: Stored) -> None:
        assert path_of(b"content") not in place.contents()
        asked.append(stored)
        raise PermissionError

    with pytest.raises(PermissionError):
        run(store.save(in_chunks(b"content"), 100, refuse))
    assert asked == [Stored(hashlib.sha256(b"content").hexdigest(), 7)]
    assert place.contents() == {}


def test_the_last_byte_of_the_limit_is_taken_and_no_more(store: ObjectArtifacts, place: Place) -> None:
    assert run(save(store, b"x" * 300_000, most=300_000)).size == 300_000
    with pytest.raises(TooLarge, match="more than 300000 bytes"):
        run(save(store, b"y" * 300_001, most=300_000))
    assert place.contents() == {path_of(b"x" * 300_000): 300_000}


def test_a_large_content_is_saved_and_read_in_constant_memory(in_folder: ObjectArtifacts) -> None:
    process, seen = psutil.Process(), []

    async def large() -> AsyncIterator[bytes]:
        for n in range(200):
            seen.append(process.memory_info().rss)
            yield bytes([n]) * MIB

    async def there_and_back() -> None:
        stored = await in_folder.save(large(), 200 * MIB, admitted)
        async for _ in in_folder.read(stored.sha256, 0, stored.size):
            seen.append(process.memory_info().rss)

    run(there_and_back())
    assert len(seen) == 400
    assert max(seen) - seen[0] < 50 * MIB


def test_a_full_disk_is_told_and_leaves_nothing(store: ObjectArtifacts, place: Place) -> None:
    run(save(store, b"first"))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, most))  # the kernel refuses to write beyond
    try:
        with pytest.raises(NoSpace, match="no space left"):
            run(save(store, b"x" * 5 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert place.contents() == {path_of(b"first"): 5}
    assert run(save(store, b"x" * 5 * MIB)).size == 5 * MIB


NOWHERE = "http://127.0.0.1:9"
AWAY = {
    "s3://jobs": {
        "AWS_ENDPOINT_URL": NOWHERE,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "x",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    },
    "gs://jobs": google_settings(NOWHERE),
    "az://jobs": azure_settings(NOWHERE),
}


@pytest.mark.parametrize("url", AWAY)
def test_a_store_that_is_away_is_told_in_our_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name, value in AWAY[url].items():
        monkeypatch.setenv(name, value)
    away = ObjectArtifacts(url, tmp_path / "spool", lambda: "this database")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        run(save(away, b"content"))
    with pytest.raises(StoreUnavailable, match="does not answer"):
        run(read(away, "0" * 64, 0, 1))


@pytest.mark.parametrize(
    ("url", "why"), [("az://jobs", "Account must be specified"), ("ftp://jobs", "ftp")], ids=["no account", "no bucket"]
)
def test_settings_with_which_no_bucket_can_be_reached_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, why: str
) -> None:
    for name in azure_settings(NOWHERE):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreUnavailable, match=why):
        ObjectArtifacts(url, tmp_path / "spool", lambda: "this database")
    with pytest.raises(StoreUnavailable, match=why):
        probe(url)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (5, 5), (7, 11), (CHUNK - 1, CHUNK + 1), (0, 2 * CHUNK), (CHUNK, 2 * CHUNK + 17)],
)
def test_a_range_is_read_exactly(store: ObjectArtifacts, start: int, end: int) -> None:
    content = hashlib.shake_128(b"content").digest(2 * CHUNK + 17)
    sha256 = run(save(store, content)).sha256
    assert run(read(store, sha256, start, end)) == content[start:end]


def test_a_large_content_is_read_in_pieces(store: ObjectArtifacts) -> None:
    sha256 = run(save(store, bytes(3 * CHUNK))).sha256

    async def pieces() -> list[int]:
        return [len(chunk) async for chunk in store.read(sha256, 0, 3 * CHUNK)]

    assert run(pieces()) == [CHUNK] * 3


def test_content_nobody_saved_is_not_found(store: ObjectArtifacts) -> None:
    with pytest.raises(FileNotFoundError):
        run(read(store, "0" * 64, 0, 1))


def test_another_server_over_the_same_place_reads_it(store: ObjectArtifacts, place: Place) -> None:
    sha256 = run(save(store, b"shared")).sha256
    assert run(read(place.store(), sha256, 1, 4)) == b"har"


def test_a_place_belongs_to_the_database_that_saved_there_first(store: ObjectArtifacts, place: Place) -> None:
    assert list(place.store("another database").pages()) == []
    run(save(store, b"ours"))
    other = place.store("another database")
    with pytest.raises(NotOurs, match="JOBLEDGER_ARTIFACTS"):
        run(save(other, b"theirs"))
    with pytest.raises(NotOurs):
        list(other.pages())
    assert place.contents() == {path_of(b"ours"): 4}


def test_its_pages_tell_of_contents_and_half_uploads_and_of_nothing_else(
    in_folder: ObjectArtifacts, folder: Path
) -> None:
    stored = run(save(in_folder, b"content"))
    (folder / "notes.txt").write_text("not ours")
    (folder / "aa").mkdir(exist_ok=True)
    (folder / "aa" / ("b" * 64)).write_text("not ours: its first digits are others")
    (folder / "uploads" / "f00").write_text("half")
    os.utime(folder / path_of(b"content"), (1e9, 1e9))
    found = {one.path: one for page in in_folder.pages() for one in page}
    assert found.keys() == {path_of(b"content"), "uploads/f00"}
    content, half = found[path_of(b"content")], found["uploads/f00"]
    assert (content.sha256, content.size, content.modified) == (stored.sha256, 7, datetime.fromtimestamp(1e9, UTC))
    assert (half.sha256, half.size) == (None, 4)
    assert abs(half.modified - datetime.now(UTC)) < timedelta(hours=1)


def test_what_is_removed_is_gone_and_what_was_gone_is_no_matter(store: ObjectArtifacts, place: Place) -> None:
    for content in (b"one", b"two", b"three"):
        run(save(store, content))
    found = {one.size: one for page in store.pages() for one in page if one.path != path_of(b"two")}
    store.remove([found[3]])
    store.remove([found[3], found[5]])
    store.remove([])
    assert place.contents() == {path_of(b"two"): 3}

"""The sweeper removes what no event names and no running attempt may yet name, and never anything else."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from application.artifacts import Stored
from application.claims import Claim
from application.errors import NotOurs, StoreUnavailable
from application.reports import CompletionReport, FailureReport, ReportedError
from application.sweeper import DAY, Found, Sweeper, Swept
from infrastructure import artifacts as store_module
from infrastructure.artifacts import ObjectArtifacts
from infrastructure.postgres.contents import PostgresContents
from infrastructure.postgres.database import Database
from tests.application.services import Shop, in_shop
from tests.infrastructure.nodes import ask

WEEK = 7 * DAY
Story = Callable[["Place"], Awaitable[None]]


class Place:
    """A shop, and what is kept in its folder."""

    def __init__(self, shop: Shop, folder: Path, dsn: str) -> None:
        self.shop = shop
        self.folder = folder
        self.dsn = dsn
        self.store: ObjectArtifacts = shop.service.artifacts._store  # type: ignore[assignment]
        self.contents: PostgresContents = shop.service.artifacts._holds  # type: ignore[assignment]

    async def attempt(self) -> UUID:
        """A job whose first attempt `w1` runs."""
        queue = uuid4().hex  # of its own, so that of attempts that begin together each is given its own job
        id = await self.shop.create(heartbeat_timeout=3600.0, queue=queue)
        (claimed,) = await self.shop.service.claims.claim(Claim(worker="w1", queues=[queue]))
        assert claimed.id == id
        return id

    async def file(self, id: UUID, content: bytes, name: str = "a") -> str:
        saved = await self.shop.service.artifacts.save("w1", id, 1, name, content, "text/plain")
        return saved.sha256

    async def unnamed(self, content: bytes, id: UUID | None = None) -> str:
        """Store a content that no event names, for an attempt if one is given."""

        async def admit(stored: Stored) -> None:
            if id is not None:
                assert self.contents.hold(stored.sha256, id, 1)

        async def whole() -> AsyncIterator[bytes]:
            yield content

        return (await self.store.save(whole(), 2**20, admit)).sha256

    def lay(self, content: bytes) -> str:
        """Put a content there that the database knows nothing of."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256[:2]).mkdir(parents=True, exist_ok=True)
        self.path(sha256).write_bytes(content)
        return sha256

    def age(self, seconds: float = WEEK) -> None:
        """Make everything there so much older."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                os.utime(path, (path.stat().st_mtime - seconds,) * 2)
        ask(self.dsn, "UPDATE artifact_contents SET stored_at = stored_at - make_interval(secs => %s)", [seconds])

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    async def sweep(self, grace: float = DAY, *, dry_run: bool = False) -> Swept:
        return await asyncio.to_thread(self.shop.service.sweeper.run_once, grace, dry_run=dry_run)


@pytest.fixture
def told(dsn: str, tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story in a place of its own."""

    def run(story: Story) -> None:
        async def in_place(shop: Shop) -> None:
            await story(Place(shop, tmp_path / "artifacts", dsn))

        in_shop(dsn, tmp_path, f"queue-{uuid4().hex}", in_place)

    return run


Told = Callable[[Story], None]


def test_what_an_event_names_is_kept_however_old_and_though_another_took_its_place(told: Told) -> None:
    async def story(place: Place) -> None:
        id = await place.attempt()
        first, second = await place.file(id, b"one"), await place.file(id, b"two")
        await place.shop.service.reports.say("w1", CompletionReport(job_id=id, attempt=1))
        place.age()
        assert await place.sweep(0) == Swept(0, 0, False)
        assert place.has(first)
        assert place.has(second)

    told(story)


def test_what_no_event_names_is_removed_once_it_is_old(told: Told) -> None:
    async def story(place: Place) -> None:
        id = await place.attempt()
        named, unnamed = await place.file(id, b"named"), await place.unnamed(b"unnamed")
        assert await place.sweep() == Swept(0, 0, False)
        place.age()
        assert await place.sweep() == Swept(1, 7, False)
        assert place.has(named)
        assert not place.has(unnamed)
        assert await place.sweep(0) == Swept(0, 0, False)

    told(story)


def test_a_dry_run_says_the_same_and_does_nothing(told: Told) -> None:
    async def story(place: Place) -> None:
        await place.file(await place.attempt(), b"named")
        unnamed, laid = await place.unnamed(b"unnamed"), place.lay(b"laid there")
        place.age()
        known = ask(place.dsn, "SELECT count(*) FROM artifact_contents")
        assert await place.sweep(dry_run=True) == Swept(2, 17, True)
        assert place.has(unnamed)
        assert place.has(laid)
        assert ask(place.dsn, "SELECT count(*) FROM artifact_contents") == known
        assert await place.sweep() == Swept(2, 17, False)

    told(story)


def test_what_a_running_attempt_may_yet_name_is_kept_without_any_grace(told: Told) -> None:
    async def story(place: Place) -> None:
        id = await place.attempt()
        stored = await place.unnamed(b"stored and not named yet", id)
        place.age()
        assert await place.sweep(0) == Swept(0, 0, False)
        assert place.has(stored)
        error = ReportedError(type="gone", message="gone")
        await place.shop.service.reports.say("w1", FailureReport(job_id=id, attempt=1, error=error, retry_in=3600))
        assert await place.sweep(0) == Swept(1, 24, False)
        assert ask(place.dsn, "SELECT count(*) FROM artifact_holds WHERE job_id = %s", [id]) == [(0,)]

    told(story)


def test_a_content_without_a_row_is_as_old_as_the_store_says(told: Told) -> None:
    async def story(place: Place) -> None:
        await place.unnamed(b"so that the place is ours")
        laid = place.lay(b"laid there")
        assert await place.sweep() == Swept(0, 0, False)
        assert place.has(laid)
        os.utime(place.path(laid), (1e9, 1e9))
        assert await place.sweep() == Swept(1, 10, False)
        assert not place.has(laid)

    told(story)


def test_uploads_that_died_are_removed_and_one_under_way_is_not(told: Told) -> None:
    async def story(place: Place) -> None:
        await place.unnamed(b"so that the place is ours")
        under_way, died = place.folder / "uploads" / "a", place.folder / "uploads" / "b"
        under_way.write_bytes(b"half")
        died.write_bytes(b"half of it")
        os.utime(died, (1e9, 1e9))
        assert await place.sweep() == Swept(1, 10, False)
        assert under_way.exists()
        assert not died.exists()
        await place.sweep(0)
        assert under_way.exists()

    told(story)


def test_what_is_not_ours_is_left_alone(told: Told) -> None:
    async def story(place: Place) -> None:
        place.folder.mkdir(parents=True, exist_ok=True)
        laid = place.lay(b"of somebody else")
        place.age()
        assert await place.sweep(0) == Swept(0, 0, False)
        (place.folder / "owner").write_text("another database")
        with pytest.raises(NotOurs):
            await place.sweep(0)
        assert place.has(laid)

    told(story)


def test_many_pages_are_swept(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PAGE", 10)

    async def story(place: Place) -> None:
        id = await place.attempt()
        named = [await place.file(id, b"named %d" % n) for n in range(5)]
        unnamed = [await place.unnamed(b"unnamed %d" % n) for n in range(35)]
        assert max(len(page) for page in place.store.pages()) == 10
        place.age()
        assert (await place.sweep()).files == 35
        assert all(place.has(sha256) for sha256 in named)
        assert not any(place.has(sha256) for sha256 in unnamed)

    told(story)


class StoppedWhileRemoving:
    """A store that is being swept when the process is told to stop."""

    sweeper: Sweeper

    def __init__(self, store: ObjectArtifacts) -> None:
        self._store = store

    def pages(self) -> Iterator[list[Found]]:
        return self._store.pages()

    def remove(self, found: Sequence[Found]) -> None:
        self.sweeper.stop()
        self._store.remove(found)


def test_a_sweep_that_is_told_to_stop_ends_with_its_page(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PAGE", 10)

    async def story(place: Place) -> None:
        for n in range(35):
            await place.unnamed(b"left over %d" % n)
        place.age()
        shelves = StoppedWhileRemoving(place.store)
        shelves.sweeper = Sweeper(shelves, place.contents)
        assert shelves.sweeper.run_once().files == 10
        assert sum(len(page) for page in place.store.pages()) == 25

    told(story)


def found(place: Place, sha256: str) -> list[Found]:
    return [one for page in place.store.pages() for one in page if one.sha256 == sha256]


def test_a_save_waits_while_its_very_content_is_removed_and_then_stores_it_anew(told: Told) -> None:
    async def story(place: Place) -> None:
        id = await place.attempt()
        sha256 = await place.unnamed(b"content")
        condemned = found(place, sha256)
        assert place.contents.condemn(condemned, 0) == {sha256}
        saving = asyncio.create_task(place.file(id, b"content"))

        async def waits() -> bool:
            return bool(list((place.folder / "uploads").iterdir()))

        await place.shop.until(waits)
        assert not place.contents.hold(sha256, id, 1)
        place.store.remove(condemned)
        assert not saving.done()
        place.contents.forget({sha256})
        assert await saving == sha256
        assert place.has(sha256)
        assert await place.sweep(0) == Swept(0, 0, False)

    told(story)


def test_a_sweeper_that_died_holds_its_content_back_for_an_hour(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.artifacts.SWEEP_PATIENCE", 0.3)

    async def story(place: Place) -> None:
        id = await place.attempt()
        sha256 = await place.unnamed(b"of a dead sweeper")
        place.contents.condemn(found(place, sha256), 0)
        with pytest.raises(StoreUnavailable, match="is being swept"):
            await place.file(id, b"of a dead sweeper")
        assert await place.sweep(0) == Swept(0, 0, False)
        ask(place.dsn, "UPDATE artifact_contents SET removing_at = removing_at - interval '61 minutes'")
        assert await place.sweep(0) == Swept(1, 17, False)
        assert await place.file(id, b"of a dead sweeper") == sha256
        assert place.has(sha256)

    told(story)


def test_a_content_that_is_named_or_held_meanwhile_is_not_condemned(told: Told) -> None:
    async def story(place: Place) -> None:
        done, running = await place.attempt(), await place.attempt()
        first, second = await place.unnamed(b"first"), await place.unnamed(b"second")
        both = [*found(place, first), *found(place, second)]
        assert place.contents.unnamed(both, 0) == {first, second}
        await place.file(done, b"first")
        await place.shop.service.reports.say("w1", CompletionReport(job_id=done, attempt=1))
        assert place.contents.hold(second, running, 1)
        assert place.contents.condemn(both, 0) == set()

    told(story)


def test_savers_and_sweepers_of_the_same_contents_at_once_lose_nothing_that_is_named(told: Told, dsn: str) -> None:
    some = random.Random(7)

    async def story(place: Place) -> None:
        contents = [b"content %d" % n for n in range(6)]
        others = [Database(dsn) for _ in range(2)]
        sweepers = [Sweeper(place.store, PostgresContents(database)) for database in others]
        saving = True

        async def sweep(sweeper: Sweeper) -> int:
            swept = 0
            while saving:
                swept += (await asyncio.to_thread(sweeper.run_once, 0)).files
            return swept

        async def save() -> None:
            for _ in range(25):
                content = some.choice(contents)
                if some.random() < 0.6:
                    await place.unnamed(content)
                    continue
                id = await place.attempt()
                sha256 = await place.file(id, content)
                assert place.has(sha256)

        sweeping = [asyncio.create_task(sweep(sweeper)) for sweeper in sweepers]
        await asyncio.gather(*(save() for _ in range(4)))
        saving = False
        assert sum(await asyncio.gather(*sweeping)) > 0
        for database in others:
            database.close()
        named = ask(dsn, "SELECT encode(sha256, 'hex') FROM artifact_contents WHERE named")
        hashes = {hashlib.sha256(content).hexdigest() for content in contents}
        kept = [sha256 for (sha256,) in named if sha256 in hashes]
        assert kept
        assert all(place.has(sha256) for sha256 in kept)

    told(story)


def test_what_was_never_stored_is_forgotten(told: Told) -> None:
    async def story(place: Place) -> None:
        id = await place.attempt()
        await place.file(id, b"named")
        assert place.contents.hold("ab" * 32, id, 1)
        place.age()
        await place.sweep()
        rows = ask(place.dsn, "SELECT FROM artifact_contents WHERE sha256 = decode(%s, 'hex')", ["ab" * 32])
        assert rows == []
        named = ask(place.dsn, "SELECT named FROM artifact_contents WHERE sha256 = sha256('named'::bytea)")
        assert named == [(True,)]

    told(story)


def test_one_node_sweeps_a_day(told: Told) -> None:
    async def story(place: Place) -> None:
        await place.unnamed(b"of one day")
        place.age()
        sweepers = [Sweeper(place.store, place.contents) for _ in range(2)]
        assert [sweeper.run_if_due() for sweeper in sweepers] == [0, 0]
        ask(place.dsn, "UPDATE installation SET swept_at = swept_at - interval '25 hours'")
        assert sorted(await asyncio.gather(*(asyncio.to_thread(s.run_if_due) for s in sweepers))) == [0, 1]

    told(story)

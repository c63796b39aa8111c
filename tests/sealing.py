"""What tests of the seal share: a sealer with a folder of its own, and what it has sealed, read straight."""

from pathlib import Path
from typing import Any

from application.sealer import Sealer
from domain.merkle import leaf_hash, root
from domain.notes import Checkpoint, read
from infrastructure.postgres.database import Database
from infrastructure.postgres.seal import PostgresSeal, unpacked
from infrastructure.signing import Keyring, signers
from tests.infrastructure.nodes import ask, undisturbed

ORIGIN = "jobledger/tests"
EVENTS = "SELECT notification_id, hash FROM events ORDER BY notification_id"
LEAVES = "SELECT hashes, positions FROM seal_tiles WHERE level = 0 ORDER BY index"


class Sealing:
    """A sealer over a database, with its keys in a folder."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.database = Database(dsn)
        self.store = PostgresSeal(self.database)
        self.keys = Keyring(folder, lambda: ORIGIN)
        self.sealer = Sealer(self.store, self.keys)

    def all(self) -> int:
        """Seal what there is, once no stranger's transaction holds it back; how many events that added."""
        undisturbed(self.database)
        added = 0
        while now := self.sealer.run_once():
            added += now
        return added

    def checkpoints(self) -> list[Checkpoint]:
        notes = ask(self.dsn, "SELECT note FROM seal_checkpoints ORDER BY size")
        return [Checkpoint.parse(read(note)[0]) for (note,) in notes]

    def check(self) -> int:
        """Every event below the seal is a leaf in its place, every checkpoint is signed and of that tree; the size."""
        events: list[tuple[Any, ...]] = ask(self.dsn, EVENTS)
        ((size, position),) = ask(self.dsn, "SELECT size, position FROM seal")
        hashes = positions = b""
        for tile, placed in ask(self.dsn, LEAVES):
            hashes, positions = hashes + tile, positions + placed
        sealed = events[:size]
        assert unpacked(positions) == [place for place, _ in sealed]
        assert hashes == b"".join(leaf_hash(hash) for _, hash in sealed)
        assert position == (sealed[-1][0] if sealed else 0)
        verifiers = [key.key for key in self.store.sealing_keys()]
        notes = [note for (note,) in ask(self.dsn, "SELECT note FROM seal_checkpoints ORDER BY size")]
        for note, checkpoint in zip(notes, self.checkpoints(), strict=True):
            assert signers(note, verifiers)
            assert checkpoint.root == root(checkpoint.size, self.store.tile)
        assert [one.size for one in self.checkpoints()][-1:] == ([size] if size else [])
        return int(size)

    def close(self) -> None:
        self.database.close()

"""Going on with the seal under a new key, when the one that signed it is lost for good."""

from collections.abc import Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from application.audit import Action
from application.sealer import Keys, Sealer, SealRefused, SealStore

log = structlog.get_logger()
ACTOR = "system:rekey"


class Rekeyed(Struct, frozen=True):
    """From `size` events on, checkpoints are signed by `key`; those before, by one of `lost`. All are public keys."""

    key: str
    size: int
    lost: list[str]


class Ring(Keys, Protocol):
    """The port to the keys, while the one that signed last is not there."""

    def private(self) -> list[str]:
        """The public keys of those that can sign here."""
        ...

    def trusting(self, verifiers: Sequence[str]) -> "Ring":
        """The same place, as if the public keys of the lost ones were in it; nothing is written for that."""
        ...

    def replace(self, lost: Sequence[str]) -> str:
        """Keep the public keys of the lost ones, and make one that signs; returns its verifier key."""
        ...


class Records(Protocol):
    """The port to the record of who took what. Calls block."""

    def record(self, by: str, action: Action, *, filter: str | None = None, reason: str | None = None) -> None: ...


def rekey(store: SealStore, ring: Ring, records: Records, lost: Sequence[str], reason: str) -> Rekeyed:
    """Make a new key for a log whose last checkpoint was signed by one of the `lost` public keys. Blocks.

    Nothing is signed here: the sealer goes on with what extends that checkpoint, and the one kept beside the key.
    Raises SealRefused for what does not, and when no key is lost.
    """
    before = store.sealed()
    if before.note is None:
        raise SealRefused("nothing of this log is sealed yet: the first projector makes the key by itself")
    if mine := ring.private():
        if ring.signed(before.note):
            raise SealRefused("the key is here, and not lost; to exchange it, use `jobledger audit keys --rotate`")
        raise SealRefused(
            f"a key is here that signed nothing of this log ({', '.join(mine)}): bring the right one, or move the file "
            "`keys` away first"
        )
    trusting = ring.trusting(lost)
    if not trusting.signed(before.note):
        raise SealRefused("the last checkpoint of this log was signed by none of the public keys that count here")
    Sealer(store, trusting).check()
    key = ring.replace(lost)
    records.record(ACTOR, "rekey", filter=f"size={before.size}&key={key}", reason=reason)
    log.warning("seal.rekeyed", size=before.size, key=key, reason=reason)
    return Rekeyed(key, before.size, list(lost))

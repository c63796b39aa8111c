"""Keys: who may do what, and in which namespace."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal, Protocol, TypeAlias, get_args
from uuid import UUID

import structlog
from msgspec import Meta, Struct

from application.errors import ApplicationError, FieldError, Invalid, NotFound, RateLimited, Unavailable
from application.ledger import Quota

log = structlog.get_logger()
Role: TypeAlias = Literal["client", "worker", "auditor", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
EVERYWHERE: tuple[Role, ...] = ("admin",)
"""Roles that no namespace limits: an admin makes keys for all."""
LOOK_SECONDS = 0.5
"""How often each server looks for keys that were made or revoked elsewhere."""
LOOK_AGAIN_SECONDS = 0.1
"""How soon after the last time an unknown key, which may be a new one, makes it look again."""
WRITE_SECONDS = 10.0
"""How often it is written down when keys were last used."""
MOST_IN_FLIGHT = 100_000
"""Of a key with a quota: what is in flight is counted whenever it asks for more."""
KeyName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
Namespace: TypeAlias = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Unauthenticated(ApplicationError):
    code = "unauthenticated"


class KeyConflict(ApplicationError):
    """There is such a key already, or what is asked would lock everybody out."""

    code = "conflict"


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to make. Its name is for ever: it stands in every event that the key causes.

    `namespace` limits it to the jobs of one; without it, it sees all, creates in `default`, and works for all. `rate`
    bounds its requests per second on each server, in bursts of as many; a second's worth at the least. `in_flight`
    bounds the jobs it has asked for that have not finished, on all servers together.
    """

    name: KeyName
    role: Role
    namespace: Namespace | None = None
    rate: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    in_flight: Annotated[int, Meta(ge=1, le=MOST_IN_FLIGHT)] | None = None


class Key(Struct, frozen=True, kw_only=True):
    """A key as it is shown, which is without what it opens with."""

    id: UUID
    name: str
    role: Role
    namespace: str | None
    rate: float | None
    in_flight: int | None
    created_at: datetime
    created_by: str
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None


class CreatedKey(Struct, frozen=True, kw_only=True):
    """A new key. `secret` is shown this once; only its hash is kept."""

    key: Key
    secret: str


class Caller(Struct, frozen=True, kw_only=True):
    """Who sends a request: `actor` stands in the events it causes."""

    actor: str
    role: Role
    namespace: str | None = None
    key_id: UUID | None = None
    quota: Quota | None = None


ANYBODY = Caller(actor="anonymous", role="admin")
"""Who asks in open mode: without keys, on loopback."""


class KeyStore(Protocol):
    """The port to where keys are kept. Calls block; run them on a thread."""

    def state(self) -> object:
        """What changes whenever a key is made or revoked."""
        ...

    def all(self) -> Sequence[tuple[bytes, Key]]:
        """All keys, oldest first, each with the SHA-256 of its secret."""
        ...

    def add(self, new: NewKey, digest: bytes, by: str) -> Key | None:
        """Keep a new key; None when its name is taken. Raises KeyConflict for a first one that is no admin's."""
        ...

    def revoke(self, id: UUID, by: str) -> Key | None:
        """Revoke a key; None for an unknown one. Raises KeyConflict for the last admin's."""
        ...

    def note_use(self, ids: Sequence[UUID]) -> None:
        """These keys were used just now."""
        ...


class Keys:
    """Knows all keys, as they were half a second ago at the most; a revoked one is of no use on any server from then.

    While the database is away it goes by what it knew last. Use from one event loop.
    """

    longest: ClassVar[int] = 500
    """Characters of a secret that are looked at."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._state: object = None
        self._known: dict[bytes, Key] | None = None
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._used: set[UUID] = set()
        self._buckets: dict[UUID, _Bucket] = {}
        self._open_requests: dict[UUID, set[asyncio.Task[object]]] = {}

    async def run(self) -> None:
        """Look for changes, and write down which keys were used, until cancelled."""
        written = time.monotonic()
        while True:
            try:
                await self.look()
                if self._used and time.monotonic() - written >= WRITE_SECONDS:
                    used, self._used, written = list(self._used), set(), time.monotonic()
                    await asyncio.to_thread(self._store.note_use, used)
            except Unavailable:
                pass
            except Exception:
                log.exception("keys.failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Take up what changed. Raises Unavailable."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(self._looking)

    async def is_open(self, *, to_a_key: bool = False) -> bool:
        """Whether there never was a key. Raises Unavailable while that is not known.

        Somebody who sends a key has reason to believe that there are some: it is looked again after they came.
        """
        came = time.monotonic()
        while self._known is None or (to_a_key and not self._known and self._looked_at < came):
            await self.look()
        return not self._known

    async def caller(self, secret: str) -> Caller:
        """Whose secret it is. Raises Unauthenticated, RateLimited, and Unavailable while no key is known."""
        # Looked up by its hash, so that the time it takes says nothing of how much of a secret was guessed.
        key = await self._key(hashlib.sha256(secret[: self.longest].encode()).digest())
        if key is None:
            raise Unauthenticated("this key is not known here; look at it again, or ask an admin for a new one")
        if key.revoked_at is not None:
            raise Unauthenticated(f"key {key.name!r} was revoked; ask an admin for a new one")
        self._used.add(key.id)
        if key.rate is not None:
            self._buckets.setdefault(key.id, _Bucket(key.rate)).take(key.name)
        quota = Quota(key.id, key.name, key.in_flight) if key.in_flight is not None else None
        return Caller(actor=f"key:{key.name}", role=key.role, namespace=key.namespace, key_id=key.id, quota=quota)

    def serving(self, key_id: UUID, task: "asyncio.Task[object]") -> None:
        """A request of a key is served by a task, which is cancelled when the key is revoked."""
        self._open_requests.setdefault(key_id, set()).add(task)

    def served(self, key_id: UUID, task: "asyncio.Task[object]") -> None:
        if (tasks := self._open_requests.get(key_id)) is not None:
            tasks.discard(task)
            if not tasks:
                del self._open_requests[key_id]

    def is_revoked(self, key_id: UUID) -> bool:
        known = self._known or {}
        return any(key.id == key_id and key.revoked_at is not None for key in known.values())

    async def create(self, new: NewKey, by: str) -> CreatedKey:
        """Make a key. Raises Invalid, and KeyConflict for a taken name and for a first one that is no admin's."""
        created = await asyncio.to_thread(make_key, self._store, new, by)
        await self.look()
        return created

    async def revoke(self, id: UUID, by: str) -> Key:
        """Revoke a key, for good; again does nothing. Raises NotFound, and KeyConflict for the last admin's."""
        revoked = await asyncio.to_thread(self._store.revoke, id, by)
        if revoked is None:
            raise NotFound(f"there is no key {id}")
        await self.look()
        return revoked

    async def all(self) -> list[Key]:
        return [key for _, key in await asyncio.to_thread(self._store.all)]

    async def _key(self, digest: bytes) -> Key | None:
        """An unknown one may be new: it is looked for after it came, however many unknown ones come."""
        came = time.monotonic()
        while self._known is None or (digest not in self._known and self._looked_at < came):
            await asyncio.sleep(self._looked_at + LOOK_AGAIN_SECONDS - time.monotonic())
            await self.look()
        return self._known.get(digest)

    async def _look(self) -> None:
        began = time.monotonic()
        state = await asyncio.to_thread(self._store.state)
        if self._known is not None and state == self._state:
            self._looked_at = began
            return
        self._known = dict(await asyncio.to_thread(self._store.all))
        self._state, self._looked_at = state, began
        for key in self._known.values():
            if key.revoked_at is not None:
                for task in self._open_requests.pop(key.id, ()):
                    task.cancel()


def make_key(store: KeyStore, new: NewKey, by: str) -> CreatedKey:
    """Blocks. Raises Invalid, and KeyConflict for a name that is taken and for a first one that is no admin's."""
    if new.namespace is not None and new.role in EVERYWHERE:
        raise Invalid(FieldError("namespace", f"limits no {new.role} key; leave it out, or choose another role"))
    secret = f"jl_{new.role}_{secrets.token_urlsafe(32)}"
    key = store.add(new, hashlib.sha256(secret.encode()).digest(), by)
    if key is None:
        raise KeyConflict(f"there is a key {new.name!r} already; names stand in the history for ever: choose another")
    return CreatedKey(key=key, secret=secret)


class _Bucket:
    """Requests that a key may make now: `rate` more each second, and as many at once at the most."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = max(rate, 1.0)
        self._left = self._most
        self._at = time.monotonic()

    def take(self, name: str) -> None:
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * self._rate, self._most)
        self._at = now
        if self._left < 1:
            seconds = max(round((1 - self._left) / self._rate + 0.5), 1)
            raise RateLimited(f"key {name!r} may make {self._rate:g} requests a second here; wait {seconds} s", seconds)
        self._left -= 1

"""The keys that sign checkpoints: Ed25519, in the encodings of c2sp.org/signed-note."""

import os
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from domain.notes import (
    ED25519,
    KEY_NAME,
    Malformed,
    Signature,
    key_id,
    read,
    read_verifier_key,
    verifier_key,
    write,
)

_PRIVATE = re.compile(rf"PRIVATE\+KEY\+({KEY_NAME.pattern})\+([0-9a-f]{{8}})\+([A-Za-z0-9+/=]+)")


class SigningKey:
    """A private key with its name, written `PRIVATE+KEY+<name>+<hash>+<base64>`."""

    def __init__(self, name: str, seed: bytes) -> None:
        if not KEY_NAME.fullmatch(name):
            raise Malformed(f"a key's name has no spaces and no plus signs: {name!r}")
        self.name = name
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw()

    @classmethod
    def make(cls, name: str) -> Self:
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Malformed, which does not repeat the text: it may be a secret all the same."""
        found = _PRIVATE.fullmatch(text.strip())
        try:
            made = b64decode(found[3], validate=True) if found else b""
        except ValueError:
            made = b""
        if found is None or made[:1] != ED25519 or len(made) != 33:
            raise Malformed("a key that seals is written PRIVATE+KEY+<name>+<hash>+<base64>, for Ed25519")
        key = cls(found[1], made[1:])
        if key.id.hex() != found[2]:
            raise Malformed(f"the hash of the private key {found[1]!r} is not that of its name and bytes")
        return key

    @property
    def id(self) -> bytes:
        return key_id(self.name, self._public)

    @property
    def verifier(self) -> str:
        """The public key, as it is handed to auditors."""
        return verifier_key(self.name, self._public)

    def sign(self, text: str) -> Signature:
        return Signature(self.name, self.id, self._key.sign(text.encode()))

    def written(self) -> str:
        """The private key, to be kept."""
        return f"PRIVATE+KEY+{self.name}+{self.id.hex()}+{b64encode(ED25519 + self._seed).decode()}"


def signers(note: str, verifiers: list[str]) -> list[str]:
    """Those of the verifier keys whose signature a note carries. Raises Malformed for a note or a key that is none.

    A signature that names one of the keys and is not that key's makes the note worthless: Malformed, too.
    """
    text, signatures = read(note)
    signed = []
    for verifier in verifiers:
        name, public = read_verifier_key(verifier)
        for one in signatures:
            if (one.name, one.key_id) != (name, key_id(name, public)):
                continue
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(one.signature, text.encode())
            except InvalidSignature:
                raise Malformed(f"the signature of {name} ({one.key_id.hex()}) is not that key's") from None
            signed.append(verifier)
            break
    return signed


class Keyring:
    """The keys in a folder of their own, and the last checkpoint they signed, out of the database's reach.

    `keys` has a key a line, and after it, for one that is on its way out, ` until <RFC 3339>`. All keys in use sign, so
    that a checkpoint carries the old signature and the new one for a while. Of a lost key it has the public one, which
    checks what that signed. Keys from the settings take its place.
    """

    def __init__(self, folder: Path, origin: Callable[[], str], given: str | None = None) -> None:
        """`origin` says what the log is called when it gets its first key."""
        self._folder = folder
        self._name_log = origin
        self._given = given

    def origin(self) -> str | None:
        verifiers = self.verifiers()
        return read_verifier_key(verifiers[0])[0] if verifiers else None

    def make(self) -> str:
        key = SigningKey.make(self.origin() or self._name_log())
        self._write("keys", "".join(f"{line}\n" for line in (*self._written_lines(), key.written())))
        return key.name

    def rotate(self, until: datetime) -> str:
        """Make a key that signs from now on, and the only one from `until` on; returns its verifier key."""
        if (name := self.origin()) is None or self._given is not None:
            raise Malformed(f"there is no key in {self._folder} that a new one could follow")
        key = SigningKey.make(name)
        old = [
            line if " until " in line or not line.startswith("PRIVATE") else f"{line} until {until.isoformat()}"
            for line in self._written_lines()
        ]
        self._write("keys", "".join(f"{line}\n" for line in (*old, key.written())))
        return key.verifier

    def verifiers(self) -> list[str]:
        """The public keys of all that are here, also of those whose time is over, and of lost ones."""
        return [key if isinstance(key, str) else key.verifier for key, _ in self._lines()]

    def private(self) -> list[str]:
        """The public keys of those that can sign here, also of those whose time is over."""
        return [key.verifier for key, _ in self._lines() if isinstance(key, SigningKey)]

    def trusting(self, verifiers: Sequence[str]) -> "Keyring":
        return Keyring(self._folder, self._name_log, ",".join((*self._written_lines(), *verifiers)))

    def replace(self, lost: Sequence[str]) -> str:
        """Make a key beside the public ones of those that are lost; returns its verifier key."""
        if self._given is not None:
            raise Malformed(
                "JOBLEDGER_SEAL_KEY is set, and a new key is made in the data folder: unset it, run this again, and "
                "then give it the content of the file `keys`"
            )
        key = SigningKey.make(read_verifier_key(lost[0])[0])
        kept = [line for line in self._written_lines() if line not in lost]
        self._write("keys", "".join(f"{line}\n" for line in (*kept, *lost, key.written())))
        return key.verifier

    def sign(self, text: str, now: datetime) -> tuple[str, list[str]]:
        lines = self._lines()
        keys = [key for key, until in lines if isinstance(key, SigningKey) and (until is None or now < until)]
        return write(text, [key.sign(text) for key in keys]), [key.verifier for key in keys]

    def signed(self, note: str) -> bool:
        return bool(signers(note, self.verifiers()))

    def last(self) -> str | None:
        try:
            return (self._folder / "checkpoint").read_text("utf-8")
        except FileNotFoundError:
            return None

    def keep(self, note: str) -> None:
        self._write("checkpoint", note)

    def _lines(self) -> list[tuple[SigningKey | str, datetime | None]]:
        """The keys, with the end of their time if they have one; of lost ones the public key."""
        read = [line.partition(" until ") for line in self._written_lines()]
        return [(_key(key), datetime.fromisoformat(until) if until else None) for key, _, until in read]

    def _written_lines(self) -> list[str]:
        if self._given is not None:
            return re.split(r"[\n,]\s*", self._given.strip())
        try:
            text = (self._folder / "keys").read_text("utf-8")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]

    def _write(self, name: str, text: str) -> None:
        """In a way that outlives a power cut, readable by us alone."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._folder / f"{name}.{secrets.token_hex(4)}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / name)
        except OSError:
            part.unlink(missing_ok=True)  # a disk that is full is not to be filled with empty files
            raise
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _key(line: str) -> SigningKey | str:
    """A private key or, as it is, the public one of a key that is lost. Raises Malformed."""
    with suppress(Malformed):
        read_verifier_key(line)
        return line
    return SigningKey.parse(line)

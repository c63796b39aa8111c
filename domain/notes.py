"""Signed notes (c2sp.org/signed-note) and the checkpoints they carry (c2sp.org/tlog-checkpoint), to the byte."""

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Self

from msgspec import Struct

from domain.refusals import Refused

ED25519 = b"\x01"
"""The type of a key, before its bytes."""
KEY_NAME = re.compile(r"[^\s+]+")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")


class Malformed(Refused):
    """What should be a note, a checkpoint or a key is none."""

    code = "invalid"


class Checkpoint(Struct, frozen=True):
    """How large the log was that `origin` names, and the root of its tree."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The checkpoint that a note's text is; lines that follow it are extensions. Raises Malformed."""
        lines = text.split("\n")
        if len(lines) < 4 or not lines[0] or not _NUMBER.fullmatch(lines[1]):
            raise Malformed("this is no checkpoint: an origin, a size and a root, each on a line of its own")
        root = _base64(lines[2])
        if len(root) != 32:
            raise Malformed("the root of a checkpoint has 32 bytes")
        return cls(lines[0], int(lines[1]), root)


class Signature(Struct, frozen=True):
    """A line under a note: who signed it, the first four bytes of the key's hash, and the signature."""

    name: str
    key_id: bytes
    signature: bytes


def write(text: str, signatures: list[Signature]) -> str:
    """The note: its text, an empty line, and a line for each signature."""
    lines = [f"— {s.name} {b64encode(s.key_id + s.signature).decode()}\n" for s in signatures]
    return f"{text}\n{''.join(lines)}"


def read(note: str) -> tuple[str, list[Signature]]:
    """A note's text, and its signatures, unverified. Raises Malformed."""
    text, gap, below = note.rpartition("\n\n")
    if not gap or not below.endswith("\n") or any(ord(c) < 0x20 and c != "\n" for c in note):
        raise Malformed("this is no signed note: text, an empty line, and signatures")
    signatures = []
    for line in below[:-1].split("\n"):
        found = _SIGNATURE.fullmatch(line)
        signed = _base64(found[2]) if found else b""
        if found is None or len(signed) < 5:
            raise Malformed(f"this is no signature of a note: {line[:100]!r}")
        signatures.append(Signature(found[1], signed[:4], signed[4:]))
    return text + "\n", signatures


def key_id(name: str, public: bytes) -> bytes:
    """The first four bytes of an Ed25519 key's hash, which say in a note which key signed it."""
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def verifier_key(name: str, public: bytes) -> str:
    """The public key as it is published: its name, its id, its type and bytes."""
    return f"{name}+{key_id(name, public).hex()}+{b64encode(ED25519 + public).decode()}"


def read_verifier_key(key: str) -> tuple[str, bytes]:
    """A published key's name and bytes. Raises Malformed."""
    name, _, rest = key.strip().partition("+")
    id, _, encoded = rest.partition("+")
    public = _base64(encoded)
    if not KEY_NAME.fullmatch(name) or public[:1] != ED25519 or len(public) != 33:
        raise Malformed("this is no verifier key for Ed25519: <name>+<hash>+<base64>")
    if id != key_id(name, public[1:]).hex():
        raise Malformed(f"the hash of the verifier key {name!r} is not that of its name and bytes")
    return name, public[1:]


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise Malformed(f"this is no base64: {text[:100]!r}") from error

"""The keys that sign checkpoints: Ed25519, in the encodings of c2sp.org/signed-note."""

import re
from base64 import b64decode, b64encode
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

"""The Merkle tree over the log (RFC 6962, 2.1; RFC 9162, 2.1), kept as tiles of 256 hashes (c2sp.org/tlog-tiles)."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from msgspec import Struct

from domain.refusals import Refused

HEIGHT = 8
"""Levels of the tree in one tile."""
WIDTH = 1 << HEIGHT
"""Hashes in a full tile."""
SIZE = 32
"""Bytes of a hash."""
EMPTY = sha256(b"").digest()
"""The root of a tree without leaves."""

Read = Callable[[int, int], bytes]
"""Reads the hashes of a tile, by its level and its index within the level. More than the tree needs are no matter."""


class ProofFailed(Refused):
    """A proof does not prove what it should."""

    code = "conflict"


class Tile(Struct, frozen=True):
    """Up to 256 hashes of one level; those of level L are the roots of subtrees of 256^L leaves."""

    level: int
    index: int
    hashes: bytes


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def split(hashes: bytes) -> list[bytes]:
    """The hashes that stand one after the other."""
    return [hashes[at : at + SIZE] for at in range(0, len(hashes), SIZE)]


def grow(size: int, edge: Sequence[bytes], leaves: Iterable[bytes]) -> list[Tile]:
    """The tiles that change when `leaves`, leaf hashes, join a tree of `size`, those at the right edge among them.

    `edge` has the hashes of the tile that is being filled at each level, from the leaves up.
    """
    tiles: list[Tile] = []
    hashes, level = b"".join(leaves), 0
    while hashes:
        before = edge[level] if level < len(edge) else b""
        hashes = before + hashes
        first = size >> HEIGHT * (level + 1)
        rows = [hashes[at : at + WIDTH * SIZE] for at in range(0, len(hashes), WIDTH * SIZE)]
        tiles += [Tile(level, first + n, row) for n, row in enumerate(rows)]
        hashes = b"".join(fold(split(row)) for row in rows if len(row) == WIDTH * SIZE)
        level += 1
    return tiles


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root of a perfect subtree: of 1, 2, 4, 8… hashes of one level."""
    while len(hashes) > 1:
        hashes = [sha256(b"\1" + hashes[at] + hashes[at + 1]).digest() for at in range(0, len(hashes), 2)]
    return hashes[0]


def widths(size: int) -> list[tuple[int, int, int]]:
    """The tiles at the right edge of a tree that are not full: level, index and number of hashes."""
    edge = []
    level = 0
    while size:
        if size % WIDTH:
            edge.append((level, size // WIDTH, size % WIDTH))
        size, level = size // WIDTH, level + 1
    return edge


def root(size: int, read: Read) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return _root_of(0, size, read) if size else EMPTY


def inclusion(index: int, size: int, read: Read) -> list[bytes]:
    """The proof that leaf `index` is in the tree of `size` (RFC 6962, 2.1.1)."""
    begin, end, proof = 0, size, []
    while end - begin > 1:
        middle = begin + _largest_power_below(end - begin)
        if index < middle:
            proof.append(_root_of(middle, end, read))
            end = middle
        else:
            proof.append(_root_of(begin, middle, read))
            begin = middle
    return proof[::-1]


def consistency(first: int, second: int, read: Read) -> list[bytes]:
    """The proof that the tree of `first` leaves is how that of `second` began (RFC 6962, 2.1.2)."""
    if first in (0, second):
        return []
    begin, end, proof, whole = 0, second, [], True
    while first != end:
        middle = begin + _largest_power_below(end - begin)
        if first <= middle:
            proof.append(_root_of(middle, end, read))
            end = middle
        else:
            proof.append(_root_of(begin, middle, read))
            begin, whole = middle, False
    if not whole:
        proof.append(_root_of(begin, end, read))
    return proof[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> None:
    """Raises ProofFailed unless the leaf hash `leaf` is at `index` of the tree with this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise ProofFailed(f"there is no leaf {index} in a tree of {size}")
    at, last, made = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise ProofFailed("the proof is too long")
        if at & 1 or at == last:
            made = node_hash(sibling, made)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            made = node_hash(made, sibling)
        at, last = at >> 1, last >> 1
    if last or made != expected:
        raise ProofFailed(f"the proof of leaf {index} does not lead to the root of the tree of {size}")


def check_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises ProofFailed unless the first tree is how the second began (RFC 9162, 2.1.4.2)."""
    failed = ProofFailed(f"the tree of {second} does not extend the tree of {first}")
    if first > second:
        raise failed
    if first in (0, second):
        if proof or first_root != (second_root if first else EMPTY):
            raise failed
        return
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        raise failed
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = path[0]
    for hash in path[1:]:
        if not last:
            raise failed
        if at & 1 or at == last:
            old, new = node_hash(hash, old), node_hash(hash, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, hash)
        at, last = at >> 1, last >> 1
    if last or (old, new) != (first_root, second_root):
        raise failed


def _root_of(begin: int, end: int, read: Read) -> bytes:
    """The root of the leaves from `begin` to before `end`; `begin` is a multiple of the next power of two."""
    width = end - begin
    if width & (width - 1):
        middle = begin + _largest_power_below(width)
        return node_hash(_root_of(begin, middle, read), _root_of(middle, end, read))
    level, within = divmod(width.bit_length() - 1, HEIGHT)
    first = begin >> HEIGHT * level
    index, at = divmod(first, WIDTH)
    hashes = read(level, index)[at * SIZE : (at + (1 << within)) * SIZE]
    if len(hashes) != SIZE << within:
        raise ProofFailed(f"tile {index} of level {level} has fewer hashes than the tree of {end} has there")
    return fold(split(hashes))


def _largest_power_below(number: int) -> int:
    return 1 << (number - 1).bit_length() - 1

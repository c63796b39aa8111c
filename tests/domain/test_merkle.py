"""The Merkle tree, against the published vectors of Certificate Transparency and against RFC 6962's own definition."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.merkle import (
    EMPTY,
    SIZE,
    WIDTH,
    ProofFailed,
    check_consistency,
    check_inclusion,
    consistency,
    grow,
    inclusion,
    leaf_hash,
    node_hash,
    root,
    widths,
)

# The reference vectors of Certificate Transparency (its C++ and Go implementations share them).
ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY: dict[tuple[int, int], list[str]] = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
SIZES = st.integers(0, 1300) | st.sampled_from([255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 66_000])
LEAVES = [sha256(b"leaf %d" % n).digest() for n in range(66_100)]


class Tree:
    """A tree as a sealer keeps it: tiles, and the edge that it goes on from."""

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        self.size = 0
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.grow(leaves)

    def grow(self, leaves: Sequence[bytes]) -> None:
        edge = [b""] * 8
        for level, index, width in widths(self.size):
            edge[level] = self.tiles[level, index]
            assert len(edge[level]) == width * SIZE
        for tile in grow(self.size, edge, leaves):
            assert tile.hashes.startswith(self.tiles.get((tile.level, tile.index), b""))
            assert 0 < len(tile.hashes) <= WIDTH * SIZE
            self.tiles[tile.level, tile.index] = tile.hashes
        self.size += len(leaves)

    def read(self, level: int, index: int) -> bytes:
        return self.tiles[level, index]


WHOLE = Tree(LEAVES)
OF_THE_VECTORS = Tree([leaf_hash(entry) for entry in ENTRIES])


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1, as it is written there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def told(proof: list[bytes]) -> list[str]:
    return [hash.hex() for hash in proof]


def test_the_hash_of_a_leaf_and_of_a_node_are_the_rfcs() -> None:
    assert leaf_hash(b"").hex() == ROOTS[1]
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_the_published_ones(size: int) -> None:
    assert root(size, OF_THE_VECTORS.read).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int) -> None:
    proof = inclusion(index, size, OF_THE_VECTORS.read)
    assert told(proof) == INCLUSION[index, size]
    check_inclusion(leaf_hash(ENTRIES[index]), index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(first: int, second: int) -> None:
    proof = consistency(first, second, OF_THE_VECTORS.read)
    assert told(proof) == CONSISTENCY[first, second]
    check_consistency(first, second, bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[second]), proof)


@settings(deadline=None)
@given(st.lists(st.integers(0, 700), max_size=6))
def test_a_tree_that_grows_bit_by_bit_is_the_tree_of_all_its_leaves(steps: list[int]) -> None:
    tree = Tree()
    for step in steps:
        tree.grow(LEAVES[tree.size : tree.size + step])
        assert root(tree.size, tree.read) == mth(LEAVES[: tree.size])
    assert tree.tiles == Tree(LEAVES[: tree.size]).tiles


@settings(deadline=None)
@given(SIZES)
def test_the_root_of_any_size_is_found_in_the_tiles_of_a_larger_tree(size: int) -> None:
    assert root(size, WHOLE.read) == mth(LEAVES[:size])


@settings(deadline=None)
@given(SIZES.filter(bool), st.data())
def test_every_leaf_is_proven_and_no_other_passes(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, top = inclusion(index, size, WHOLE.read), root(size, WHOLE.read)
    check_inclusion(LEAVES[index], index, size, proof, top)
    wrong = [
        (sha256(LEAVES[index]).digest(), index, size, proof, top),
        (LEAVES[index], index, size, [*proof, EMPTY], top),
        (LEAVES[index], index, size, proof, EMPTY),
        (LEAVES[index], size, size, proof, top),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong += [
            (LEAVES[index], index ^ 1, size, proof, top),
            (LEAVES[index], index, size, proof[:-1], top),
            (LEAVES[index], index, size, [*proof[:at], EMPTY, *proof[at + 1 :]], top),
        ]
    for forgery in wrong:
        with pytest.raises(ProofFailed):
            check_inclusion(*forgery)


@settings(deadline=None)
@given(SIZES, SIZES, st.data())
def test_every_tree_extends_every_smaller_one_and_no_other(one: int, other: int, data: st.DataObject) -> None:
    first, second = sorted((one, other))
    proof = consistency(first, second, WHOLE.read)
    old, new = root(first, WHOLE.read), root(second, WHOLE.read)
    check_consistency(first, second, old, new, proof)
    forged = sha256(old).digest()
    wrong = [(first, second, forged, new, proof), (first, second, old, new, [*proof, EMPTY])]
    if first < second:
        wrong += [(second, first, new, old, proof)]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong += [
            (first, second, old, sha256(new).digest(), proof),
            (first, second, old, new, proof[:-1]),
            (first, second, old, new, [*proof[:at], EMPTY, *proof[at + 1 :]]),
        ]
    for forgery in wrong:
        with pytest.raises(ProofFailed):
            check_consistency(*forgery)


def test_a_tile_that_lost_hashes_proves_nothing() -> None:
    with pytest.raises(ProofFailed, match="tile 0 of level 0 has fewer hashes"):
        root(8, lambda level, index: OF_THE_VECTORS.read(level, index)[: 6 * SIZE])

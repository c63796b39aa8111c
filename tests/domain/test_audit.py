"""The hash chain, to the byte: an auditor with the format and a SHA-256 must come to the same."""

import struct
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise, permutations
from uuid import UUID

import pytest

from domain.audit import GENESIS, chain

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ALL_ONES = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")
TOPIC = "job.created"
STATE = b'{"a":1}'

# Made with printf and sha256sum from the format's text alone. The first, for instance:
#   { printf 'jobledger/event/1\0'                                               prefix, 18 bytes
#     head -c 32 /dev/zero                                                       previous hash: none
#     printf '\x01\x89\x0a\x5d\xac\x96\x77\x4b\xbc\xce\xb3\x02\x09\x9a\x80\x57'  job id, 16 bytes
#     printf '\0\0\0\0\0\0\0\x01'                                               version, 8 bytes, big-endian
#     printf '\0\0\0\x0b'                                                        length of topic, 4 bytes
#     printf 'job.created'                                                       topic
#     printf '{"a":1}'; } | sha256sum                                            state
FIRST = "9417e91b59281f75bebb9c32fb045cba2ea742ada5b78f6eb30fe11aa57cd5ce"
VECTORS = {
    "first event": (GENESIS, ID, 1, TOPIC, STATE, FIRST),
    "second event": (
        bytes.fromhex(FIRST),
        ID,
        2,
        "job.started",
        b"{}",
        "57da7e5816d7a8b3474d8e3e92d443b71cdfa388aa4350c819f0b8b591e35d3c",
    ),
    "unicode and the largest version": (
        b"\xff" * 32,
        ALL_ONES,
        2**63 - 1,
        "job.größe☃",
        '{"q":"🌍"}'.encode(),
        "8e87c3f3d0eef5b6c5a1129b7abb3a8e8d11eb69b54c0ea7c9bc59556678cd0b",
    ),
    "empty topic and state": (
        GENESIS,
        UUID(int=0),
        1,
        "",
        b"",
        "e8e6141fb3b90f2a5fc6306781acc7315f1e66364464785190b9b0a09faebbf4",
    ),
}


def by_hand(previous: bytes, id: UUID, version: int, topic: str, state: bytes) -> bytes:
    name = topic.encode("utf-8")
    layout = struct.pack(
        f">18s32s16sQI{len(name)}s", b"jobledger/event/1\0", previous, id.bytes, version, len(name), name
    )
    return sha256(layout + state).digest()


def one_byte_off(content: bytes) -> Iterator[bytes]:
    for index in range(len(content)):
        yield content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]


def linked(events: list[tuple[str, bytes]]) -> bytes:
    last = GENESIS
    for version, (topic, state) in enumerate(events, start=1):
        last = chain(last, ID, version, topic, state)
    return last


@pytest.mark.parametrize("vector", VECTORS)
def test_the_chain_gives_the_published_hashes(vector: str) -> None:
    previous, id, version, topic, state, expected = VECTORS[vector]
    assert chain(previous, id, version, topic, state).hex() == expected


@pytest.mark.parametrize("vector", VECTORS)
def test_the_chain_can_be_recomputed_by_hand_from_the_format(vector: str) -> None:
    previous, id, version, topic, state, _ = VECTORS[vector]
    assert chain(previous, id, version, topic, state) == by_hand(previous, id, version, topic, state)


def test_the_first_event_is_chained_to_thirty_two_zeros() -> None:
    assert bytes.fromhex("00" * 32) == GENESIS


def test_a_hash_is_thirty_two_bytes() -> None:
    assert len(chain(GENESIS, ID, 1, TOPIC, STATE)) == 32


def test_any_changed_byte_changes_the_hash() -> None:
    changed = [
        *(chain(previous, ID, 1, TOPIC, STATE) for previous in one_byte_off(GENESIS)),
        *(chain(GENESIS, UUID(bytes=id), 1, TOPIC, STATE) for id in one_byte_off(ID.bytes)),
        *(chain(GENESIS, ID, 1, topic.decode(), STATE) for topic in one_byte_off(TOPIC.encode())),
        *(chain(GENESIS, ID, 1, TOPIC, state) for state in one_byte_off(STATE)),
        *(chain(GENESIS, ID, int.from_bytes(version), TOPIC, STATE) for version in one_byte_off((1).to_bytes(8))),
    ]
    assert len({bytes.fromhex(FIRST), *changed}) == 1 + 32 + 16 + len(TOPIC) + len(STATE) + 8


def test_whitespace_that_means_nothing_in_json_changes_the_hash() -> None:
    assert chain(GENESIS, ID, 1, TOPIC, b'{"a": 1}') != chain(GENESIS, ID, 1, TOPIC, STATE)


def test_where_the_topic_ends_and_the_state_begins_is_part_of_the_hash() -> None:
    assert chain(GENESIS, ID, 1, "job.create", b"d" + STATE) != chain(GENESIS, ID, 1, TOPIC, STATE)


def test_the_length_of_a_topic_is_counted_in_bytes() -> None:
    assert chain(GENESIS, ID, 1, "ö", b"") != chain(GENESIS, ID, 1, "o", b"\x88")
    assert chain(GENESIS, ID, 1, "ö", b"") == by_hand(GENESIS, ID, 1, "ö", b"")


def test_the_order_of_events_is_part_of_the_last_hash() -> None:
    events = [("job.created", b"1"), ("job.started", b"2"), ("job.completed", b"3"), ("job.requeued", b"4")]
    assert len({linked(list(order)) for order in permutations(events)}) == 24


def test_an_event_left_out_or_put_in_changes_the_last_hash() -> None:
    events = [("job.created", b"1"), ("job.started", b"2"), ("job.completed", b"3")]
    left_out = [events[:index] + events[index + 1 :] for index in range(3)]
    put_in = [[*events[:index], ("job.progressed", b""), *events[index:]] for index in range(4)]
    assert len({linked(one) for one in [events, *left_out, *put_in]}) == 8


def test_a_change_in_the_first_event_reaches_every_later_hash() -> None:
    def hashes(state: bytes) -> list[bytes]:
        made = [chain(GENESIS, ID, 1, TOPIC, state)]
        for version in range(2, 6):
            made.append(chain(made[-1], ID, version, "job.progressed", b"{}"))
        return made

    honest, forged = hashes(b'{"a":1}'), hashes(b'{"a":2}')
    assert not set(honest) & set(forged)
    assert all(earlier != later for earlier, later in pairwise(honest))

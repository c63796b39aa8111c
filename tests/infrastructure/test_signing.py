"""Signed notes to the byte, against what others have published."""

import pytest

from domain.notes import Checkpoint, Malformed, read, read_verifier_key, write
from infrastructure.signing import SigningKey, signers

# The example in the documentation of Go's golang.org/x/mod/sumdb/note, which the specification was made from.
SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNED = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
NOTE = f"{TEXT}\n— PeterNeumann {SIGNED}\n"
# A checkpoint of Go's checksum database as it was published, and that database's key.
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_CHECKPOINT = """\
go.sum database tree
756113
k9nFMBuXq8uk+9SQNxs/Vadri2XDkaoo96u4uMa0qE0=

— sum.golang.org Az3grgIHxiDLRpsKUElIX5vJMlFS79SqfQDSgHQmON922lNdJ5zxF8SSPPcah3jhIkpG8LSKNaWXiy7IldOSDCt4Pwk=
"""


def test_the_published_example_comes_out_to_the_byte() -> None:
    key = SigningKey.parse(SECRET)
    assert key.verifier == PUBLIC
    assert key.written() == SECRET
    assert write(TEXT, [key.sign(TEXT)]) == NOTE
    assert signers(NOTE, [PUBLIC]) == [PUBLIC]


def test_a_published_checkpoint_is_verified_and_read() -> None:
    assert signers(GO_CHECKPOINT, [GO_KEY]) == [GO_KEY]
    checkpoint = Checkpoint.parse(read(GO_CHECKPOINT)[0])
    assert (checkpoint.origin, checkpoint.size) == ("go.sum database tree", 756113)
    assert checkpoint.text() == read(GO_CHECKPOINT)[0]
    with pytest.raises(Malformed, match="not that key's"):
        signers(GO_CHECKPOINT.replace("756113", "756114"), [GO_KEY])


def test_a_note_of_two_keys_is_signed_by_both_and_by_no_third() -> None:
    old, new, other = (SigningKey.make("log.example") for _ in range(3))
    note = write(TEXT, [old.sign(TEXT), new.sign(TEXT)])
    assert signers(note, [old.verifier, new.verifier]) == [old.verifier, new.verifier]
    assert signers(note, [new.verifier]) == [new.verifier]
    assert signers(note, [other.verifier]) == []
    assert SigningKey.parse(old.written()).verifier == old.verifier


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        NOTE[:-1],
        NOTE.replace("— ", "- "),
        NOTE.replace("x08go", "?"),
        NOTE + "more\n",
        NOTE.replace("think", "th\tink"),
        f"{TEXT}\n— PeterNeumann x08g\n",
        f"{TEXT}\n",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(Malformed):
        signers(note, [PUBLIC])


@pytest.mark.parametrize(
    "text", ["", "a\n1\n", "a\n01\nAAAA\n", "a\n-1\nAAAA\n", "\n1\n" + "A" * 43 + "=\n", "a\n1\nAAAA\n", "a\n1\n?\n"]
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "key", ["", "a", "a+b", PUBLIC.replace("c74f20a3", "c74f20a4"), PUBLIC[:-4], "a b+c74f20a3+ARpc", SECRET]
)
def test_what_is_no_verifier_key_is_refused(key: str) -> None:
    with pytest.raises(Malformed):
        read_verifier_key(key)


@pytest.mark.parametrize("key", ["", PUBLIC, SECRET[:-1], SECRET.replace("c74f20a3", "c74f20a4"), SECRET + "AAAA"])
def test_what_is_no_private_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(Malformed) as refused:
        SigningKey.parse(key)
    assert "AYEKF" not in str(refused.value)


def test_a_name_with_a_space_is_refused() -> None:
    with pytest.raises(Malformed, match="no spaces"):
        SigningKey.make("my log")

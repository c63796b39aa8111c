"""Checks a job's bundle, or a month's archive, offline: `python verify.py FILE --key KEY`.

Needs Python and `cryptography`, nothing else.

The key comes from whoever runs the service, by another way than the bundle. What is checked, in this order:

1. Each event's hash is SHA-256("jobledger/event/1\\0" | hash of the event before (32 bytes; zeros for the first) |
   job id (16) | version (8, big-endian) | length of topic (4, big-endian) | topic | state), and versions are 1, 2, 3…
2. The checkpoint's text is signed (Ed25519) by one of the keys given. Format: c2sp.org/signed-note.
3. The hash of the last event is a leaf of the tree whose size and root the checkpoint states (RFC 9162, 2.1.3.2).

Of an archive (gzip), in memory that does not grow with it:

1. The checkpoint is signed, as above.
2. Its tiles of hashes make the root that the checkpoint states: the root of each full tile is the hash at its place in
   the tile above, and the tiles at the right edge make the root of all (RFC 9162, 2.1.1).
3. Each event's hash is made as above, jobs and versions are in order, and the hash is the leaf that the event names.
4. There are as many events as leaves that the tiles mark as the month's.

Exit status: 0 proven, 1 not proven, 2 wrong usage or no such file.
"""

import argparse
import gzip
import json
import sys
import zlib
from base64 import b64decode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PROVEN, NOT_PROVEN, USAGE = 0, 1, 2
FORMAT = "jobledger/bundle/1"
ARCHIVE = "jobledger/archive/1"
GZIP = b"\x1f\x8b"
WIDTH, SIZE = 256, 32
"""Hashes in a full tile, and bytes of a hash."""


class Difference(Exception):
    """What does not hold: where in the bundle, and what is wrong there."""


class Unreadable(Exception):
    """This is no bundle, or no key."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a file and say what is so; the exit status."""
    parser = argparse.ArgumentParser(prog="verify", description="Check a job's bundle, or an archive, offline.")
    parser.add_argument("bundle", help="the file; - reads a bundle from standard input")
    parser.add_argument(
        "--key", action="append", required=True, metavar="KEY", help="a public key, or a file with some"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    given = parser.parse_args(arguments)
    return run(given.bundle, given.key, as_json=given.json)


def run(bundle: str, keys: Sequence[str], *, as_json: bool = False) -> int:
    """The same, for `jobledger verify`."""
    try:
        trusted = [key for given in keys for key in _keys(given)]
        found = verify_archive(bundle, trusted) if _is_gzip(bundle) else verify(_read(bundle), trusted)
        told: dict[str, Any] = {"proven": True, **found}
        status = PROVEN
    except Difference as difference:
        told, status = {"proven": False, "difference": str(difference)}, NOT_PROVEN
    except Unreadable as reason:
        told, status = {"proven": False, "unreadable": str(reason)}, USAGE
    if as_json:
        print(json.dumps(told))
    elif status == PROVEN and "month" in told:
        print(
            f"{told['month']}: {told['events']} events of {told['jobs']} jobs, proven to be in the log "
            f"{told['origin']} of {told['size']} events, signed by {', '.join(told['keys'])}"
        )
    elif status == PROVEN:
        print(
            f"job {told['job_id']}: {told['events']} events, proven to be in the log {told['origin']} of "
            f"{told['size']} events, signed by {', '.join(told['keys'])}"
        )
        if told["unsealed"]:
            print(f"the bundle leaves out {told['unsealed']} newer events, which were not sealed yet")
    else:
        print(f"verify: {told.get('difference') or told.get('unreadable')}", file=sys.stderr)
    return status


def verify(bundle: bytes, keys: Sequence[str]) -> dict[str, Any]:
    """What a bundle proves to somebody who trusts these public keys. Raises Difference, and Unreadable."""
    try:
        read = json.loads(bundle)
        if read["format"] != FORMAT:
            raise Unreadable(f"the format of this bundle is {read['format']!r}; this program knows {FORMAT}")
        job, events, proof = UUID(read["job_id"]), read["events"], read["inclusion"]
        unsealed = int(read["unsealed"])
        last = _check_chain(job, events)
        origin, size, root, signed_by = _check_note(proof["checkpoint"], keys)
        _check_leaf(job, events, last, proof, size, root)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Unreadable(f"this is no bundle of a job: {type(error).__name__}: {error}") from error
    return {
        "job_id": str(job),
        "events": len(events),
        "unsealed": unsealed,
        "origin": origin,
        "size": size,
        "keys": signed_by,
    }


def verify_archive(path: str, keys: Sequence[str]) -> dict[str, Any]:
    """What an archive proves to somebody who trusts these public keys. Raises Difference, and Unreadable."""
    try:
        with gzip.open(path) as lines, TemporaryFile() as leaves:
            return _Archive(lines, leaves).check(keys)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, OverflowError, zlib.error) as error:
        raise Unreadable(f"this is no archive of a month: {type(error).__name__}: {error}") from error


class _Archive:
    """An archive that is being read: the tiles above the leaves are in memory, and the leaves in a file."""

    def __init__(self, lines: Iterable[bytes], leaves: IO[bytes]) -> None:
        self._lines = iter(lines)
        self._leaves = leaves
        self._places: dict[int, tuple[int, bytes]] = {}
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._marked = 0

    def check(self, keys: Sequence[str]) -> dict[str, Any]:
        header = self._next()
        if header["format"] != ARCHIVE:
            raise Unreadable(f"the format of this archive is {header['format']!r}; this program knows {ARCHIVE}")
        origin, size, root, signed_by = _check_note(header["checkpoint"], keys)
        line = self._next()
        while "level" in line:
            self._take(line, size)
            line = self._next()
        if self._root(size) != root:
            raise Difference("the archive's tiles do not make the root that was signed")
        low, high = UUID(header["low"]), UUID(header["high"])
        begins = datetime.fromtimestamp((low.int >> 80) // 1000, UTC)  # an id begins with milliseconds (RFC 9562, 5.7)
        if header["month"][:7] != f"{begins:%Y-%m}":
            raise Difference(
                f"the archive says that it is of {header['month']}, and its jobs are from {begins:%Y-%m} on"
            )
        events, jobs, footer = self._check_events(line, low, high)
        if (footer["events"], footer["jobs"]) != (events, jobs) or events != self._marked:
            raise Difference(
                f"the archive has {events} events of {jobs} jobs; it says {footer['events']} of {footer['jobs']}, and "
                f"{self._marked} leaves are marked as the month's"
            )
        if next(self._lines, None) is not None:
            raise Difference("there is more after the archive's footer")
        told = {"month": header["month"][:7], "jobs": jobs, "events": events}
        return {**told, "origin": origin, "size": size, "keys": signed_by}

    def _next(self) -> dict[str, Any]:
        line = next(self._lines, None)
        if line is None:
            raise Difference("the archive ends before its footer")
        read: dict[str, Any] = json.loads(line)
        return read

    def _take(self, tile: dict[str, Any], size: int) -> None:
        level, index = int(tile["level"]), int(tile["index"])
        hashes, where = b64decode(tile["hashes"], validate=True), f"tile {index} of level {level}"
        width = min(WIDTH, (size >> 8 * level) - index * WIDTH)
        if width <= 0 or len(hashes) != width * SIZE:
            raise Difference(f"{where}: it does not have {width} hashes")
        if width == WIDTH:
            above, at = self._tiles.get((level + 1, index // WIDTH), b""), index % WIDTH * SIZE
            if above[at : at + SIZE] != _tree(_split(hashes)):
                raise Difference(f"{where}: it is not that of the tree that was signed")
        if level or width < WIDTH:
            self._tiles[level, index] = hashes
        if level == 0:
            marks = bytes.fromhex(tile.get("leaves", ""))
            self._marked += int.from_bytes(marks, "big").bit_count()
            self._places[index] = (self._leaves.seek(0, 2), marks)
            self._leaves.write(hashes)

    def _root(self, size: int) -> bytes:
        """Made from the tiles that are not full, each with what is to the right of it as its last node."""
        right: list[bytes] = []
        level = 0
        while size >> 8 * level:
            index, width = divmod(size >> 8 * level, WIDTH)
            nodes = _split(self._tiles.get((level, index), b"")[: width * SIZE])
            if len(nodes) != width:
                raise Difference(f"tile {index} of level {level}: it is missing")
            if nodes or right:
                right = [_tree([*nodes, *right])]
            level += 1
        return right[0] if right else sha256(b"").digest()

    def _check_events(self, line: dict[str, Any], low: UUID, high: UUID) -> tuple[int, int, dict[str, Any]]:
        """How many events and jobs there are, and the line that follows them."""
        events = jobs = version = 0
        job, hash = UUID(int=0), bytes(SIZE)
        while "job_id" in line:
            id, where = UUID(line["job_id"]), f"job {line['job_id']}, version {line['version']}"
            if id != job:
                if id < job or not low <= id < high:
                    raise Difference(f"{where}: the job is out of order, or not of the month")
                job, version, hash, jobs = id, 0, bytes(SIZE), jobs + 1
            version, events = version + 1, events + 1
            if line["version"] != version:
                raise Difference(f"{where}: it should be version {version}; one is missing, or was added")
            topic, state = line["topic"].encode(), line["state"].encode()
            prefix = b"jobledger/event/1\0" + hash + job.bytes + version.to_bytes(8, "big")
            hash = sha256(prefix + len(topic).to_bytes(4, "big") + topic + state).digest()
            if line["hash"] != hash.hex():
                raise Difference(f"{where}: hash differs; the event's content, topic or place was changed")
            self._check_leaf(int(line["leaf"]), hash, where)
            line = self._next()
        return events, jobs, line

    def _check_leaf(self, leaf: int, hash: bytes, where: str) -> None:
        index, at = divmod(leaf, WIDTH)
        place, marks = self._places.get(index, (0, b""))
        if not marks or not marks[at // 8] & 1 << at % 8:
            raise Difference(f"{where}: leaf {leaf} is not marked as the month's")
        self._leaves.seek(place + at * SIZE)
        if self._leaves.read(SIZE) != sha256(b"\0" + hash).digest():
            raise Difference(f"{where}: the log that was signed does not have this event at leaf {leaf}")


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + SIZE] for at in range(0, len(hashes), SIZE)]


def _tree(nodes: list[bytes]) -> bytes:
    """The root over nodes that are equally large but for the last, which may be smaller (RFC 9162, 2.1.1)."""
    if len(nodes) == 1:
        return nodes[0]
    half = 1 << (len(nodes) - 1).bit_length() - 1
    return sha256(b"\1" + _tree(nodes[:half]) + _tree(nodes[half:])).digest()


def _check_chain(job: UUID, events: list[dict[str, Any]]) -> bytes:
    """The hash of the last event, once every event's is what its content makes it."""
    hash = bytes(32)
    for version, event in enumerate(events, 1):
        where = f"job {job}, version {version}"
        if event["version"] != version:
            raise Difference(f"{where}: missing; the next event in the bundle is version {event['version']}")
        topic, state = event["topic"].encode(), b64decode(event["state"], validate=True)
        place = job.bytes + version.to_bytes(8, "big")
        prefix = b"jobledger/event/1\0" + hash + place
        hash = sha256(prefix + len(topic).to_bytes(4, "big") + topic + state).digest()
        if event["hash"] != hash.hex():
            raise Difference(
                f"{where}: hash differs; the event's content, its topic ({event['topic']}) or its place in the history "
                "was changed"
            )
    if not events:
        raise Difference(f"job {job}: the bundle has no events")
    return hash


def _check_note(note: str, keys: Sequence[str]) -> tuple[str, int, bytes, list[str]]:
    """Origin, size and root of a checkpoint, and those who signed it of the keys given, of which one must have."""
    text, gap, below = note.rpartition("\n\n")
    lines = text.split("\n")
    if not gap or len(lines) < 3 or not (lines[1] == "0" or (lines[1].isdecimal() and lines[1][0] != "0")):
        raise Difference("checkpoint: it is no signed note of an origin, a size and a root")
    signed_by = []
    for key in keys:
        name, public = _key(key)
        id = sha256(name.encode() + b"\n\x01" + public).digest()[:4]
        for line in below.splitlines():
            mark, _, rest = line.partition(" ")
            signer, _, encoded = rest.partition(" ")
            signature = b64decode(encoded, validate=True)
            if (mark, signer, signature[:4]) != ("—", name, id):
                continue
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(signature[4:], f"{text}\n".encode())
            except InvalidSignature:
                raise Difference(f"checkpoint: the signature of {name} ({id.hex()}) is not that key's") from None
            signed_by.append(f"{name}+{id.hex()}")
            break
    if not signed_by:
        raise Difference("checkpoint: none of the keys given signed it")
    return lines[0], int(lines[1]), b64decode(lines[2], validate=True), signed_by


def _check_leaf(
    job: UUID, events: list[dict[str, Any]], last: bytes, proof: dict[str, Any], size: int, root: bytes
) -> None:
    """The last event is where its proof says (RFC 9162, 2.1.3.2)."""
    where = f"job {job}, version {len(events)}"
    if proof["job_id"] != str(job) or proof["version"] != len(events):
        raise Difference(
            f"{where}: the proof is of version {proof['version']} of job {proof['job_id']}; events are missing at the "
            "end, or were added"
        )
    if proof["size"] != size:
        raise Difference(f"{where}: size differs; the proof is of {proof['size']} events, the checkpoint of {size}")
    at, end, made = proof["index"], size - 1, sha256(b"\0" + last).digest()
    path = [bytes.fromhex(hash) for hash in proof["proof"]]
    if not 0 <= at <= end:
        raise Difference(f"{where}: index differs; there is no leaf {at} in a log of {size} events")
    for sibling in path:
        if not end:
            raise Difference(f"{where}: the proof is too long")
        if at & 1 or at == end:
            made = sha256(b"\1" + sibling + made).digest()
            while at and not at & 1:
                at, end = at >> 1, end >> 1
        else:
            made = sha256(b"\1" + made + sibling).digest()
        at, end = at >> 1, end >> 1
    if end or made != root:
        raise Difference(f"{where}: the log that was signed does not have this event at leaf {proof['index']}")
    for field, true in (("hash", last), ("root", root)):
        if proof[field] != true.hex():
            raise Difference(f"{where}: the proof's {field} is not that of what it stands beside")


def _is_gzip(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return path != "-" and file.read(2) == GZIP
    except OSError:
        return False


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error


def _keys(given: str) -> list[str]:
    """A key, or those of a file, one a line."""
    if given.count("+") >= 2:
        return [given]
    try:
        return [line for line in Path(given).read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
    except OSError as error:
        raise Unreadable(f"{given!r} is neither a key, <name>+<hash>+<base64>, nor a file of keys") from error


def _key(key: str) -> tuple[str, bytes]:
    """The name and the bytes of a public key."""
    name, _, rest = key.strip().partition("+")
    id, _, encoded = rest.partition("+")
    try:
        public = b64decode(encoded, validate=True)
    except ValueError:
        public = b""
    if not name or public[:1] != b"\x01" or len(public) != 33:
        raise Unreadable(f"{key!r} is no key: <name>+<hash>+<base64>, for Ed25519")
    if sha256(f"{name}\n".encode() + public).digest()[:4].hex() != id:
        raise Unreadable(f"the hash in the key {name!r} is not that of its name and bytes; was it cut or mistyped?")
    return name, public[1:]


if __name__ == "__main__":
    sys.exit(main())

"""A bundle is checked by one file that knows nothing of the service; what is wrong is named."""

import copy
import json
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from domain.audit import GENESIS, chain
from domain.merkle import inclusion, leaf_hash, root
from domain.notes import Checkpoint, write
from infrastructure.signing import SigningKey
from interfaces.cli import verify
from interfaces.cli.verify import Difference, Unreadable
from tests.domain.test_merkle import LEAVES, Tree

Json = Any
KEY, OTHER = SigningKey.make("log.example"), SigningKey.make("log.example")
JOB = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
TOPICS = ("job.created", "job.started", "job.progressed", "job.completed")


def hashes(states: list[bytes]) -> list[bytes]:
    made, hash = [], GENESIS
    for version, state in enumerate(states, 1):
        hash = chain(hash, JOB, version, TOPICS[version - 1], state)
        made.append(hash)
    return made


def bundle(index: int = 700, size: int = 1000, key: SigningKey = KEY) -> Json:
    """What a service would hand out for a job of four events, the last of them at that leaf."""
    states = [b'{"type":"%s","n":%d}' % (topic.encode(), n) for n, topic in enumerate(TOPICS)]
    chained = hashes(states)
    tree = Tree([*LEAVES[:index], leaf_hash(chained[-1]), *LEAVES[index + 1 : size]])
    text = Checkpoint("log.example", size, root(size, tree.read)).text()
    return {
        "format": "jobledger/bundle/1",
        "job_id": str(JOB),
        "unsealed": 0,
        "keys": [],
        "inclusion": {
            "job_id": str(JOB),
            "version": 4,
            "position": "7",
            "hash": chained[-1].hex(),
            "index": index,
            "size": size,
            "root": root(size, tree.read).hex(),
            "proof": [hash.hex() for hash in inclusion(index, size, tree.read)],
            "checkpoint": write(text, [key.sign(text)]),
        },
        "events": [
            {
                "version": n,
                "position": str(n),
                "topic": TOPICS[n - 1],
                "hash": chained[n - 1].hex(),
                "state": b64encode(states[n - 1]).decode(),
            }
            for n in (1, 2, 3, 4)
        ],
    }


def check(made: Json, *keys: SigningKey) -> Json:
    return verify.verify(json.dumps(made).encode(), [key.verifier for key in keys or (KEY,)])


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 2), (1, 2), (699, 700), (256, 257), (700, 1000), (0, 1000)])
def test_what_is_right_is_proven(index: int, size: int) -> None:
    found = check(bundle(index, size))
    id = KEY.verifier.split("+")[1]
    assert found == {
        "job_id": str(JOB),
        "events": 4,
        "unsealed": 0,
        "origin": "log.example",
        "size": size,
        "keys": [f"log.example+{id}"],
    }


def test_either_key_of_a_rotation_is_enough() -> None:
    made = bundle()
    text = made["inclusion"]["checkpoint"].rpartition("\n\n")[0] + "\n"
    made["inclusion"]["checkpoint"] = write(text, [OTHER.sign(text), KEY.sign(text)])
    for keys in ([KEY], [OTHER], [KEY, OTHER]):
        assert len(check(made, *keys)["keys"]) == len(keys)


def forged_state(made: Json) -> None:
    made["events"][1]["state"] = b64encode(b'{"type":"job.started","n":2}').decode()


def forged_topic(made: Json) -> None:
    made["events"][2]["topic"] = "job.failed"


def lost_event(made: Json) -> None:
    del made["events"][1]


def swapped(made: Json) -> None:
    made["events"][1], made["events"][2] = made["events"][2], made["events"][1]


def swapped_contents(made: Json) -> None:
    one, two = made["events"][1:3]
    one["state"], two["state"] = two["state"], one["state"]


def truncated(made: Json) -> None:
    del made["events"][-1]


def truncated_with_its_proof(made: Json) -> None:
    del made["events"][-1]
    made["inclusion"]["version"] = 3


def rechained(made: Json) -> None:
    """Everything changed to fit, but for the tree, for which one needs the key."""
    states = [b64decode(event["state"]) for event in made["events"]]
    states[0] += b" "
    for event, state, hash in zip(made["events"], states, hashes(states), strict=True):
        event["state"], event["hash"] = b64encode(state).decode(), hash.hex()


def another_jobs(made: Json) -> None:
    made["inclusion"]["job_id"] = "01890a5d-ac96-774b-bcce-b302099a8058"


def another_size(made: Json) -> None:
    made["inclusion"]["size"] = 999


def another_leaf(made: Json) -> None:
    made["inclusion"]["index"] = 701


def another_root(made: Json) -> None:
    """Beside the checkpoint, which has the true one."""
    made["inclusion"]["root"] = "00" * 32


def another_hash(made: Json) -> None:
    made["inclusion"]["hash"] = made["events"][0]["hash"]


def beyond(made: Json) -> None:
    made["inclusion"]["index"] = 1000


def longer_proof(made: Json) -> None:
    made["inclusion"]["proof"] *= 2


def forged_checkpoint(made: Json) -> None:
    made["inclusion"]["checkpoint"] = made["inclusion"]["checkpoint"].replace("\n1000\n", "\n1001\n")
    made["inclusion"]["size"] = 1001


def signed_by_another(made: Json) -> None:
    made["inclusion"]["checkpoint"] = bundle(key=OTHER)["inclusion"]["checkpoint"]


def unsigned(made: Json) -> None:
    made["inclusion"]["checkpoint"] = made["inclusion"]["checkpoint"].rpartition("—")[0]


def without_events(made: Json) -> None:
    made["events"] = []


DIFFERENCES: list[tuple[Callable[[Json], None], str]] = [
    (forged_state, "version 2: hash differs"),
    (forged_topic, "version 3: hash differs"),
    (lost_event, "version 2: missing"),
    (swapped, "version 2: missing; the next event in the bundle is version 3"),
    (swapped_contents, "version 2: hash differs"),
    (truncated, "version 3: the proof is of version 4"),
    (truncated_with_its_proof, "version 3: the log that was signed does not have this event"),
    (rechained, "version 4: the log that was signed does not have this event at leaf 700"),
    (another_jobs, "the proof is of version 4 of job 01890a5d-ac96-774b-bcce-b302099a8058"),
    (another_size, "size differs"),
    (another_leaf, "does not have this event at leaf 701"),
    (another_root, "version 4: the proof's root is not"),
    (another_hash, "version 4: the proof's hash is not"),
    (beyond, "there is no leaf 1000"),
    (longer_proof, "the proof is too long"),
    (forged_checkpoint, "the signature of log.example"),
    (signed_by_another, "none of the keys given signed it"),
    (unsigned, "none of the keys given signed it"),
    (without_events, "has no events"),
]


@pytest.mark.parametrize(("forge", "named"), DIFFERENCES, ids=lambda given: getattr(given, "__name__", ""))
def test_what_is_wrong_is_named(forge: Callable[[Json], None], named: str) -> None:
    made = bundle()
    forge(made)
    with pytest.raises(Difference) as difference:
        check(made)
    assert named in str(difference.value)


def test_no_character_of_a_bundle_can_be_changed_unnoticed_but_for_what_it_does_not_prove() -> None:
    whole = bundle()
    for place in ("hash", "state", "topic"):
        for n in range(4):
            made = copy.deepcopy(whole)
            value = made["events"][n][place]
            made["events"][n][place] = ("A" if value[0] != "A" else "B") + value[1:]
            with pytest.raises((Difference, Unreadable)):
                check(made)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"null", b'{"format": "zip"}', b'{"format": 1}'])
def test_what_is_no_bundle_is_said(content: bytes) -> None:
    with pytest.raises(Unreadable):
        verify.verify(content, [KEY.verifier])


@pytest.mark.parametrize("key", ["", "a+b+c", KEY.verifier[:-6], KEY.verifier.replace("log", "lag"), KEY.written()])
def test_what_is_no_key_is_said(key: str) -> None:
    with pytest.raises(Unreadable):
        verify.verify(json.dumps(bundle()).encode(), [key])


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the file as an auditor would: by itself, in a folder of its own, nothing of ours to be imported."""
    copied = folder / "verify.py"
    copied.write_bytes(Path(verify.__file__).read_bytes())
    forbidding = (
        "import sys, runpy\n"
        "class Nothing:\n"
        "    def find_spec(self, name, *_):\n"
        "        ours = ('domain', 'application', 'infrastructure', 'interfaces', 'msgspec', 'psycopg', 'litestar')\n"
        "        if name.partition('.')[0] in ours: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-I", "-c", forbidding, str(copied), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_the_file_works_alone(tmp_path: Path) -> None:
    good, bad, keys = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "keys"
    good.write_text(json.dumps(bundle()))
    made = bundle()
    forged_state(made)
    bad.write_text(json.dumps(made))
    keys.write_text(f"# ours\n{KEY.verifier}\n")
    done = alone(tmp_path, str(good), "--key", KEY.verifier)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"job {JOB}: 4 events, proven to be in the log log.example of 1000 events" in done.stdout
    assert json.loads(alone(tmp_path, str(good), "--key", str(keys), "--json").stdout)["proven"]
    done = alone(tmp_path, str(bad), "--key", KEY.verifier)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"job {JOB}, version 2: hash differs" in done.stderr
    for arguments in ([str(tmp_path / "none"), "--key", KEY.verifier], [str(good)], [str(good), "--key", "none"]):
        assert alone(tmp_path, *arguments).returncode == 2


def test_the_command_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(bundle()))
    command = [sys.executable, "-m", "interfaces.cli.main", "verify", str(path), "--key"]
    for key, status in ((KEY, 0), (OTHER, 1)):
        done = subprocess.run([*command, key.verifier], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stderr

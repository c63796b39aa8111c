"""The seal over HTTP, judged by another implementation: Go's golang.org/x/mod/sumdb (tests/tlog/judge.go)."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from domain.notes import Checkpoint, read
from infrastructure.signing import SigningKey
from interfaces.http.audit import tile_path
from tests.sealing import ORIGIN, Sealing

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

JUDGE = Path(__file__).parents[1] / "tlog/judge.go"
GOPATH = Path("/usr/share/gocode")
"""Where Debian's packages of Go put their source."""
WIDTH = 256
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judge, built of what the machine has and nothing from the network."""
    go = shutil.which("go")
    if go is None or not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.skip("Go or its log is not installed: Debian's packages golang-go and golang-golang-x-mod-dev")
    folder = tmp_path_factory.mktemp("judge")
    offline = {"GOPATH": str(GOPATH), "GO111MODULE": "off", "GOFLAGS": "", "GOPROXY": "off", "CGO_ENABLED": "0"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GOCACHE": str(folder / "cache"), **offline}
    build = [go, "build", "-o", str(folder / "judge"), str(JUDGE)]
    built = subprocess.run(build, env=environment, capture_output=True, text=True, timeout=240)
    assert built.returncode == 0, built.stderr
    return folder / "judge"


@pytest.fixture(scope="module")
def sealing(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealing]:
    sealing = Sealing(dsn, tmp_path_factory.mktemp("seal"))
    yield sealing
    sealing.close()


@pytest.fixture(scope="module")
def served(
    judge: Path, service: "Service", sealing: Sealing, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """What `/v1/audit` serves of a log that was sealed in several goes, by its path; and the public key."""
    sizes = []
    for count in (1, 5, 250, 300, 17):
        service.http.post("/v1/jobs/batch", json={"jobs": [{"kind": "test", "input": n} for n in range(count)]})
        sealing.all()
        sizes.append(Checkpoint.parse(read(service.http.get("/v1/audit/checkpoint").text)[0]).size)
    folder = tmp_path_factory.mktemp("served")
    download(service, folder, "checkpoint")
    for level, size in enumerate((sizes[-1], sizes[-1] // WIDTH)):
        for begin in range(0, size, WIDTH):
            width = min(size - begin, WIDTH)
            name = tile_path(begin // WIDTH) + (f".p/{width}" if width < WIDTH else "")
            download(service, folder, f"tile/{level}/{name}")
            if level == 0:
                download(service, folder, f"tile/entries/{name}")
    events = service.http.get("/v1/events?limit=1000").json()["items"]
    assert len(events) == sizes[-1]
    for n in (0, 1, WIDTH - 1, WIDTH, 2 * WIDTH, len(events) - 1):
        download(service, folder, f"inclusion?position={events[n]['position']}", f"inclusion/{n}")
    for older, newer in zip(sizes, [*sizes[1:], sizes[-1]], strict=True):
        download(service, folder, f"consistency?from={older}&to={newer}", f"consistency/{older}-{newer}")
    [key] = service.http.get("/v1/audit/keys").json()["items"]
    return folder, key["key"]


def download(service: "Service", folder: Path, path: str, name: str | None = None) -> None:
    answer = service.http.get(f"/v1/audit/{path}")
    assert answer.status_code == 200, (path, answer.text)
    kept = folder / (name or path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(answer.content)


def judged(judge: Path, folder: Path, key: str) -> tuple[int, str]:
    run = subprocess.run([judge, folder, key], capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout.strip() or run.stderr.strip()


def test_go_finds_the_served_log_true(judge: Path, served: tuple[Path, str]) -> None:
    folder, key = served
    assert judged(judge, folder, key) == (0, "573 leaves, 6 inclusion proofs, 5 consistency proofs")


def flipped(at: int) -> Change:
    return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def replaced(before: bytes, after: bytes) -> Change:
    return lambda content: content.replace(before, after, 1)


def said(**other: Any) -> Change:
    """A proof's JSON with other fields."""
    return lambda content: json.dumps({**json.loads(content), **other}).encode()


def without_a_hash(content: bytes) -> bytes:
    proof = json.loads(content)
    return json.dumps({**proof, "proof": proof["proof"][1:]}).encode()


TAMPERED: dict[str, tuple[str, Change]] = {
    "another size in the checkpoint": ("checkpoint", replaced(b"\n573\n", b"\n572\n")),
    "another log's checkpoint": ("checkpoint", replaced(ORIGIN.encode(), b"jobledger/others")),
    "a signature with a byte changed": ("checkpoint", lambda note: note[:-8] + b"AAAA" + note[-4:]),
    "a changed leaf": ("tile/0/000", flipped(40)),
    "two leaves swapped": ("tile/0/001", lambda tile: tile[32:64] + tile[:32] + tile[64:]),
    "a changed leaf of the last tile": ("tile/0/002.p/61", flipped(-1 + 61 * 32)),
    "a changed node": ("tile/1/000.p/2", flipped(33)),
    "a changed event": ("tile/entries/001", flipped(5)),
    "an event left out": ("tile/entries/000", lambda entries: entries[34:]),
    "an event beyond the last": ("tile/entries/002.p/61", lambda entries: entries + entries[:34]),
    "a proof of another event": ("inclusion/1", said(hash="ab" * 32)),
    "a proof of another place": ("inclusion/256", said(index=257)),
    "a proof under another root": ("inclusion/512", said(root="cd" * 32)),
    "a proof that leaves a hash out": ("inclusion/572", without_a_hash),
    "an older tree with another root": ("consistency/6-256", said(from_root="ef" * 32)),
    "an older tree of another size": ("consistency/256-556", said(**{"from": 255})),
    "a consistency that leaves a hash out": ("consistency/556-573", without_a_hash),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_go_refuses_what_was_tampered_with(judge: Path, served: tuple[Path, str], tmp_path: Path, what: str) -> None:
    folder, key = served
    path, change = TAMPERED[what]
    copy = shutil.copytree(folder, tmp_path / "served")
    before = (copy / path).read_bytes()
    (copy / path).write_bytes(change(before))
    assert (copy / path).read_bytes() != before
    status, told = judged(judge, copy, key)
    assert (status, told[:9]) == (1, "refused: "), told


def test_go_refuses_a_log_under_another_key(judge: Path, served: tuple[Path, str]) -> None:
    status, told = judged(judge, served[0], SigningKey.make(ORIGIN).verifier)
    assert status == 1
    assert "refused: checkpoint: " in told

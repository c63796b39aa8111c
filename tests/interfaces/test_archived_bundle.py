"""An auditor with the archive of a month takes one job out of it and proves that alone: no service, no database."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from application.archives import ArchiveReader
from application.bundling import bundle_of
from infrastructure.signing import Keyring
from interfaces.bootstrap import signed_by
from interfaces.cli import verify
from tests.conftest import PATIENCE, _new_database
from tests.infrastructure.nodes import Node
from tests.keeping import MONTH, Kept
from tests.past import at, month_before, some_jobs
from tests.sealing import ORIGIN

ROOT = Path(__file__).parents[2]
ROUNDS = 30


@pytest.fixture(scope="module")
def kept(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Sealed into several tiles, the month's events among others, and archived."""
    kept = Kept(_new_database(postgres), tmp_path_factory.mktemp("kept"))
    for n in range(ROUNDS):
        with Node(at(kept.dsn, month_before(2 - n % 2) + timedelta(days=5))) as node:
            some_jobs(node)
    kept.settle()
    kept.retention.archive(MONTH)
    yield kept
    kept.close()


@pytest.fixture(scope="module")
def keys(kept: Kept) -> list[str]:
    return kept.sealing.keys.verifiers()


def jobs_in(archive: Path) -> list[UUID]:
    lines = [json.loads(line) for line in gzip.decompress(archive.read_bytes()).splitlines()]
    return sorted({UUID(line["job_id"]) for line in lines if "job_id" in line})


def asked(*arguments: object) -> "subprocess.CompletedProcess[bytes]":
    """In an empty folder of a machine that has nothing of the service."""
    return subprocess.run(
        [sys.executable, "-m", "interfaces.cli.main", "audit", "bundle", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def test_every_job_of_the_archive_is_proven_by_its_bundle(kept: Kept, keys: list[str]) -> None:
    ids = jobs_in(kept.file)
    assert len(ids) == 6 + 6 * ROUNDS // 2
    for id in ids:
        reader = ArchiveReader(iter([kept.file.read_bytes()]), signed_by(keys), lambda level, index, hashes: True)
        found = verify.verify(bundle_of(reader, id), keys)
        assert (found["job_id"], found["unsealed"], found["size"] > 512) == (str(id), 0, True)


def test_the_commands_an_auditor_types(kept: Kept, keys: list[str], tmp_path: Path) -> None:
    id = kept.old[1]
    done = asked(kept.file, id, "--key", keys[0])
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / f"job-{id}.json"
    bundle.write_bytes(done.stdout)
    assert verify.main([str(bundle), "--key", keys[0]]) == 0
    told: dict[str, Any] = json.loads(done.stdout)
    assert [event["topic"] for event in told["events"]][-1] == "job.completed"
    assert told["keys"] == [{"key": key} for key in keys]
    told["events"].pop()
    bundle.write_text(json.dumps(told))
    assert verify.main([str(bundle), "--key", keys[0]]) == 1


def test_a_job_that_is_not_in_it_a_file_that_is_none_and_a_key_that_signed_nothing(
    kept: Kept, keys: list[str], tmp_path: Path
) -> None:
    def refused(status: int, said: str, *arguments: object) -> None:
        done = asked(*arguments)
        assert (done.returncode, said in done.stderr.decode(), done.stdout) == (status, True, b""), done.stderr

    refused(1, f"is not among the {6 + 6 * ROUNDS // 2} jobs", kept.file, uuid4(), "--key", keys[0])
    stranger = Keyring(tmp_path / "stranger", lambda: ORIGIN)
    stranger.make()
    refused(1, "no key that counts has signed", kept.file, kept.old[0], "--key", *stranger.verifiers())
    refused(2, "no verifier key", kept.file, kept.old[0], "--key", "jobledger/tests+00000000+AA==")
    refused(2, "No such file", tmp_path / "none.gz", kept.old[0], "--key", keys[0])
    other = tmp_path / "other.gz"
    other.write_bytes(b"no archive")
    refused(1, "this is no archive of a month", other, kept.old[0], "--key", keys[0])
    cut = tmp_path / "cut.gz"
    cut.write_bytes(kept.file.read_bytes()[:-100])
    refused(1, "this is no archive of a month", cut, kept.old[0], "--key", keys[0])


def test_an_archive_is_of_the_month_that_it_says(kept: Kept, keys: list[str], tmp_path: Path) -> None:
    lines = gzip.decompress(kept.file.read_bytes()).splitlines(keepends=True)
    header = json.loads(lines[0])
    header["month"] = f"{month_before(9):%Y-%m-%d}"
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(b"".join([json.dumps(header).encode() + b"\n", *lines[1:]])))
    with pytest.raises(verify.Difference, match="and its jobs are from"):
        verify.verify_archive(str(other), keys)

"""Checkpoints are anchored in a folder and in a bucket with an object lock: all of them, in order, each once."""

import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import Message
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest

from application.anchoring import Anchorer, Signed
from application.errors import StoreUnavailable
from infrastructure.anchors import ObjectAnchor
from tests.buckets import Bucket, a_bucket
from tests.infrastructure.nodes import Node, ask, migrated, new_job
from tests.sealing import ORIGIN, Sealing


@pytest.fixture
def sealing(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Sealing]:
    sealing = Sealing(migrated(new_database()), tmp_path / "seal")
    yield sealing
    sealing.close()


@pytest.fixture
def seal(sealing: Sealing) -> Iterator[Callable[[int], None]]:
    """Seals so many checkpoints more."""
    with Node(sealing.dsn) as node:

        def more(count: int) -> None:
            for _ in range(count):
                node.create(new_job())
                sealing.all()

        yield more


def notes(sealing: Sealing) -> dict[int, str]:
    return dict(ask(sealing.dsn, "SELECT size, note FROM seal_checkpoints"))


def test_a_folder_has_every_checkpoint(sealing: Sealing, seal: Callable[[int], None], tmp_path: Path) -> None:
    place = tmp_path / "anchors"
    anchorer = Anchorer(sealing.store, ObjectAnchor(str(place)))
    assert anchorer.run_once() == 0
    seal(3)
    assert anchorer.run_once() == 3
    assert anchorer.run_once() == 0
    seal(1)
    after_a_restart = Anchorer(sealing.store, ObjectAnchor(str(place)))
    assert after_a_restart.run_once() == 1
    found = {int(file.name): file.read_text() for file in (place / ORIGIN).rglob("*") if file.is_file()}
    assert found == notes(sealing)
    assert all(len(file.name) == 20 for file in place.rglob("*") if file.is_file())


def test_two_who_anchor_agree(sealing: Sealing, seal: Callable[[int], None], tmp_path: Path) -> None:
    one, other = (Anchorer(sealing.store, ObjectAnchor(str(tmp_path / "anchors"))) for _ in range(2))
    seal(1)
    assert (one.run_once(), other.run_once()) == (1, 0)
    seal(2)
    assert (one.run_once(), other.run_once()) == (2, 2)


def test_another_history_is_not_written_over_the_first(
    sealing: Sealing, seal: Callable[[int], None], tmp_path: Path
) -> None:
    seal(2)
    anchorer = Anchorer(sealing.store, ObjectAnchor(str(tmp_path / "anchors")))
    anchorer.run_once()
    with psycopg.connect(sealing.dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE seal_checkpoints SET note = note || '— x AAAAAAAA' || chr(10) WHERE size = 2")
    again = Anchorer(sealing.store, ObjectAnchor(str(tmp_path / "anchors")))
    again._last = 0
    with pytest.raises(StoreUnavailable, match="another checkpoint of 2 events"):
        again.run_once()


def test_a_place_that_is_away_costs_no_checkpoint(
    sealing: Sealing, seal: Callable[[int], None], tmp_path: Path
) -> None:
    place = tmp_path / "anchors"
    place.write_text("a file where the folder should be")
    anchorer = Anchorer(sealing.store, ObjectAnchor(str(place)))
    seal(2)
    with pytest.raises(StoreUnavailable):
        anchorer.run_once()
    place.unlink()
    assert anchorer.run_once() == 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with a_bucket() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        yield bucket


def test_a_bucket_with_an_object_lock_takes_them(sealing: Sealing, seal: Callable[[int], None], bucket: Bucket) -> None:
    s3 = bucket._s3
    s3.create_bucket(Bucket="anchors", ObjectLockEnabledForBucket=True)
    anchorer = Anchorer(sealing.store, ObjectAnchor("s3://anchors/some/prefix"))
    seal(2)
    assert anchorer.run_once() == 2
    assert Anchorer(sealing.store, ObjectAnchor("s3://anchors/some/prefix")).run_once() == 0
    kept = s3.list_objects_v2(Bucket="anchors")["Contents"]
    assert {int(one["Key"].rpartition("/")[2]) for one in kept} == set(notes(sealing))
    for one in kept:
        assert one["Key"].startswith(f"some/prefix/{ORIGIN}/20")
        found = s3.get_object(Bucket="anchors", Key=one["Key"])
        assert found["Body"].read().decode() == notes(sealing)[int(one["Key"].rpartition("/")[2])]
        assert found["VersionId"]


class Listener(BaseHTTPRequestHandler):
    """Takes what is put, and keeps the headers it came with."""

    heard: ClassVar[list[Message]] = []

    def do_PUT(self) -> None:
        self.heard.append(self.headers)
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_what_goes_to_a_bucket_has_the_checksum_that_a_retention_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever).start()
        settings = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        ObjectAnchor("s3://anchors").put(ORIGIN, Signed(7, "note", datetime.now(UTC)))
        server.shutdown()
    (headers,) = Listener.heard
    assert headers["x-amz-checksum-sha256"] == b64encode(sha256(b"note").digest()).decode()
    assert "x-amz-checksum-sha256" in headers["authorization"]
    assert headers["if-none-match"] == "*"

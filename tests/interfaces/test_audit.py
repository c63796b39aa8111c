"""The seal over HTTP: what is served proves itself, to whoever has the public key and no database."""

import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest

from domain.audit import GENESIS, chain
from domain.merkle import check_consistency, check_inclusion, leaf_hash, root
from domain.notes import Checkpoint, read
from infrastructure.signing import signers
from interfaces.cli.verify import Difference, verify
from interfaces.http.audit import tile_path
from tests.infrastructure.nodes import ask
from tests.sealing import Sealing

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any


@pytest.fixture
def sealing(dsn: str, tmp_path_factory: pytest.TempPathFactory, service: "Service") -> Iterator[Sealing]:
    folder = Path(tmp_path_factory.getbasetemp()) / f"seal-{dsn.rpartition('/')[2]}"
    sealing = Sealing(dsn, folder)
    yield sealing
    sealing.close()


@pytest.fixture
def get(service: "Service") -> Callable[..., httpx2.Response]:
    def call(path: str, **parameters: Any) -> httpx2.Response:
        answer = service.http.get(f"/v1/audit/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer

    return call


Get = Callable[..., httpx2.Response]


def checkpoint(get: Get) -> Checkpoint:
    note = get("checkpoint").text
    keys = [one["key"] for one in get("keys").json()["items"]]
    assert signers(note, keys) == keys
    return Checkpoint.parse(read(note)[0])


def test_before_anything_is_sealed_it_is_said(service: "Service") -> None:
    created = service.create()
    for path in ("checkpoint", "consistency?from=0", "tile/0/000"):
        service.problem(service.http.get(f"/v1/audit/{path}"), 404, "not-found")
    service.problem(service.http.get(f"/v1/audit/jobs/{created['id']}/inclusion?version=1"), 409, "conflict")
    told = service.problem(service.http.get(f"/v1/audit/jobs/{created['id']}/bundle"), 409, "conflict")
    assert "not sealed yet" not in told["title"]
    assert "Prefer: wait" in told["detail"]
    assert service.http.get("/v1/audit/keys").json() == {"items": [], "next": None}


def test_a_monitor_rebuilds_the_tree_from_tiles_and_entries(service: "Service", sealing: Sealing, get: Get) -> None:
    service.http.post("/v1/jobs/batch", json={"jobs": [{"kind": "test", "input": n} for n in range(600)]})
    sealing.all()
    stated = checkpoint(get)
    assert stated.size > 600

    def tile(level: int, index: int) -> bytes:
        width = min((stated.size >> 8 * level) - index * 256, 256)
        partial = f".p/{width}" if width < 256 else ""
        answer = get(f"tile/{level}/{tile_path(index)}{partial}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "immutable" in answer.headers["cache-control"]
        assert len(answer.content) == width * 32
        return answer.content

    assert root(stated.size, tile) == stated.root
    entries = get("tiles/entries/001").content
    assert len(entries) == 256 * 34
    leaves = [leaf_hash(entries[at + 2 : at + 34]) for at in range(0, len(entries), 34)]
    assert entries[:2] == b"\0\x20"
    assert b"".join(leaves) == tile(0, 1)
    assert get("tiles/entries/001.p/3").content == entries[: 3 * 34]
    assert get("tile/0/000.p/7").content == tile(0, 0)[: 7 * 32]


@pytest.mark.parametrize(
    "path",
    ["0/999", "0/000.p/256", "0/000.p/0", "0/x000/000", "0/0", "8/000", "0", "entries/999", "1/000.p/200"],
)
def test_a_tile_that_is_not_there_is_not_found(service: "Service", path: str) -> None:
    service.problem(service.http.get(f"/v1/audit/tiles/{path}"), 404, "not-found")


def test_tiles_are_named_as_the_specification_does() -> None:
    assert tile_path(1234067) == "x001/x234/067"
    assert [tile_path(n) for n in (0, 7, 999, 1000)] == ["000", "007", "999", "x001/000"]


def test_an_event_is_proven_by_its_position_and_by_its_version(
    service: "Service", sealing: Sealing, get: Get, queue: str
) -> None:
    done = service.completed(queue)
    sealing.all()
    stated = checkpoint(get)
    for event in service.events(done["id"]):
        by_position = get("inclusion", position=event["position"]).json()
        proof = get(f"jobs/{done['id']}/inclusion", version=event["version"]).json()
        assert proof == by_position
        assert (proof["job_id"], proof["version"], proof["hash"]) == (done["id"], event["version"], event["hash"])
        path = [bytes.fromhex(hash) for hash in proof["proof"]]
        leaf = leaf_hash(bytes.fromhex(event["hash"]))
        check_inclusion(leaf, proof["index"], proof["size"], path, stated.root)
        assert proof["checkpoint"].startswith(stated.text())


def test_each_size_is_proven_to_extend_the_one_before(service: "Service", sealing: Sealing, get: Get) -> None:
    before = Checkpoint("", 0, b"")
    for _ in range(3):
        service.create()
        sealing.all()
        after = checkpoint(get)
        if before.size:
            answer = get("consistency", **{"from": before.size}).json()
            assert (answer["from"], answer["to"]) == (before.size, after.size)
            path = [bytes.fromhex(hash) for hash in answer["proof"]]
            check_consistency(before.size, after.size, before.root, after.root, path)
        before = after
    beyond = service.http.get("/v1/audit/consistency", params={"from": 1, "to": before.size + 1})
    service.problem(beyond, 404, "not-found")
    assert service.invalid(service.http.get("/v1/audit/consistency", params={"from": 2, "to": 1})) == ["from"]


def test_a_bundle_has_the_events_as_stored_and_what_proves_them(
    service: "Service", sealing: Sealing, get: Get, queue: str
) -> None:
    done = service.completed(queue, {"ż": [1.50]})
    sealing.all()
    answer = get(f"jobs/{done['id']}/bundle")
    assert answer.headers["content-disposition"] == f'attachment; filename="job-{done["id"]}.json"'
    bundle = answer.json()
    assert (bundle["format"], bundle["job_id"], bundle["unsealed"]) == ("jobledger/bundle/1", done["id"], 0)
    assert [b64decode(event["state"]) for event in bundle["events"]] == service.states(done["id"])
    hash = GENESIS
    for n, event in enumerate(bundle["events"], 1):
        hash = chain(hash, UUID(done["id"]), n, event["topic"], b64decode(event["state"]))
        assert (event["version"], event["hash"]) == (n, hash.hex())
    proof = bundle["inclusion"]
    assert (proof["version"], proof["hash"]) == (3, hash.hex())
    keys = [one["key"] for one in bundle["keys"]]
    assert signers(proof["checkpoint"], keys) == keys
    found = verify(answer.content, keys)
    assert (found["job_id"], found["events"], found["size"]) == (done["id"], 3, proof["size"])
    with pytest.raises(Difference, match="version 2: hash differs"):
        verify(answer.content.replace(bundle["events"][1]["hash"].encode(), b"0" * 64), keys)


def test_a_bundle_ends_where_the_seal_does_and_waits_if_asked(
    service: "Service", sealing: Sealing, get: Get, queue: str
) -> None:
    running = service.running(queue)
    sealing.all()
    service.report({"job_id": running["id"], "attempt": 1, "type": "completed", "result": None})
    path = f"/v1/audit/jobs/{running['id']}/bundle"
    half = service.http.get(path, headers={"prefer": "wait=0"}).json()
    assert ([e["version"] for e in half["events"]], half["unsealed"]) == ([1, 2], 1)
    waiting: list[Json] = []
    asking = threading.Thread(target=lambda: waiting.append(_with_wait(service, path)))
    asking.start()
    sealing.all()
    asking.join(60)
    assert ([e["version"] for e in waiting[0]["events"]], waiting[0]["unsealed"]) == ([1, 2, 3], 0)


def _with_wait(service: "Service", path: str) -> Json:
    with httpx2.Client(base_url=service.url, timeout=90) as http:
        return http.get(path, headers={"prefer": "wait=60"}).json()


def test_a_long_history_is_a_bundle_of_many_pages(service: "Service", sealing: Sealing, get: Get, queue: str) -> None:
    id = service.running(queue)["id"]
    reports = [
        {"job_id": id, "attempt": 1, "type": "progressed", "progress": n / 1000, "message": f"{n}"} for n in range(250)
    ]
    for report in reports:
        assert service.report(report)[0]["ok"]
    sealing.all()
    bundle = get(f"jobs/{id}/bundle").json()
    assert [event["version"] for event in bundle["events"]] == list(range(1, len(service.states(id)) + 1))
    assert len(bundle["events"]) > 200


def test_who_takes_what_is_recorded_and_stays(service: "Service", sealing: Sealing, get: Get, dsn: str) -> None:
    created = service.create()
    sealing.all()
    get(f"jobs/{created['id']}/bundle")
    assert service.http.head(f"/v1/audit/jobs/{created['id']}/bundle").status_code == 200
    lines = {"accept": "application/x-ndjson"}
    assert service.http.get("/v1/events?type=job.created&limit=1", headers=lines).status_code == 200
    assert service.http.head("/v1/events", headers=lines).status_code == 200
    assert service.http.get("/v1/events?limit=1").status_code == 200, "a page is no export"
    export, bundle = get("accesses", limit=2).json()["items"]
    assert (export["action"], export["filter"], export["job_id"]) == ("export", "type=job.created&limit=1", None)
    assert (bundle["action"], bundle["filter"], bundle["job_id"]) == ("bundle", None, created["id"])
    assert export["by"] == bundle["by"] == "anonymous"
    assert export["at"] > bundle["at"]
    before = ask(dsn, "SELECT count(*) FROM accesses")
    service.problem(service.http.get(f"/v1/audit/jobs/{uuid4()}/bundle"), 404, "not-found")
    assert ask(dsn, "SELECT count(*) FROM accesses") == before, "nothing was handed out"


def test_accesses_are_paged(service: "Service", get: Get, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO accesses (by, action) SELECT 'key:' || n, 'export' FROM generate_series(1, 5) n"
        )
    first = get("accesses", limit=2).json()
    assert [one["by"] for one in first["items"]] == ["key:5", "key:4"]
    second = get("accesses", limit=2, cursor=first["next"]).json()
    assert [one["by"] for one in second["items"]] == ["key:3", "key:2"]
    everything = get("accesses", limit=1000).json()
    assert everything["next"] is None

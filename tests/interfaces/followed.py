"""Jobs that are followed, and what follows them."""

import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from tests.followers import PATIENCE, Follower

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
SOON = 3.0
"""Seconds within which news from another server must come; it takes some milliseconds."""
SILENCE = 0.5
"""Seconds in which what must not come does not."""


def of_job(service: "Service", id: str, last_id: str | int | None = None) -> Follower:
    return Follower(f"{service.url}/v1/jobs/{id}/events", last_id)


def of_log(service: "Service", last_id: str | int | None = None, **query: str) -> Follower:
    return Follower(f"{service.url}/v1/events?{urlencode(query)}", last_id)


def progress(service: "Service", job: Json, *fractions: float) -> None:
    said = {"job_id": job["id"], "attempt": job["attempt"], "type": "progressed"}
    assert all(result["ok"] for result in service.report(*({**said, "progress": each} for each in fractions)))


def complete(service: "Service", job: Json) -> None:
    [done] = service.report({"job_id": job["id"], "attempt": job["attempt"], "type": "completed"})
    assert done["ok"]


def lived(service: "Service", queue: str) -> Json:
    """A job with five events that has completed."""
    job = service.running(queue)
    progress(service, job, 0.25, 0.5)
    complete(service, job)
    return service.job(job["id"])


def unread(url: str, path: str, body: Json = None, receive_buffer: int | None = None) -> socket.socket:
    """A connection on which a request was sent and no answer was read."""
    address = urlsplit(url)
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((address.hostname, address.port))
    content = b"" if body is None else json.dumps(body).encode()
    head = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: {address.netloc}",
        "Accept: text/event-stream",
        "Connection: close",
        f"Content-Length: {len(content)}",
        "Content-Type: application/json",
        "",
        "",
    ]
    connection.sendall("\r\n".join(head).encode() + content)
    return connection

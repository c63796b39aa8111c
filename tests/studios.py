"""A small studio that speaks Elai's API on a real socket: it renders, dawdles, fails, forgets and dies as told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import av
from PIL import Image

KEY = "elai-test-0123456789-secret"
Json = Any
WIDTH, HEIGHT, SECONDS = 320, 180, 2.0


class Fault(NamedTuple):
    """What a call is answered with instead; `times` is how often."""

    status: int
    times: int = 1
    message: str = "no"
    retry_after: str | None = "0"
    done: bool = False
    """Whether what was asked for is done all the same: the answer alone is lost."""
    hang: bool = False
    """Say nothing at all, and hang up in the end."""


class Elai(ThreadingHTTPServer):
    """Keeps videos, and every call that was made; `faults` are by `METHOD /path`, with `{id}` for an id."""

    daemon_threads = True

    def __init__(self, film: bytes, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Call)
        self.film = film
        self.videos: dict[str, Json] = {}
        self.calls: list[str] = []
        self.keys: list[tuple[str, str | None]] = []
        self.faults: dict[str, Fault] = {}
        self.looks_until_ready = 2
        self.cut_downloads = 0
        self.broken_links = 0
        self.thumbnail: bytes | None = None
        self.garbage = False
        self.tags_listed = True
        self.hold = threading.Event()
        """Until it is set, nothing becomes ready."""
        self.hold.set()
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/v1"

    @property
    def orders(self) -> int:
        """How many videos were ever created."""
        return self.calls.count("POST /videos")

    @property
    def renders(self) -> int:
        return self.calls.count("POST /videos/render/{id}")

    def create(self, body: Json) -> Json:
        id = f"{len(self.videos) + 1:024x}"
        self.videos[id] = {**body, "_id": id, "status": "draft", "deleted": False, "duration": None, "looks": 0}
        return self.videos[id]

    def look(self, video: Json) -> None:
        """A video moves on when it is looked at."""
        if video["status"] in ("queued", "validating", "rendering") and self.hold.is_set():
            video["looks"] += 1
            video["status"] = ["validating", "rendering"][video["looks"] % 2]
            if video["looks"] >= self.looks_until_ready:
                place = f"http://127.0.0.1:{self.server_port}/media/{video['_id']}"
                video |= {"status": "ready", "url": f"{place}.mp4", "duration": SECONDS}
                if self.thumbnail is not None:
                    video["thumbnail"] = f"{place}.png"


class Call(BaseHTTPRequestHandler):
    server: Elai
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/media/"):
            self._media()
        else:
            self._api("GET")

    def do_POST(self) -> None:
        self._api("POST")

    def do_DELETE(self) -> None:
        self._api("DELETE")

    def _api(self, method: str) -> None:
        if self.server.closing.is_set():  # also on connections that are open
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        parts = address.path.removeprefix("/api/v1").strip("/").split("/")
        id = parts[-1] if parts[-1] not in ("videos", "render") else None
        call = f"{method} /" + "/".join([*parts[:-1], "{id}"] if id else parts)
        with self.server.lock:
            self.server.calls.append(call)
            self.server.keys.append((call, self.headers.get("Idempotency-Key")))
            fault = self._fault(call)
            if fault is None or fault.done:
                status, answer = self._answer(call, id, body, parse_qs(address.query))
        if fault is not None and fault.hang:
            self.server.closing.wait(20)
            self.close_connection = True
        elif fault is not None:
            self._send(fault.status, {"message": fault.message}, fault.retry_after)
        else:
            self._send(status, answer)

    def _fault(self, call: str) -> Fault | None:
        fault = self.server.faults.get(call)
        if fault is None or fault.times <= 0:
            return None
        self.server.faults[call] = fault._replace(times=fault.times - 1)
        return fault

    def _answer(self, call: str, id: str | None, body: bytes, query: dict[str, list[str]]) -> tuple[int, Json]:
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return 401, {"message": f"Invalid token {self.headers['Authorization']}"}
        videos = self.server.videos
        video = videos.get(id or "")
        match call:
            case "GET /videos":
                first = (int(query["page"][0]) - 1) * int(query["limit"][0])
                listed = list(videos.values())[first : first + int(query["limit"][0])]
                hidden = {"slides"} if self.server.tags_listed else {"slides", "tags"}
                return 200, {"videos": [{k: v for k, v in item.items() if k not in hidden} for item in listed]}
            case "POST /videos":
                return 200, self.server.create(json.loads(body))
            case _ if video is None:
                return 404, {"message": "Not found"}
            case "POST /videos/render/{id}":
                video["status"] = "queued"
                return 200, {"status": "ok"}
            case "GET /videos/{id}":
                self.server.look(video)
                return 200, video
            case "DELETE /videos/{id}":
                del videos[str(id)]
                return 200, {}
        return 404, {"message": "no such call"}

    def _media(self) -> None:
        assert self.headers["Authorization"] is None  # the key is for the API alone
        with self.server.lock:
            self.server.calls.append("GET /media")
            fault = self._fault("GET /media")
            cut, broken = self.server.cut_downloads > 0, self.server.broken_links > 0
            self.server.cut_downloads -= cut
            self.server.broken_links -= broken
        if fault is not None and fault.hang:
            self.server.closing.wait(20)
            self.close_connection = True
            return
        if broken:
            self._send(403, {"message": "expired"})
            return
        picture = self.path.endswith(".png")
        content = (self.server.thumbnail or b"") if picture else self.server.film
        content = b"<html>no video</html>" if self.server.garbage and not picture else content
        self.send_response(200)
        self.send_header("Content-Type", "image/png" if picture else "video/mp4")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut

    def _send(self, status: int, body: Json, retry_after: str | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None and status in (429, 503):
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def film_of(path: Path) -> bytes:
    """A real video of two seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for n in range(int(5 * SECONDS)):
            picture = Image.new("RGB", (WIDTH, HEIGHT), (20 * n, 80, 120))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))  # type: ignore[no-untyped-call]
        container.mux(stream.encode())
    return path.read_bytes()


@contextmanager
def open_for_work(film: bytes, port: int = 0) -> Iterator[Elai]:
    with Elai(film, port) as studio:
        thread = threading.Thread(target=studio.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield studio
        finally:
            studio.closing.set()
            studio.shutdown()
            thread.join()

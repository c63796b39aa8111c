"""A service that answers every request alike, as an overburdened one does, or one that does not take a key."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from msgspec.json import encode


@contextmanager
def door(status: int, headers: Mapping[str, str] | None = None, answer: object = None) -> Iterator[str]:
    """The address of one that answers with `status`, and with a problem unless another answer is given."""
    body = encode(answer or {"type": "/problems/any", "title": "No", "status": status, "detail": "no", "code": "any"})

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()

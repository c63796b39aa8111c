"""A small real server that speaks OpenAI's chat completions, well and badly."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from application.language import Analysis, Story

KEY = "sk-test-0123456789-secret"
MODEL = "model-of-the-test"
BILLED = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
PATIENCE = 60.0


class Answer:
    """One answer: a JSON body, the events of a stream, or nothing but the wait for an event and a hang-up.

    `cut` hangs up before a stream says it is done. `after` is waited for first; so is an event within a stream.
    """

    def __init__(
        self,
        body: Any = None,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        cut: bool = False,
        after: threading.Event | None = None,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = headers or {}
        self.cut = cut
        self.after = after


class ChatServer(ThreadingHTTPServer):
    """Gives the answers in turn, or what `respond` says, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.answers: list[Answer] = []
        self.respond: Callable[[dict[str, Any]], Answer] = lambda _: self.answers.pop(0)
        self.models: Answer = Answer({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.hang = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.hang.set()
            server.shutdown()
            thread.join()


class _Conversation(BaseHTTPRequestHandler):
    server: ChatServer

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self.server.keys.append(self.headers["Authorization"])
        self._answer(self.server.models)

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Authorization"])
        answer = self.server.respond(request)
        self.server.requests.append(request)
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        try:
            if answer.after is not None:
                answer.after.wait(PATIENCE)
            if isinstance(answer.body, threading.Event):
                answer.body.wait(PATIENCE)
                return
            self._send(answer)
        except ConnectionError:  # who asked is gone
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        streamed = isinstance(answer.body, list)
        pieces = self._events(answer) if streamed else [self._whole(answer.body)]
        size = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size + (100 if answer.cut else 0)))
        self.end_headers()
        for piece in pieces:
            if isinstance(piece, bytes):
                self.wfile.write(piece)
                self.wfile.flush()
            else:
                piece.wait(PATIENCE)

    def _whole(self, body: Any) -> bytes:
        return body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def _events(self, answer: Answer) -> list[bytes | threading.Event]:
        data = [*answer.body, *([] if answer.cut else ["[DONE]"])]
        return [
            event
            if isinstance(event, threading.Event)
            else f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
            for event in data
        ]

    def log_message(self, format: str, *args: object) -> None:
        pass


def completion(content: str | None, *, refusal: str | None = None, finish_reason: str = "stop") -> Answer:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": BILLED}
    return Answer(body)


def stream(content: str, *, finish_reason: str | None = "stop", cut: bool = False) -> Answer:
    pieces = [content[at : at + 500] for at in range(0, len(content), 500)]
    events = [chunk({"content": piece}, None) for piece in pieces]
    if finish_reason:
        events.append(chunk({}, finish_reason))
    events.append({**chunk({}, None), "choices": [], "usage": BILLED})
    return Answer(events, cut=cut)


def chunk(delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


def error(status: int, message: str = f"not with {KEY}", code: str | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "code": code, "type": "t"}}, status=status, headers=named)


def as_json(answer: Analysis | Story) -> str:
    said = msgspec.to_builtins(answer)
    del said["usage"]
    return json.dumps(said)

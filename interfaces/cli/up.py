"""`jobledger up`: a database, the API, workers and a projector on this machine, each started again when it dies."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import structlog
from pydantic import SecretStr

from interfaces.bootstrap import (
    AlreadyRunning,
    EmbeddedFailed,
    EmbeddedPostgres,
    configure_logs,
    embedded,
    migrate_database,
    require_modules,
    traces_endpoint,
)
from interfaces.cli.examples import example
from interfaces.cli.keys import admit, are_there
from interfaces.cli.serve import LIFELINE, address, bind
from interfaces.settings import Settings

log = structlog.get_logger()
GRACE = 20.0
"""Seconds that running jobs are given when everything stops."""
LONGEST_STOP = GRACE + 20
RESTART_SECONDS = 1.0
LOOK_SECONDS = 0.2


def up(settings: Settings) -> int:
    """Run everything until Ctrl-C or SIGTERM, then drain it and stop it in order."""
    configure_logs(settings.log)
    traces_endpoint()  # these refuse here, once, what its children would refuse again and again
    require_modules(settings)
    try:
        listening = bind(settings)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        print(f"jobledger: cannot listen on {where}: {error.strerror}; choose another --port", file=sys.stderr)
        return 1
    server = embedded(settings.data, _say) if settings.database_url is None else None
    try:
        with _stop_signals() as stopping:
            _run(settings, server, listening, stopping)
    except _NotAdmitted as refusal:
        print(f"jobledger: {refusal}", file=sys.stderr)
        return 2
    except (AlreadyRunning, EmbeddedFailed) as failed:
        advice = "; stop it, or choose another folder with --data" if isinstance(failed, AlreadyRunning) else ""
        print(f"jobledger: {failed}{advice}", file=sys.stderr)
        return 1
    finally:
        if server:
            server.stop()
    return 0


class _NotAdmitted(Exception):
    """The service may not listen where it is told to."""


def _run(
    settings: Settings, server: EmbeddedPostgres | None, listening: socket.socket, stopping: threading.Event
) -> None:
    """Keep the children running, over a database that is kept running too, until told to stop.

    A database that died is started again beside them: handlers go on meanwhile, and lose no attempt.
    """
    here = _with_database(settings, server)
    migrate_database(here)
    if refusal := admit(here):
        raise _NotAdmitted(refusal)
    children = _children(here, listening)
    welcomed = False
    try:
        while not stopping.wait(LOOK_SECONDS):
            if server is not None and not server.alive:
                log.error("postgres.died", advice="starting it again")
                server.start_again()
            for child in children:
                child.look()
            if not welcomed and _ready(listening):
                welcomed = True
                _welcome(here, listening)
    finally:
        _stop(children)


def _with_database(settings: Settings, server: EmbeddedPostgres | None) -> Settings:
    """The settings with the address of the running database in them."""
    if server is None:
        return settings
    return settings.model_copy(update={"database_url": SecretStr(server.start()), "migration_database_url": None})


class _Child:
    """A role in a process of its own, started again when it ends. It stops by itself when this process dies."""

    def __init__(self, arguments: list[str], settings: Settings, fd: int | None = None) -> None:
        self._name = arguments[0]
        self._command = [sys.executable, "-P", "-m", "interfaces.cli.main", *arguments]
        self._environment = {**os.environ, **_environment(settings), LIFELINE: "1"}
        self._fds = () if fd is None else (fd,)
        self._start_again_at = 0.0
        self.process: subprocess.Popen[bytes] = self._start()

    def look(self) -> None:
        """Start the process again, after a moment, when it has ended."""
        if self.process.poll() is None:
            return
        now = time.monotonic()
        if not self._start_again_at:
            log.error("process.died", role=self._name, exit_status=self.process.returncode)
            self._start_again_at = now + RESTART_SECONDS
        elif now >= self._start_again_at:
            self._start_again_at = 0.0
            self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            pass_fds=self._fds,
            start_new_session=True,  # Ctrl-C in the terminal is ours to pass on, in order
        )


def _children(settings: Settings, listening: socket.socket) -> list[_Child]:
    api = _Child(["api", "--fd", str(listening.fileno())], settings, listening.fileno())
    projector = _Child(["projector"], settings)
    return [api, projector, *(_Child(["worker", "--grace", str(GRACE)], settings) for _ in range(settings.workers))]


def _environment(settings: Settings) -> dict[str, str]:
    """What the children need to know that may have come from flags or from the embedded server."""
    assert settings.database_url is not None
    environment = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "JOBLEDGER_DATA": str(settings.data),
        "JOBLEDGER_HOST": settings.host,
        "JOBLEDGER_QUEUES": settings.queues,
    }
    if settings.anchor is not None:
        environment["JOBLEDGER_ANCHOR"] = settings.anchor
    if settings.migration_database_url is not None:
        environment["MIGRATION_DATABASE_URL"] = settings.migration_database_url.get_secret_value()
    return environment


def _stop(children: list[_Child]) -> None:
    """Ask the children to end, and wait; what does not end in time is killed. A second Ctrl-C makes them hurry."""
    for child in children:
        child.process.terminate()
    try:
        _wait(children)
    except KeyboardInterrupt:
        for child in children:
            child.process.terminate()
        _wait(children)
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()
        if child.process.stdin:
            child.process.stdin.close()


def _wait(children: list[_Child]) -> None:
    until = time.monotonic() + LONGEST_STOP
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(until - time.monotonic(), 0.1))


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second one, for the impatient, interrupts."""
    stopping = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ready(listening: socket.socket) -> bool:
    """Whether the API answers that it is ready."""
    host, port = listening.getsockname()[:2]
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _welcome(settings: Settings, listening: socket.socket) -> None:
    url = address(listening)
    elsewhere = f" --url {url}" if url != "http://127.0.0.1:8000" else ""
    submit = f"jobledger submit visualization {example('question.txt')} --follow{elsewhere}"
    provider = "openai" if settings.openai_api_key else "offline (set OPENAI_API_KEY for OpenAI)"
    closed = are_there(settings)
    keys = "needed: export JOBLEDGER_KEY=<yours>" if closed else "none yet: open to this machine only"
    with_key = ' -H "Authorization: Bearer $JOBLEDGER_KEY"' if closed else ""
    print(f"jobledger listening on {url}", flush=True)
    print(
        f"""
  Everything is kept in  {settings.data}
  Language model         {provider}
  Keys                   {keys}

  Try next, in another terminal:

    jobledger demo{elsewhere}
    {submit}

    curl -s {url}/v1/jobs{with_key} -H 'Content-Type: application/json' \\
      -d '{{"kind": "visualization", "input": {{"question": "What is 15 % of 80?"}}}}'
    curl -s {url}/v1/jobs{with_key}
    curl -s {url}/v1/jobs/<id>/events{with_key}

  The API is described at {url}/schema/openapi.json
  Ctrl-C lets running jobs end and stops everything; kill it any other way and nothing is lost either.
""",
        flush=True,
    )


def _say(line: str) -> None:
    print(f"jobledger: {line}", file=sys.stderr, flush=True)

"""The roles that run apart: `jobledger api`, `worker`, `projector`, and `migrate`."""

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
import uvicorn
import uvloop

from application.errors import Unavailable
from interfaces.bootstrap import Service, configure_logs, migrate_database, remote_worker
from interfaces.settings import Settings

log = structlog.get_logger()
LIFELINE = "JOBLEDGER_LIFELINE"
"""Set by `jobledger up` for its children: standard input is a pipe that ends when their parent does."""
DATABASE_PATIENCE = 60.0
SHUTDOWN_SECONDS = 10
SAME_WISH_SECONDS = 1.0
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another wants it: the event loop and the batches take turns."""


def api(settings: Settings, fd: int | None) -> int:
    """Serve HTTP until told to stop. `fd` is a listening socket to take over, if there is one."""
    if settings.database_url is None:
        print("jobledger: DATABASE_URL is not set; `jobledger up` serves with a database of its own", file=sys.stderr)
        return 2
    configure_logs(settings.log)
    try:
        listening = socket.socket(fileno=fd) if fd is not None else bind(settings)
    except OSError as error:
        print(f"jobledger: cannot listen on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)
        return 1
    _allow_many_connections()
    sys.setswitchinterval(SWITCH_SECONDS)
    _migrate_patiently(settings)
    from interfaces.cli.keys import admit  # what speaks HTTP is loaded by servers alone, so that others start sooner

    if refusal := admit(settings):
        print(f"jobledger: {refusal}", file=sys.stderr)
        return 2
    uvloop.run(_serve(settings, listening, announce=fd is None))
    return 0


def worker(settings: Settings, url: str | None, grace: float, concurrency: int) -> int:
    """Run handlers until told to stop: over HTTP at `url`, else over the database, else at JOBLEDGER_URL if set."""
    if url is None and settings.database_url is None:
        if "url" not in settings.model_fields_set:
            missing = "DATABASE_URL is not set, nor is JOBLEDGER_URL; `jobledger up` runs a worker with a database"
            print(f"jobledger: {missing}", file=sys.stderr)
            return 2
        url = settings.url
    configure_logs(settings.log)
    sys.setswitchinterval(SWITCH_SECONDS)
    if url is not None:
        return uvloop.run(_work_remotely(settings, url, grace, concurrency))
    _migrate_patiently(settings)
    uvloop.run(_work(settings, grace, concurrency))
    return 0


def projector(settings: Settings) -> int:
    """Keep the views of projections and seal the log until told to stop."""
    if settings.database_url is None:
        print("jobledger: DATABASE_URL is not set; `jobledger up` keeps its own views", file=sys.stderr)
        return 2
    configure_logs(settings.log)
    sys.setswitchinterval(SWITCH_SECONDS)
    _migrate_patiently(settings)
    uvloop.run(_project(settings))
    return 0


def migrate(settings: Settings) -> int:
    """Apply what is missing, and say what that was."""
    if settings.database_url is None and settings.migration_database_url is None:
        print("jobledger: DATABASE_URL is not set; `jobledger up` migrates its own database", file=sys.stderr)
        return 2
    configure_logs(settings.log)
    applied = migrate_database(settings)
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
    return 0


def bind(settings: Settings) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    return listening


def address(listening: socket.socket) -> str:
    """Where a socket listens, as a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, without signal handlers of its own, telling when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()


async def _serve(settings: Settings, listening: socket.socket, *, announce: bool) -> None:
    from interfaces.http.app import create_app
    from interfaces.http.connections import BoundedConnection

    service = Service(settings)
    duties = asyncio.gather(_background(service), service.keys.run())
    collect_rarely()
    config = uvicorn.Config(
        create_app(service, older_pollers=settings.older_pollers == "on"),
        http=BoundedConnection,
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff")],
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies or None,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )

    def started() -> None:
        if announce:
            print(f"jobledger listening on {address(listening)}", flush=True)

    server = _Server(config, started)

    def stop() -> None:
        server.should_exit = True
        service.let_go()

    with _told_to(stop):
        await server.serve(sockets=[listening])
    await _end(duties)
    await service.close()


async def _work(settings: Settings, grace: float, concurrency: int) -> None:
    service = Service(settings)
    duties = _background(service)
    work = service.worker(grace, concurrency)
    collect_rarely()
    with _told_to(work.stop, work.hurry):
        await work.run()
        await _end(duties)
        await service.close()


async def _project(settings: Settings) -> None:
    """What nodes of this role do, each as long as this process runs."""
    service = Service(settings)
    stopping = asyncio.Event()
    anchoring = [service.anchorer.run()] if service.anchorer is not None else []
    duties = asyncio.gather(
        _background(service), service.projector.run(), service.verifier.run(), service.sealer.run(), *anchoring
    )
    collect_rarely()
    with _told_to(stopping.set):
        print("jobledger projector following the log", flush=True)
        await stopping.wait()
    await _end(duties)
    await service.close()


async def _work_remotely(settings: Settings, url: str, grace: float, concurrency: int) -> int:
    async with remote_worker(settings, url, grace, concurrency) as work:
        print(f"jobledger worker working at {url}", flush=True)
        collect_rarely()
        with _told_to(work.stop, work.hurry):
            await work.run()
    if work.refusal is None:
        return 0
    print(f"jobledger: {work.refusal}", file=sys.stderr)
    return 1


def _background(service: Service) -> "asyncio.Future[Any]":
    """The duties that every node does beside its own; cancel it to end them."""
    return asyncio.gather(
        service.rescue.run(),
        service.upkeep.run(),
        service.following.run(service.news.tell),
        service.claimers.run(),
        service.alarm.run(),
    )


async def _end(duties: "asyncio.Future[Any]") -> None:
    """Cancel them, and log what ended one of them before its time."""
    duties.cancel()
    try:
        await duties
    except asyncio.CancelledError:
        return
    except Exception:
        log.exception("duty.failed")


@contextmanager
def _told_to(stop: Callable[[], None], hurry: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Call `stop` for SIGTERM and SIGINT, and when the parent that holds our lifeline is gone; `hurry` when told again.

    A signal that comes soon after the first is the same wish: systemd sends one to all processes of a service, and
    `jobledger up` passes its own on.
    """
    loop = asyncio.get_running_loop()
    told: list[float] = []

    def signalled() -> None:
        told.append(loop.time())
        if len(told) == 1:
            stop()
        elif told[-1] - told[0] > SAME_WISH_SECONDS:
            hurry()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    if LIFELINE in os.environ:
        descriptor = sys.stdin.fileno()
        loop.add_reader(descriptor, _lifeline, descriptor, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if LIFELINE in os.environ:
            loop.remove_reader(sys.stdin.fileno())


def _lifeline(descriptor: int, stop: Callable[[], None]) -> None:
    if not os.read(descriptor, 1):
        asyncio.get_running_loop().remove_reader(descriptor)
        stop()


def collect_rarely() -> None:
    """Garbage in cycles is rare here, and looking for it among a hundred thousand live objects takes 40 ms each time.

    What was made so far stays, and is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _allow_many_connections() -> None:
    """As many open files as this process may have: each follower is a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _migrate_patiently(settings: Settings) -> None:
    """Migrate, waiting a while for a database that is still starting. Raises Unavailable."""
    until = time.monotonic() + DATABASE_PATIENCE
    while True:
        try:
            migrate_database(settings)
        except Unavailable as away:
            if time.monotonic() > until:
                raise
            log.warning("database.awaited", reason=str(away.__cause__ or away))
            with suppress(InterruptedError):
                time.sleep(1)
        else:
            return

"""The composition root: every real thing, named in the order it is built. Nothing else names infrastructure."""

import asyncio
import importlib
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from importlib.metadata import entry_points
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from application.alarm import Alarm
from application.anchoring import Anchorer
from application.artifacts import Artifacts
from application.audit import Audit, SealingKey
from application.bulk import KIND as BULK
from application.bulk import QUEUE as BULK_QUEUE
from application.bulk import bulk_handler
from application.claimers import Claimers
from application.claims import Claim, ClaimedJob, Claims, Via
from application.errors import ApplicationError, WrongSetting
from application.following import Following
from application.handlers import Handler, handler_for, registry
from application.jobs import READ_PATIENCE, Jobs
from application.keys import Keys, KeyStore
from application.language import LanguageModel
from application.log_verification import Unit, Verification
from application.presentation import KIND as PRESENTATION
from application.presentation import absent, presentation_handler
from application.projector import Projector
from application.readiness import Finding, Ready
from application.rekeying import Rekeyed, rekey
from application.reports import AnyReport, Reported, Reports
from application.rescue import Rescue
from application.retention import Retention
from application.sealer import Sealer
from application.signed_links import SignedLinks
from application.studio import studio_handler
from application.sweeper import Sweeper, Swept
from application.tracing import TracedClaims, TracedJobs
from application.upkeep import Upkeep
from application.verifier import Verifier
from application.visualization import KIND as VISUALIZATION
from application.visualization import visualization_handler
from application.worker import Worker
from domain.events import Artifact
from infrastructure.anchors import ObjectAnchor
from infrastructure.archives import ObjectArchives
from infrastructure.artifacts import ObjectArtifacts, probe
from infrastructure.chromium import Chromium, find_chromium
from infrastructure.embedded import AlreadyRunning, EmbeddedPostgres
from infrastructure.language.offline import OfflineModel
from infrastructure.logs import configure as configure_logs
from infrastructure.news import LocalNews
from infrastructure.postgres.alarm import next_due
from infrastructure.postgres.claimers import forget_old_claimers, write_claimers
from infrastructure.postgres.contents import PostgresContents
from infrastructure.postgres.database import Database
from infrastructure.postgres.idempotency import forget_old_keys
from infrastructure.postgres.installation import installation_id, link_secret
from infrastructure.postgres.jobs import PostgresViews
from infrastructure.postgres.keys import PostgresKeys
from infrastructure.postgres.leases import PostgresLeases
from infrastructure.postgres.ledger import PostgresLedger
from infrastructure.postgres.log import Log
from infrastructure.postgres.log_verification import plan, start_verifier, verify_unit
from infrastructure.postgres.notifications import Listener, Notifier
from infrastructure.postgres.operations import PostgresOperations
from infrastructure.postgres.projections import VIEWS, PostgresCheckpoints, PostgresLog
from infrastructure.postgres.queues import PausedQueues
from infrastructure.postgres.replica import Replica, ReplicatedViews
from infrastructure.postgres.retention import PostgresMonths
from infrastructure.postgres.schema import (
    Health,
    SchemaNotReady,
    TablesBusy,
    add_partitions,
    health,
    migrate,
    migrations,
    too_old,
)
from infrastructure.postgres.scout import Scout
from infrastructure.postgres.seal import PostgresAccesses, PostgresSeal
from infrastructure.postgres.verifications import PostgresVerifications
from infrastructure.postgres.why import PostgresFacts
from infrastructure.programs import EmbeddedFailed, programs_version
from infrastructure.remote import Pauses, RemoteService
from infrastructure.signing import Keyring, signers
from infrastructure.tracing import endpoint as traces_endpoint
from infrastructure.tracing import start_tracing
from infrastructure.video.local import render
from interfaces.process_metrics import Metrics
from interfaces.settings import Settings

__all__ = [
    "AlreadyRunning",
    "EmbeddedFailed",
    "EmbeddedPostgres",
    "LogVerifier",
    "Service",
    "configure_logs",
    "database_state",
    "embedded",
    "key_store",
    "known_models",
    "migrate_database",
    "opened_in_chromium",
    "probe",
    "programs_version",
    "remote_worker",
    "replace_lost_key",
    "retention",
    "sealing_keys",
    "signed_by",
    "sweep",
    "traces_endpoint",
    "video_tools",
]

T = TypeVar("T")
LONG_BEHIND = 30.0
"""Seconds that a view may be behind the log before that is worth a warning."""
LONG_TRANSACTION = 30.0
"""Seconds after which an open write transaction, which holds readers of the whole log back, is worth a warning."""

BUSY_TRIES = 20
LONG_UNSEALED = 60.0
"""Seconds after which an event that is not sealed is worth a warning."""


class Service:
    """jobledger in this process, over the database that the settings name. Build it in the event loop."""

    def __init__(self, settings: Settings) -> None:
        assert settings.database_url is not None
        dsn, prepare = settings.database_url.get_secret_value(), settings.prepare == "on"
        self._settings = settings
        self._log = Log(dsn, prepare=prepare)
        self.news = LocalNews()
        self._notifier = Notifier(self._log.database)
        listen = _listen_url(settings)
        self._listener = Listener(Database(listen), self.news.tell) if listen is not None else None
        leases = PostgresLeases(self._log.beats)
        self.metrics = Metrics(settings.data)
        self.tracing = start_tracing()
        ledger = PostgresLedger(self._log, self._tell, self.metrics.appended)
        self._scout = Scout(self._log.batches, ledger.ready_jobs.horizon, self.news.tell)
        self._scout.start()
        self.replica = _replica(settings, self._log.reads)
        jobs = PostgresViews(self._log.reads)
        if self.replica is not None:
            jobs = ReplicatedViews(self._log.reads, self.replica)
        self.jobs = Jobs(ledger, jobs) if self.tracing is None else TracedJobs(ledger, jobs, self.tracing)
        self.facts = PostgresFacts(self._log.reads)
        self.following = Following(self.jobs, jobs, self.news, self.replica)
        self.reports = Reports(self.jobs, leases)
        self.alarm = Alarm(
            lambda queues, since: self.jobs.read(next_due, self._log.reads, queues, since), self.news, self.news.tell
        )
        self.claimers = Claimers(lambda claimers: write_claimers(self._log.database, claimers))
        paused = PausedQueues(self._log.reads)
        claiming = (ledger, leases, self.news, self.reports.release, self._notice, paused)
        self.claims = Claims(*claiming) if self.tracing is None else TracedClaims(self.tracing, *claiming)
        contents = PostgresContents(self._log.database)
        store = _store(settings, self._log.database)
        self.artifacts = Artifacts(store, contents, self.reports)
        self.sweeper = Sweeper(store, contents)
        self.keys = Keys(PostgresKeys(self._log.reads))
        self.origins = settings.allowed_origins
        self.links = SignedLinks(lambda: link_secret(self._log.database), time.time)
        self.rescue = Rescue(ledger, time.monotonic)
        views = {view.name: view for view in VIEWS}
        self.operations = PostgresOperations(self._log.database, self._log.reads, views, self._tell)
        whole_log = PostgresLog(self._log.batches)
        self.projector = Projector(views, whole_log, PostgresCheckpoints(self._log.batches, VIEWS), self.news)
        self.verifier = Verifier(views, whole_log, PostgresVerifications(self._log.database, VIEWS))
        self.seal = PostgresSeal(self._log.reads)
        self.audit = Audit(self.seal, PostgresAccesses(self._log.reads), self.jobs)
        self.sealer = Sealer(PostgresSeal(self._log.batches), keyring(settings, self._log.database))
        anchor = ObjectAnchor(settings.anchor) if settings.anchor else None
        self.anchorer = Anchorer(PostgresSeal(self._log.batches), anchor) if anchor else None
        self.upkeep = Upkeep(
            {
                "forget idempotency keys": lambda: forget_old_keys(self._log.database),
                "forget claimers": lambda: forget_old_claimers(self._log.database),
                "add partitions": lambda: _as_owner(settings, add_partitions),
                "sweep artifacts": self.sweeper.run_if_due,
            }
        )

    def worker(self, grace: float, concurrency: int) -> Worker:
        """A worker of this process with a name of its own, for all kinds it has handlers for, and for bulk jobs.

        Whatever queues it is told to serve, it serves that of bulk jobs, too: they would wait for ever else.
        """
        return Worker(
            _worker_name(),
            {**handlers(self._settings), BULK: bulk_handler(self.jobs)},
            _WorkerService(self),
            self.news,
            queues=list(dict.fromkeys([*self._settings.queue_names, BULK_QUEUE])),
            capacity=concurrency,
            grace=grace,
            tracing=self.tracing,
        )

    def readiness(self) -> Ready:
        """Whether the database answers and its schema is ours. Blocks."""
        try:
            found = health(self._log.reads)
        except SchemaNotReady as error:
            return Ready.of([Finding("schema-behind", str(error))])
        except ApplicationError as error:
            return Ready.of([Finding("database-away", str(error))])
        reasons = _reasons(found)
        warnings = []
        if found.oldest_writer_seconds is not None and found.oldest_writer_seconds > LONG_TRANSACTION:
            says = (
                f"process {found.oldest_writer_pid} has had a write transaction open for "
                f"{found.oldest_writer_seconds:.0f} s, which holds readers of the whole log back"
            )
            warnings.append(Finding("position-stalled", says))
        if not reasons:
            warnings += [*self._seal_warnings(), *self._projection_warnings(), *self._replica_warnings()]
        return Ready.of(reasons, warnings)

    def _seal_warnings(self) -> Iterator[Finding]:
        try:
            lag = self.seal.lag()
        except ApplicationError as error:
            yield Finding("seal-unknown", f"how far the log is sealed is not known: {error}")
            return
        if lag.refusal is not None:
            yield Finding("seal-refused", f"the log is not sealed any further: {lag.refusal}")
        elif lag.seconds > LONG_UNSEALED:
            says = f"{lag.events} events are not sealed, the oldest since {lag.seconds:.0f} s; does a projector run?"
            yield Finding("seal-behind", says)

    def _replica_warnings(self) -> Iterator[Finding]:
        if self.replica is None:
            return
        try:
            seconds = self.replica.behind()
        except ApplicationError as error:
            why = error.__cause__ or error
            yield Finding("replica-away", f"the replica does not serve, so that all is read from the primary: {why}")
            return
        if seconds > LONG_BEHIND:
            yield Finding("replica-behind", f"the replica is {seconds:.0f} s behind")

    def _projection_warnings(self) -> Iterator[Finding]:
        for view in self.operations.projections():
            if view.parked is not None:
                where = "GET /v1/projections and the console, for operators, say which event and why"
                yield Finding("projection-parked", f"projection {view.name!r} is parked; {where}")
            elif view.lag_seconds > LONG_BEHIND:
                behind = f"{view.lag_events} events behind, the oldest since {view.lag_seconds:.0f} s"
                yield Finding("projection-behind", f"projection {view.name!r} is {behind}; does a projector run?")

    def let_go(self) -> None:
        """Answer all who wait for something, so that the server can stop and they can ask another."""
        self.following.stop(self.news.tell)
        self.claims.stop(self.news.tell)

    async def close(self) -> None:
        """End what is under way, then the connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.sweeper.stop()
        for part in (
            self.rescue,
            self.claims,
            self.reports,
            self.following,
            self.jobs,
            self._scout,
            self._notifier,
        ):
            part.close()
        if self._listener is not None:
            self._listener.close()
        if self.replica is not None:
            self.replica.close()
        self._log.close()
        if self.tracing is not None:
            self.tracing.close()

    def _notice(self, claim: Claim, via: Via, namespace: str | None) -> None:
        self.claimers.notice(claim, via, namespace)
        self.alarm.watch(claim.queues)

    def _tell(self, topics: Collection[str]) -> None:
        self.news.tell(topics)
        self._notifier.tell(topics)


class _WorkerService:
    """The service as a worker in the same process sees it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def claim(self, claim: Claim) -> list[ClaimedJob]:
        return await self._service.claims.claim(claim)

    async def report(self, worker: str, reports: Sequence[AnyReport]) -> Sequence[Reported | Exception]:
        return await self._service.reports.say_all(worker, reports)

    async def save_artifact(
        self, worker: str, job_id: UUID, attempt: int, name: str, content: bytes | Path, media_type: str
    ) -> Artifact:
        return await self._service.artifacts.save(worker, job_id, attempt, name, content, media_type)

    async def read_artifact(self, job_id: UUID, artifact: Artifact) -> bytes:
        return await self._service.artifacts.content(artifact)


@asynccontextmanager
async def remote_worker(settings: Settings, url: str, grace: float, concurrency: int) -> AsyncIterator[Worker]:
    """A worker over HTTP, which needs no database."""
    service, tracing = RemoteService(url, settings.key.get_secret_value() if settings.key else None), start_tracing()
    try:
        mine = handlers(settings)
        queues, pauses = settings.queue_names, Pauses(service)
        yield Worker(
            _worker_name(), mine, service, pauses, queues=queues, capacity=concurrency, grace=grace, tracing=tracing
        )
    finally:
        await service.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


def _worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def handlers(settings: Settings) -> dict[str, Handler]:
    """The built-in kinds, and those of the user's modules and of installed packages, which win. Raises WrongSetting."""
    own = own_handlers(settings)
    model, browser = language_model(settings), Chromium(find_chromium())
    visualize = handler_for(VISUALIZATION, visualization_handler(model, browser))
    present = presentation_handler({"local": handler_for(PRESENTATION, render), "elai": elai_renderer(settings)})
    return {VISUALIZATION: visualize, PRESENTATION: present, **own}


def own_handlers(settings: Settings) -> dict[str, Handler]:
    """Those of the user's modules and of installed packages. Raises WrongSetting, and what goes wrong inside these."""
    require_modules(settings)
    for module in settings.handler_modules:
        importlib.import_module(module)
    for entry_point in entry_points(group="jobledger.handlers"):
        entry_point.load()
    return registry


def require_modules(settings: Settings) -> None:
    """Raises WrongSetting for a module of handlers that is not there; what is missing inside one is told as it is."""
    sys.path.append(str(Path.cwd()))
    for module in settings.handler_modules:
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            there = False
        if not there:
            raise WrongSetting(
                f"JOBLEDGER_HANDLERS names {module!r}, and there is no such module in {Path.cwd()}, nor where Python "
                "looks; name modules as they are imported, without .py"
            )


def elai_renderer(settings: Settings) -> Handler:
    """The studio at elai.io where there is a key; without one, decks that name it are refused."""
    if settings.elai_api_key is None:
        return absent("elai", "set ELAI_API_KEY where the worker runs")
    from infrastructure.elai import Elai  # its import, of what looks into videos, takes a tenth of a second

    studio = Elai(settings.elai_api_key.get_secret_value(), settings.elai_base_url)
    return handler_for(PRESENTATION, studio_handler(studio))


def language_model(settings: Settings) -> LanguageModel:
    """OpenAI where there is a key, else the offline composer."""
    if settings.openai_api_key is None:
        return OfflineModel()
    from infrastructure.language.openai import OpenAIModel  # its import takes most of a second

    return OpenAIModel(settings.openai_api_key.get_secret_value(), settings.openai_base_url, settings.openai_model)


def known_models(settings: Settings) -> list[str]:
    """The models that the OpenAI key may use. Raises LanguageModelRefused or LanguageModelBusy, and ValueError."""
    from infrastructure.language.openai import OpenAIModel

    async def ask(key: str) -> list[str]:
        model = OpenAIModel(key, settings.openai_base_url, settings.openai_model, timeout=20.0)
        try:
            return await model.models()
        finally:
            await model.aclose()

    assert settings.openai_api_key is not None
    return asyncio.run(ask(settings.openai_api_key.get_secret_value()))


def opened_in_chromium() -> tuple[str | None, str | None]:
    """Where Chromium is, and its version if it opens a page."""
    path = find_chromium()
    opened = asyncio.run(Chromium(path).open("<!doctype html><title>jobledger</title>"))
    return path, opened.browser if opened else None


def database_state(settings: Settings) -> str:
    """What can be said of a database that is ready. Raises Unavailable, and SchemaNotReady."""
    with _database(settings) as database:
        found, pooled = health(database), database.pooled()
    if reasons := _reasons(found):
        raise SchemaNotReady("; ".join(reason.message for reason in reasons))
    state = f"it answers, and its schema is ours ({found.schema_version})"
    if pooled and settings.prepare == "on":
        state += "; a pooler is in between: unless it is in session mode, set JOBLEDGER_PREPARE=off"
    return state


def _reasons(found: Health) -> list[Finding]:
    """Why a database cannot serve."""
    needed = migrations()[-1].number
    reasons = []
    if found.schema_version is None or found.schema_version < needed:
        says = f"the schema is at {found.schema_version}, not {needed}; run `jobledger migrate`"
        reasons.append(Finding("schema-behind", says))
    if (reason := too_old(found.oldest_server)) is not None:
        reasons.append(Finding("schema-ahead", reason))
    if not found.positions_rise:
        says = "the log was restored into a new cluster; run `jobledger migrate` so that positions rise"
        reasons.append(Finding("log-restored", says))
    return reasons


def video_tools() -> tuple[list[str], bool, bool]:
    """The fonts that slides are drawn with, whether letters of any script are joined, and whether H.264 is encoded."""
    import av  # these take a second to import, and a server needs none of them

    from infrastructure.video.fonts import SHAPES, found

    return found(), bool(SHAPES), "libx264" in av.codecs_available


def migrate_database(settings: Settings) -> list[str]:
    """Bring the schema up to date with the owner's rights; the migrations applied. Raises Unavailable.

    While others use a table that is changed it is tried again, for a minute.
    """
    for _ in range(BUSY_TRIES):
        with suppress(TablesBusy):
            return _as_owner(settings, migrate)
        time.sleep(1)
    return _as_owner(settings, migrate)


def sweep(settings: Settings, grace: float, *, dry_run: bool) -> Swept:
    """Remove what no event names and nobody stored within `grace` seconds.

    Raises Unavailable, SchemaNotReady and StoreUnavailable.
    """
    with _database(settings) as database:
        _require_schema(database)
        return Sweeper(_store(settings, database), PostgresContents(database)).run_once(grace, dry_run=dry_run)


def keyring(settings: Settings, database: Database) -> Keyring:
    """The keys that seal the log, in the data folder or in the settings."""
    given = settings.seal_key.get_secret_value() if settings.seal_key else None
    return Keyring(settings.data / "seal", lambda: f"jobledger/{installation_id(database)}", given)


@contextmanager
def key_store(settings: Settings) -> Iterator[KeyStore]:
    """Where the keys of a service are kept, to be asked without one."""
    with _database(settings) as database:
        _require_schema(database)
        yield PostgresKeys(database)


def sealing_keys(settings: Settings, rotate_until: datetime | None) -> tuple[list[SealingKey], list[str]]:
    """The keys that signed checkpoints, and those here that are yet to sign one.

    With a moment a new one is made, and the old ones sign until then.
    """
    with _database(settings) as database:
        ring = keyring(settings, database)
        if rotate_until is not None:
            ring.rotate(rotate_until)
        signed = PostgresSeal(database).sealing_keys()
        here: list[str] = []
        with suppress(OSError):  # who may ask the database need not be let into the data folder
            here = ring.private()
        return signed, [key for key in here if key not in {one.key for one in signed}]


def replace_lost_key(settings: Settings, lost: Sequence[str], reason: str) -> Rekeyed:
    """Go on with the seal under a new key; `lost` are the public keys of those before, by default the database's.

    Raises SealRefused, Malformed and Unavailable.
    """
    with _database(settings) as database:
        seal = PostgresSeal(database)
        known = list(lost) or [key.key for key in seal.sealing_keys()]
        return rekey(seal, keyring(settings, database), PostgresAccesses(database), known, reason)


@contextmanager
def retention(settings: Settings, tell: Callable[[str], None]) -> Iterator[Retention]:
    """What moves months between the log and their archives, with the owner's rights.

    Signatures count of the keys in the data folder and of those that the database lists: an old archive was signed by
    the keys of its time, and is held against the tiles of this database besides.
    """
    owner = settings.migration_database_url or settings.database_url
    assert owner is not None
    database = Database(owner.get_secret_value())
    try:
        _require_schema(database)
        keys = [*keyring(settings, database).verifiers(), *(k.key for k in PostgresSeal(database).sealing_keys())]
        yield Retention(
            PostgresMonths(database, VIEWS),
            ObjectArchives(settings.archives_place),
            VIEWS,
            signed_by(keys),
            settings.data / "uploads",
            tell,
        )
    finally:
        database.close()


def signed_by(keys: Sequence[str]) -> Callable[[str], bool]:
    """Whether a note is signed by one of the public keys."""
    return lambda note: bool(signers(note, list(keys)))


class LogVerifier:
    """Verifies the live log, on as many processes as are wanted."""

    def __init__(self, settings: Settings, keys: Sequence[str], known: Sequence[str]) -> None:
        """Without `keys` those count that are in the data folder or, if there are none, in the database.

        `known` are checkpoints that the log must extend, as notes; the one in the data folder is another.
        """
        assert settings.database_url is not None
        self._dsn = settings.database_url.get_secret_value()
        self._prepare = settings.prepare == "on"
        self._database = Database(self._dsn, prepare=self._prepare)
        ring = keyring(settings, self._database)
        kept = ring.last()
        self.keys = list(keys) or ring.verifiers() or [k.key for k in PostgresSeal(self._database).sealing_keys()]
        self._known = [*known, *([kept] if kept is not None else [])]

    def plan(self) -> Verification:
        """What there is to verify. Raises Unavailable, and SchemaNotReady."""
        _require_schema(self._database)
        return plan(self._database)

    def run(self, verification: Verification, workers: int) -> Iterator[Unit]:
        """Do what is left to do; each unit as it ends."""
        given = (self._dsn, self._prepare, self.keys, self._known)
        with ProcessPoolExecutor(workers, get_context("spawn"), start_verifier, given) as executor:
            try:
                yield from verification.run(verify_unit, executor, workers)
            finally:
                executor.shutdown(wait=True, cancel_futures=True)


def _store(settings: Settings, database: Database) -> ObjectArtifacts:
    return ObjectArtifacts(settings.artifacts_place, settings.data / "uploads", lambda: str(installation_id(database)))


def _listen_url(settings: Settings) -> str | None:
    """Where other nodes are heard. None behind a transaction pooler, whose clients hear nothing and look instead."""
    if settings.listen_url is not None:
        return settings.listen_url.get_secret_value()
    assert settings.database_url is not None
    return settings.database_url.get_secret_value() if settings.prepare == "on" else None


def _replica(settings: Settings, primary: Database) -> Replica | None:
    if settings.read_url is None:
        return None
    dsn, prepare = settings.read_url.get_secret_value(), settings.prepare == "on"
    return Replica(Database(dsn, prepare=prepare, by_index=True, patience=READ_PATIENCE), primary)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """The database that the settings name, while something is done with it."""
    assert settings.database_url is not None
    database = Database(settings.database_url.get_secret_value(), prepare=settings.prepare == "on")
    try:
        yield database
    finally:
        database.close()


def _require_schema(database: Database) -> None:
    """Raises SchemaNotReady for one that is older than this release."""
    if (health(database).schema_version or 0) < migrations()[-1].number:
        raise SchemaNotReady("the schema is older than this release; run `jobledger migrate`")


def _as_owner(settings: Settings, act: Callable[[Database], T]) -> T:
    """Act on the database with the rights of the schema's owner."""
    owner = settings.migration_database_url or settings.database_url
    assert owner is not None
    database = Database(owner.get_secret_value(), prepare=settings.prepare == "on")
    try:
        return act(database)
    finally:
        database.close()


def embedded(data: Path, announce: Callable[[str], None]) -> EmbeddedPostgres:
    """The PostgreSQL of a data folder, not started yet."""
    return EmbeddedPostgres(data, announce)

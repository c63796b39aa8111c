"""The schema: numbered SQL files applied once, partitions made ahead, and positions kept rising after a restore."""

from importlib.resources import files

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection

from application.errors import ApplicationError, Unavailable
from infrastructure.postgres.database import Database

log = structlog.get_logger()
MONTHS_AHEAD = 24
LOCK = """
SET LOCAL lock_timeout = '60s';
SELECT pg_advisory_xact_lock(1785684588)  -- "jobl"
"""
# A table that a migration waits for is waited for by everybody who comes later: not for long, and again a second later.
TABLES = "SELECT set_config('lock_timeout', %s, true)"
TABLE_PATIENCE = "2s"
IS_NEW = "SELECT to_regclass('migrations') IS NULL"
PREPARE = """
CREATE TABLE migrations (
  number integer PRIMARY KEY,
  name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
# A log that was restored into a new cluster has positions above those its transactions would make. Not above that of
# this transaction: others that began after it may have added to the log meanwhile, and were the epoch raised for them,
# readers would pass over those that are still open. What has left the log was sealed.
EPOCH_IS_BEHIND = """
SELECT highest - next + 1
FROM (
  SELECT greatest((SELECT max(notification_id) FROM events), (SELECT position FROM seal)) >> 16 AS highest,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint + (SELECT epoch_offset FROM log_epoch) AS next
) AS positions
WHERE highest >= next
"""
RAISE_EPOCH = "UPDATE log_epoch SET epoch_offset = epoch_offset + %s RETURNING epoch_offset"
# The roles of deploy/roles.sql, where the service runs on them and we own the tables.
IS_TO_GRANT = """
SELECT pg_has_role(relowner, 'USAGE') AND (SELECT count(*) = 2 FROM pg_roles WHERE rolname IN (%(app)s, %(auditor)s))
FROM pg_class WHERE oid = 'events'::regclass
"""
ROLES = {"app": "jobledger_app", "auditor": "jobledger_auditor"}
KNOWS_ITS_SERVERS = "SELECT to_regclass('oldest_server') IS NOT NULL"
OLDEST_SERVER = "SELECT knows FROM oldest_server"
HAS_PARTITIONS = "SELECT FROM event_partitions LIMIT 1"
STATE = """
SELECT (SELECT max(number) FROM migrations),
  greatest((SELECT max(notification_id) FROM events), (SELECT position FROM seal)) >> 16
    < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    + (SELECT epoch_offset FROM log_epoch),
  oldest.pid, oldest.seconds, (SELECT knows FROM oldest_server)
FROM (VALUES (1)) AS one
LEFT JOIN LATERAL (
  SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
  FROM pg_stat_activity
  WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
  ORDER BY xact_start
  LIMIT 1
) AS oldest ON true
"""


class SchemaNotReady(ApplicationError):
    """The database has no schema of ours, an older one, or one whose positions do not rise."""

    code = "unavailable"


class TablesBusy(Unavailable):
    """Others use a table for longer than a migration waits for it. Nothing was changed."""


class Health(Struct, frozen=True):
    """What the database says of itself: the oldest open write transaction holds readers of the whole log back.

    `oldest_server` is the migration that servers must know to be served by this schema.
    """

    schema_version: int | None
    positions_rise: bool
    oldest_writer_pid: int | None
    oldest_writer_seconds: float | None
    oldest_server: int = 0


class Migration(Struct, frozen=True):
    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """The numbered SQL files, in order."""
    found = [file for file in files(__package__).joinpath("migrations").iterdir() if file.name.endswith(".sql")]
    ordered = sorted(found, key=lambda file: file.name)
    return [Migration(int(file.name[:4]), file.name, file.read_text("utf-8")) for file in ordered]


def migrate(database: Database) -> list[str]:
    """Bring the schema up to date; returns the names of the migrations applied now.

    All in one transaction under one advisory lock, so that of two servers starting at once one migrates and the other
    finds it done. What there is to do needs the owner's rights. Raises Unavailable, TablesBusy among it; SchemaNotReady
    without these rights, where the schema serves newer releases only, and in a database that is not in UTF-8.
    """
    try:
        with database.connection() as connection, connection.transaction():
            _check_that_texts_are_utf8(connection)
            connection.execute(LOCK)
            connection.execute(TABLES, (TABLE_PATIENCE,))
            _check_that_we_are_served(connection)
            if connection.execute(IS_NEW).fetchone() == (True,):
                connection.execute(PREPARE)
            applied = _apply_missing(connection)
            if behind := connection.execute(EPOCH_IS_BEHIND).fetchone():
                raised = connection.execute(RAISE_EPOCH, behind).fetchone()
                log.warning("log.restored", epoch_offset=raised and raised[0])
            _add_partitions(connection)
            if connection.execute(IS_TO_GRANT, ROLES).fetchone() == (True,):
                connection.execute(files(__package__).joinpath("grants.sql").read_bytes())
    except psycopg.errors.LockNotAvailable as error:
        raise TablesBusy("others use a table that a migration changes; nothing was changed; try again") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaNotReady(
            f"the schema has to be brought up to date, and this role may not: {error.diag.message_primary}; run "
            "`jobledger migrate` with MIGRATION_DATABASE_URL set to its owner"
        ) from error
    return applied


def add_partitions(database: Database) -> int:
    """Make the partitions of the months to come; returns how many were made. Needs the owner's rights.

    Appends wait for half a second at the most; what could not be done meanwhile is logged and left for another time.
    """
    with database.connection() as connection, connection.transaction():
        connection.execute(LOCK)
        return _add_partitions(connection)


def health(database: Database) -> Health:
    """Ask the database how it is. Raises Unavailable, and SchemaNotReady when there is no schema."""
    try:
        with database.connection() as connection:
            row = connection.execute(STATE, prepare=False).fetchone()
    except psycopg.errors.UndefinedTable as error:
        raise SchemaNotReady(
            "the database has no jobledger schema, or an older one; run `jobledger migrate`"
        ) from error
    assert row is not None
    return Health(*row)


def too_old(oldest_server: int) -> str | None:
    """Why a schema does not serve this release, if it does not."""
    known = migrations()[-1].number
    if oldest_server <= known:
        return None
    return f"the schema serves releases that know migration {oldest_server}, and this one knows {known}: upgrade it"


def _check_that_texts_are_utf8(connection: Connection) -> None:
    """A cluster that was made without a locale has databases in SQL_ASCII, from which texts come as bytes.

    A pooler that does not pass on the encoding is believed.
    """
    name, encoding = connection.info.dbname, connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        raise SchemaNotReady(
            f"the database {name} is in {encoding}, and texts need UTF-8; make it anew: CREATE DATABASE {name} "
            "ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
        )


def _check_that_we_are_served(connection: Connection) -> None:
    if connection.execute(KNOWS_ITS_SERVERS).fetchone() == (True,):
        row = connection.execute(OLDEST_SERVER).fetchone()
        if row is not None and (reason := too_old(row[0])) is not None:
            raise SchemaNotReady(reason)


def _add_partitions(connection: Connection) -> int:
    """Failing is no reason not to start: there are months left, and room for all ids beyond them."""
    try:
        with connection.transaction():
            row = connection.execute("SELECT add_event_partitions(%s)", (MONTHS_AHEAD,)).fetchone()
            return row[0] if row else 0
    except psycopg.Error as error:
        if connection.closed or connection.execute(HAS_PARTITIONS).fetchone() is None:
            raise
        log.warning("partitions.not_added", reason=str(error))
        return 0


def _apply_missing(connection: Connection) -> list[str]:
    done = {row[0] for row in connection.execute("SELECT number FROM migrations")}
    missing = [migration for migration in migrations() if migration.number not in done]
    for migration in missing:
        connection.execute(migration.sql.encode())
        connection.execute("INSERT INTO migrations (number, name) VALUES (%s, %s)", (migration.number, migration.name))
        log.info("schema.migrated", migration=migration.name)
    return [migration.name for migration in missing]

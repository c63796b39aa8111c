"""`jobledger`: the command line and its exit statuses: 0 done, 1 refused, 2 wrong usage, 3 service unreachable."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime
from importlib.metadata import version
from uuid import UUID

from pydantic import ValidationError

from application.errors import ApplicationError, Unavailable, WrongSetting
from application.keys import ROLES
from application.texts import plain
from domain.refusals import Refused
from interfaces.cli.causes import with_cause
from interfaces.cli.questions import add_questions
from interfaces.settings import Settings, load

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
READER_GONE = 141
"""As of a program that SIGPIPE ended."""
LONGEST_SECONDS = 86_400
LONGEST_DAYS = 3_650


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    given = parser().parse_args(arguments)
    try:
        settings = load({name: value for name, value in vars(given).items() if name.isupper()})
    except ValidationError as error:
        for wrong in error.errors():
            said = wrong["msg"].removeprefix("Value error, ")
            print(f"jobledger: {wrong['loc'][0]}: {said}", file=sys.stderr)
        sys.exit(USAGE)
    command: Callable[[Settings, argparse.Namespace], int] = given.command
    try:
        status = command(settings, given)
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:  # whoever read what we print, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at the end
        sys.exit(READER_GONE)
    except Unavailable as away:
        print(f"jobledger: {plain(with_cause(away))}", file=sys.stderr)
        sys.exit(UNREACHABLE)
    except WrongSetting as wrong:
        print(f"jobledger: {wrong}", file=sys.stderr)
        sys.exit(USAGE)
    except (ApplicationError, Refused) as refused:
        print(f"jobledger: {plain(refused)}", file=sys.stderr)
        sys.exit(REFUSED)
    except KeyboardInterrupt:
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(prog="jobledger", description="Event-sourced job orchestration on Postgres.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run everything here, with a PostgreSQL of its own unless DATABASE_URL is set")
    _serving(up)
    up.add_argument("--workers", type=int, dest="JOBLEDGER_WORKERS", metavar="N", help="worker processes (1)")
    _working(up)
    _anchoring(up)
    up.set_defaults(command=_up)

    api = commands.add_parser("api", help="serve HTTP over DATABASE_URL")
    _serving(api)
    api.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    api.set_defaults(command=_api)

    worker = commands.add_parser("worker", help="run handlers over DATABASE_URL, or over HTTP")
    _data(worker)
    where = "work over HTTP at this service, without a database (JOBLEDGER_URL, if DATABASE_URL is not set)"
    worker.add_argument("--url", dest="JOBLEDGER_URL", metavar="URL", help=where)
    _working(worker)
    worker.add_argument("--grace", type=_seconds, default=20.0, metavar="S", help="seconds to end running jobs (20)")
    worker.add_argument(
        "--concurrency",
        type=_count,
        default=100,
        metavar="N",
        help="jobs to run at a time (100); of plain handlers, beside these, one per core at most",
    )
    worker.set_defaults(command=_worker)

    projector = commands.add_parser(
        "projector", help="keep the views of projections and seal the log over DATABASE_URL"
    )
    _data(projector)
    _anchoring(projector)
    projector.set_defaults(command=_projector)

    migrate = commands.add_parser("migrate", help="bring the schema of DATABASE_URL up to date")
    _data(migrate)
    migrate.set_defaults(command=_migrate)

    check = commands.add_parser("check", help="say what is configured here, and whether it works")
    _data(check)
    check.add_argument("--live", action="store_true", help="ask outside services, too; this costs nothing")
    check.add_argument("--json", action="store_true", help="print what was found as JSON")
    check.set_defaults(command=_check)

    submit = commands.add_parser("submit", help="ask for a job")
    submit.add_argument("kind", help="what kind of job, such as visualization")
    submit.add_argument("input", help="a file: text for a visualization, else JSON; - reads standard input")
    submit.add_argument("--follow", action="store_true", help="wait for the job and show its progress")
    submit.add_argument("--json", action="store_true", help="print the job as JSON")
    submit.add_argument("--queue", default=None, help="the queue (default)")
    submit.add_argument("--priority", type=int, default=None, help="-100..100, higher goes first (0)")
    submit.add_argument("--url", dest="JOBLEDGER_URL", metavar="URL", help="the service (http://127.0.0.1:8000)")
    patience = "seconds to go on asking while the service is away (30)"
    submit.add_argument("--patience", type=_seconds, default=30.0, metavar="S", help=patience)
    submit.set_defaults(command=_submit)

    demo = commands.add_parser("demo", help="turn a question into a page and a deck into a video")
    demo.add_argument("--url", dest="JOBLEDGER_URL", metavar="URL", help="the service (http://127.0.0.1:8000)")
    demo.add_argument("--json", action="store_true", help="print both jobs, and where the results are, as JSON")
    demo.set_defaults(command=_demo)

    add_questions(commands)

    sweep = commands.add_parser("sweep", help="remove the files of jobs that no event names")
    _data(sweep)
    sweep.add_argument("--dry-run", action="store_true", help="only say what would be freed")
    grace = "leave alone what was stored within so many seconds (86400)"
    sweep.add_argument("--older-than", type=float, default=24 * 3600.0, metavar="SECONDS", help=grace)
    sweep.add_argument("--json", action="store_true", help="print what was freed as JSON")
    sweep.set_defaults(command=_sweep)

    keys = commands.add_parser("keys", help="make, list and revoke the keys that let callers in")
    _data(keys)
    actions = keys.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action")
    create = actions.add_parser("create", help="make a key, and print it this once")
    create.add_argument("--role", required=True, choices=ROLES, help="what it may do")
    create.add_argument("--name", required=True, help="stands in the events that it causes, as key:NAME")
    create.add_argument("--namespace", help="the one whose jobs it sees (all)")
    create.add_argument("--rate", type=_rate, metavar="N", help="requests per second on each server (any number)")
    create.add_argument(
        "--in-flight", type=int, metavar="N", help="jobs it may have that are not finished, on all servers (any number)"
    )
    listing = actions.add_parser("list", help="show all keys, without what they open with")
    revoke = actions.add_parser("revoke", help="revoke a key, for good")
    revoke.add_argument("key", help="its name or id")
    for action in (create, listing, revoke):
        _data(action, default=argparse.SUPPRESS)
        action.add_argument("--url", dest="JOBLEDGER_URL", metavar="URL", help="the service, with JOBLEDGER_KEY set")
        action.add_argument("--json", action="store_true", help="print JSON")
    keys.set_defaults(command=_keys)

    audit = commands.add_parser("audit", help="verify the live log; exchange, or replace, the key that seals it")
    actions = audit.add_subparsers(title="actions", required=True, metavar="ACTION")
    whole = actions.add_parser("verify", help="recompute every chain, view, leaf and checkpoint of the log")
    _data(whole)
    key = "a public key whose signatures count (default: those in the data folder, else in the database)"
    whole.add_argument("--key", action="append", default=[], metavar="KEY", help=key)
    known = "a checkpoint you have kept, which the log must extend; may be given again"
    whole.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help=known)
    whole.add_argument("--workers", type=_count, metavar="N", help="processes (one for each core)")
    state = "where to keep how far it got, to go on from (audit-verify.json in the data folder)"
    whole.add_argument("--state", metavar="FILE", help=state)
    whole.add_argument("--json", action="store_true", help="print what was found as JSON")
    whole.set_defaults(command=_audit_verify)
    keys = actions.add_parser("keys", help="show the public keys that seal the log; make a new one")
    _data(keys)
    keys.add_argument("--rotate", action="store_true", help="make a new key, which signs beside the old for a while")
    overlap = "how long the old key signs on (7)"
    keys.add_argument("--overlap", type=_days, default=7.0, metavar="DAYS", help=overlap)
    keys.add_argument("--json", action="store_true", help="print the keys as JSON")
    keys.set_defaults(command=_audit_keys)

    rekey = actions.add_parser(
        "rekey", help="go on with the seal under a new key, since the one before is lost for good"
    )
    _data(rekey)
    rekey.add_argument("--reason", required=True, help="what happened; it is recorded, and auditors read it")
    lost = "the public key that was lost, as your auditors have it (default: those in the database); may be given again"
    rekey.add_argument("--key", action="append", default=[], metavar="KEY", help=lost)
    rekey.add_argument("--json", action="store_true", help="print what was done as JSON")
    rekey.set_defaults(command=_audit_rekey)

    one = actions.add_parser("bundle", help="print one job's bundle out of the archive of its month; offline")
    one.add_argument("archive", metavar="ARCHIVE", help="the file, such as 2026-03-….ndjson.gz; all of it is checked")
    one.add_argument("job", type=UUID, metavar="JOB", help="the job's id")
    key = "a public key of the log; may be given again"
    one.add_argument("--key", action="append", required=True, metavar="KEY", help=key)
    one.set_defaults(command=_audit_bundle)

    _retention_of(commands)

    verify = commands.add_parser("verify", help="check a job's bundle, or the archive of a month, offline")
    bundle = (
        "the file, from GET /v1/audit/jobs/{id}/bundle or `jobledger retention`; - reads a bundle from standard input"
    )
    verify.add_argument("bundle", help=bundle)
    key = "a public key of the log, or a file with some; may be given again"
    verify.add_argument("--key", action="append", required=True, metavar="KEY", help=key)
    verify.add_argument("--json", action="store_true", help="print what was found as JSON")
    verify.set_defaults(command=_verify)

    shown = commands.add_parser("version", help="print the version")
    shown.set_defaults(command=_version)
    return parser


def _month(text: str) -> date:
    """2026-03, as its first day."""
    try:
        return datetime.strptime(text, "%Y-%m").date()  # noqa: DTZ007  a month of the log is UTC's
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no month, such as 2026-03") from None


def _retention_of(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    retention = commands.add_parser("retention", help="take months out of the log into archives, and bring them back")
    actions = retention.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action")
    listing = actions.add_parser("list", help="show the months that left the log, or are on their way")
    plan = actions.add_parser("plan", help="show the months that are in the log, and what keeps them there")
    archive = actions.add_parser("archive", help="take a month out of the log, once all its jobs have ended")
    restore = actions.add_parser("restore", help="bring a month back into the log")
    verify = actions.add_parser("verify", help="read the archive of a month, and check all of it")
    for action in (archive, restore, verify):
        action.add_argument("month", type=_month, metavar="MONTH", help="such as 2026-03")
    archive.add_argument("--dry-run", action="store_true", help="only say whether it could leave, and what it has")
    restore.add_argument("--dry-run", action="store_true", help="only check the archive")
    where = "where archives are kept: a folder, or s3://bucket/prefix (archives in the data folder)"
    for action in (listing, plan, archive, restore, verify):
        _data(action)
        action.add_argument("--archives", dest="JOBLEDGER_ARCHIVES", metavar="PLACE", help=where)
        action.add_argument("--json", action="store_true", help="print JSON")
    retention.set_defaults(command=_retention)


def _serving(parser: argparse.ArgumentParser) -> None:
    _data(parser)
    parser.add_argument("--host", dest="JOBLEDGER_HOST", metavar="HOST", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", dest="JOBLEDGER_PORT", metavar="PORT", help="port; 0 picks a free one (8000)")


def _working(parser: argparse.ArgumentParser) -> None:
    of = "queues to take jobs from, separated by commas (default)"
    parser.add_argument("--queues", dest="JOBLEDGER_QUEUES", metavar="NAMES", help=of)


def _data(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """An action's own is left out of what it says when it is not given, lest it hide the one before the action."""
    help = "where everything is kept"
    parser.add_argument("--data", dest="JOBLEDGER_DATA", metavar="FOLDER", default=default, help=help)


def _anchoring(parser: argparse.ArgumentParser) -> None:
    where = "also write every signed checkpoint to this folder or bucket (s3://bucket/prefix)"
    parser.add_argument("--anchor", dest="JOBLEDGER_ANCHOR", metavar="PLACE", help=where)


def _count(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is no number from 1 on")
    return int(given)


def _seconds(given: str) -> float:
    return _up_to(LONGEST_SECONDS, "seconds", given)


def _days(given: str) -> float:
    return _up_to(LONGEST_DAYS, "days", given)


def _up_to(most: int, units: str, given: str) -> float:
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise argparse.ArgumentTypeError(f"{given!r} is no number of {units} from 0 to {most}")
    return number


def _rate(given: str) -> float:
    """`50` and `50/s` are the same."""
    try:
        return float(given.removesuffix("/s"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is no rate, such as 50/s") from None


def _up(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.up import up

    return up(settings)


def _api(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.serve import api

    return api(settings, given.fd)


def _worker(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.serve import worker

    return worker(settings, given.JOBLEDGER_URL, given.grace, given.concurrency)


def _projector(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.serve import projector

    return projector(settings)


def _migrate(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.serve import migrate

    return migrate(settings)


def _submit(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.submit import submit

    return submit(settings, given)


def _check(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.check import run

    return run(settings, given)


def _demo(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.demo import demo

    return demo(settings, given)


def _sweep(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.sweep import run

    return run(settings, given)


def _keys(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.keys import run

    return run(settings, given)


def _audit_verify(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.audit import verify

    return verify(settings, given)


def _audit_keys(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.audit import keys

    return keys(settings, given)


def _audit_bundle(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.bundle import run

    return run(settings, given)


def _audit_rekey(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.audit import rekey

    return rekey(settings, given)


def _retention(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.retention import run

    return run(settings, given)


def _verify(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.verify import run

    return run(given.bundle, given.key, as_json=given.json)


def _version(settings: Settings, given: argparse.Namespace) -> int:
    print(f"jobledger {version('jobledger')}")
    return DONE


if __name__ == "__main__":
    main()

"""What the command line asks a running service: the arguments of each question."""

import argparse

from interfaces.settings import Settings

STATUSES = ("queued", "scheduled", "running", "cancelling", "completed", "failed", "cancelled")
GROUPS = ("namespace", "day", "kind", "model")


def add_questions(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that go over HTTP and print a table, or JSON."""
    jobs = _question(commands, "jobs", "list jobs, the newest first")
    jobs.add_argument("--status", action="append", choices=STATUSES, help="jobs of this status; may repeat")
    jobs.add_argument("--kind", action="append", help="jobs of this kind; may repeat")
    jobs.add_argument("--queue", action="append", help="jobs of this queue; may repeat")
    jobs.add_argument("--label", action="append", metavar="NAME:VALUE", help="jobs with this label; may repeat")
    jobs.add_argument("--worker", action="append", help="jobs of this worker; may repeat")
    jobs.add_argument("--sort", choices=("-created_at", "created_at", "-updated_at"), help="the order (-created_at)")
    _pages(jobs)

    events = _question(commands, "events", "the history of a job or, without one, of all")
    events.add_argument("job", nargs="?", help="the job's id")
    events.add_argument("--after", help="only what came after this version of the job, or position of the log")
    _limit(events)

    why = _question(commands, "why", "why a job is where it is")
    why.add_argument("job", help="the job's id")

    cancel = _question(commands, "cancel", "stop a job")
    cancel.add_argument("job", help="the job's id")
    _reason(cancel)

    retry = _question(commands, "retry", "send a finished job round again")
    retry.add_argument("job", help="the job's id")
    retry.add_argument("--afresh", action="store_true", help="forget its recorded steps")
    _reason(retry)

    stats = _question(commands, "stats", "what happened lately, how long jobs waited and ran, how many there are")
    stats.add_argument("--minutes", type=int, default=60, metavar="N", help="how far back (60)")
    stats.add_argument("--queue", action="append", help="only this queue; may repeat")
    stats.add_argument("--kind", action="append", help="only this kind; may repeat")

    queues = _question(commands, "queues", "how many jobs wait and run in each queue; pause one, or open it again")
    queues.add_argument("action", nargs="?", choices=("pause", "unpause"), help="instead of a list")
    queues.add_argument("name", nargs="?", help="the queue to pause or to open")
    queues.add_argument("--reason", help="why it is paused")
    _pages(queues)

    workers = _question(commands, "workers", "who works, and on what")
    workers.add_argument("--seen-within", type=int, default=86_400, metavar="S", help="heard of in so many seconds")
    _pages(workers)

    failures = _question(commands, "failures", "what went wrong, failures alike together")
    _pages(failures)

    usage = _question(commands, "usage", "run time, bytes and tokens, by day")
    usage.add_argument("--from", dest="begin", metavar="DAY", help="such as 2026-01-31 (the first of the month)")
    usage.add_argument("--to", dest="end", metavar="DAY", help="the last day (today)")
    usage.add_argument("--group", action="append", choices=GROUPS, help="may repeat (day, kind, model)")

    projections = _question(commands, "projections", "how far views are behind; rebuild, verify or resume one")
    actions = ("rebuild", "verify", "retry", "skip")
    projections.add_argument("action", nargs="?", choices=actions, help="instead of a list")
    projections.add_argument("name", nargs="?", help="the projection it is about")
    projections.add_argument("--reason", help="why, which is recorded")


def _question(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.add_argument("--url", dest="JOBLEDGER_URL", metavar="URL", help="the service (http://127.0.0.1:8000)")
    parser.set_defaults(command=_ask, question=name)
    return parser


def _pages(parser: argparse.ArgumentParser) -> None:
    _limit(parser)
    parser.add_argument("--cursor", help="go on after a page, which says with what")


def _limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="how many at the most (50)")


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="asked for on the command line", help="why, which is recorded")


def _ask(settings: Settings, given: argparse.Namespace) -> int:
    from interfaces.cli.ask import ask

    return ask(settings, given)
